"""How much memory a merge takes, and how much there is."""

import os
import re
from pathlib import Path

from hdrcli.batch.plan import Job
from hdrcli.errors import InputError

BASE = 320 << 20  # bytes of a worker before the first picture
NEURAL_BASE = 900 << 20  # with PyTorch loaded
PER_FRAME, PER_PICTURE = 13, 16  # bytes per pixel, measured on 8 and 24 megapixels
FULL_SIZE = 24_000_000  # pixels, taken where a header does not tell
SHARE = 0.8  # of what is free may be used
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def need(job: Job) -> int:
    """Bytes that merging a set takes at its widest, its worker included."""
    pixels = job.pixels or FULL_SIZE
    return base(job) + pixels * (PER_PICTURE + PER_FRAME * len(job.paths))


def base(job: Job) -> int:
    """Bytes of an idle worker."""
    from hdrcli.backends import BACKENDS

    spec = BACKENDS.get(job.options.backend)
    return NEURAL_BASE if spec is not None and spec.kind == "neural" else BASE


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
