"""The same scene points in every frame: what response and exposure are estimated from.

Small blocks on a grid are averaged at full resolution, so that sharp detail, noise and JPEG
blocks show as spread inside a block instead of as false pairs. Frames that have no warp yet are
brought together by a translation found on reduced rank images, which do not change with exposure.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import CLIP, Codes, Frame
from hdrcli.response.white import agreed, greys_alike
from hdrcli.strips import default_threads

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
Whole = NDArray[np.intp]

POINTS = 10_000  # blocks per frame, over the whole picture
BLOCK = 4  # side of a block, in pixels
BLACK = 2 / 255  # up to here a code may be clipped darkness
REDUCED = 320  # longer side of the pictures shifts are found on
SMALLEST = 32  # shorter side, in pixels, of frames that are compared at all
TRUSTED_PEAK = 0.1  # phase correlation below this is noise
STILL = 0.05  # pixels of those: a shift that cannot be told from none
FAR_RANKS = 0.08  # ranks that differ by more show different things
BETTER = 0.9  # a shift brings the frames at least so much closer


@dataclass(frozen=True, eq=False)
class Blocks:
    """Block means of one frame at P scene points, 3 channels; codes are code / largest code.

    ``spread`` is the standard deviation of the codes inside a block. ``usable`` is False where
    any pixel of the block may be clipped in that channel, or lies outside the frame; ``black``
    is True where any may be clipped darkness.
    """

    codes: Floats  # (P, 3)
    spread: Floats  # (P, 3)
    usable: Mask  # (P, 3)
    black: Mask  # (P, 3)


@dataclass(frozen=True, eq=False)
class Samples:
    """The same scene points in each of F frames."""

    frames: tuple[Blocks, ...]
    shifts: Doubles  # (F, 2) pixels, x y, frame against the first
    white: float = 1.0  # code, over the largest, of greys that clip: see ``white_of``

    @property
    def codes(self) -> Floats:
        """The codes of all frames, (F, P, 3)."""
        return np.stack([blocks.codes for blocks in self.frames])

    @property
    def bright(self) -> Floats:
        """The mean code of each frame over all points, (F,)."""
        return np.array([blocks.codes.mean() for blocks in self.frames])

    def of(self, order: Sequence[int]) -> "Samples":
        """The samples of some frames, in another order."""
        return replace(
            self, frames=tuple(self.frames[i] for i in order), shifts=self.shifts[list(order)]
        )


def take(frames: Sequence[Frame], points: int = POINTS) -> Samples:
    """Sample all frames at the same scene points. Frames share one size."""
    aligned = any(frame.warp is not None for frame in frames)
    with ThreadPoolExecutor(default_threads()) as pool:
        return Sampling(pool, [_there(f) for f in frames], points, aligned=aligned).samples()


def _there(frame: Frame) -> Future[Frame]:
    future: Future[Frame] = Future()
    future.set_result(frame)
    return future


class Sampling:
    """The sampling of frames that may still be being read, by the threads that read them.

    Its tasks stand in the queue of a pool behind those that make the frames, frame after frame.
    Each waits for none but earlier ones, so that a single thread gets through. Between those of
    a frame stands one of the frame before, so that two threads seldom wait for each other.
    """

    def __init__(
        self,
        pool: Executor,
        frames: Sequence[Future[Frame]],
        points: int = POINTS,
        *,
        aligned: bool = False,
    ) -> None:
        self._frames, self._points, self._aligned = frames, points, aligned
        self._ranks: list[Future[Floats | None]] = []
        self._moves: list[Future[Doubles]] = []
        self._coded: list[Future[Blocks | float]] = []
        for i in range(len(frames)):
            self._ranks.append(pool.submit(self._rank, i))
            if i > 0:
                self._coded.append(pool.submit(self._code, i - 1))
            self._moves.append(pool.submit(self._move, i))
        self._coded.append(pool.submit(self._code, len(frames) - 1))
        self._blocks = [pool.submit(self._block, i) for i in range(len(frames))]

    def samples(self) -> Samples:
        """What was sampled. Frames share one size."""
        blocks = tuple(future.result() for future in self._blocks)
        shifts = np.stack([self._shift(i) for i in range(len(blocks))])
        coded = all(isinstance(one.result(), Blocks) for one in self._coded)
        white = white_of(blocks) if coded else 1.0
        return Samples(tuple(below(white, one) for one in blocks), shifts, white)

    def _rank(self, i: int) -> Floats | None:
        return None if self._aligned else _ranks(self._frames[i].result())

    def _move(self, i: int) -> Doubles:
        """The translation of a frame against the one before, in pixels of their reduced pictures.

        They are compared by phase correlation of their rank images; a peak that does not stand
        out, or does not bring the two closer, is not believed.
        """
        before, own = (self._ranks[at].result() for at in (max(i - 1, 0), i))
        return np.zeros(2) if i == 0 or before is None or own is None else _shift(before, own)

    def _shift(self, i: int) -> Doubles:
        """The translation of a frame against the first, in its pixels."""
        moves = [future.result() for future in self._moves[: i + 1]]
        return np.asarray(_step(self._frames[0].result()) * np.sum(moves, axis=0))

    def _code(self, i: int) -> Blocks | float:
        """The blocks of a frame of integer codes; of floats only the largest."""
        frame = self._frames[i].result()
        if not frame.levels:
            return float(frame.codes.max())
        return _blocks(self._grid, frame, self._shift(i), float(frame.levels - 1))

    def _block(self, i: int) -> Blocks:
        """The blocks of any frame. The largest float of all frames is the white of each."""
        if isinstance(own := self._coded[i].result(), Blocks):
            return own
        peaks = [most for most in (one.result() for one in self._coded) if isinstance(most, float)]
        return _blocks(self._grid, self._frames[i].result(), self._shift(i), max(*peaks, 1e-9))

    @cached_property
    def _grid(self) -> tuple[Whole, Whole]:
        return _grid(self._frames[0].result().size, self._points)


def white_of(frames: Sequence[Blocks]) -> float:
    """The code of white of frames in any order, over the largest code: see white.py."""
    order = np.argsort([float(one.codes.mean()) for one in frames], kind="stable").tolist()
    pairs = [(frames[i], frames[j]) for i, j in pairwise(order)]
    found = [greys_alike(*_looks(dark), *_looks(bright)) for dark, bright in pairs]
    return agreed(found, (one.codes for one in frames))


def _looks(blocks: Blocks) -> tuple[Floats, Floats]:
    return blocks.codes, blocks.spread


def below(white: float, blocks: Blocks) -> Blocks:
    """Blocks of which only what is surely below a white is usable."""
    if white == 1:
        return blocks
    clip = np.float32(CLIP - (1 - white))
    return replace(blocks, usable=blocks.usable & (blocks.codes + blocks.spread < clip))


def _grid(size: tuple[int, int], points: int) -> tuple[Whole, Whole]:
    """Block corners (row, column), about ``points`` of them, evenly over the picture."""
    step = max(int(np.sqrt(size[0] * size[1] / points)), 1)
    rows = np.arange(0, max(size[0] - BLOCK, 1), step)
    cols = np.arange(0, max(size[1] - BLOCK, 1), step)
    r, c = np.meshgrid(rows, cols, indexing="ij")
    return r.ravel(), c.ravel()


def _blocks(
    grid: tuple[Whole, Whole],
    frame: Frame,
    shift: Doubles,
    white: float,
) -> Blocks:
    rows, cols = grid
    x, y = _positions(frame, cols + np.float64(BLOCK / 2), rows + np.float64(BLOCK / 2))
    top = np.rint(y + shift[1] - BLOCK / 2).astype(np.intp)
    left = np.rint(x + shift[0] - BLOCK / 2).astype(np.intp)
    high, wide = (max(side - BLOCK, 0) for side in frame.size)
    inside = (top >= 0) & (left >= 0) & (top <= high) & (left <= wide)
    top, left = np.clip(top, 0, high), np.clip(left, 0, wide)
    got = _gather(frame.codes, top, left)
    usable = (inside & _visible(frame, top, left))[:, None] & (got.max(axis=0) < CLIP * white)
    black = got.min(axis=0) <= (BLACK * white if frame.levels else 0.0)
    part = got.astype(np.float32) / np.float32(white)
    mean = part.mean(axis=0)
    part -= mean
    part *= part
    return Blocks(mean, np.sqrt(part.mean(axis=0)), usable, black)


def _gather(codes: Codes, top: Whole, left: Whole) -> Codes:
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


def _positions(frame: Frame, x: Doubles, y: Doubles) -> tuple[Doubles, Doubles]:
    """Where the reference's pixels lie in a frame that has been aligned."""
    if frame.warp is None:
        return x, y
    u, v, w = frame.warp @ np.stack([x, y, np.ones_like(x)])
    return u / w, v / w


def _visible(frame: Frame, top: Whole, left: Whole) -> Mask:
    if frame.valid is None:
        return np.ones(len(top), bool)
    last = min(BLOCK, *frame.size) - 1
    return np.asarray(frame.valid[top, left] & frame.valid[top + last, left + last])


def _step(frame: Frame) -> int:
    """Pixels of the frame for one of the reduced picture: whole blocks of those that are read."""
    step = max(max(frame.size) // REDUCED, 1)
    return step // _skip(step) * _skip(step)


def _skip(step: int) -> int:
    """Only each so many-th row and column is read: sixteen pixels of a block are enough."""
    return max(step // 4, 1)


def _ranks(frame: Frame) -> Floats | None:
    """Green, reduced, each pixel replaced by its rank in [0, 1]: blind to exposure and curve.

    None of what is too small to be compared.
    """
    import cv2

    if min(frame.size) < SMALLEST:
        return None
    step = _step(frame)
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


def _shift(a: Floats, b: Floats) -> Doubles:
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
