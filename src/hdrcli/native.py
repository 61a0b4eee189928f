"""Loops over pixels as machine code: compiled by numba once for each processor, then kept.

numba takes two thirds of a second to start in each process, even where it has compiled a loop
before, and many a merge takes less than that. So it is only asked for machine code, which is
kept in the user's cache folder; llvmlite alone, which is numba's way to LLVM, loads that in a
twentieth of a second.

A kernel is a plain function over flat arrays that returns nothing. Its annotations are its
signature: ``NDArray`` of a type is a pointer to contiguous numbers, a tuple of any number of such
arrays is a pointer to their pointers, a TypeVar of several types makes the kernel once for each,
``int`` is 64 bits, ``np.float32`` is one number. Integers may be added to shorter ones; nothing is
checked inside, so that callers must get sizes right.
"""

import ctypes
import hashlib
import inspect
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_args, get_origin

import numpy as np

if TYPE_CHECKING:
    from llvmlite.binding import ExecutionEngine

log = logging.getLogger("hdrcli")

Parameters = ParamSpec("Parameters")
Inlined = TypeVar("Inlined", bound=Callable[..., Any])


@dataclass(frozen=True)
class Several:
    """Any number of arrays of one type."""

    kind: np.dtype[Any]

    def __str__(self) -> str:
        return str(self.kind)


Type = np.dtype[Any] | Several | type  # of an array's numbers, of several's, int or np.float32
Types = tuple[Type, ...]  # of the arguments

DIGEST = hashlib.sha256().digest_size
_INLINED: dict[str, Callable[..., Any]] = {}
_NOWHERE = ctypes.c_void_p()  # where kernels write that they return nothing


def inlined(function: Inlined) -> Inlined:
    """Let kernels call a function. It becomes part of them."""
    _INLINED[function.__name__] = function
    return function


def kernel(function: Callable[Parameters, None]) -> "Kernel[Parameters]":
    """Make a kernel of a function; what it is written in is said at the top of this file."""
    return Kernel(function)


def summing_kernel(function: Callable[Parameters, None]) -> "Kernel[Parameters]":
    """The same of a function whose sums may be taken in any order, which is several times faster.

    Results then depend on how many numbers there are: not for anything that is cut into strips.
    """
    return Kernel(function, loose=True)


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
        choice = _choice(args[self.varying])
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
        self._ready[choice] = _loaded(self, fitting[0]), fitting[0]
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
        return next((i for i, hint in enumerate(self.hints) if _free(hint)), 0)

    @cached_property
    def variants(self) -> list[Types]:
        """The types of the arguments, once for each type that the TypeVar may be."""
        free = _free(self.hints[self.varying])
        choices = free.__constraints__ if free else (None,)
        return [tuple(_type_of(hint, choice) for hint in self.hints) for choice in choices]


def _choice(deciding: object) -> Type | None:
    """The type of what decides between variants, as an argument."""
    if isinstance(deciding, tuple):
        return Several(deciding[0].dtype)
    return deciding.dtype if isinstance(deciding, np.ndarray) else None


def _free(hint: object) -> TypeVar | None:
    """The TypeVar in an annotation."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return inner if isinstance(inner, TypeVar) else None


def _type_of(hint: object, choice: object) -> Type:
    """The type that an annotation means, where its TypeVar is ``choice``."""
    if isinstance(hint, type):
        assert hint in (int, np.float32), hint
        return hint
    if get_origin(hint) is tuple:
        one = _type_of(get_args(hint)[0], choice)
        assert isinstance(one, np.dtype), hint
        return Several(one)
    # NDArray is an alias of the numbers' type since NumPy 2.5, which Python 3.12 and later get;
    # before, it is ndarray of a shape and of a dtype of that type
    last = get_args(choice if isinstance(hint, TypeVar) else hint)[-1]
    numbers: type = (get_args(last) or (last,))[0]
    return np.dtype(numbers)


def _passed(arg: object, kind: Type) -> object:
    """An argument as machine code takes it."""
    if isinstance(kind, Several):
        assert isinstance(arg, tuple)
        return (ctypes.c_void_p * len(arg))(*[_address(one, kind.kind) for one in arg])
    return _address(arg, kind) if isinstance(kind, np.dtype) else arg


def _address(arg: object, kind: np.dtype[Any]) -> int:
    """Where the numbers of an array lie."""
    assert isinstance(arg, np.ndarray)
    assert arg.dtype == kind, (arg.dtype, kind)
    assert arg.flags.c_contiguous, arg.strides
    try:  # a third of the time of the other, and merges pass thousands
        return ctypes.addressof(ctypes.c_char.from_buffer(arg))  # type: ignore[arg-type,unused-ignore]
    except (TypeError, ValueError):  # the array is read-only, or empty
        return int(arg.ctypes.data)


_LOADING = threading.Lock()
_LOADED: "dict[str, tuple[ExecutionEngine, bytes]]" = {}


def _loaded(kernel: Kernel[...], kinds: Types) -> Callable[..., int]:
    """The machine code for arguments of some types, compiled first where there is none."""
    with _LOADING:
        symbol = kernel.symbol(kinds)
        if symbol not in _LOADED:
            code = _code(kernel, kinds)
            _LOADED[symbol] = _engine(code), code
        address = _LOADED[symbol][0].get_function_address(symbol)
    natural: dict[Type, Any] = {int: ctypes.c_int64, np.float32: ctypes.c_float}
    plain = [natural.get(kind, ctypes.c_void_p) for kind in kinds]
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *plain)(address)


def _engine(code: bytes) -> "ExecutionEngine":
    """What holds machine code in memory, ready to run. One for each: they take no second one."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()  # LLVM stops the process without it
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _code(kernel: Kernel[...], kinds: Types) -> bytes:
    """The machine code of a kernel for this processor, from the cache or compiled now."""
    name = f"{kernel.symbol(kinds)}-{_key(_sources(kernel.function))}.o"
    for folder in folders():
        code = _read(folder / name)
        if code is not None:
            return code
    log.info("compiling the inner loops for this processor, once: takes some seconds")
    code = compiled(kernel, kinds)
    if not any(_kept(folder / name, code) for folder in folders()):
        log.info("there is no folder to keep them in: they will be compiled again")
    return code


