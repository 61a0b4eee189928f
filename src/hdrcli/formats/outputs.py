"""Which module writes which file. The suffix decides."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries
from hdrcli.errors import FormatError
from hdrcli.exif import exif_for_output
from hdrcli.formats import exr, jpeg, png, rgbe, tiff
from hdrcli.formats.icc import profile_of
from hdrcli.formats.save import check_target, encoding, whole
from hdrcli.frames import Codes, DisplayImage, Radiance


@dataclass(frozen=True)
class WriteOptions:
    """How the pixels are stored. Names are checked when the object is made."""

    exr_type: str = "auto"  # half unless the range needs float
    exr_compression: str = "zip"
    jpeg_quality: int = 92
    png_bits: int = 8
    tiff_compression: str = "zlib"
    threads: int = 0  # of the EXR encoder; 0: one per core

    def __post_init__(self) -> None:
        _one_of("EXR type", self.exr_type, exr.TYPES)
        _one_of("EXR compression", self.exr_compression, exr.COMPRESSIONS)
        _one_of("TIFF compression", self.tiff_compression, tiff.COMPRESSIONS)
        _one_of("PNG depth", self.png_bits, (8, 16))
        _one_of("JPEG quality", self.jpeg_quality, range(1, 101))


def _one_of(what: str, value: Any, choices: Iterable[Any]) -> None:  # noqa: ANN401
    listed = choices if isinstance(choices, range) else list(choices)
    if value not in listed:
        known = f"1 to {len(listed)}" if isinstance(listed, range) else ", ".join(map(str, listed))
        raise FormatError(f"there is no {what} {value!r}", hint=f"choose one of: {known}")


@dataclass(frozen=True)
class Output:
    """One kind of output file."""

    kind: str
    linear: bool  # holds a Radiance
    display: bool  # holds a DisplayImage


_TIFF = Output("tiff", linear=True, display=True)
_JPEG = Output("jpeg", linear=False, display=True)
OUTPUTS: Mapping[str, Output] = {
    ".exr": Output("exr", linear=True, display=False),
    ".hdr": Output("hdr", linear=True, display=False),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".png": Output("png", linear=False, display=True),
}


def for_output(path: Path) -> Output:
    """The kind of file that the suffix asks for; FormatError for one that is not written."""
    output = OUTPUTS.get(path.suffix.lower())
    if output is None:
        raise FormatError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            hint=f"use one of {' '.join(OUTPUTS)}",
        )
    return output


def check_output(path: Path, *, overwrite: bool = False) -> Output:
    """All that can be known before the work: suffix, folder, and whether the file exists."""
    output = for_output(path)
    check_target(path, overwrite=overwrite)
    return output


_DEFAULTS = WriteOptions()


def write(
    path: Path,
    image: Radiance | DisplayImage,
    *,
    overwrite: bool = False,
    options: WriteOptions = _DEFAULTS,
    attributes: Mapping[str, object] | None = None,
    layers: Mapping[str, NDArray[Any]] | None = None,
    exif: bytes | None = None,
) -> None:
    """Write an image whole or not at all.

    ``attributes`` go into EXR headers and TIFF descriptions; ``layers``, (H, W) each, into EXR
    alone; ``exif`` is the block of a photograph, copied upright into JPEG and PNG. FormatError
    where the kind of file cannot hold the kind of image.
    """
    output = for_output(path)
    if isinstance(image, Radiance):
        if not output.linear:
            raise FormatError(
                f"{path}: {path.suffix} cannot hold scene-linear light",
                hint="tone map it first, or write .exr, .hdr or .tif",
            )
        _write_radiance(path, image, output.kind, overwrite, options, attributes, layers)
        return
    if not output.display:
        raise FormatError(
            f"{path}: {path.suffix} holds scene-linear light, and this is an image for a screen",
            hint="write it as .jpg, .png or .tif",
        )
    top = 255 if output.kind == "jpeg" or (output.kind, options.png_bits) == ("png", 8) else 65535
    write_display_codes(
        path,
        quantised(image.pixels, top),
        overwrite=overwrite,
        options=options,
        primaries=image.primaries,
        exif=exif,
    )


def _write_radiance(
    path: Path,
    image: Radiance,
    kind: str,
    overwrite: bool,  # noqa: FBT001  private, and handed through
    options: WriteOptions,
    attributes: Mapping[str, object] | None,
    layers: Mapping[str, NDArray[Any]] | None,
) -> None:
    with whole(path, overwrite=overwrite) as temporary, encoding(path):
        if kind == "exr":
            exr.use_threads(options.threads)
            exr.write(
                temporary,
                image,
                kind=options.exr_type,
                compression=options.exr_compression,
                attributes=attributes,
                layers=layers,
            )
        elif kind == "hdr":
            temporary.write_bytes(rgbe.encode(image))
        else:
            tiff.write(
                temporary,
                np.asarray(image.pixels, np.float32),
                compression=options.tiff_compression,
                icc=profile_of(image.primaries, linear=True),
                description=_description(image, attributes),
            )


def _description(image: Radiance, attributes: Mapping[str, object] | None) -> str:
    said = {"hdrcli:scale": image.exposure, "primaries": image.primaries.name}
    return json.dumps(said | dict(attributes or {}), default=str)


def write_display_codes(
    path: Path,
    codes: Codes,
    *,
    overwrite: bool = False,
    options: WriteOptions = _DEFAULTS,
    primaries: Primaries = REC709,
    exif: bytes | None = None,
    merged: bool = False,
) -> None:
    """Write display codes, (H, W, 3) uint8 (or uint16 for .png and .tif), with the sRGB curve.

    The quick way for large previews: no float image is ever made. ``merged``: they are made of a
    bracket, and ``exif`` is that of its reference.
    """
    output = for_output(path)
    assert output.display, path
    icc = profile_of(primaries)
    block = exif_for_output(exif, merged=merged) if exif else None
    with whole(path, overwrite=overwrite) as temporary, encoding(path):
        if output.kind == "jpeg":
            data = jpeg.encode(codes, quality=options.jpeg_quality, icc=icc, exif=block)
            temporary.write_bytes(data)
        elif output.kind == "png":
            named = None if primaries == REC709 else icc
            temporary.write_bytes(png.encode(codes, icc=named, exif=block))
        else:
            tiff.write(
                temporary, codes, compression=options.tiff_compression, icc=icc, description="{}"
            )


def quantised(pixels: NDArray[np.float32], top: int) -> Codes:
    """Display values in [0, 1] as whole numbers up to ``top``, rounded to nearest, by strips."""
    codes = np.empty(pixels.shape, np.uint8 if top == 255 else np.uint16)
    rows = max(1, (1 << 20) // max(1, pixels[:1].nbytes))
    for start in range(0, len(pixels), rows):
        part = np.clip(pixels[start : start + rows], 0, 1) * np.float32(top)
        codes[start : start + rows] = np.rint(part)
    return codes
