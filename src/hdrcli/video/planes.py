"""Y'CbCr planes of video and R'G'B', by the matrices of the standards.

swscale's own conversion is off by more than a code at ten bits, so both ways are done here.
Chroma is 4:2:0; it lies on the even columns, and between two rows ("left", MPEG-2 and later) or
on the even rows as well ("topleft", BT.2020).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, REC2020, Primaries, ycbcr_matrix

Codes = NDArray[Any]
Floats = NDArray[np.float32]
Planes = tuple[Codes, Codes, Codes]

# R'G'B' to Y'CbCr of the colour spaces that FFmpeg numbers (ITU-T H.273, matrix coefficients).
BT601 = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
MATRICES = {
    1: ycbcr_matrix(REC709),
    5: BT601,
    6: BT601,
    9: ycbcr_matrix(REC2020),
    10: ycbcr_matrix(REC2020),
}


@dataclass(frozen=True)
class Levels:
    """How planes store Y' in [0, 1] and C in [-0.5, 0.5]: code = offset + gain * value."""

    bits: int
    full: bool = False

    @property
    def luma(self) -> tuple[float, float]:
        """Gain and offset of Y'. BT.2100 table 9."""
        return (2**self.bits - 1, 0) if self.full else (219 * 2 ** (self.bits - 8), self.black)

    @property
    def chroma(self) -> tuple[float, float]:
        """Gain and offset of Cb and Cr."""
        gain = 2**self.bits - 1 if self.full else 224 * 2 ** (self.bits - 8)
        return gain, 2 ** (self.bits - 1)

    @property
    def black(self) -> float:
        """The code of Y' = 0."""
        return 0 if self.full else 16 * 2 ** (self.bits - 8)


def into_rgb(planes: Planes, matrix: int, levels: Levels, *, topleft: bool = False) -> Codes:
    """R'G'B' codes, (H, W, 3), full range: uint8 from eight bits, uint16 from more.

    ``planes`` are Y', Cb and Cr; chroma of half the size is stretched. Codes below black and
    above white are clipped.
    """
    import cv2

    luma, blue, red = planes
    height, width = luma.shape
    merged = cv2.merge([luma, *(_stretched(c, (height, width), topleft) for c in (blue, red))])
    return np.asarray(cv2.transform(merged, rgb_matrix(matrix, levels)))


def rgb_matrix(matrix: int, levels: Levels) -> NDArray[np.float64]:
    """(3, 4): Y'CbCr codes to full-range R'G'B' codes of 8 or 16 bits."""
    top = 255 if levels.bits == 8 else 65535
    gains = np.array([levels.luma, levels.chroma, levels.chroma])
    back = np.linalg.inv(MATRICES[matrix]) * top / gains[:, 0]
    return np.hstack([back, -(back @ gains[:, 1:])])


def _stretched(chroma: Codes, size: tuple[int, int], topleft: bool) -> Codes:  # noqa: FBT001
    """Chroma at every pixel of luma."""
    import cv2

    height, width = size
    if chroma.shape == size:
        return chroma
    half_x, half_y = chroma.shape[1] != width, chroma.shape[0] != height
    down = (0.0 if topleft else -0.25) if half_y else 0.0
    place = np.array([[0.5 if half_x else 1, 0, 0], [0, 0.5 if half_y else 1, down]])
    return np.asarray(
        cv2.warpAffine(
            chroma,
            place,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def coding_matrix(primaries: Primaries) -> Floats:
    """R'G'B' to Y'CbCr of these primaries, for ``split``."""
    return ycbcr_matrix(primaries).astype(np.float32)


def luma_codes(luma: Floats, levels: Levels) -> Codes:
    """Y' in [0, 1] as codes, rounded, (h, w)."""
    gain, offset = levels.luma
    return _rounded(luma, gain, offset, levels)


def chroma_codes(
    chroma: Floats, levels: Levels, *, topleft: bool = False, rows: bool = True
) -> Codes:
    """One plane of Cb or Cr, (H, W) in [-0.5, 0.5], even sizes, as codes of half the width, and
    of half the height where ``rows``."""
    import cv2

    across = np.array([0.25, 0.5, 0.25], np.float32)
    down = across if topleft and rows else np.ones(1, np.float32)
    reduced = cv2.sepFilter2D(chroma, -1, across, down, borderType=cv2.BORDER_REPLICATE)[:, ::2]
    if rows:
        reduced = reduced[::2] if topleft else (reduced[::2] + reduced[1::2]) / np.float32(2)
    gain, offset = levels.chroma
    return _rounded(np.ascontiguousarray(reduced), gain, offset, levels)


def _rounded(plane: Floats, gain: float, offset: float, levels: Levels) -> Codes:
    import cv2

    kind = cv2.CV_8U if levels.bits == 8 else cv2.CV_16U
    codes = cv2.addWeighted(plane, gain, plane, 0.0, offset, dtype=kind)
    return np.asarray(np.minimum(codes, codes.dtype.type(2**levels.bits - 1)))
