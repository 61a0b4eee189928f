"""The pictures that motion is looked for on: each frame reduced, in the reference's geometry.

They are made when somebody asks for them, at two sizes: of a big photograph half of the reduced
picture often says enough.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.frames import Bracket, Frame
from hdrcli.once import once
from hdrcli.stakes import Stakes, ends_of

Floats = NDArray[np.float32]

MAX_PIXELS = 1_600_000  # of the pictures that motion is estimated on
MOST_PIXELS = 5 * MAX_PIXELS  # of all of them, where the photographs are big
AHEAD = 3  # frames that are looked at before they are compared
WASHED = 7 / 255  # cameras that make white what nearly clips do so from so far below on
BESIDE = 0.3  # of the white they make of a colour: what a channel beside the largest is at least
QUANTUM = 4 / 12 / 255**2  # variance of eight-bit codes over light, for a gamma near two
LEAST_QUANTISED = 0.002  # light: a gamma curve is straight, or nearly, at its dark end
DARK = 5 / 255  # codes up to here are an upper bound: black is crushed, and the curve is unsure
PART_CLIPPED, PART_DARK = 0.02, 0.5  # of a reduced pixel from which all of it counts as such
DARK_BOUND = 8 / 255  # the code whose light that bound is
Box = tuple[slice, slice]


@dataclass(frozen=True)
class Noise:
    """Poisson-Gaussian noise of a frame, in linear light with the frame's own white at 1.0.

    variance = shot * light + read (Foi et al., "Practical Poissonian-Gaussian noise modeling
    and fitting for single-image raw-data", 2008).
    """

    shot: float = 2e-4
    read: float = 1e-6


@dataclass(frozen=True, eq=False)
class View:
    """One frame on the reduced picture, in the reference's geometry."""

    light: NDArray[Any]  # (h, w, 3) float32, float16 once kept; the frame's own white at 1.0
    clipped: NDArray[np.bool_]  # (h, w), some channel is only a lower bound
    dark: NDArray[np.bool_]  # (h, w), all channels are only upper bounds
    valid: NDArray[np.bool_]  # (h, w)
    ratio: float  # exposure over the reference's
    floor: float  # light that dark pixels do not exceed
    least: float = 1.0  # of a clipped colour: what a channel beside the largest is at least

    @property
    def radiance(self) -> Floats:
        """(h, w, 3), the reference's white at 1.0."""
        return self.light if self.ratio == 1 else self.light * np.float32(1 / self.ratio)

    def variance(self, noise: Noise) -> Floats:
        """Variance of the radiance, (h, w, 3)."""
        import cv2

        smooth = cv2.GaussianBlur(self.light, (0, 0), 1.0)
        per = 1 / self.ratio**2
        own = noise.shot * per, noise.read * per, QUANTUM * per
        return sensor_variance(smooth, own, LEAST_QUANTISED)

    def part(self, box: Box) -> "View":
        """The view inside a box."""
        return replace(
            self,
            light=self.light[box],
            clipped=self.clipped[box],
            dark=self.dark[box],
            valid=self.valid[box],
        )

    def with_part(self, part: "View", box: Box) -> "View":
        """The view with what is inside a box replaced."""
        return replace(
            self,
            light=pasted(self.light, part.light, box),
            clipped=pasted(self.clipped, part.clipped, box),
            dark=pasted(self.dark, part.dark, box),
            valid=pasted(self.valid, part.valid, box),
        )

    def kept(self) -> "View":
        """The same with its light in half floats, to save memory."""
        return replace(self, light=self.light.astype(np.float16))

    def halved(self) -> "View":
        """The view on a picture of half the size; an odd last row or column is left out."""
        import cv2

        height, width = (side // 2 for side in self.clipped.shape)
        even = np.s_[: 2 * height, : 2 * width]

        def shrunk(plane: NDArray[Any]) -> NDArray[Any]:
            small = cv2.resize(plane[even], (width, height), interpolation=cv2.INTER_AREA)
            return np.asarray(small)

        clipped, dark, valid = (
            shrunk(mark.view(np.uint8) * np.uint8(255))
            for mark in (self.clipped, self.dark, self.valid)
        )
        return replace(
            self, light=shrunk(self.light), clipped=clipped > 0, dark=dark > 127, valid=valid == 255
        )


def sensor_variance(light: Floats, noise: tuple[float, float, float], least: float) -> Floats:
    """Shot, read and quantisation noise at some light, the last at ``least`` of it or more."""
    import cv2

    shot, read, quantum = noise
    flat = np.ascontiguousarray(light).reshape(len(light), -1)
    floored = cv2.max(flat, least)
    variance = cv2.addWeighted(flat, shot, floored, quantum, read, dst=floored)
    return np.asarray(variance, np.float32).reshape(light.shape)


def pasted(whole: NDArray[Any], part: NDArray[Any], box: Box) -> NDArray[Any]:
    """A copy of a map with a part of it replaced."""
    new = whole.copy()
    new[box] = part
    return new


class Sight:
    """One frame on the reduced picture, and on one of half the size; each made when asked for."""

    def __init__(self, frame: Frame, ratio: float, size: tuple[int, int]) -> None:
        self.frame, self.ratio, self.size = frame, ratio, size

    @property
    def whole(self) -> bool:
        """Whether the frame says something of every pixel, and lies on the reference as it is."""
        return self.frame.valid is None and self.frame.warp is None

    @once
    def full(self) -> View:
        """The frame on the reduced picture."""
        return look(self.frame, self.ratio, self.size)

    @once
    def small(self) -> View:
        """The same at half the size."""
        looked = "full" in self.__dict__
        return (None if looked or not self.whole else self._glimpse()) or self.full.halved()

    def _glimpse(self) -> View | None:
        ends, parts = (clip_of(self.frame), DARK), (PART_CLIPPED, PART_DARK)
        seen = strips.glimpsed(self.frame, self.size, ends, parts)
        if seen is None:
            return None
        valid = np.ones(seen.clipped.shape, np.bool_)
        return View(seen.light, seen.clipped, seen.dark, valid, *self._rest)

    def part(self, box: Box) -> View:
        """A part of ``full``, which is not made for it where that can be helped."""
        side = None if "full" in self.__dict__ or not self.whole else self._side()
        if side is None:
            return self.full.part(box)
        rows, columns = (
            slice(part.start, min(part.stop, end)) for part, end in zip(box, self.size, strict=True)
        )
        shape, top = (rows.stop - rows.start, columns.stop - columns.start), self.frame.levels - 1
        light = np.empty((*shape, 3), np.float32)
        clipped, dark = (np.empty(shape, np.float32) for _ in range(2))
        ends, out = (clip_of(self.frame) * top, DARK * top), (light, clipped, dark)
        strips.glanced(self.frame, side, (rows, columns), ends, out)
        valid = np.ones(shape, np.bool_)
        return View(light, clipped > PART_CLIPPED, dark > PART_DARK, valid, *self._rest)

    @once
    def _rest(self) -> tuple[float, float, float]:
        """What is one number of a view."""
        return self.ratio, floor_of(self.frame), least_beside(self.frame)

    def _side(self) -> int | None:
        """Of the blocks of pixels that the reduced picture is made of; None if it is not."""
        side = strips.glanced_at(self.frame, self.size)
        exact = side and (self.frame.size[0] // side, self.frame.size[1] // side) == self.size
        return side if exact else None

    def look(self, *, quick: bool) -> None:
        """Make what is asked for first."""
        _ = self.small if quick else self.full

    def moved_to(self, view: View) -> "Sight":
        """The same frame as a flow brings it to the reference."""
        moved = Sight(self.frame, self.ratio, self.size)
        moved.__dict__["full"] = view
        return moved


class Coming:
    """The frames in their order; another thread looks at a few of them ahead."""

    def __init__(self, sights: Iterator[Sight], pool: ThreadPoolExecutor, *, quick: bool) -> None:
        self.quick = quick  # what is looked at is half as large
        self.sights, self.pool = sights, pool
        self.waiting: deque[tuple[Sight, Future[None]]] = deque()
        for _ in range(AHEAD):
            self._look_at_one_more()

    def _look_at_one_more(self) -> None:
        sight = next(self.sights, None)
        if sight is not None:
            self.waiting.append((sight, self.pool.submit(sight.look, quick=self.quick)))

    def __iter__(self) -> Iterator[Sight]:
        while self.waiting:
            sight, looked = self.waiting.popleft()
            self._look_at_one_more()
            looked.result()
            yield sight


class Account:
    """What is asked of all frames once one of them has moved; until then it is not made."""

    def __init__(self, bracket: Bracket, reference: Sight, noise: Noise, *, views: bool) -> None:
        self.bracket = bracket
        self.stakes = Stakes(reference.size, (noise.shot, noise.read))
        self.views = [reference.full] * len(bracket.frames) if views else []
        self.waiting: list[tuple[int, Sight, Sight, Floats | None]] = []
        self.waiting.append((bracket.reference, reference, reference, None))
        self.needed = False  # a frame moved, or is not believed somewhere

    def add(
        self, i: int, still: Sight, moved: Sight, belief: Floats | None, *, differs: bool
    ) -> None:
        """Frame i as it lies, as flow brings it to the reference, and belief in that."""
        self.waiting.append((i, still, moved, belief))
        self.needed |= differs
        if self.needed:
            self._look_back()

    def _look_back(self) -> None:
        for i, still, moved, belief in self.waiting:
            ends, shortest = ends_of(self.bracket.frames[i]), i == 0
            self.stakes.add(still.full, moved.full, belief, ends, shortest=shortest)
            self._keep(i, moved)
        self.waiting.clear()

    def _keep(self, i: int, moved: Sight) -> None:
        if self.views and i != self.bracket.reference:
            self.views[i] = moved.full.kept()

    def kept(self, *, quick: bool) -> tuple[View, ...]:
        """The views, where they are wanted; none after a quick look that found nothing."""
        if quick and not self.needed:
            return ()
        for i, _, moved, _ in self.waiting:
            self._keep(i, moved)
        return tuple(self.views)

    def moved(self) -> float:
        """The fraction of the picture where it matters what is believed."""
        return float(self.stakes.moved().mean()) if self.needed else 0.0


def look(frame: Frame, ratio: float, size: tuple[int, int]) -> View:
    """Reduce a frame to ``size`` (height, width) in the reference's geometry."""
    import cv2

    height, width = size
    small = strips.reduced(frame, size, clip_of(frame), DARK)
    planes = [small.light, small.clipped, small.dark]
    valid = np.ones(size, np.uint8)
    if frame.valid is not None:
        valid = cv2.resize(
            frame.valid.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
    if frame.warp is not None:
        matrix = reduced_warp(frame.warp, scale_of(frame.size, size))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        planes = [
            cv2.warpPerspective(
                plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            for plane in planes
        ]
        valid = cv2.warpPerspective(
            valid,
            matrix,
            (width, height),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = strips.inside(matrix, size, size)
        valid = valid if inside is None else valid * inside
    light, clipped, dark = planes
    return View(
        light,
        clipped > PART_CLIPPED,
        dark > PART_DARK,
        valid.astype(bool),
        ratio,
        floor_of(frame),
        least_beside(frame),
    )


def clip_of(frame: Frame) -> float:
    """The part of the code range from which on a frame's codes are a lower bound."""
    return frame.clip - WASHED * frame.washed


def least_beside(frame: Frame) -> float:
    """What part of a colour that clips another channel is at least, beside one as bright as that.

    All of it, where frames clip after their channels are mixed; cameras clip before that.
    """
    return BESIDE if frame.washed else 1.0


def floor_of(frame: Frame) -> float:
    """The light that dark pixels of a frame do not exceed, its own white at 1.0."""
    return frame.response.at(DARK_BOUND) if frame.levels else 0.0


def reduced_warp(warp: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
    """The same homography between the reduced pictures; pixel centres are at integers."""
    sx, sy = scale
    shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
    return np.asarray(shrink @ warp @ np.linalg.inv(shrink))


def reduced_size(
    size: tuple[int, int], frames: int = 1
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Height and width of the reduced picture, and its scale along x and y.

    Big photographs are divided by a whole number, which is quick and exact; more so where there
    are many of them.
    """
    height, width = size
    shrink = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    if shrink <= 0.5:
        most = min(MAX_PIXELS, MOST_PIXELS // frames)
        factor = int(np.ceil((height * width / most) ** 0.5))
        small = max(1, height // factor), max(1, width // factor)
    else:
        small = max(1, round(height * shrink)), max(1, round(width * shrink))
    return small, scale_of(size, small)


def scale_of(size: tuple[int, int], small: tuple[int, int]) -> tuple[float, float]:
    """Reduced over full size along x and y. Whole blocks of pixels are averaged first."""
    down, across = size[0] // small[0], size[1] // small[1]
    return small[1] / (size[1] // across * across), small[0] / (size[0] // down * down)


def light_of(codes: NDArray[np.generic], frame: Frame) -> Floats:
    """Linear light of codes of this frame, its own white at 1.0."""
    import cv2

    if codes.dtype == np.uint8:
        return np.asarray(cv2.LUT(codes, frame.table[None]))
    if codes.dtype == np.uint16:
        return np.stack(
            [np.take(frame.table[:, c], np.asarray(codes[..., c], np.uint16)) for c in range(3)],
            axis=-1,
        )
    return np.nan_to_num(np.asarray(codes, np.float32), nan=0, posinf=0, neginf=0)
