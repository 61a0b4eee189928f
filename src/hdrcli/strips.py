"""The strip engine: full-size work, a block of rows at a time, in threads.

A block is small enough to stay in the processor's cache, so that codes are read once, and whole
float images never exist. Frames are brought to the reference here, once: homography and dense
flow are composed into one map, and each pixel is interpolated a single time.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels
from hdrcli.frames import Codes, Frame

Floats = NDArray[np.float32]
Result = TypeVar("Result")
Planes = tuple[NDArray[Any], ...]  # three (h, w) arrays

PLACED_PIXELS = 1 << 18  # so many are brought to the reference at once: what is read lies aslant
SHARE = 32  # of the picture, at most: small pictures keep all cores busy too
BLOCK_PIXELS = 1 << 16  # with a dozen float planes alive this about fits a second-level cache
EDGE = 1.0  # px beyond the outermost pixel centres that a frame's border still stands for
MOSTLY = 0.7  # of the width flows: what lies still is not worth a look by itself
MARGIN = 3  # rows and columns that cubic interpolation reads around a pixel


def default_threads() -> int:
    """As many threads as this process may use cores."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def blocks(size: tuple[int, int], pixels: int = BLOCK_PIXELS) -> Iterator[slice]:
    """Cut a picture of (height, width) into slices of rows of about ``pixels`` pixels."""
    height, width = size
    rows = max(1, min(height, pixels // max(width, 1)))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def inner_blocks(rows: slice, width: int) -> Iterator[slice]:
    """Cut a block of rows into smaller ones, of BLOCK_PIXELS."""
    for part in blocks((rows.stop - rows.start, width)):
        yield slice(rows.start + part.start, rows.start + part.stop)


def placed_pixels(size: tuple[int, int]) -> int:
    """How many pixels of a picture of (height, width) to bring to the reference at once."""
    return max(BLOCK_PIXELS, min(PLACED_PIXELS, size[0] * size[1] // SHARE))


def run(
    work: Callable[[slice], Result],
    size: tuple[int, int],
    threads: int | None = None,
    pixels: int = BLOCK_PIXELS,
) -> list[Result]:
    """Call ``work`` on every block of rows, in threads; results in the order of the rows.

    OpenCV's own threads are switched off meanwhile: the blocks already fill the cores.
    """
    count = threads or default_threads()
    with _alone:
        if count == 1:
            return [work(rows) for rows in blocks(size, pixels)]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, blocks(size, pixels)))


class _OpenCVAlone:
    """OpenCV without threads of its own, until the last of the runs side by side has ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.before = 0

    def __enter__(self) -> None:
        import cv2

        with self.lock:
            if self.running == 0:
                self.before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self.running += 1

    def __exit__(self, *_: object) -> None:
        import cv2

        with self.lock:
            self.running -= 1
            if self.running == 0:
                cv2.setNumThreads(self.before)


_alone = _OpenCVAlone()


@dataclass(frozen=True, eq=False)
class Reduced:
    """A frame on a smaller picture. ``clipped`` and ``dark`` are parts of each pixel, 0 to 1."""

    light: Floats  # (h, w, 3), the frame's own white at 1.0
    clipped: Floats  # (h, w)
    dark: Floats  # (h, w)


def reduced(frame: Frame, size: tuple[int, int], clip: float, dark: float) -> Reduced:
    """Bring a frame to ``size`` (height, width), no larger than its own.

    Light is averaged as light: means of codes differ from exposure to exposure, and every edge
    would look like motion. Only of big photographs are the codes of 2 x 2 pixels averaged first,
    as responses are nearly powers, for which the means of two exposures agree; and the two rows
    in the middle stand for the others, as there is no time to look at each. A pixel clips where
    its largest channel reaches the code ``clip`` (in [0, 1]), and is dark where that does not
    exceed ``dark``; floats do neither.
    """
    import cv2

    down, across = frame.size[0] // size[0], frame.size[1] // size[1]  # in two steps: blocks first
    height, width = frame.size[0] // down, frame.size[1] // across
    light = np.empty((height, width, 3), np.float32)
    marks = np.zeros((2, height, width), np.float32)
    ends = clip * (frame.levels - 1), dark * (frame.levels - 1)
    columns = slice(0, width * across)

    def glance(rows: slice) -> None:
        glanced(frame, down, np.s_[rows, 0:width], ends, (light[rows], *marks[:, rows]))

    def work(rows: slice) -> None:
        full = slice(rows.start * down, rows.stop * down)
        to = width, rows.stop - rows.start
        light[rows] = cv2.resize(frame.linear(full, columns), to, interpolation=cv2.INTER_AREA)
        if frame.levels:
            for mark, end in zip(
                marks, ends_of(largest(frame.codes[full, columns]), *ends), strict=True
            ):
                if end is not None:
                    cell = cv2.resize(end, to, interpolation=cv2.INTER_AREA)
                    mark[rows] = cell * np.float32(1 / 255)

    quick = glanced_at(frame, size) is not None
    run(glance if quick else work, (height, width), pixels=8 * BLOCK_PIXELS // (down * across))
    if (height, width) != size:
        to = size[::-1]
        light = np.asarray(cv2.resize(light, to, interpolation=cv2.INTER_AREA))
        marks = np.stack([cv2.resize(mark, to, interpolation=cv2.INTER_AREA) for mark in marks])
    return Reduced(light, marks[0], marks[1])


def glanced(
    frame: Frame,
    side: int,
    box: tuple[slice, slice],
    ends: tuple[float, float],
    out: tuple[Floats, Floats, Floats],
) -> None:
    """A part of what ``reduced`` makes of blocks of ``side`` pixels, in a glance.

    ``box`` are its rows and columns. ``ends`` are codes; ``out`` are its light, and the parts of
    each pixel that clip or are dark.
    """
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    kernels.glance(
        np.ascontiguousarray(frame.codes[rows.start * side : rows.stop * side]),
        np.ascontiguousarray(frame.table.T),
        *whole(*ends),
        side,
        np.empty(3 * width * side, np.uint8),
        np.empty(3 * width * side, np.uint16),
        np.empty(3 * width * side, np.uint16),
        *out,
        height,
        width,
        3 * columns.start * side,
        3 * frame.size[1],
    )


def whole(clip: float, dark: float) -> tuple[int, int]:
    """The codes that are at least ``clip``, and at most ``dark``: the ends of both ranges."""
    return math.ceil(round(clip, 6)), math.floor(round(dark, 6))


def glanced_at(frame: Frame, size: tuple[int, int]) -> int | None:
    """The side of the blocks of pixels of which two rows are looked at; None where all are."""
    down, across = frame.size[0] // size[0], frame.size[1] // size[1]
    quick = frame.levels == 256 and down == across and down >= 4 and down % 2 == 0
    return down if quick else None


@dataclass(frozen=True, eq=False)
class Glimpsed:
    """A frame on a picture half as large as that which ``reduced`` makes."""

    light: Floats  # (h, w, 3), the frame's own white at 1.0
    clipped: NDArray[np.bool_]  # (h, w), one of the four clips
    dark: NDArray[np.bool_]  # (h, w), two of the four are dark


def glimpsed(
    frame: Frame, size: tuple[int, int], ends: tuple[float, float], parts: tuple[float, float]
) -> Glimpsed | None:
    """What ``reduced`` to ``size`` shows, at half of that; None of what is not glanced at.

    ``ends`` are its ``clip`` and ``dark``; from more than these ``parts`` of a pixel on, all of it
    counts as such. An odd last row or column is left out.
    """
    side = glanced_at(frame, size)
    if side is None or (frame.size[0] // side, frame.size[1] // side) != size:
        return None
    height, width, length = size[0] // 2, size[1] // 2, 3 * frame.size[1]
    light = np.empty((height, width, 3), np.float32)
    marks = np.empty((2, height, width), np.bool_)
    shares = np.floor(np.arange(side + 1) * np.float32(255 / side) + 0.5) / 255
    kernels.glimpse(
        np.ascontiguousarray(frame.codes),
        np.ascontiguousarray(frame.table.T),
        *whole(*(end * (frame.levels - 1) for end in ends)),
        np.array([(shares <= part).sum() for part in parts]),
        side,
        np.empty(length, np.uint8),
        np.empty(length, np.uint16),
        np.empty(length, np.uint16),
        light,
        marks[0].view(np.uint8),
        marks[1].view(np.uint8),
        height,
        width,
        length,
    )
    return Glimpsed(light, *marks)


def ends_of(top: Codes, clip: float, dark: float) -> tuple[NDArray[np.uint8] | None, ...]:
    """255 where the largest channel clips, and where it is dark; None for nowhere."""
    clipped = (top >= clip).view(np.uint8) * np.uint8(255) if top.max() >= clip else None
    black = (top <= dark).view(np.uint8) * np.uint8(255) if top.min() <= dark else None
    return clipped, black


def largest(codes: Codes) -> NDArray[Any]:
    """The largest channel of each pixel, (h, w)."""
    import cv2

    red, green, blue = cv2.split(codes)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the pixels of the reference lie in one frame.

    ``flow`` is (h, w, 2) float32 on the reduced picture, in its pixels, and comes before the
    frame's homography; ``scale`` is reduced over full size along x and y.
    """

    frame: Frame
    flow: Floats | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def codes(self, rows: slice) -> tuple[Codes, NDArray[np.bool_] | None]:
        """Codes of the frame at the reference's pixels, and where there are none (or None)."""
        moving, width = self.moving(rows), self.frame.size[1]
        if moving is not None and moving.stop - moving.start > MOSTLY * width:
            return self._flowed(rows, slice(0, width))
        own = _own_block if self.frame.warp is None else _warp_block
        codes, valid = own(self.frame, rows)
        return (codes, valid) if moving is None else self._moved(rows, moving, codes, valid)

    def over(self, rows: slice) -> "Placement | Strip":
        """The same for these rows alone, resampled at once where it has to be."""
        if self.flow is None and self.frame.warp is None:
            return self
        return Strip(self.frame, rows.start, *self.codes(rows))

    def _moved(
        self, rows: slice, moving: slice, still: Codes, known: NDArray[np.bool_] | None
    ) -> tuple[Codes, NDArray[np.bool_] | None]:
        """What lies still, but for these columns, which flow."""
        part, inside = self._flowed(rows, moving)
        codes = still.copy()
        codes[:, moving] = part
        if inside is None and known is None:
            return codes, None
        valid = np.ones(codes.shape[:2], bool) if known is None else known.copy()
        valid[:, moving] = True if inside is None else inside
        return codes, valid

    def moving(self, rows: slice) -> slice | None:
        """The columns that hold all flow of these rows; None without any."""
        if self.flow is None:
            return None
        first, last = small_rows(self._flowing, self.scale, rows).T
        left, right = int(first.min()), int(last.max())
        if right < 0:
            return None
        to_full = 1 / self.scale[0]
        return slice(
            max(0, int((left - 1) * to_full) - MARGIN),
            min(self.frame.size[1], int((right + 2) * to_full) + MARGIN + 1),
        )

    @cached_property
    def _flowing(self) -> NDArray[np.int64]:
        """(h, 2): the first and last column of each reduced row that flow; w and -1 without any."""
        assert self.flow is not None
        flows = self.flow[..., 0] != 0
        flows |= self.flow[..., 1] != 0
        width, some = flows.shape[1], flows.any(axis=1)
        first = np.where(some, flows.argmax(axis=1), width)
        last = np.where(some, width - 1 - flows[:, ::-1].argmax(axis=1), -1)
        return np.stack([first, last], axis=1)

    def positions(self, rows: slice, cols: slice | None = None) -> tuple[Floats, Floats]:
        """Position in the frame, x and y in its pixels, of every pixel of these rows."""
        cols = cols or slice(0, self.frame.size[1])
        return self._moved_by(self._further(rows, cols), rows, cols)

    def _moved_by(self, shift: Floats | None, rows: slice, cols: slice) -> tuple[Floats, Floats]:
        x, y = _through(self.frame.warp, rows, cols)
        if shift is not None:
            x += shift[..., 0]
            y += shift[..., 1]
        return x, y

    def _further(self, rows: slice, cols: slice) -> Floats | None:
        """What flow does to the positions of these pixels, (h, w, 2), if there is any."""
        return None if self.flow is None else upsample(self._shift, self.scale, rows, cols)

    def _flowed(self, rows: slice, cols: slice) -> tuple[Codes, NDArray[np.bool_] | None]:
        """Codes where the flow leads, and where there are none (or None)."""
        import cv2

        frame, shift = self.frame, self._further(rows, cols)
        if frame.levels and frame.valid is None:
            return _resampled(frame, rows, cols, shift)
        x, y = self._moved_by(shift, rows, cols)
        source = _Source.between(frame, y)
        from_top = y - np.float32(source.top)

        def remapped(picture: NDArray[Any], how: int) -> NDArray[Any]:
            border = cv2.BORDER_REPLICATE
            return np.asarray(cv2.remap(picture, x, from_top, how, borderMode=border))

        if frame.levels:
            codes, _ = _resampled(frame, rows, cols, shift)
        else:
            codes = remapped(source.codes, cv2.INTER_CUBIC)
        valid = _within(x, y, frame.size)
        if source.valid is not None:
            valid &= remapped(source.valid, cv2.INTER_NEAREST).astype(bool)
        return codes, None if valid.all() else valid

    @cached_property
    def _shift(self) -> Floats:
        """(h, w, 2): what flow does to the position in the frame, in its own pixels.

        Through the homography it is the difference of two positions, which is as smooth as the
        flow, so that it is worked out on the reduced picture.
        """
        assert self.flow is not None
        (sx, sy), (height, width) = self.scale, self.flow.shape[:2]
        shift = self.flow * np.array([1 / sx, 1 / sy], np.float32)
        if self.frame.warp is None:
            return shift
        x = ((np.arange(width) + 0.5) / sx - 0.5)[None]
        y = ((np.arange(height) + 0.5) / sy - 0.5)[:, None]
        still = applied(self.frame.warp, x, y)
        moved = applied(self.frame.warp, x + shift[..., 0], y + shift[..., 1])
        shift[..., 0] = moved[0] - still[0]
        shift[..., 1] = moved[1] - still[1]
        return shift


@dataclass(frozen=True, eq=False)
class Strip:
    """Codes of a frame at some rows of the reference, the first of them ``start``."""

    frame: Frame
    start: int
    all_codes: Codes
    valid: NDArray[np.bool_] | None

    def codes(self, rows: slice) -> tuple[Codes, NDArray[np.bool_] | None]:
        """Those of a part of the rows, as ``Placement.codes`` has them."""
        part = slice(rows.start - self.start, rows.stop - self.start)
        return self.all_codes[part], None if self.valid is None else self.valid[part]


def _through(warp: NDArray[np.float64] | None, rows: slice, cols: slice) -> tuple[Floats, Floats]:
    """Where a homography puts these pixels: x and y, (rows, columns) each, to be changed freely."""
    x = np.arange(cols.start, cols.stop, dtype=np.float64)[None]
    y = np.arange(rows.start, rows.stop, dtype=np.float64)[:, None]
    if warp is None:
        shape = y.shape[0], x.shape[1]
        u, v = np.empty(shape, np.float32), np.empty(shape, np.float32)
        u[:], v[:] = x, y
        return u, v
    return applied(warp, x, y)


def applied(warp: NDArray[np.float64], x: NDArray[Any], y: NDArray[Any]) -> tuple[Floats, Floats]:
    """x and y through a homography, of any shapes that broadcast, as float32."""

    def line(row: NDArray[np.float64]) -> Floats:
        along, across = np.asarray(row[0] * x), np.asarray(row[1] * y + row[2])
        return np.add(along.astype(np.float32), across.astype(np.float32))

    u, v = line(warp[0]), line(warp[1])
    if warp[2, 0] == 0 == warp[2, 1]:
        return u / np.float32(warp[2, 2]), v / np.float32(warp[2, 2])
    z = line(warp[2])
    return np.divide(u, z, out=u), np.divide(v, z, out=v)


def upsample(small: Floats, scale: tuple[float, float], rows: slice, cols: slice | int) -> Floats:
    """Bring a part of a map on the reduced picture to full size, bilinearly.

    ``cols`` are full-size columns like ``rows``, or the full width.
    """
    cols = slice(0, cols) if isinstance(cols, int) else cols
    if scale == (1.0, 1.0):
        return small[rows, cols]
    height, width = small.shape[:2]
    size = rows.stop - rows.start, cols.stop - cols.start
    out = np.empty((*size, *small.shape[2:]), np.float32)
    depth = out[0, 0].size
    above, down = _cells(rows.start, rows.stop, scale[1], height, 1)
    below = np.minimum(above + 1, height - 1)
    first, last = int(above.min()), int(below.max())
    kernels.upsample(
        np.ascontiguousarray(small[first : last + 1]),  # a part of a map need not be contiguous
        above - first,
        below - first,
        down,
        *_cells(cols.start, cols.stop, scale[0], width, depth),
        np.empty((width + 1) * depth, np.float32),
        out,
        width * depth,
        depth,
        size[0],
        size[1] * depth,
    )
    return out


@lru_cache(maxsize=256)
def _cells(
    start: int, stop: int, scale: float, count: int, depth: int
) -> tuple[NDArray[np.int64], Floats]:
    """Between which of ``count`` cells full-size pixels lie: the one before, and how far beyond.

    Both once for each of ``depth`` numbers of a pixel; their cells come ``depth`` apart.
    """
    at = np.clip((np.arange(start, stop) + 0.5) * scale - 0.5, 0, count - 1)
    whole = at.astype(np.int64)
    numbers = whole[:, None] * depth + np.arange(depth)
    return numbers.reshape(-1), np.repeat((at - whole).astype(np.float32), depth)


def small_rows(small: NDArray[Any], scale: tuple[float, float], rows: slice) -> NDArray[Any]:
    """The rows of a reduced map that these full-size rows depend on."""
    top = int((rows.start + 0.5) * scale[1] - 0.5)
    bottom = int((rows.stop - 0.5) * scale[1] - 0.5) + 2
    return small[max(top, 0) : max(bottom, 1)]


def _own_block(frame: Frame, rows: slice) -> tuple[Codes, NDArray[np.bool_] | None]:
    return frame.codes[rows], None if frame.valid is None else frame.valid[rows]


def _warp_block(frame: Frame, rows: slice) -> tuple[Codes, NDArray[np.bool_] | None]:
    import cv2

    assert frame.warp is not None
    width, height = frame.size[1], rows.stop - rows.start
    down = np.array([[1, 0, 0], [0, 1, rows.start], [0, 0, 1]], np.float64)
    matrix = frame.warp @ down
    edge = [np.array([[0, width - 1.0]]), np.array([[0], [height - 1.0]])]  # of lines, lines
    source = _Source.between(frame, applied(matrix, *edge)[1])
    up = np.array([[1, 0, 0], [0, 1, -source.top], [0, 0, 1]], np.float64)

    def warped(picture: NDArray[Any], how: int) -> NDArray[Any]:
        flags = how | cv2.WARP_INVERSE_MAP
        size, border = (width, height), cv2.BORDER_REPLICATE
        return np.asarray(
            cv2.warpPerspective(picture, up @ matrix, size, flags=flags, borderMode=border)
        )

    if frame.levels:
        codes, _ = _resampled(frame, rows, slice(0, width))
    else:
        codes = warped(source.codes, cv2.INTER_CUBIC)
    valid = inside(matrix, frame.size, (height, width))
    if source.valid is not None:
        known = warped(source.valid, cv2.INTER_NEAREST).astype(bool)
        valid = known if valid is None else known & valid
    return codes, valid


def _resampled(
    frame: Frame, rows: slice, cols: slice, shift: Floats | None = None
) -> tuple[Codes, NDArray[np.bool_] | None]:
    """Codes of an integer frame at these rows and columns of the reference, (h, w, 3).

    Where its warp puts them, and ``shift`` (h, w, 2) further; bicubic, the border goes on outside.
    The second says where that is within EDGE of the frame; None: everywhere.
    """
    size = rows.stop - rows.start, cols.stop - cols.start
    out, inside = np.empty((*size, 3), frame.codes.dtype), np.empty(size, np.bool_)
    kernels.resample(
        np.ascontiguousarray(frame.codes),
        np.float32(frame.levels - 1),
        np.eye(3) if frame.warp is None else np.ascontiguousarray(frame.warp, np.float64),
        np.zeros(1, np.float32) if shift is None else np.ascontiguousarray(shift, np.float32),
        0 if shift is None else 1,
        np.empty((2, size[1]), np.int64),
        np.empty((8, size[1]), np.float32),
        out,
        inside.view(np.uint8),
        np.float32(EDGE),
        *frame.size,
        rows.start,
        cols.start,
        *size,
    )
    return out, None if inside.all() else inside


@dataclass(frozen=True, eq=False)
class _Source:
    """The rows of a frame that are read for a block."""

    codes: Codes
    valid: NDArray[np.uint8] | None
    top: int

    @classmethod
    def between(cls, frame: Frame, y: Floats) -> "_Source":
        """Those around all positions ``y``."""
        height = frame.size[0]
        lowest, highest = (float(np.clip(end, -9, height + 9)) for end in (y.min(), y.max()))
        top, bottom = max(0, int(lowest) - MARGIN), min(height, int(highest) + MARGIN + 2)
        if bottom - top < 1:  # all of it lies outside
            top, bottom = (0, 1) if highest < 0 else (height - 1, height)
        valid = None if frame.valid is None else frame.valid[top:bottom].astype(np.uint8)
        return cls(frame.codes[top:bottom], valid, top)


def inside(
    matrix: NDArray[np.float64], size: tuple[int, int], block: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Where a homography stays inside the frame, within EDGE; None where it always does.

    A frame that lies a fraction of a pixel off would else leave the outermost row to the
    reference alone, and its noise there would be seen as a line.
    """
    rows, cols = block
    height, width = size
    corners = np.array([[0, 0, 1], [cols - 1, 0, 1], [0, rows - 1, 1], [cols - 1, rows - 1, 1]]).T
    at = matrix @ corners
    seen = at[2] > 0
    at = at[:2] / np.where(seen, at[2], 1)
    seen &= (at >= 0).all(axis=0) & (at[0] <= width - 1) & (at[1] <= height - 1)
    if seen.all():
        return None
    # Half planes where z > 0: u >= -EDGE is u z + EDGE z >= 0, which is linear in x and y.
    last = width - 1 + EDGE, height - 1 + EDGE
    ends = np.array([[0, 0, 1], [1, 0, EDGE], [0, 1, EDGE], [-1, 0, last[0]], [0, -1, last[1]]])
    left, right = np.zeros(rows), np.full(rows, cols - 1.0)
    for a, b, c in ends @ matrix:
        other = b * np.arange(rows) + c
        if abs(a) * cols < 1e-9:
            right[other < 0] = -1
        elif a > 0:
            left = np.maximum(left, np.ceil(-other / a))
        else:
            right = np.minimum(right, np.floor(-other / a))
    x = np.arange(cols, dtype=np.float32)[None]
    return (x >= left[:, None].astype(np.float32)) & (x <= right[:, None].astype(np.float32))


def _within(x: Floats, y: Floats, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = frame_size
    last = width - 1 + EDGE, height - 1 + EDGE
    return np.asarray((x >= -EDGE) & (y >= -EDGE) & (x <= last[0]) & (y <= last[1]))
