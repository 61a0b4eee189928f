"""What moved: dense flow to the reference, and how far each frame can be believed.

The frames are compared with a *guide*, which starts as the reference. The comparison is
one-sided where a code clips: a clipped code says "at least this", and contradicts nothing that
is brighter. The tolerance grows with the noise that the amplification of the darker of the two
brings, with the light itself (the response is never known exactly), and with the gradient (a
fifth of a pixel of misregistration is not motion).

The frames are taken outward from the reference, first the darker ones, then the brighter. What
a darker frame says extends the guide where it clipped so far, so that the next one has
something to agree with.

All this happens on a picture of at most ``MAX_PIXELS``; strips.py brings the maps to full size.
Of a big photograph a quick look at half of that size tells first whether, and where, there is
anything to compare.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion_kernels, strips
from hdrcli.frames import Bracket, Frame
from hdrcli.once import once
from hdrcli.stakes import Stakes, ends_of

Floats = NDArray[np.float32]

MAX_PIXELS = 1_600_000  # of the pictures that motion is estimated on
MOST_PIXELS = 5 * MAX_PIXELS  # of all of them, where the photographs are big
SMALL_BOX = 1 / 16  # of the picture, which can be looked at by itself
BLURRED = 8  # px around a box that what is known of it depends on
AHEAD = 3  # frames that are looked at before they are compared
MARGIN = 32  # px of the reduced picture around what a quick look finds
CLIP = 250 / 255  # JPEG pushes clipped codes a little down: from here on a code is a lower bound
QUANTUM = 4 / 12 / 255**2  # variance of eight-bit codes over light, for a gamma near two
LEAST_QUANTISED = 0.002  # light: a gamma curve is straight, or nearly, at its dark end
MISREGISTRATION = 0.2  # px of the reduced picture that are not motion
SCALES = (0.6, 1.6)  # px, Gaussians over which differences are averaged before they are judged
BLURS = motion_kernels.blurs(1.0, *SCALES)
FEW_PIXELS, BAND_ROWS = 1 << 18, 128  # more than so many are compared in bands, side by side
STOPS, LOWEST_STOP = motion_kernels.STOPS, motion_kernels.LOWEST_STOP
DARK = 5 / 255  # codes up to here are an upper bound: black is crushed, and the curve is unsure
PART_CLIPPED, PART_DARK = 0.02, 0.5  # of a reduced pixel from which all of it counts as such
DARK_BOUND = 8 / 255  # the code whose light that bound is
TOLERATED_EV = 0.05  # photometric mismatch that the tolerances cover, and chance can show
SPREAD_EV = 0.3  # spread of the mismatch at one brightness from which it is rather motion
DISBELIEF = 2e-3  # of the picture that an expected flow does not fit, from which another is sought
MISMATCH_EV = 0.7  # the largest photometric mismatch that is taken for an error of the exposures
FEWEST = 60  # pixels in a step of brightness that say something of the mismatch
NOISE_BLOCK = 8  # px, side of the blocks that noise is measured in
NOISE_STEPS = tuple(0.0025 * 2**k for k in range(8))  # light, lower ends of steps of brightness
QUIETEST = 1.35  # the mean over the tenth quantile of an 8 x 8 block's variance, for white noise
MOST_SHOT = 3e-3  # of the noise that is believed: ISO 25600
GAMMA = 1 / 2.2  # of the pictures that flow is computed on
Box = tuple[slice, slice]
EVERYWHERE: Box = np.s_[:, :]
NOWHERE: Box = np.s_[:0, :0]
EVERY = slice(None)


@dataclass(frozen=True)
class Noise:
    """Poisson-Gaussian noise of a frame, in linear light with the frame's own white at 1.0.

    variance = shot * light + read (Foi et al., "Practical Poissonian-Gaussian noise modeling
    and fitting for single-image raw-data", 2008).
    """

    shot: float = 2e-4
    read: float = 1e-6


@dataclass(frozen=True)
class Strength:
    """How easily a difference counts as motion; one row of the --deghost table."""

    relative: float  # tolerated difference, as a fraction of the light
    floor: float  # tolerated difference, as a fraction of the reference's white
    start: float  # tolerances at which belief begins to fall
    end: float  # tolerances at which it has gone
    grow: int  # px by which a disbelieved region is grown, on the reduced picture
    sigmas: float = 3.0  # standard deviations of noise within one tolerance


STRENGTHS: dict[str, Strength | None] = {
    "none": None,
    "low": Strength(relative=0.16, floor=0.008, start=2.0, end=4.0, grow=1),
    "medium": Strength(relative=0.08, floor=0.004, start=1.3, end=2.8, grow=2),
    "high": Strength(relative=0.05, floor=0.002, start=1.0, end=2.0, grow=4, sigmas=4.0),
}


@dataclass(frozen=True, eq=False)
class Motion:
    """Maps on the reduced picture, one entry per frame of the bracket; None means 'none needed'.

    ``flows``: (h, w, 2) float32, pixels of the reduced picture, x then y: where the reference's
    pixel lies in the frame, before the frame's homography. ``confidence``: (h, w) float32 in
    [0, 1]. ``disagreement``: (h, w) float16, the difference left, in tolerances. ``scale`` is
    reduced over full size, along x and y.
    """

    flows: tuple[Floats | None, ...]
    confidence: tuple[Floats | None, ...]
    noise: tuple[Noise, ...]
    disagreement: tuple[NDArray[np.float16] | None, ...] = ()
    scale: tuple[float, float] = (1.0, 1.0)
    views: tuple["View", ...] = ()  # what was compared, after flow, where asked for and looked at
    moved: float = 0.0  # fraction of the picture where it matters what is believed: stakes.py

    @classmethod
    def none(cls, frames: int, noise: Noise | None = None) -> "Motion":
        """No flow, and full belief in everything."""
        nothing = (None,) * frames
        return cls(nothing, nothing, (noise or Noise(),) * frames, nothing)


@dataclass(frozen=True, eq=False)
class View:
    """One frame on the reduced picture, in the reference's geometry."""

    light: NDArray[Any]  # (h, w, 3) float32, float16 once kept; the frame's own white at 1.0
    clipped: NDArray[np.bool_]  # (h, w), some channel is only a lower bound
    dark: NDArray[np.bool_]  # (h, w), all channels are only upper bounds
    valid: NDArray[np.bool_]  # (h, w)
    ratio: float  # exposure over the reference's
    floor: float  # light that dark pixels do not exceed

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


@dataclass(frozen=True, eq=False)
class Guide:
    """What is known of the light so far, the reference's white at 1.0."""

    radiance: Floats  # (h, w, 3)
    variance: Floats  # (h, w, 3)
    clipped: NDArray[np.bool_]  # (h, w), the radiance is a lower bound
    dark: NDArray[np.bool_]  # (h, w), the radiance is at most ``floor``
    floor: float

    @classmethod
    def of(cls, view: View, noise: Noise) -> "Guide":
        """The reference alone."""
        return cls(view.radiance, view.variance(noise), view.clipped, view.dark, view.floor)

    def extended(self, view: View, belief: Floats | None, noise: Noise) -> "Guide":
        """The guide with a frame's light where it clipped, or was too dark, so far."""
        if view.ratio < 1:
            where = self.clipped & view.valid
            known = replace(self, clipped=self.clipped & (view.clipped | ~view.valid))
        else:
            where = self.dark & view.valid & ~view.dark
            where &= True if belief is None else belief > 0.5
            known = replace(self, dark=self.dark & ~where)
        if not where.any():
            return known
        per = 1 / view.ratio**2
        own = noise.shot * per, noise.read * per, QUANTUM * per, LEAST_QUANTISED
        height, width = where.shape
        new = replace(known, radiance=self.radiance.copy(), variance=self.variance.copy())
        motion_kernels.extend(
            np.ascontiguousarray(view.light),
            bits(where),
            np.array([1 / view.ratio, *own, view.ratio < 1], np.float32),
            *BLURS,
            *motion_kernels.room(width),
            new.radiance,
            new.variance,
            height,
            3 * width,
        )
        return new

    def part(self, box: Box) -> "Guide":
        """The guide inside a box."""
        return replace(
            self,
            radiance=np.ascontiguousarray(self.radiance[box]),
            variance=np.ascontiguousarray(self.variance[box]),
            clipped=self.clipped[box],
            dark=self.dark[box],
        )


def sensor_variance(light: Floats, noise: tuple[float, float, float], least: float) -> Floats:
    """Shot, read and quantisation noise at some light, the last at ``least`` of it or more."""
    import cv2

    shot, read, quantum = noise
    flat = np.ascontiguousarray(light).reshape(len(light), -1)
    floored = cv2.max(flat, least)
    variance = cv2.addWeighted(flat, shot, floored, quantum, read, dst=floored)
    return np.asarray(variance, np.float32).reshape(light.shape)


def analyse(
    bracket: Bracket,
    strength: str = "medium",
    noise: Noise | None = None,
    *,
    keep_views: bool = False,
    expected: Sequence[Floats | None] | None = None,
) -> Motion:
    """Estimate flow and confidence of every frame against the reference.

    ``expected`` is a flow for every frame, (h, w, 2) on the reduced picture or None, that is known
    already: it is only replaced where it does not fit.
    """
    setting = STRENGTHS[strength]
    count = len(bracket.frames)
    if setting is None:
        return Motion.none(count, noise)
    size, scale = reduced_size(bracket.size, count)
    quick = max(scale) <= 0.5 and min(size) >= MARGIN
    found, order = [NOTHING] * count, list(outward(count, bracket.reference))
    ratios = [float(ratio) for ratio in bracket.ratios]
    with ThreadPoolExecutor(1, thread_name_prefix="look") as pool:
        sights = (Sight(bracket.frames[i], ratios[i], size) for i in order)
        coming = Coming(sights, pool, quick=quick)
        reference = Sight(bracket.ref, 1.0, size)
        model = noise or measured_noise(reference.full)
        known = Known(reference, setting, model, quick=quick)
        account = Account(bracket, reference, model, views=keep_views)
        for i, sight in zip(order, coming, strict=True):
            found[i], moved = known.compare(sight, None if expected is None else expected[i])
            account.add(i, sight, moved, found[i])
            coming.quick = quick and not account.needed
    return Motion(
        flows=tuple(one.flow for one in found),
        confidence=tuple(one.belief for one in found),
        noise=(model,) * count,
        disagreement=tuple(stored(one.judged) for one in found),
        scale=scale,
        views=account.kept(quick=quick),
        moved=account.moved(),
    )


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
        ends, parts = (CLIP, DARK), (PART_CLIPPED, PART_DARK)
        seen = strips.glimpsed(self.frame, self.size, ends, parts)
        if seen is None:
            return None
        valid = np.ones(seen.clipped.shape, np.bool_)
        return View(seen.light, seen.clipped, seen.dark, valid, self.ratio, self.floor)

    def part(self, box: Box) -> View:
        """A part of ``full``, which is not made for it where that can be helped."""
        side = None if "full" in self.__dict__ or not self.whole else self._side()
        if side is None:
            return self.full.part(box)
        rows = slice(box[0].start, min(box[0].stop, self.size[0]))
        shape, top = (rows.stop - rows.start, self.size[1]), self.frame.levels - 1
        light = np.empty((*shape, 3), np.float32)
        clipped, dark = (np.empty(shape, np.float32) for _ in range(2))
        strips.glanced(self.frame, side, rows, (CLIP * top, DARK * top), (light, clipped, dark))
        valid = np.ones(shape, np.bool_)
        marks = clipped > PART_CLIPPED, dark > PART_DARK, valid
        return View(light, *marks, self.ratio, self.floor).part((EVERY, box[1]))

    @once
    def floor(self) -> float:
        """The light that dark pixels do not exceed, the frame's own white at 1.0."""
        return floor_of(self.frame)

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
        self.waiting = [(bracket.reference, reference, reference, NOTHING)]
        self.needed = False  # a frame moved, or is not believed somewhere

    def add(self, i: int, still: Sight, moved: Sight, found: "Compared") -> None:
        """Frame i as it lies, and as flow brings it to the reference."""
        self.waiting.append((i, still, moved, found))
        self.needed |= found is not NOTHING
        if self.needed:
            self._look_back()

    def _look_back(self) -> None:
        for i, still, moved, found in self.waiting:
            ends, shortest = ends_of(self.bracket.frames[i]), i == 0
            self.stakes.add(still.full, moved.full, found.belief, ends, shortest=shortest)
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


@dataclass(frozen=True, eq=False)
class Compared:
    """What comparing one frame with the guide gave; None where nothing moved."""

    flow: Floats | None
    belief: Floats | None
    judged: Floats | None

    def spread(self, box: Box, valid: NDArray[np.bool_], strength: Strength) -> "Compared":
        """What a comparison inside a box says of the whole picture: nothing moved elsewhere."""
        if valid[box].shape == valid.shape or (self is NOTHING and valid.all()):
            return self
        still = np.zeros(valid.shape, np.float32)
        belief = believe(still, valid, strength) if not valid.all() else 1 - still
        flow = None if self.flow is None else np.zeros((*valid.shape, 2), np.float32)
        if self.belief is not None:
            belief[box] = np.minimum(self.belief, belief[box])
        if self.judged is not None:
            still[box] = self.judged
        if flow is not None:
            flow[box] = self.flow
        return Compared(flow, belief, still)


NOTHING = Compared(None, None, None)


class Known:
    """What is known of the light so far; each frame is compared with it, and then adds to it.

    With ``quick`` a frame is first compared at half the size, where noise is low and a map costs
    a quarter. Only where that finds something is the frame compared in full: most photographs
    from a tripod never need the guide at its full size.
    """

    def __init__(self, reference: Sight, strength: Strength, noise: Noise, *, quick: bool) -> None:
        self.strength, self.noise = strength, noise
        self.reference = reference
        self.waiting: list[tuple[Sight, Floats | None]] = []  # what the guide has not taken in yet
        self.full: Guide | None = None
        self.small = Guide.of(reference.small, noise) if quick else None

    def compare(self, sight: Sight, expected: Floats | None = None) -> tuple[Compared, Sight]:
        """Flow and belief of one frame, and the frame as the flow brings it to the guide."""
        if expected is not None:
            found, moved = self._followed(sight, expected)
        elif self.small is None:
            found, moved = self._compared(sight, EVERYWHERE)
        else:
            found, moved = self._quickly(self.small, sight)
            small = moved.small
            belief = None if found.belief is None else resized(found.belief, small.clipped.shape)
            self.small = self.small.extended(small, belief, self.noise)
        self.waiting.append((moved, found.belief))
        return found, moved

    def _quickly(self, guide: Guide, sight: Sight) -> tuple[Compared, Sight]:
        curve = photometric_curve(guide, sight.small)
        box = self._suspicious(guide, sight.small, curve)
        if sight.whole and (box is None or self._harmless(sight, box, curve)):
            return NOTHING, sight
        found, moved = (NOTHING, sight) if box is None else self._compared(sight, box)
        return found.spread(box or NOWHERE, moved.full.valid, self.strength), moved

    def _followed(self, sight: Sight, expected: Floats) -> tuple[Compared, Sight]:
        assert self.small is None, "expected flows are of small pictures, without a quick look"
        guide = self._guide()
        curve = photometric_curve(guide, sight.full)
        found, moved = follow(guide, sight.full, expected, curve, self.strength, self.noise)
        return found, sight.moved_to(moved)

    def _suspicious(self, guide: Guide, view: View, curve: "Curve | None") -> Box | None:
        """Where a frame disagrees at half the size, as a box of the full size; or None."""
        import cv2

        fitted = view if curve is None else curve.applied(view)
        judged = disagreement(guide, fitted, self.strength, self.noise)
        marked = (judged >= np.float32(self.strength.start)).view(np.uint8)
        return around(cv2.erode(marked, np.ones((2, 2), np.uint8)) > 0)  # one pixel alone is noise

    def _harmless(self, sight: Sight, box: Box, curve: "Curve | None") -> bool:
        """Whether nothing disagrees at the full size in a small box, of which alone it is made."""
        (height, width), (rows, cols) = sight.size, box
        area = (rows.stop - rows.start) * (cols.stop - cols.start)
        if self.full is not None or area > SMALL_BOX * height * width:
            return False
        top, left = min(rows.start, BLURRED), min(cols.start, BLURRED)
        around_it = np.s_[
            rows.start - top : rows.stop + BLURRED, cols.start - left : cols.stop + BLURRED
        ]
        guide = Guide.of(self.reference.part(around_it), self.noise)
        for before, belief in self.waiting:
            known = None if belief is None else belief[around_it]
            guide = guide.extended(before.part(around_it), known, self.noise)
        view = sight.part(box)
        here = np.s_[top : top + len(view.light), left : left + view.light.shape[1]]
        fitted = view if curve is None else curve.applied(view)
        judged = disagreement(guide.part(here), fitted, self.strength, self.noise)
        return bool(judged.max() < self.strength.start)

    def _compared(self, sight: Sight, box: Box) -> tuple[Compared, Sight]:
        guide, view = self._guide(), sight.full
        curve = photometric_curve(guide, view)
        if box is not EVERYWHERE:
            guide, part = guide.part(box), view.part(box)
            found, moved = compare(guide, part, curve, self.strength, self.noise)
            if found.flow is None:
                return found, sight
            return found, sight.moved_to(view.with_part(moved, box))
        found, moved = compare(guide, view, curve, self.strength, self.noise)
        return found, sight if moved is view else sight.moved_to(moved)

    def _guide(self) -> Guide:
        """The guide at full size."""
        if self.full is None:
            self.full = Guide.of(self.reference.full, self.noise)
        for sight, belief in self.waiting:
            self.full = self.full.extended(sight.full, belief, self.noise)
        self.waiting.clear()
        return self.full


def stored(judged: Floats | None) -> NDArray[np.float16] | None:
    """A disagreement as it is kept: in half floats, for which 100 tolerances are enough."""
    return None if judged is None else np.minimum(judged, 100).astype(np.float16)


def pasted(whole: NDArray[Any], part: NDArray[Any], box: Box) -> NDArray[Any]:
    """A copy of a map with a part of it replaced."""
    new = whole.copy()
    new[box] = part
    return new


def resized(plane: Floats, size: tuple[int, ...]) -> Floats:
    """A map reduced to ``size`` (height, width)."""
    import cv2

    return np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_AREA), np.float32)


