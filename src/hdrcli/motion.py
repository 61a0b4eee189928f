"""What moved: dense flow to the reference, and how far each frame can be believed.

The frames are compared with a *guide*, which starts as the reference. The comparison is
one-sided where a code clips: a clipped code says "at least this", and contradicts nothing that
is brighter. The tolerance grows with the noise that the amplification of the darker of the two
brings, with the light itself (the response is never known exactly), and with the gradient (a
fifth of a pixel of misregistration is not motion).

The frames are taken outward from the reference, first the darker ones, then the brighter. What
a darker frame says extends the guide where it clipped so far, so that the next one has
something to agree with.

All this happens on reduced pictures, see sights.py; strips.py brings the maps to full size. Of a
big photograph a quick look at half of that size tells first whether, and where, there is
anything to compare.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion_kernels, strips
from hdrcli.frames import Bracket
from hdrcli.sights import (
    LEAST_QUANTISED,
    QUANTUM,
    Account,
    Box,
    Coming,
    Noise,
    Sight,
    View,
    reduced_size,
)

Floats = NDArray[np.float32]

SMALL_BOX = 1 / 16  # of the picture, which can be looked at by itself
BLURRED = 8  # px around a box that what is known of it depends on
MARGIN = 32  # px of the reduced picture around what a quick look finds
MISREGISTRATION = 0.2  # px of the reduced picture that are not motion
SCALES = (0.6, 1.6)  # px, Gaussians over which differences are averaged before they are judged
BLURS = motion_kernels.blurs(1.0, *SCALES)
FEW_PIXELS, BAND_ROWS = 1 << 18, 128  # more than so many are compared in bands, side by side
STOPS, LOWEST_STOP = motion_kernels.STOPS, motion_kernels.LOWEST_STOP
TOLERATED_EV = 0.05  # photometric mismatch that the tolerances cover, and chance can show
SPREAD_EV = 0.3  # spread of the mismatch at one brightness from which it is rather motion
FAR, GUESSED = 1.5, 0.5  # px of flow from which what it carries is a guess, and by how much
DISBELIEF = 2e-3  # of the picture that an expected flow does not fit, from which another is sought
MISMATCH_EV = 0.7  # the largest photometric mismatch that is taken for an error of the exposures
FEWEST = 60  # pixels in a step of brightness that say something of the mismatch
NOISE_BLOCK = 8  # px, side of the blocks that noise is measured in
NOISE_STEPS = tuple(0.0025 * 2**k for k in range(8))  # light, lower ends of steps of brightness
QUIETEST = 1.35  # the mean over the tenth quantile of an 8 x 8 block's variance, for white noise
MOST_SHOT = 3e-3  # of the noise that is believed: ISO 25600
GAMMA = 1 / 2.2  # of the pictures that flow is computed on
EVERYWHERE: Box = np.s_[:, :]
NOWHERE: Box = np.s_[:0, :0]


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
class Guide:
    """What is known of the light so far, the reference's white at 1.0."""

    radiance: Floats  # (h, w, 3)
    variance: Floats  # (h, w, 3)
    clipped: NDArray[np.bool_]  # (h, w), the radiance is a lower bound
    dark: NDArray[np.bool_]  # (h, w), the radiance is at most ``floor``
    floor: float
    least: float = 1.0  # of a clipped colour: what a channel beside the largest is at least

    @classmethod
    def of(cls, view: View, noise: Noise) -> "Guide":
        """The reference alone; where it is transparent nothing is known but that there is light."""
        guide = cls(
            view.radiance, view.variance(noise), view.clipped, view.dark, view.floor, view.least
        )
        if view.valid.all():
            return guide
        light = np.where(view.valid[..., None], guide.radiance, np.float32(0))
        unknown = guide.clipped | ~view.valid
        return replace(guide, radiance=light, clipped=unknown, dark=guide.dark & view.valid)

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
            np.array([1 / view.ratio, *own, self.least if view.ratio < 1 else 0], np.float32),
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
            one = found[i]
            account.add(i, sight, moved, one.belief, differs=one is not NOTHING)
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
    rows, columns = (side // NOISE_BLOCK for side in light.shape)
    if min(rows, columns) < 2:
        return []
    height, width = light.shape
    means, room = (np.empty(shape, np.float32) for shape in ((rows, columns, 3), (3, width)))
    planes = finest(light), np.ascontiguousarray(light), bits(clipped)
    motion_kernels.means_of_tiles(*planes, room, means, height, width, rows, columns)
    spread, level, clips = np.moveaxis(means, 2, 0)
    whole = clips == 0
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
    belief = believe(judged, moved.valid, strength)
    if view.ratio < 1:
        belief *= 1 - GUESSED * carried(guide, flow, still, strength)
    return Compared(flow, belief, judged), moved


def carried(guide: Guide, flow: Floats, still: Floats, strength: Strength) -> Floats:
    """Where light is only there because flow carries it, and the guide clips, (h, w) in [0, 1].

    A bound agrees with any flow. Behind somebody who stood before a window in one frame, flow
    brings what lies beside: it is as bright as it must be, and of another place. ``still`` is the
    disagreement without flow.
    """
    import cv2

    far = cv2.magnitude(flow[..., 0], flow[..., 1]) > FAR
    unsure = (guide.clipped & far & (still > strength.start)).astype(np.float32)
    spread = cv2.GaussianBlur(cv2.dilate(unsure, np.ones((3, 3), np.uint8)), (0, 0), 1.0)
    return np.asarray(spread * guide.clipped, np.float32)


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
    every_other = (height + 1) // 2 * ((width + 1) // 2)
    sums, (middle, gap) = (np.empty((2, every_other), np.float32) for _ in range(2))
    ends = np.empty(STOPS, np.int64)
    motion_kernels.pair_brightness(
        guide.radiance,
        np.ascontiguousarray(view.light),
        bounds(guide, view),
        np.float32(1 / view.ratio),
        sums,
        np.empty(every_other, np.uint8),
        ends,
        middle,
        gap,
        height,
        width,
    )
    enough = max(FEWEST, int(ends[-1]) // 50)
    steps = [slice(*both) for both in pairwise([0, *ends.tolist()])]
    likely = steps[-14 - LOWEST_STOP : 9 - LOWEST_STOP]
    here = [one for one in likely if one.stop - one.start >= enough]
    if not here:
        return None
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
    """What is only a bound, (h, w, 3), as ``motion_kernels.judge`` takes it."""
    flags = np.empty((*view.clipped.shape, 3), np.uint8)
    motion_kernels.bounds(
        bits(guide.clipped),
        bits(view.clipped),
        bits(guide.dark),
        bits(view.dark),
        bits(view.valid),
        flags,
        view.clipped.size,
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
        guide.least,
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
    if min(first.shape) < LEAST_FLOW:
        return np.zeros((*first.shape, 2), np.float32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(first, second, None), np.float32)


LEAST_FLOW = 12  # pixels: OpenCV refuses narrower pictures
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
