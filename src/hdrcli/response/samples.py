"""The same scene points in every frame: what response and exposure are estimated from.

Small blocks on a grid are averaged at full resolution, so that sharp detail, noise and JPEG
blocks show as spread inside a block instead of as false pairs. Frames that have no warp yet are
brought together by a translation found on reduced rank images, which do not change with exposure.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Codes, Frame
from hdrcli.strips import default_threads

Floats = NDArray[np.float32]

POINTS = 10_000  # blocks per frame, over the whole picture
BLOCK = 4  # side of a block, in pixels
CLIPPED = 250 / 255  # from here on a code may be clipped light
BLACK = 2 / 255  # up to here a code may be clipped darkness
REDUCED = 320  # longer side of the pictures shifts are found on
TRUSTED_PEAK = 0.1  # phase correlation below this is noise
STILL = 0.05  # pixels of those: a shift that cannot be told from none
FAR_RANKS = 0.08  # ranks that differ by more show different things
BETTER = 0.9  # a shift brings the frames at least so much closer


@dataclass(frozen=True, eq=False)
class Samples:
    """Block means of scene points. F frames, P points, 3 channels; codes are code / largest code.

    ``spread`` is the standard deviation of the codes inside a block. ``usable`` is False where
    any pixel of the block may be clipped in that channel, or lies outside the frame; ``black``
    is True where any may be clipped darkness.
    """

    codes: Floats  # (F, P, 3)
    spread: Floats  # (F, P, 3)
    usable: NDArray[np.bool_]  # (F, P, 3)
    black: NDArray[np.bool_]  # (F, P, 3)
    bright: Floats  # (F,) mean code of each frame over all points
    shifts: NDArray[np.float64]  # (F, 2) pixels, x y, frame against the first

    def of(self, order: Sequence[int]) -> "Samples":
        """The samples of some frames, in another order."""
        at = list(order)
        return Samples(
            self.codes[at],
            self.spread[at],
            self.usable[at],
            self.black[at],
            self.bright[at],
            self.shifts[at],
        )


def take(
    frames: Sequence[Frame], points: int = POINTS, known: Sequence[Floats | None] | None = None
) -> Samples:
    """Sample all frames at the same scene points. Frames share one size.

    ``known`` is what ``ranks`` says of each of them, where it has been asked.
    """
    grid = _grid(frames[0].size, points)
    shifts = find_shifts(frames, known)
    whites = _whites(frames)
    with ThreadPoolExecutor(default_threads()) as pool:
        blocks = list(pool.map(partial(_blocks, grid), frames, shifts, whites))
    codes = np.stack([b[0] for b in blocks])
    return Samples(
        codes,
        np.stack([b[1] for b in blocks]),
        np.stack([b[2] for b in blocks]),
        np.stack([b[3] for b in blocks]),
        codes.mean(axis=(1, 2)),
        shifts,
    )


def _whites(frames: Sequence[Frame]) -> list[float]:
    """The largest code of each frame; float frames share the largest value any of them has."""
    most = max((float(f.codes.max()) for f in frames if not f.levels), default=1.0)
    return [float(f.levels - 1) if f.levels else max(most, 1e-9) for f in frames]


def _grid(size: tuple[int, int], points: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Block corners (row, column), about ``points`` of them, evenly over the picture."""
    step = max(int(np.sqrt(size[0] * size[1] / points)), 1)
    rows = np.arange(0, max(size[0] - BLOCK, 1), step)
    cols = np.arange(0, max(size[1] - BLOCK, 1), step)
    r, c = np.meshgrid(rows, cols, indexing="ij")
    return r.ravel(), c.ravel()


def _blocks(
    grid: tuple[NDArray[np.intp], NDArray[np.intp]],
    frame: Frame,
    shift: NDArray[np.float64],
    white: float,
) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Mean, spread, usability and blackness of the blocks of one frame, each (P, 3)."""
    rows, cols = grid
    x, y = _positions(frame, cols + np.float64(BLOCK / 2), rows + np.float64(BLOCK / 2))
    top = np.rint(y + shift[1] - BLOCK / 2).astype(np.intp)
    left = np.rint(x + shift[0] - BLOCK / 2).astype(np.intp)
    high, wide = (max(side - BLOCK, 0) for side in frame.size)
    inside = (top >= 0) & (left >= 0) & (top <= high) & (left <= wide)
    top, left = np.clip(top, 0, high), np.clip(left, 0, wide)
    got = _gather(frame.codes, top, left)
    usable = (inside & _visible(frame, top, left))[:, None] & (got.max(axis=0) < CLIPPED * white)
    black = got.min(axis=0) <= (BLACK * white if frame.levels else 0.0)
    part = got.astype(np.float32) / np.float32(white)
    mean = part.mean(axis=0)
    part -= mean
    part *= part
    return mean, np.sqrt(part.mean(axis=0)), usable, black


def _gather(codes: Codes, top: NDArray[np.intp], left: NDArray[np.intp]) -> Codes:
    """The pixels of the blocks, (BLOCK², P, 3): pixels first, so that reductions are fast."""
    sides, (high, wide) = [min(BLOCK, side) for side in codes.shape[:2]], codes.shape[:2]
    pixels, first = codes.reshape(high * wide, 3), top * wide + left
    out = np.empty((sides[0] * sides[1], len(top), 3), codes.dtype)
    for row in range(sides[0]):
        for col in range(sides[1]):
            pixels.take(
                first + (row * wide + col), axis=0, out=out[row * sides[1] + col], mode="clip"
            )
    return out


def _positions(
    frame: Frame, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the reference's pixels lie in a frame that has been aligned."""
    if frame.warp is None:
        return x, y
    u, v, w = frame.warp @ np.stack([x, y, np.ones_like(x)])
    return u / w, v / w


