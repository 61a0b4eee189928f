"""CMYK photographs: through their own profile to sRGB, or not at all."""

import io

import numpy as np

from hdrcli.errors import FormatError
from hdrcli.formats.decoded import foreign
from hdrcli.frames import Codes


def rgb_of_cmyk(data: bytes, icc: bytes | None) -> Codes:
    """A CMYK JPEG or TIFF as (H, W, 3) uint8 sRGB; without a profile the inks say no colour."""
    if icc is None:
        raise FormatError(
            "CMYK without a colour profile: its colours are not defined",
            hint="convert it to RGB in the program that made it",
        )
    from PIL import Image, ImageCms

    with foreign("CMYK picture"), Image.open(io.BytesIO(data)) as image:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            shown = ImageCms.profileToProfile(
                image.convert("CMYK"), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError as err:
            raise FormatError(f"CMYK with a damaged colour profile ({err})") from err
        return np.asarray(shown, np.uint8)
