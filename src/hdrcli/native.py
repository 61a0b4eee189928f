"""Loops over pixels as machine code: compiled by numba once for each processor, then kept.

numba takes two thirds of a second to start in each process, even where it has compiled a loop
before, and many a merge takes less than that. So it is only asked for machine code, which is
kept in the user's cache folder; llvmlite alone, which is numba's way to LLVM, loads that in a
twentieth of a second.

A kernel is a plain function over flat arrays that returns nothing. Its annotations are its
signature: ``NDArray`` of a type is a pointer to contiguous numbers, a TypeVar of several such
types makes the kernel once for each, ``int`` is 64 bits, ``np.float32`` is one number. Integers
may be added to shorter ones; nothing is checked inside, so that callers must get sizes right.
"""

import ctypes
import hashlib
import inspect
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_args

import numpy as np

if TYPE_CHECKING:
    from llvmlite.binding import ExecutionEngine

log = logging.getLogger("hdrcli")

Parameters = ParamSpec("Parameters")
Inlined = TypeVar("Inlined", bound=Callable[..., Any])
Type = np.dtype[Any] | type  # of an array's numbers, or int or np.float32
Types = tuple[Type, ...]  # of the arguments

DIGEST = hashlib.sha256().digest_size
_KERNELS: "list[Kernel[...]]" = []
_INLINED: dict[str, Callable[..., Any]] = {}
_NOWHERE = ctypes.c_void_p()  # where kernels write that they return nothing


def inlined(function: Inlined) -> Inlined:
    """Let kernels call a function. It becomes part of them."""
    _INLINED[function.__name__] = function
    return function


def kernel(function: Callable[Parameters, None]) -> "Kernel[Parameters]":
    """Make a kernel of a function; what it is written in is said at the top of this file."""
    made = Kernel(function)
    _KERNELS.append(made)
    return made


def summing_kernel(function: Callable[Parameters, None]) -> "Kernel[Parameters]":
    """The same of a function whose sums may be taken in any order, which is several times faster.

    Results then depend on how many numbers there are: not for anything that is cut into strips.
    """
    made = Kernel(function, loose=True)
    _KERNELS.append(made)
    return made


class Kernel(Generic[Parameters]):
    """A function that runs as machine code, without Python's lock. Arguments go by position."""

    def __init__(self, function: Callable[Parameters, None], *, loose: bool = False) -> None:
        assert isinstance(function, FunctionType)
        self.function: FunctionType = function
        self.loose = loose
        self._ready: dict[Type | None, tuple[Callable[..., int], Types]] = {}
        self.__doc__ = function.__doc__

    def __call__(self, *args: Parameters.args, **named: Parameters.kwargs) -> None:
        """Run it. Arrays must be contiguous, and of the types of the annotations."""
        assert not named, "kernels take their arguments by position"
        deciding = args[self.varying]
        choice = deciding.dtype if isinstance(deciding, np.ndarray) else None
        call, kinds = self._ready.get(choice) or self._made_ready(choice)
        call(
            ctypes.byref(_NOWHERE),
            ctypes.byref(_NOWHERE),
            *(_passed(arg, kind) for arg, kind in zip(args, kinds, strict=True)),
        )

    def _made_ready(self, choice: Type | None) -> tuple[Callable[..., int], Types]:
        """The machine code for a type of the deciding argument, and the types of all."""
        fitting = [v for v in self.variants if len(self.variants) == 1 or v[self.varying] == choice]
        assert fitting, (choice, self.variants)
        self._ready[choice] = _loaded(self.symbol(fitting[0]), fitting[0]), fitting[0]
        return self._ready[choice]

    def symbol(self, kinds: Types) -> str:
        """The name of the machine code for arguments of these types."""
        name = f"hdrcli_{self.function.__name__}"
        return f"{name}_{kinds[self.varying]}" if len(self.variants) > 1 else name

    @cached_property
    def hints(self) -> list[Any]:
        """The annotations of the arguments."""
        return [p.annotation for p in inspect.signature(self.function).parameters.values()]

    @cached_property
    def varying(self) -> int:
        """Which argument decides between the variants."""
        return next((i for i, hint in enumerate(self.hints) if isinstance(hint, TypeVar)), 0)

    @cached_property
    def variants(self) -> list[Types]:
        """The types of the arguments, once for each type that the TypeVar may be."""
        free = self.hints[self.varying]
        choices = free.__constraints__ if isinstance(free, TypeVar) else (None,)
        return [
            tuple(_type_of(choice if isinstance(hint, TypeVar) else hint) for hint in self.hints)
            for choice in choices
        ]


