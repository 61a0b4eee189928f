"""Where networks compute: device, number format, free memory, and what a CPU likes.

``prepare`` must run before torch is first imported, because OpenMP reads its settings once.
Nothing here imports torch before it is needed.
"""

import ctypes
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrcli.errors import DeviceError, SetupError

if TYPE_CHECKING:
    import torch

log = logging.getLogger("hdrcli")

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
# Flags of processors that multiply bfloat16 in hardware, as Linux names them (x86, ARM).
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
# glibc's mallopt: never map, never give back, grow by 256 MB. Pages that are mapped anew for every
# feature map cost as much as the convolution that fills them.
MALLOPT = ((-4, 0), (-1, 2**31 - 1), (-2, 256 << 20))
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin while waiting starve each other
RESERVE = 0.6  # of the free memory may be used


def prepare() -> None:
    """Make the CPU settings that networks profit from; the user's own environment wins."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _keep_memory()


def has_torch() -> bool:
    """Whether PyTorch is installed, without importing it. Only networks need it."""
    return find_spec("torch") is not None


def check_torch(what: str) -> None:
    """Raise SetupError where something is asked for that needs PyTorch, and it is not there."""
    if not has_torch():
        raise SetupError(f"{what} needs PyTorch, which is not installed", hint="pip install torch")


@cache
def _keep_memory() -> bool:
    """Tell glibc to keep what it has; other allocators are left alone."""
    libc = _glibc()
    return libc is not None and all(libc.mallopt(option, value) == 1 for option, value in MALLOPT)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is the one whose allocator has these settings."""
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@dataclass(frozen=True)
class Compute:
    """Where and how a network runs. ``device`` and ``precision`` are settled: never auto."""

    device: str
    precision: str
    chosen: bool = False  # the device was not asked for by name, so that another may be taken

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.device.partition(":")[0]

    @property
    def bytes_per_number(self) -> int:
        """Of the numbers between two layers."""
        return 4 if self.precision == "fp32" else 2

    def exact(self) -> "Compute":
        """The same device in float32."""
        return replace(self, precision="fp32")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a network: without gradients, in this precision, memory errors as MemoryError."""
        import torch

        dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
        lower = self.precision in dtypes
        dtype = dtypes.get(self.precision, torch.bfloat16)
        with (
            memory_errors(),
            torch.inference_mode(),
            torch.autocast(self.kind, dtype=dtype, enabled=lower),
        ):
            yield

    def __str__(self) -> str:
        return f"{self.device} in {self.precision}"


def choose(device: str = "auto") -> "torch.device":
    """Settle what ``--device`` means, for a network that runs in float32. Raises DeviceError."""
    import torch

    return torch.device(settle(device, "fp32").device)


def settle(device: str = "auto", precision: str = "auto") -> Compute:
    """Settle what ``--device`` and ``--precision`` mean on this machine, and say it at -v.

    Raises DeviceError for a device that is not there; only ``auto`` takes another.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"no such precision: {precision}", hint=f"one of {', '.join(PRECISIONS)}")
    found = best_device() if device == "auto" else checked(device)
    settled = best_precision(found) if precision == "auto" else precision
    if settled == "bf16" and found == "cpu" and not cpu_has_bf16():
        log.warning("this processor has no bfloat16: --precision bf16 is slower than fp32 on it")
    compute = Compute(found, settled, chosen=device == "auto")
    log.info("networks run on %s", compute)
    return compute