def _visible(frame: Frame, top: NDArray[np.intp], left: NDArray[np.intp]) -> NDArray[np.bool_]:
    if frame.valid is None:
        return np.ones(len(top), bool)
    last = min(BLOCK, *frame.size) - 1
    return np.asarray(frame.valid[top, left] & frame.valid[top + last, left + last])


def find_shifts(
    frames: Sequence[Frame], known: Sequence[Floats | None] | None = None
) -> NDArray[np.float64]:
    """Translation of each frame against the first, pixels (F, 2): x, y. Zero where warped.

    Neighbours are compared by phase correlation of their rank images; a peak that does not
    stand out, or does not bring the two closer, is not believed.
    """
    shifts = np.zeros((len(frames), 2))
    with ThreadPoolExecutor(default_threads()) as pool:
        reduced = list(pool.map(ranks, frames)) if known is None else list(known)
        pictures = [one for one in reduced if one is not None]
        if len(pictures) == len(frames):
            steps = list(pool.map(lambda pair: _shift(*pair), pairwise(pictures)))
            shifts[1:] = _step(frames[0]) * np.reshape(np.cumsum(steps, axis=0), (-1, 2))
    return shifts


def _step(frame: Frame) -> int:
    """Pixels of the frame for one of the reduced picture: whole blocks of those that are read."""
    step = max(max(frame.size) // REDUCED, 1)
    return step // _skip(step) * _skip(step)


def _skip(step: int) -> int:
    """Only each so many-th row and column is read: sixteen pixels of a block are enough."""
    return max(step // 4, 1)


def ranks(frame: Frame) -> Floats | None:
    """Green, reduced, each pixel replaced by its rank in [0, 1]: blind to exposure and curve.

    None of what is too small, or has a warp.
    """
    if frame.warp is not None or min(frame.size) < 32:
        return None
    return _ranks(frame, _step(frame))


def _ranks(frame: Frame, step: int) -> Floats:
    import cv2

    skip, high, wide = _skip(step), frame.size[0] // step, frame.size[1] // step
    read = np.ascontiguousarray(frame.codes[: high * step : skip, : wide * step : skip, 1])
    green = np.asarray(cv2.resize(read, (wide, high), interpolation=cv2.INTER_AREA))
    if frame.levels:
        where, counts = green, np.bincount(green.ravel(), minlength=frame.levels)
    else:
        known, where = np.unique(green, return_inverse=True)
        counts = np.bincount(where.ravel(), minlength=len(known))
    middle = ((np.cumsum(counts) - counts / 2) / green.size).astype(np.float32)
    return np.asarray(middle[where].reshape(green.shape))


def _shift(a: Floats, b: Floats) -> NDArray[np.float64]:
    """How far the content of ``b`` lies from that of ``a``, pixels x, y."""
    import cv2

    window = cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    flat_a, flat_b = a - a.mean(), b - b.mean()
    (x, y), peak = cv2.phaseCorrelate(flat_a, flat_b, window)
    odd = np.array([cv2.getOptimalDFTSize(side) % 2 for side in a.shape[::-1]])
    shift = np.array([x, y]) - odd / 2  # it takes the middle of odd sizes half a pixel too far
    if peak < TRUSTED_PEAK or not STILL < np.abs(shift).max() < min(a.shape) / 6:
        return np.zeros(2)
    dx, dy = np.rint(shift).astype(int)
    if dx == dy == 0:
        return shift
    moved = _distance(_overlap(a, -dx, -dy), _overlap(b, dx, dy))
    return shift if moved <= BETTER * _distance(a, b) else np.zeros(2)


def _distance(a: Floats, b: Floats) -> float:
    """Mean difference of ranks; what moved cannot count for more than FAR_RANKS."""
    return float(np.minimum(np.abs(a - b), FAR_RANKS).mean())


def _overlap(image: Floats, dx: int, dy: int) -> Floats:
    """The part of ``image`` that remains when it is moved by (-dx, -dy)."""
    rows = slice(max(dy, 0), image.shape[0] + min(dy, 0))
    cols = slice(max(dx, 0), image.shape[1] + min(dx, 0))
    return image[rows, cols]
