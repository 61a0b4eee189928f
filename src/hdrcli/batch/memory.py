"""How much memory a merge takes, and how much there is."""

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hdrcli.backends import BACKENDS, choice
from hdrcli.batch.plan import Job
from hdrcli.errors import InputError
from hdrcli.sights import reduced_size

IDLE, NEURAL_IDLE = 160 << 20, 400 << 20  # bytes of a worker without and with PyTorch
# Bytes: of a worker, of each pixel of one photograph, by itself and once per photograph, and of
# each pixel of a photograph as motion is looked at, reduced. Peaks measured on photographs of
# 3 x 24, 8 x 8, 12 x 2 and 3 x 0.5 megapixels were 3 to 25 % below.
CLASSICAL = 200 << 20, 10, 9, 40
MOVING = 450 << 20, 10, 9, 122  # what FlowMerge corrects, which auto takes where something moved
NETWORK = 900 << 20, 40, 13, 0  # in tiles that fit
LEAST = 64 << 20  # bytes to begin a merge with
FULL_SIZE = 24_000_000  # pixels, taken where a header does not tell
LACK = re.compile(
    r"allocate (memory|\d)|insufficient memory|bad_alloc|(no|out.of).memory|failed to map"
    r"|can't start new thread|unable to run compression|could not create a primitive",
    re.IGNORECASE,
)
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def need(job: Job) -> int:
    """Bytes that merging a set takes at its widest, its worker included."""
    return _need(job, job.options.backend)


def least(job: Job) -> int:
    """Bytes that it may get by with: ``auto`` looks first whether anything moved."""
    return _need(job, choice.STILL if job.options.backend == "auto" else job.options.backend)


def _need(job: Job, backend: str) -> int:
    worker, picture, frame, moving = _costs(backend)
    count, pixels = len(job.paths), job.pixels or FULL_SIZE
    side = max(1, math.isqrt(pixels))
    (height, width), _ = reduced_size((side, side), count)
    return worker + pixels * (picture + frame * count) + height * width * moving * count


def _costs(backend: str) -> tuple[int, int, int, int]:
    if backend in choice.WANT_VIEWS:
        return MOVING
    return NETWORK if _is_network(backend) else CLASSICAL


def idle(job: Job) -> int:
    """Bytes of a worker that has merged such a set and waits."""
    return NEURAL_IDLE if job.options.backend == "auto" or is_neural(job) else IDLE


def is_neural(job: Job) -> bool:
    """Whether merging a set certainly needs PyTorch; ``auto`` finds out by what moved."""
    return _is_network(job.options.backend)


def _is_network(backend: str) -> bool:
    spec = BACKENDS.get(backend)
    return spec is not None and spec.kind == "neural"


@contextmanager
def limited(size: int | None) -> Iterator[None]:
    """Let this process take no more than ``size`` bytes; more is a MemoryError.

    On Linux, where the kernel counts private memory that can be written (RLIMIT_DATA): what is
    resident now may grow to ``size``. Elsewhere nothing is limited. Raises MemoryError at once
    where too little is left to begin with: a thread that finds no memory for its first object
    is waited for without end.
    """
    if size is None or sys.platform != "linux":
        yield
        return
    import resource

    room = size - _status("VmRSS")
    if room < LEAST:
        raise MemoryError(f"{size >> 20} MB")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _status("VmData") + room
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) << 10 if match else 0


def is_lack(err: BaseException) -> bool:
    """Whether an error says that there was no memory, in the words of whatever library."""
    seen: BaseException | None = err
    while seen is not None:
        if isinstance(seen, MemoryError) or LACK.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def forget_peak() -> None:
    """Let the peak of this process be counted from now on, where the kernel can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """Bytes that are free for use: what Linux says, within the limit of a control group."""
    found = [8 << 30]
    info = Path("/proc/meminfo")
    if info.is_file():
        match = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text())
        found = [int(match[1]) << 10] if match else found
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    limit, used = (
        _number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current")
    )
    if limit is not None:
        found.append(max(0, limit - (used or 0)))
    return min(found)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return None


def parse(text: str) -> int:
    """``6G``, ``800M``, ``1.5GB``, ``50%`` of what is free: bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[kmgt]?)(i?b)?\s*", text.lower())
    if match is None or float(match[1]) == 0:
        raise InputError(f"--max-memory {text}: not a size", hint="such as 6G, 800M or 50%")
    if match[2] == "%":
        return int(float(match[1]) / 100 * available())
    return int(float(match[1]) * UNITS[match[2]])