def _sources(function: FunctionType) -> tuple[str, ...]:
    """The files that a kernel and the helpers it may call are written in."""
    known = _INLINED.values()
    helpers = {value.__code__.co_filename for value in _functions(function) if value in known}
    return __file__, *sorted(helpers | {function.__code__.co_filename})


def _functions(function: FunctionType) -> Iterator[FunctionType]:
    """The functions of a function's file, its imports among them."""
    return (value for value in function.__globals__.values() if isinstance(value, FunctionType))


@cache
def _key(sources: tuple[str, ...]) -> str:
    """What machine code depends on: the kernels' sources, the compiler and the processor."""
    import llvmlite.binding as llvm

    known = hashlib.sha256()
    for path in sources:
        known.update(Path(path).read_bytes())
    for said in (
        str(llvm.llvm_version_info),
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        _features(),
    ):
        known.update(said.encode())
    return known.hexdigest()[:16]


def folders() -> Iterator[Path]:
    """Where machine code may be kept, best first; none that others may write to."""
    from platformdirs import user_cache_path

    yield user_cache_path("hdrcli")
    owner = os.getuid() if hasattr(os, "getuid") else None
    own = Path(tempfile.gettempdir()) / f"hdrcli-{'cache' if owner is None else owner}"
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
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        return False
    return True


def compiled(kernel: Kernel[...], kinds: Types) -> bytes:
    """The machine code of a kernel for this processor, as an object file."""
    import llvmlite.binding as llvm
    import numba

    settings: Any = numba.config
    settings.CPU_FEATURES = _features()  # read when it compiles for the first time

    def named(kind: Type) -> Any:  # noqa: ANN401  numba's own
        if isinstance(kind, Several):
            return numba.types.CPointer(named(kind.kind))  # type: ignore[no-untyped-call]
        if isinstance(kind, np.dtype):
            return numba.types.CPointer(numba.from_dtype(kind))  # type: ignore[no-untyped-call]
        return numba.int64 if kind is int else numba.float32

    made: Any = numba.njit
    manner = _LOOSE if kernel.loose else _MANNER
    bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # nothing of Python in it
    signature = numba.void(*(named(kind) for kind in kinds))
    dispatcher = made(signature, **manner, **bare)(
        _within(kernel.function, _helpers(loose=kernel.loose))
    )
    ((signed, assembly),) = dispatcher.inspect_llvm().items()
    module = llvm.parse_assembly(assembly)
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "internal"
    entry = module.get_function(dispatcher.overloads[signed].fndesc.llvm_func_name)
    entry.name, entry.linkage = kernel.symbol(kinds), "external"
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_features(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
    )
    return bytes(machine.emit_object(module))


@cache
def _features() -> str:
    """What this processor can do, for LLVM.

    Where vectors may have 512 bits LLVM prefers 256 of them, as wider ones slowed the first such
    processors down. Kernels are short and wait for results: with 512 bits they take two thirds
    of the time.
    """
    import llvmlite.binding as llvm

    found = llvm.get_host_cpu_features()
    return str(found.flatten()) + (",-prefer-256-bit" if found.get("avx512f") else "")


def _helpers(*, loose: bool) -> dict[str, Any]:
    """What kernels may call, as numba has it. One may call those before it."""
    import numba

    made: Any = numba.njit
    helpers = _HELPERS[loose]
    for name, function in _INLINED.items():
        if name not in helpers:
            manner = _LOOSE if loose else _MANNER
            helpers[name] = made(**manner)(_within(function, helpers))
    return helpers


_HELPERS: dict[bool, dict[str, Any]] = {False: {}, True: {}}

# Multiplications and additions may be contracted; nothing else may change what a number is.
_MANNER: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
_LOOSE = _MANNER | {"fastmath": {"contract", "reassoc"}}


def _within(function: Callable[..., Any], names: dict[str, Any]) -> FunctionType:
    """The function with other things behind the names that it uses."""
    assert isinstance(function, FunctionType)
    return FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
