"""What a decoder hands over: the file's numbers and what the file says of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hdrcli.color import Primaries
from hdrcli.errors import FOREIGN, FormatError, ResourceError
from hdrcli.frames import Metadata, Response


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of a file before anything is turned, split or interpreted.

    ``codes`` is (H, W) grey or (H, W, C) with C of grey, grey + alpha, RGB, RGBA; uint8, uint16
    filling the whole range, or float32. ``icc``, ``exif`` are the raw blocks. ``response`` and
    ``primaries`` stand where the file says them without a profile. ``exposure`` is a Frame's.
    """

    codes: NDArray[Any]
    bits: int
    icc: bytes | None = None
    exif: bytes | None = None
    metadata: Metadata | None = None  # where it does not come from ``exif``
    orientation: int | None = None  # None: the one of the metadata
    response: Response | None = None
    primaries: Primaries | None = None
    exposure: float | None = None
    valid: NDArray[Any] | None = None
    note: str | None = None  # what the user should know of this file


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Around a call into a decoder: whatever it throws at damaged bytes is a FormatError.

    Not for our own code, where a TypeError is a bug and must show itself.
    """
    try:
        yield
    except MemoryError as err:
        raise ResourceError(f"not enough memory to decode the {what}") from err
    except FOREIGN as err:
        said = " ".join(str(err).split())[:200]
        raise FormatError(
            f"damaged {what} ({said or type(err).__name__})",
            hint="copy it again from the camera or convert it anew",
        ) from err


_LARGEST_SIDE = 1 << 20
_SHARE = 0.9  # of the memory that is free, at most, for one frame


def check_size(height: int, width: int, bytes_per_pixel: int) -> None:
    """Refuse a picture of impossible size, or one that cannot fit, before allocating it."""
    if not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
        raise FormatError(f"impossible size {width} x {height}")
    needed, free = height * width * bytes_per_pixel, free_memory()
    if needed > _SHARE * free:
        raise ResourceError(
            f"{width} x {height} pixels need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free",
            hint="reduce the photograph, or use a machine with more memory",
        )


def free_memory() -> int:
    """Bytes that can be allocated without swapping; where unknown, 16 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 16 << 30
