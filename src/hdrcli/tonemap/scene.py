"""What a tone mapper must know of a picture: its log luminance, small, and robust statistics.

The picture is reduced to a fixed size first, so that a preview, the full picture and a video
proxy of it are all judged alike (and are all mapped alike).
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels
from hdrcli.color import REC709, conversion, luminance_weights
from hdrcli.frames import Radiance
from hdrcli.strips import run

Floats = NDArray[np.float32]

SIDE = 512  # pixels of the longer side of the picture that is analysed
FEW = 4  # rows of which all are read
STRIP = 1 << 18  # pixels surveyed at once
HUGE = np.float32(1e18)  # what stands for infinity: squares of it are still finite
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Scene:
    """Log luminance of the reduced picture, and its order statistics.

    ``stops`` is (h, w) float32, log2 of Rec. 709 luminance in units of the Radiance, limited to
    the robust range. ``low``, ``mid`` and ``high`` are its 1st percentile, mean and 99.5th
    percentile; ``peak`` is the 99.95th. ``extent`` is how much of the picture's height and width
    the reduced one covers: 1, or slightly more where the last block was padded.
    """

    stops: Floats
    low: float
    mid: float
    high: float
    peak: float
    extent: tuple[float, float] = (1.0, 1.0)

    @property
    def key(self) -> float:
        """Where the mean lies between the ends: -1 all dark, 0 in the middle, 1 all bright.

        Reinhard, Parameter estimation for photographic tone reproduction, JGT 2002, eq. 3-4.
        """
        span = max(self.high - self.low, 1e-3)
        return float(np.clip((2 * self.mid - self.low - self.high) / span, -1, 1))


def cleaned(pixels: NDArray[np.floating], most: np.float32 = HUGE) -> tuple[Floats, int]:
    """Finite light in [0, ``most``], and how many numbers had to be changed for it.

    NaN and negative light become 0; infinity, which is what an overflowed highlight leaves,
    becomes ``most`` and thereby white.
    """
    linear = as_floats(pixels)
    if not linear.size or linear.view(np.uint32).max() <= most.view(np.uint32):
        return linear, 0  # as integers, NaN, inf and whatever has a sign are larger
    bad = int(np.count_nonzero(~(linear >= 0) | (linear > HUGE)))
    return np.minimum(_finite(linear), most), bad


def as_floats(pixels: NDArray[np.floating], out: Floats | None = None) -> Floats:
    """The same numbers as contiguous float32, in ``out`` if there is one; numpy is slow at it."""
    if pixels.dtype == np.float16:
        light = np.empty(pixels.shape, np.float32) if out is None else out
        bits = np.ascontiguousarray(pixels).view(np.uint16)
        kernels.floats_of_halves(bits, light, bits.size)
        return light
    if out is None:
        return np.ascontiguousarray(pixels, np.float32)
    out[: pixels.size] = pixels.reshape(-1)
    return out


def _finite(values: Floats) -> Floats:
    return np.clip(np.nan_to_num(values, nan=0.0, posinf=float(HUGE)), 0, HUGE)


def survey(radiance: Radiance, threads: int | None = None) -> Scene:
    """Reduce the picture to log luminance and measure it, strip by strip, in threads.

    Unusable numbers are replaced as ``cleaned`` says, counted, and reported once as a warning.
    """
    height, width = radiance.pixels.shape[:2]
    side = max(1, -(-max(height, width) // (2 * SIDE)))
    exact = luminance_weights(REC709) @ conversion(radiance.primaries, REC709)
    weights = exact.astype(np.float32)
    small = np.empty((-(-height // side), -(-width // side)), np.float32)

    def work(rows: slice) -> int:
        full = radiance.pixels[rows.start * side : min(rows.stop * side, height)]
        return _reduced(full, weights, side, small[rows])

    bad = sum(run(work, (small.shape[0], width * side), threads, STRIP))
    if bad:
        _log.warning(
            "%d numbers of the radiance were NaN, infinite or negative and were replaced", bad
        )
    extent = small.shape[0] * side / height, small.shape[1] * side / width
    return measured(_fitted(small), extent)


def _reduced(pixels: NDArray[np.floating], weights: Floats, side: int, out: Floats) -> int:
    """Fill ``out`` with the luminance of blocks of so many rows and columns; how much was bad.

    The rows that are read stand for those between them, and are counted for them.
    """
    rows, width = pixels.shape[:2]
    step = 2 if side >= FEW else 1
    bad = np.empty(1, np.int64)
    rest = weights, HUGE, side, step, np.empty(width, np.float32), out, bad, rows, width
    if pixels.dtype == np.float16:
        bits = np.ascontiguousarray(pixels).view(np.uint16)
        kernels.luminances_of_halves(bits, np.empty(3 * width, np.float32), *rest)
    else:
        kernels.luminances(as_floats(pixels), *rest)
    return int(bad[0]) * step


def _fitted(luminance: Floats) -> Floats:
    """The same reduced once more, so that its longer side has at most SIDE pixels."""
    import cv2

    height, width = luminance.shape
    longer = max(height, width)
    if longer <= SIDE:
        return luminance
    size = max(1, round(width * SIDE / longer)), max(1, round(height * SIDE / longer))
    return np.asarray(cv2.resize(luminance, size, interpolation=cv2.INTER_AREA), np.float32)


def measured(luminance: Floats, extent: tuple[float, float] = (1.0, 1.0)) -> Scene:
    """The Scene of a small picture of luminance, (h, w), in units of the Radiance.

    The statistics leave out black pixels: a border or a dead sensor says nothing of the scene.
    """
    with np.errstate(divide="ignore"):
        logs = np.log2(luminance, dtype=np.float32)
    lit = logs[luminance > 0]
    if not lit.size:
        return Scene(np.zeros_like(luminance), 0.0, 0.0, 0.0, 0.0, extent)
    low, high, peak = (float(v) for v in np.percentile(lit, (1, 99.5, 99.95)))
    mid = float(np.clip(lit, low, high).mean(dtype=np.float64))
    floor = low - 1  # stops; what lies deeper is noise and must not be lifted
    return Scene(np.clip(logs, floor, peak + 1), low, mid, high, peak, extent)