def around(marked: NDArray[np.bool_]) -> Box | None:
    """The box at twice the size that holds all that is marked and a margin, or None."""
    rows, cols = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    (top, bottom), (left, right) = ((int(at[0]), int(at[-1]) + 1) for at in (rows, cols))
    low, high = max(0, 2 * top - MARGIN), max(0, 2 * left - MARGIN)
    return np.s_[low : 2 * bottom + MARGIN, high : 2 * right + MARGIN]


def measured_noise(view: View) -> Noise:
    """The noise of a view: what is left of its flattest blocks when their planes are taken out.

    Immerkær's mask ("Fast noise variance estimation", 1996) block by block; of the blocks of
    like brightness the quietest tenth has no texture. Never below the default: JPEG hides
    noise, and blocks that clip have none.
    """
    shots = shots_of(np.ascontiguousarray(view.light[..., 1]), view.clipped)
    shot = float(np.clip(np.median(shots), Noise.shot, MOST_SHOT)) if shots else Noise.shot
    return Noise(shot, Noise.read * shot / Noise.shot)


def finest(plane: Floats) -> Floats:
    """What is finer than a plane's slopes, (h, w); white noise keeps its deviation (Immerkær)."""
    import cv2

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    return np.asarray(cv2.filter2D(plane, -1, mask), np.float32)


