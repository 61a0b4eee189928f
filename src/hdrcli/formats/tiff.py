"""TIFF: 8 and 16 bits, and float, which is linear. TIFF 6.0 through tifffile."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.errors import FormatError
from hdrcli.exif import exif_block_of_tiff
from hdrcli.formats.cmyk import rgb_of_cmyk
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import Codes

_ICC, _DNG, _ORIENTATION = 34675, 50706, 274
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_READ = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR)
_RAW_HINT = "develop it to 16-bit TIFF in a raw converter, without tone curve if there is a choice"
COMPRESSIONS = ("zlib", "lzw", "none", "zstd")


@dataclass(frozen=True)
class _Page:
    """What the first directory says; tifffile's own objects stay in here."""

    pixels: NDArray[Any]
    photometric: int
    bits: int
    palette: NDArray[Any] | None
    icc: bytes | None
    orientation: int


def decode(path: Path) -> Decoded:
    """Decode the first page. Strips that lie outside the file are an error."""
    page = _first_page(path)
    exif = exif_block_of_tiff(path)
    if page.photometric == _CMYK:
        codes: Codes = rgb_of_cmyk(path.read_bytes(), page.icc)
        return Decoded(codes, bits=8, exif=exif, orientation=page.orientation)
    codes, bits = _codes(page)
    return Decoded(codes, bits, icc=page.icc, exif=exif, orientation=page.orientation)


def _first_page(path: Path) -> _Page:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says, we raise
    with path.open("rb") as stream, foreign("TIFF"), tifffile.TiffFile(stream) as file:
        page = file.pages.first
        _check(page, path.stat().st_size)
        icc = page.tags.get(_ICC)
        orientation = page.tags.get(_ORIENTATION)
        palette = page.colormap if int(page.photometric) == _PALETTE else None
        channels_first = page.planarconfig == 2 and page.samplesperpixel > 1
        pixels = page.asarray() if int(page.photometric) != _CMYK else np.empty((1, 1), np.uint8)
        return _Page(
            pixels=np.moveaxis(pixels, 0, -1) if channels_first and pixels.ndim == 3 else pixels,
            photometric=int(page.photometric),
            bits=int(page.bitspersample),
            palette=palette,
            icc=bytes(icc.value) if icc is not None else None,
            orientation=int(orientation.value) if orientation is not None else 1,
        )


def _check(page: Any, size: int) -> None:  # noqa: ANN401  a TiffPage
    """Refuse what is not a photograph, before its pixels are touched."""
    if _DNG in page.tags or page.is_reduced or int(page.photometric) in (32803, 34892):
        raise FormatError("a camera's raw file, which is not read", hint=_RAW_HINT)
    if int(page.photometric) not in _READ:
        raise FormatError(
            f"a TIFF of the kind {page.photometric!s}", hint="convert it to RGB first"
        )
    itemsize = page.dtype.itemsize if page.dtype is not None else 0
    check_size(page.imagelength, page.imagewidth, max(1, itemsize * page.samplesperpixel))
    if not itemsize or page.imagedepth != 1 or page.samplesperpixel > 8:
        raise FormatError("a TIFF of an unknown layout", hint="convert it to RGB first")
    ends = [at + n for at, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > size or 0 in page.databytecounts:
        raise FormatError(
            "cut short: a part of the TIFF's pixels is missing",
            hint="copy it again from the source",
        )


def _codes(page: _Page) -> tuple[Codes, int]:
    pixels = page.pixels
    if page.palette is not None:
        return _looked_up(pixels, np.asarray(page.palette)), 8
    if pixels.dtype.kind == "f":
        return np.asarray(pixels, np.float32), 32
    bilevel = pixels.dtype == np.bool_ or page.bits == 1
    codes, bits = (pixels * np.uint8(255), 8) if bilevel else _full_range(pixels, page.bits)
    if page.photometric == _WHITE_IS_ZERO:
        codes = np.iinfo(codes.dtype).max - codes
    return codes, bits


def _looked_up(pixels: NDArray[Any], palette: NDArray[Any]) -> Codes:
    """A palette has 16 bits per colour, nearly always 8-bit ones times 257."""
    colours = (palette.T >> 8).astype(np.uint8)
    if pixels.max(initial=0) >= len(colours):
        raise FormatError("damaged TIFF: a colour that is not in its palette")
    return np.asarray(colours[pixels])


def _full_range(pixels: NDArray[Any], bits: int) -> tuple[Codes, int]:
    """Integer samples spread over all codes of uint8 or uint16."""
    if pixels.dtype.kind != "u":
        raise FormatError(f"a TIFF of {pixels.dtype} samples", hint="convert it to 16 bits first")
    if pixels.dtype == np.uint8 and bits == 8:
        return pixels, 8
    if pixels.dtype == np.uint16 and bits == 16:
        return pixels, 16
    if bits > 16:
        return (pixels >> (bits - 16)).astype(np.uint16), 16
    spread = pixels.astype(np.uint32) * 65535 // ((1 << bits) - 1)
    return spread.astype(np.uint16), bits


def write(
    path: Path,
    pixels: NDArray[Any],
    *,
    compression: str,
    icc: bytes,
    description: str,
) -> None:
    """(H, W, 3) float32 or uint16, with its profile; ``description`` is plain ASCII."""
    import tifffile

    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels),
        photometric="rgb",
        compression=None if compression == "none" else compression,
        # half the time of the default level, and 3 % larger
        compressionargs={"level": 2} if compression == "zlib" else None,
        predictor=compression != "none",
        maxworkers=os.cpu_count(),
        rowsperstrip=max(1, (1 << 20) // max(1, pixels[0].nbytes)),
        iccprofile=icc,
        description=description,
        software=False,
        metadata=None,
    )
