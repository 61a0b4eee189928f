"""What is left to the libraries: WebP, BMP, GIF, HEIF, AVIF, and odd formats."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hdrcli.errors import FormatError, ResourceError
from hdrcli.formats.decoded import Decoded, check_size, foreign
from hdrcli.frames import Codes

_EIGHT = ("RGB", "RGBA", "L", "LA")
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N")


def decode_pillow(data: bytes) -> Decoded:
    """Through Pillow: the first picture of the file, its profile and its EXIF block."""
    from PIL import Image

    with foreign("picture"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as err:
            raise ResourceError(f"too large a picture for this format ({err})") from err
        with image:
            check_size(image.height, image.width, 4)
            exif = image.info.get("exif") or b""
            icc = image.info.get("icc_profile")
            codes = _codes(image)
    bits = 16 if codes.dtype == np.uint16 else 8
    return Decoded(codes, bits, icc=icc, exif=exif.removeprefix(b"Exif\0\0") or None)


def _codes(image: Any) -> Codes:  # noqa: ANN401  a Pillow image
    if image.mode in _SIXTEEN:
        return np.asarray(image).astype(np.uint16)
    if image.mode == "CMYK":
        raise FormatError("CMYK: its colours are not defined", hint="convert it to RGB first")
    if image.mode in _EIGHT:
        return np.asarray(image, np.uint8)
    transparent = image.has_transparency_data
    return np.asarray(image.convert("RGBA" if transparent else "RGB"), np.uint8)


def decode_heif(data: bytes) -> Decoded:
    """HEIC and HEIF through pillow-heif, which turns them upright, at 8, 10 or 12 bits."""
    try:
        import pillow_heif
    except ImportError as err:
        raise ResourceError(
            "HEIF photographs need the package pillow-heif",
            hint="pip install 'hdrcli[heif]'",
        ) from err
    with foreign("HEIF"):
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        width, height = file.size
        check_size(height, width, 8)
        codes = np.asarray(file)
        bits = int(file.info.get("bit_depth", 8))
        icc, exif = file.info.get("icc_profile"), file.info.get("exif") or b""
    block = exif[exif.find(b"Exif\0\0") + 6 :] if b"Exif\0\0" in exif[:16] else exif
    return Decoded(codes, bits, icc=icc, exif=block or None, orientation=1)


def decode_odd(path: Path) -> Decoded:
    """The last resort for a file nobody knew: Pillow's other formats, then imageio's."""
    try:
        return decode_pillow(path.read_bytes())
    except FormatError:
        return _decode_imageio(path)


def _decode_imageio(path: Path) -> Decoded:
    """Through imageio's OpenCV: Sun raster, PXM and the like. Its other readers guess wildly."""
    import imageio.v3 as iio

    with foreign("picture"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = np.asarray(iio.imread(path, plugin="opencv"))
    if codes.dtype not in (np.uint8, np.uint16) or codes.ndim not in (2, 3):
        raise FormatError(f"a picture of {codes.dtype} samples", hint="convert it to TIFF first")
    return Decoded(codes, bits=8 * codes.dtype.itemsize)