def _type_of(hint: object) -> Type:
    if isinstance(hint, type):
        assert hint in (int, np.float32), hint
        return hint
    numbers: type = get_args(get_args(hint)[1])[0]
    return np.dtype(numbers)


def _passed(arg: object, kind: Type) -> object:
    if not isinstance(kind, np.dtype):
        return arg
    assert isinstance(arg, np.ndarray)
    assert arg.dtype == kind, (arg.dtype, kind)
    assert arg.flags.c_contiguous, arg.strides
    return arg.ctypes.data


_LOADING = threading.Lock()


def prepare() -> None:
    """Load the machine code, compiled first where there is none; else the first kernel does."""
    with _LOADING:
        _library()


def _loaded(symbol: str, kinds: Types) -> Callable[..., int]:
    with _LOADING:
        address = _library().get_function_address(symbol)
    natural: dict[Type, Any] = {int: ctypes.c_int64, np.float32: ctypes.c_float}
    plain = [natural.get(kind, ctypes.c_void_p) for kind in kinds]
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *plain)(address)


@cache
def _library() -> "ExecutionEngine":
    """The machine code of all kernels in this process."""
    return _engine(_code())


def _engine(code: bytes) -> "ExecutionEngine":
    """What holds the machine code in memory, ready to run."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()  # LLVM stops the process without it
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _code() -> bytes:
    """The machine code of all kernels for this processor, from the cache or compiled now."""
    name = f"kernels-{_key()}.o"
    for folder in folders():
        code = _read(folder / name)
        if code is not None:
            return code
    log.info("compiling the inner loops for this processor, which is done once")
    code = compiled()
    for folder in folders():
        if _kept(folder / name, code):
            break
    else:
        log.info("no folder to keep them in: they will be compiled again")
    return code


def _key() -> str:
    """What the machine code depends on: the kernels, the compiler and the processor."""
    import llvmlite.binding as llvm

    known = hashlib.sha256()
    for source in sorted({inspect.getsourcefile(k.function) or "" for k in _KERNELS} | {__file__}):
        known.update(Path(source).read_bytes())
    for said in (
        str(llvm.llvm_version_info),
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    ):
        known.update(said.encode())
    return known.hexdigest()[:16]


def folders() -> Iterator[Path]:
    """Where machine code may be kept, best first; none that others may write to."""
    from platformdirs import user_cache_path

    yield user_cache_path("hdrcli")
    owner = os.getuid() if hasattr(os, "getuid") else None
    own = Path(tempfile.gettempdir()) / f"hdrcli-{owner or 'cache'}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
    except OSError:
        return
    if owner is None or (found.st_uid == owner and not found.st_mode & 0o022):
        yield own


def _read(path: Path) -> bytes | None:
    """Machine code that was kept; None where there is none, or not all of it."""
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    digest, code = kept[:DIGEST], kept[DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _kept(path: Path, code: bytes) -> bool:
    """Keep machine code. Other processes see all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        Path(file.name).replace(path)
    except OSError:
        return False
    return True


def compiled() -> bytes:
    """The machine code of all kernels for this processor, as an object file."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    whole = llvm.parse_assembly("")
    for made in _KERNELS:
        for kinds in made.variants:
            module = llvm.parse_assembly(_assembly(made, kinds))
            (entry,) = (f for f in module.functions if not f.is_declaration)
            entry.name = made.symbol(kinds)
            whole.link_in(module)
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
    )
    return bytes(machine.emit_object(whole))


def _assembly(kernel: Kernel[...], kinds: Types) -> str:
    """What numba makes of a kernel: LLVM's assembly, optimised, with nothing of Python in it."""
    import numba

    def named(kind: Type) -> Any:  # noqa: ANN401  numba's own
        if isinstance(kind, np.dtype):
            return numba.types.CPointer(numba.from_dtype(kind))  # type: ignore[no-untyped-call]
        return numba.int64 if kind is int else numba.float32

    made: Any = numba.njit
    helpers = {name: made(**_MANNER)(_within(f, {})) for name, f in _INLINED.items()}
    manner = _MANNER | {"fastmath": {"contract", "reassoc"}} if kernel.loose else _MANNER
    signature = numba.void(*(named(kind) for kind in kinds))
    bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = made(signature, **manner, **bare)(_within(kernel.function, helpers))
    (text,) = dispatcher.inspect_llvm().values()
    return str(text)


# Multiplications and additions may be contracted; nothing else may change what a number is.
_MANNER: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}


def _within(function: Callable[..., Any], names: dict[str, Any]) -> FunctionType:
    """The function with other things behind the names that it uses."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
