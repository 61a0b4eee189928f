"""Radiance .hdr (RGBE): linear light, 8 bits of mantissa. Ward, Graphics Gems II, and its manual.

The header is ours in both directions: libraries drop EXPOSURE and PRIMARIES. EXPOSURE becomes
the Frame's exposure: the light is pixel / EXPOSURE, just as it is code / exposure there.
"""

import math
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries, known, rgb_to_xyz
from hdrcli.errors import FormatError
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import LINEAR, Radiance

_RESOLUTION = re.compile(rb"([-+])([XY]) (\d{1,7}) ([-+])([XY]) (\d{1,7})")
_HINT = "copy it again from the source"
_LONGEST_HEADER = 1 << 16
_EQUAL_ENERGY = (1 / 3, 1 / 3)
_RADIANCE = Primaries("Radiance", (0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _EQUAL_ENERGY)


@dataclass
class Header:
    """What stands before the pixels."""

    exposure: float = 1.0
    primaries: Primaries = REC709
    xyz: bool = False
    seen: set[str] = field(default_factory=set)


def decode(data: bytes) -> Decoded:
    """Pixels as stored, (H, W, 3) float32; EXPOSURE and PRIMARIES as the Frame's own."""
    import imagecodecs

    end = data.find(b"\n\n", 0, _LONGEST_HEADER)
    line_end = data.find(b"\n", end + 2)
    if end < 0 or line_end < 0:
        raise FormatError("cut short: the HDR's header does not end", hint=_HINT)
    header = _header(data[:end].decode("latin-1").splitlines())
    match = _RESOLUTION.fullmatch(data[end + 2 : line_end].strip())
    if match is None or match[2] == match[5]:
        raise FormatError("damaged HDR: it does not say its size", hint=_HINT)
    rows, cols = int(match[3]), int(match[6])
    check_size(rows, cols, 12)
    body = data[line_end + 1 :]
    if len(body) < rows * 4:
        raise FormatError("cut short: a part of the HDR's pixels is missing", hint=_HINT)
    packed = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (rows, cols)
    pixels = np.zeros((rows, cols, 3), np.float32)
    with foreign("HDR"):
        imagecodecs.rgbe_decode(packed + body, header=True, out=pixels)
    return Decoded(
        _coloured(_upright(pixels, match), header),
        bits=32,
        orientation=1,
        response=LINEAR,
        primaries=header.primaries,
        exposure=header.exposure if "EXPOSURE" in header.seen else None,
    )


def _header(lines: list[str]) -> Header:
    header = Header()
    for line in lines:
        name, _, value = line.partition("=")
        key = name.strip().upper()
        header.seen.add(key)
        if key == "EXPOSURE":  # cumulative: every program that scales adds a line
            header.exposure *= _positive(value)
        elif key == "PRIMARIES":
            header.primaries = _primaries(value)
        elif key == "FORMAT":
            header.xyz = "xyze" in value
    return header


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return value if 1e-30 < value < 1e30 else 1.0


def _primaries(text: str) -> Primaries:
    try:
        x = [float(v) for v in text.split()]
    except ValueError:
        return REC709
    if len(x) != 8 or not all(map(math.isfinite, x)) or x[7] <= 0:
        return REC709
    return known(Primaries("of the file", (x[0], x[1]), (x[2], x[3]), (x[4], x[5]), (x[6], x[7])))


def _coloured(pixels: NDArray[np.float32], header: Header) -> NDArray[np.float32]:
    if not header.xyz:
        return pixels
    header.primaries = REC709
    matrix = np.linalg.inv(rgb_to_xyz(REC709)).astype(np.float32)
    return np.asarray(pixels @ matrix.T, np.float32)


def _upright(pixels: NDArray[np.float32], match: re.Match[bytes]) -> NDArray[np.float32]:
    """The first axis of the file is the scanlines'; -Y +X is the usual way."""
    if match[1] == (b"+" if match[2] == b"Y" else b"-"):
        pixels = pixels[::-1]
    if match[4] == (b"+" if match[5] == b"Y" else b"-"):
        pixels = pixels[:, ::-1]
    return pixels if match[2] == b"Y" else pixels.transpose(1, 0, 2)


def encode(image: Radiance) -> bytes:
    """Run-length coded RGBE; negative light becomes 0, which the format cannot hold."""
    import imagecodecs

    pixels = np.asarray(image.pixels, np.float32)
    if pixels.min(initial=0) < 0:
        pixels = np.maximum(pixels, 0)
    height, width, _ = pixels.shape
    room = bytearray(height * (5 * width + 8) + 256)  # the codec's own guess is too small for noise
    packed = imagecodecs.rgbe_encode(np.ascontiguousarray(pixels), header=True, out=room)
    chromaticities = " ".join(f"{value:.5g}" for value in image.primaries.chromaticities)
    lines = (
        "#?RADIANCE",
        "SOFTWARE=hdrcli",
        f"EXPOSURE={image.exposure:.9g}",
        f"PRIMARIES={chromaticities}",
        "FORMAT=32-bit_rle_rgbe",
    )
    resolution = b"\n\n-Y %d +X %d\n" % (height, width)
    body = memoryview(packed)[bytes(packed[:256]).index(resolution) :]
    return b"".join(("\n".join(lines).encode("ascii"), body))
