"""Mertens, Kautz and Van Reeth, "Exposure Fusion", Pacific Graphics 2007.

Weights of contrast, saturation and well-exposedness (their equation 1), blended over Laplacian
pyramids (equation 3). It needs no exposure at all, and makes no radiance: the result is for the
screen. Beyond the paper, a weight is multiplied by the confidence of motion.py.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.backends.registry import Settings
from hdrcli.color import srgb_encode
from hdrcli.frames import Bracket, DisplayImage, Frame
from hdrcli.motion import Motion
from hdrcli.strips import Placement

Floats = NDArray[np.float32]

SIGMA = 0.2  # of the well-exposedness, around one half
SMALLEST = 8  # px; the pyramid ends here


class Mertens:
    """Exposure fusion of the display-encoded frames."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def merge(self, bracket: Bracket, motion: Motion) -> DisplayImage:
        """Fuse an aligned bracket into a picture for the screen."""
        height, width = bracket.size
        levels = max(1, int(np.log2(min(height, width) / SMALLEST)))
        whole = slice(0, height)
        total: list[Floats] | None = None
        norm = np.zeros((height, width), np.float32)
        weights = []
        for i, frame in enumerate(bracket.frames):
            picture, valid = encoded(Placement(frame, motion.flows[i], motion.scale), whole)
            weight = quality(picture)
            confidence = motion.confidence[i]
            if confidence is not None:
                weight *= strips.upsample(confidence, motion.scale, whole, width)
            if valid is not None:
                weight *= valid
            weights.append(weight)
            norm += weight
        for i, frame in enumerate(bracket.frames):
            picture, _ = encoded(Placement(frame, motion.flows[i], motion.scale), whole)
            bands = blend(laplacian(picture, levels), gaussian(weights[i] / norm, levels))
            total = bands if total is None else [t + b for t, b in zip(total, bands, strict=True)]
        assert total is not None
        return DisplayImage(np.clip(collapse(total), 0, 1), bracket.ref.primaries)


def encoded(placement: Placement, rows: slice) -> tuple[Floats, NDArray[np.bool_] | None]:
    """The frame as a screen shows it, [0, 1], at the reference's pixels."""
    codes, valid = placement.codes(rows)
    frame: Frame = placement.frame
    if frame.levels:
        return codes.astype(np.float32) / np.float32(frame.levels - 1), valid
    return srgb_encode(np.clip(np.nan_to_num(codes), 0, 1)), valid


def quality(picture: Floats) -> Floats:
    """Equation 1: contrast times saturation times well-exposedness, (h, w), above zero."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    contrast = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    saturation = picture.std(axis=2)
    exposed = np.exp(-((picture - 0.5) ** 2) / (2 * SIGMA**2)).prod(axis=2)
    return np.asarray(contrast * saturation * exposed + 1e-6 * exposed + 1e-12, np.float32)


def gaussian(picture: Floats, levels: int) -> list[Floats]:
    """Gaussian pyramid, finest first, levels + 1 entries."""
    import cv2

    pyramid = [picture]
    for _ in range(levels):
        pyramid.append(np.asarray(cv2.pyrDown(pyramid[-1]), np.float32))
    return pyramid


def laplacian(picture: Floats, levels: int) -> list[Floats]:
    """Laplacian pyramid, finest first; the last entry is the coarse rest."""
    steps = gaussian(picture, levels)
    return [fine - enlarge(coarse, fine) for fine, coarse in itertools.pairwise(steps)] + [
        steps[-1]
    ]


def blend(bands: list[Floats], weights: list[Floats]) -> list[Floats]:
    """Equation 3: every band times the weight of its level."""
    return [band * weight[..., None] for band, weight in zip(bands, weights, strict=True)]


def collapse(bands: list[Floats]) -> Floats:
    """Add a Laplacian pyramid up again."""
    picture = bands[-1]
    for band in reversed(bands[:-1]):
        picture = band + enlarge(picture, band)
    return picture


def enlarge(coarse: Floats, like: Floats) -> Floats:
    """Bring a level of a pyramid to the size of the next finer one."""
    import cv2

    height, width = like.shape[:2]
    return np.asarray(cv2.pyrUp(coarse, dstsize=(width, height)), np.float32)