def shots_of(light: Floats, clipped: NDArray[np.bool_]) -> list[float]:
    """The shot noise, variance over light, that a picture (h, w) seems to have at some lights."""
    import cv2

    height, width = (side // NOISE_BLOCK for side in light.shape)
    if min(height, width) < 2:
        return []
    tiles = (width, height)
    spread = cv2.resize(finest(light) ** 2, tiles, interpolation=cv2.INTER_AREA)
    level = cv2.resize(light, tiles, interpolation=cv2.INTER_AREA)
    whole = cv2.resize(clipped.astype(np.float32), tiles, interpolation=cv2.INTER_AREA) == 0
    shots = []
    for low in NOISE_STEPS:
        here = spread[whole & (level >= low) & (level < 2 * low)]
        if len(here) >= FEWEST:
            quiet = float(np.quantile(here, 0.1)) * QUIETEST
            shots.append(max(quiet - Noise.read, 0) / (1.4 * low))
    return shots


def outward(count: int, reference: int) -> Iterator[int]:
    """The other frames: darker ones from the reference down, then brighter ones up."""
    yield from range(reference - 1, -1, -1)
    yield from range(reference + 1, count)


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


def look(frame: Frame, ratio: float, size: tuple[int, int]) -> View:
    """Reduce a frame to ``size`` (height, width) in the reference's geometry."""
    import cv2

    height, width = size
    small = strips.reduced(frame, size, CLIP, DARK)
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
    )