def best_device() -> str:
    """``cuda`` if there is one, else ``mps``, else ``cpu``."""
    import torch

    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def checked(device: str) -> str:
    """The device that was asked for, if it is there. Raises DeviceError."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise DeviceError(f"no such device: {device}", hint="auto, cpu, cuda, cuda:1 or mps")
    if kind == "cpu":
        return kind
    import torch

    if kind == "cuda":
        return _checked_cuda(device, int(number or 0), torch.cuda.device_count())
    if not torch.backends.mps.is_available():
        raise DeviceError("--device mps: this machine has no Metal device", hint="--device auto")
    return kind


def _checked_cuda(device: str, index: int, count: int) -> str:
    if count == 0:
        raise DeviceError(
            f"--device {device}: torch finds no CUDA device here",
            hint="--device auto uses what there is; hdrcli doctor lists it",
        )
    if index >= count:
        raise DeviceError(
            f"--device {device}: there are only {count} CUDA devices",
            hint=f"cuda:0 to cuda:{count - 1}",
        )
    return f"cuda:{index}"


def best_precision(device: str) -> str:
    """The fastest format that a device multiplies in hardware; fp16 is finer than bf16."""
    if device.startswith("cuda"):
        return "fp16"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


@cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AMX, AVX512-BF16, or ARM's)."""
    return bool(BF16_FLAGS & cpu_flags())


def cpu_flags() -> frozenset[str]:
    """What Linux says of the processor; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return frozenset()
    lines = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
    return frozenset(
        flag
        for key, _, flags in lines
        if key.strip() in ("flags", "Features")
        for flag in flags.split()
    )


# ---- memory ----------------------------------------------------------------------------------

# What the allocators of torch say when there is no more; CUDA's has a type of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise every device's out-of-memory error as MemoryError."""
    try:
        yield
    except RuntimeError as err:  # torch.OutOfMemoryError is one too
        if any(words in str(err).lower() for words in _NO_MEMORY):
            raise MemoryError(str(err).partition("\n")[0]) from err
        raise


def free_memory(device: str) -> int:
    """Bytes that may still be allocated on a device."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if kind == "mps":
        import torch

        limit = torch.mps.recommended_max_memory()
        return int(limit - torch.mps.driver_allocated_memory())
    return min(_free_here(), _free_in_group())


def _free_here() -> int:
    """MemAvailable of Linux; elsewhere half of what the machine has, or 2 GB."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 2 << 30


_GROUPS = Path("/sys/fs/cgroup")
# Limit and use of a container's memory, by version of control groups.
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def _free_in_group() -> int:
    """What is left of the limit of this container; a very large number without one."""
    for names in _LIMITS:
        files = [_GROUPS / name for name in names]
        numbers = [file.read_text().strip() for file in files if file.exists()]
        if len(numbers) == 2 and numbers[0].isdigit():
            return max(0, int(numbers[0]) - int(numbers[1]))
    return 1 << 62


def held() -> int:
    """Bytes of memory that this process has now; 0 where the system does not tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def tile_side(
    compute: Compute, bytes_per_pixel: float, *, largest: int, least: int, multiple: int
) -> int:
    """The side of the largest square tile that fits the free memory, within bounds.

    ``bytes_per_pixel`` is what the network needs at its widest per pixel of a tile in float32.
    """
    free = RESERVE * free_memory(compute.device)
    pixels = free / (bytes_per_pixel * compute.bytes_per_number / 4)
    side = min(largest, int(pixels**0.5))
    return max(least, side) // multiple * multiple


def threads(count: int | None) -> int:
    """Let torch and OpenCV use so many threads, by default one per core; returns the number."""
    import torch

    wanted = count or cores()
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
    return wanted


def cores() -> int:
    """Cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def synchronize(compute: Compute) -> None:
    """Wait until a device has done what it was told."""
    import torch

    waits: dict[str, Any] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    wait = waits.get(compute.kind)
    if wait is not None:
        wait()


def release(compute: Compute) -> None:
    """Give back what a device's allocator keeps, before tiles of another size are tried.

    On a CPU also what ``prepare`` made it keep: feature maps of one size leave holes that those of
    another do not fit.
    """
    import torch

    if compute.kind == "cpu":
        give_back()
    empties: dict[str, Any] = {"cuda": torch.cuda.empty_cache, "mps": torch.mps.empty_cache}
    empty = empties.get(compute.kind)
    if empty is not None:
        empty()


def give_back() -> None:
    """Return what is free within this process to the system; the C library keeps it otherwise."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def memory_format(compute: Compute) -> "torch.memory_format":
    """The layout that a device convolves fastest in."""
    import torch

    return torch.contiguous_format if compute.kind == "mps" else torch.channels_last