def floor_of(frame: Frame) -> float:
    """The light that dark pixels of a frame do not exceed, its own white at 1.0."""
    return frame.response.at(DARK_BOUND) if frame.levels else 0.0


def reduced_warp(warp: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
    """The same homography between the reduced pictures; pixel centres are at integers."""
    sx, sy = scale
    shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
    return np.asarray(shrink @ warp @ np.linalg.inv(shrink))


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


@dataclass(frozen=True, eq=False)
class Curve:
    """How much brighter than the guide a view is, in stops, at some brightnesses in stops."""

    at: NDArray[np.float64]
    error: NDArray[np.float64]

    def applied(self, view: View) -> View:
        """The view without that difference."""
        light = np.ascontiguousarray(view.light)
        out = np.empty_like(light)
        motion_kernels.brighten(
            light,
            np.float32(1 / view.ratio),
            np.asarray(self.at, np.float32),
            np.asarray(self.error, np.float32),
            len(self.at),
            out,
            view.clipped.size,
        )
        return replace(view, light=out)


def compare(
    guide: Guide, view: View, curve: Curve | None, strength: Strength, noise: Noise
) -> tuple[Compared, View]:
    """Flow and belief of one frame, and the frame as the flow brings it to the guide."""
    fitted = view if curve is None else curve.applied(view)
    still = disagreement(guide, fitted, strength, noise)
    if still.max() < strength.start and view.valid.all():
        return NOTHING, view
    flow = dense_flow(guide, fitted)
    there = warped(fitted, flow)
    helped = disagreement(guide, there, strength, noise)
    helped = np.where(there.valid, helped, still)  # what leaves the picture only seems to agree
    flow = where_it_helps(flow, still, helped)
    there = warped(fitted, flow)
    judged = disagreement(guide, there, strength, noise)
    moved = there if fitted is view else warped(view, flow)
    return Compared(flow, believe(judged, moved.valid, strength), judged), moved


def follow(
    guide: Guide,
    view: View,
    expected: Floats,
    curve: Curve | None,
    strength: Strength,
    noise: Noise,
) -> tuple[Compared, View]:
    """The same where a flow is expected, which is only replaced where it does not fit."""
    fitted = view if curve is None else curve.applied(view)
    flow, there = expected, warped(fitted, expected)
    judged = disagreement(guide, there, strength, noise)
    if np.count_nonzero(judged > strength.start) > DISBELIEF * judged.size:
        direct = dense_flow(guide, fitted)
        helped = disagreement(guide, warped(fitted, direct), strength, noise)
        flow = _directly(guide, flow, direct, judged - helped)
        there = warped(fitted, flow)
        judged = disagreement(guide, there, strength, noise)
    moved = there if fitted is view else warped(view, flow)
    return Compared(flow, believe(judged, moved.valid, strength), judged), moved


def _directly(guide: Guide, expected: Floats, direct: Floats, gained: Floats) -> Floats:
    """The flow between guide and view themselves, where it fits better than the expected one."""
    import cv2

    gain = cv2.GaussianBlur(gained, (0, 0), 2.0)
    told = (gain > 0.1) & ~(guide.clipped | guide.dark)  # a bound agrees with any flow
    use = cv2.dilate(told.astype(np.float32), np.ones((7, 7), np.uint8))
    use = cv2.GaussianBlur(use, (0, 0), 1.5)[..., None]
    return np.asarray(expected * (1 - use) + direct * use, np.float32)


def photometric_curve(guide: Guide, view: View) -> Curve | None:
    """How much brighter than the guide a view is; None where it is not.

    Exposures and responses are never known exactly, and an error of a tenth of a stop must not
    pass for motion. The fit is one smooth curve of brightness, from medians, so that what moved
    does not bend it.
    """
    height, width = view.clipped.shape
    room = np.empty((2, (height + 1) // 2 * ((width + 1) // 2)), np.float32)
    steps, counts = np.empty(room.shape[1], np.uint8), np.empty(STOPS, np.int64)
    motion_kernels.pair_brightness(
        guide.radiance,
        np.ascontiguousarray(view.light),
        bounds(guide, view),
        np.float32(1 / view.ratio),
        room[0],
        room[1],
        steps,
        counts,
        height,
        width,
    )
    some = int(counts.sum())
    enough = max(FEWEST, some // 50)
    seen = [k for k in range(-14, 9) if counts[k - LOWEST_STOP] >= enough]
    if not seen:
        return None
    order = np.argsort(steps[:some], kind="stable")
    (middle, gap), ends = room[:, order], np.concatenate([[0], np.cumsum(counts)])
    here = [slice(ends[k - LOWEST_STOP], ends[k - LOWEST_STOP + 1]) for k in seen]
    at = np.array([median(middle[one]) for one in here])
    error = np.array([agreed(gap[one]) for one in here])
    error = np.clip(np.convolve(np.pad(error, 1, "edge"), (0.25, 0.5, 0.25), "valid"), -1, 1)
    beyond = np.clip(np.abs(error) - TOLERATED_EV, 0, MISMATCH_EV)
    error = np.sign(error) * beyond
    return Curve(at + error / 2, error) if error.any() else None


def agreed(gaps: NDArray[np.floating]) -> float:
    """The median, shrunk towards zero as far as the gaps do not agree on it."""
    middle = median(gaps)
    spread = 1.5 * median(np.abs(gaps - middle))
    return middle / (1 + (spread / SPREAD_EV) ** 2)


def median(values: NDArray[np.floating]) -> float:
    """As numpy's, which takes longer to look for what is no number than to sort some thousands."""
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def bounds(guide: Guide, view: View) -> NDArray[np.uint8]:
    """What is only a bound, (h, w), as ``motion_kernels.judge`` takes it."""
    flags = np.empty(view.clipped.shape, np.uint8)
    motion_kernels.bounds(
        bits(guide.clipped),
        bits(view.clipped),
        bits(guide.dark),
        bits(view.dark),
        bits(view.valid),
        flags,
        flags.size,
    )
    return flags


def bits(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask as numbers 0 and 1, for machine code."""
    return np.ascontiguousarray(mask).view(np.uint8)


def averaged(sigma: float) -> float:
    """What a Gaussian leaves of the variance of white noise."""
    return min(1.0, 1 / (4 * np.pi * sigma**2))


def disagreement(guide: Guide, view: View, strength: Strength, noise: Noise) -> Floats:
    """Difference from the guide in tolerances, (h, w): 1 is what noise and errors explain.

    It is one-sided where either is a bound. Tolerated is a part of the light, for the response is
    never known exactly; a part of the gradient, for frames are never aligned exactly; and the
    noise of both, as far as each scale averages it.
    """
    height, width = view.clipped.shape
    ratio, per = view.ratio, 1 / view.ratio**2
    limits = (
        *(1 / ratio, guide.floor, view.floor / ratio),
        *(noise.shot / ratio, noise.read * per, QUANTUM / ratio, LEAST_QUANTISED / ratio),
        *(strength.relative, strength.floor, MISREGISTRATION**2),
        *(strength.sigmas**2 * averaged(sigma) for sigma in SCALES),
    )
    planes = (
        np.ascontiguousarray(guide.radiance),
        np.ascontiguousarray(guide.variance),
        np.ascontiguousarray(view.light),
        bounds(guide, view),
    )
    given = np.array(limits, np.float32)
    judged = np.empty((height, width), np.float32)

    def judge(rows: slice) -> None:
        room = motion_kernels.room(width)
        part = rows.start, rows.stop, height, 3 * width
        motion_kernels.judge(*planes, given, *BLURS, *room, judged, *part)

    if height * width <= FEW_PIXELS:
        judge(slice(0, height))
    else:
        strips.run(judge, (height, width), pixels=BAND_ROWS * width)
    return judged


def dense_flow(guide: Guide, view: View) -> Floats:
    """DIS flow (Kroeger et al., ECCV 2016) from the guide to the view, on the matched pair."""
    import cv2

    exposure = max(view.ratio, 1.0)
    ceiling = CLIP_LIGHT * min(1.0, exposure)
    first = matched(guide.radiance, exposure, ceiling)
    second = matched(view.radiance, exposure, ceiling)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(first, second, None), np.float32)


CLIP_LIGHT = 0.95  # of white: what CLIP means in light, for any response near sRGB


def matched(radiance: Floats, exposure: float, ceiling: float) -> NDArray[np.uint8]:
    """A picture of the light at one exposure, clipped at ``ceiling``, gamma-encoded, grey."""
    import cv2

    light = np.clip(radiance * np.float32(exposure / ceiling), 0, 1)
    grey = cv2.cvtColor(light, cv2.COLOR_RGB2GRAY)
    return np.asarray(np.rint(255 * grey ** np.float32(GAMMA)), np.uint8)


def warped(view: View, flow: Floats) -> View:
    """The view moved by a flow to the guide's geometry."""
    import cv2

    height, width = view.clipped.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    light = cv2.remap(view.light, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    clipped = cv2.remap(view.clipped.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.25
    dark = cv2.remap(view.dark.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5
    inside = (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)
    known = cv2.remap(view.valid.astype(np.uint8), x, y, cv2.INTER_NEAREST).astype(bool)
    return replace(view, light=light, clipped=clipped, dark=dark, valid=known & inside)


def compose(shift: Floats, flow: Floats | None) -> Floats:
    """One flow for two steps: first ``shift``, then ``flow`` at the place it leads to."""
    import cv2

    if flow is None:
        return shift
    height, width = shift.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = x + shift[..., 0], y + shift[..., 1]
    there = cv2.remap(flow, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shift + there, np.float32)


def where_it_helps(flow: Floats, still: Floats, helped: Floats) -> Floats:
    """The flow where it lowers the disagreement, else zero, with soft borders."""
    import cv2

    gain = cv2.GaussianBlur(still, (0, 0), 2.0) - cv2.GaussianBlur(helped, (0, 0), 2.0)
    use = cv2.dilate((gain > 0.1).astype(np.float32), np.ones((7, 7), np.uint8))
    use = cv2.GaussianBlur(use, (0, 0), 1.5)
    return np.asarray(flow * use[..., None], np.float32)


def believe(judged: Floats, valid: NDArray[np.bool_], strength: Strength) -> Floats:
    """Confidence in [0, 1] from a disagreement in tolerances."""
    import cv2

    belief = np.clip((strength.end - judged) / (strength.end - strength.start), 0, 1)
    size = 2 * strength.grow + 1
    belief = cv2.erode(belief, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    belief = cv2.GaussianBlur(belief, (0, 0), 0.5 + strength.grow / 2)
    return np.asarray(belief * valid, np.float32)  # a frame ends sharply, and is right up to there
