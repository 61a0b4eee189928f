"""Motion in a window: from frames of one exposure before and after, checked against the present.

Two frames of the same exposure tell their motion far better than two of different ones (Kang et
al., "High dynamic range video", SIGGRAPH 2003): the flow between them is split at the moment of
the current frame, as if everything moved evenly meanwhile. Where the current frame shows
otherwise, the flow to it is found directly; where neither fits, the neighbour is not believed.

The comparison is that of hdrcli.motion, on luminance alone: video has to be quick. Flows between
frames of one exposure are kept with the frames, since a window shares them with the next. Where
two neighbours are alike there is no flow, and nothing is resampled.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion, sights
from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion, Strength
from hdrcli.sights import Noise
from hdrcli.video.clip import Timed
from hdrcli.video.windows import Window

Floats = NDArray[np.float32]
Mask = NDArray[np.uint8]  # (h, w), 0 or 255

PIXELS = 150_000  # of the pictures that motion is estimated on, about
ALIKE = 6  # codes of 255 by which frames of one exposure may differ where nothing moves
MOVED = 2e-4  # of the picture: less than that is noise
BEYOND = 4 / 255  # above the darkest codes that say something: the code whose light bounds them
LUMINANCE = np.array([[0.25, 0.5, 0.25]], np.float32)
CHANNELS = 3.0  # the tolerances of hdrcli.motion are for the sum over three


@dataclass(frozen=True, eq=False)
class Small:
    """A reduced frame, kept with it."""

    grey: NDArray[np.uint8]  # (h, w), codes
    light: Floats  # (h, w), the frame's white at 1.0
    clipped: Mask  # the light is only a lower bound
    dark: Mask  # the light is at most ``floor``
    floor: float


def factor_of(size: tuple[int, int], pixels: int = PIXELS) -> int:
    """How many times smaller the reduced picture of (height, width) is, to have about so many
    pixels: a whole number, so that its pixels are whole blocks. What is left over at the right
    and at the bottom is not in it."""
    height, width = size
    return max(1, min(int((height * width / pixels) ** 0.5 + 0.5), height, width))


def in_blocks(codes: Codes, factor: int) -> Codes:
    """The means of whole blocks of so many pixels."""
    import cv2

    height, width = codes.shape[0] // factor, codes.shape[1] // factor
    whole = codes[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def small(timed: Timed) -> Small:
    """The frame reduced; made once, by whoever asks first."""
    found: Small | None = timed.memo.get("small")
    if found is None:
        found = timed.memo["small"] = _reduced(timed.frame, timed.dark)
    return found


def _reduced(frame: Frame, dark: float) -> Small:
    import cv2

    codes = in_blocks(frame.codes, factor_of(frame.size))
    height, width = codes.shape[:2]
    light = cv2.transform(sights.light_of(codes, frame), LUMINANCE)
    if not frame.levels:
        nothing = np.zeros((height, width), np.uint8)
        return Small(_grey(light), np.asarray(light), nothing, nothing, 0.0)
    red, green, blue = cv2.split(codes)
    largest = cv2.max(cv2.max(red, green), blue)
    top = frame.levels - 1
    grey = cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY)
    return Small(
        np.asarray(grey if grey.dtype == np.uint8 else grey >> 8, np.uint8),
        np.asarray(light, np.float32),
        cv2.compare(largest, frame.clip * top, cv2.CMP_GE),
        cv2.compare(largest, dark * top, cv2.CMP_LE),
        frame.response.at(dark + BEYOND),
    )


def _grey(light: Floats) -> NDArray[np.uint8]:
    """Light as eight-bit codes, for flow."""
    return np.asarray(np.rint(255 * np.clip(light, 0, 1) ** np.float32(motion.GAMMA)), np.uint8)


# --- what is seen, and what is known ----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame in the geometry of the present one, the present frame's white at 1.0."""

    light: Floats
    clipped: Mask
    dark: Mask
    valid: Mask | None  # None: everywhere
    ratio: float  # exposure over the present one's
    floor: float

    @classmethod
    def of(cls, timed: Timed, ratio: float) -> "Seen":
        """The frame where it is."""
        made = small(timed)
        light = made.light * np.float32(1 / ratio)
        return cls(light, made.clipped, made.dark, None, ratio, made.floor / ratio)

    def variance(self, noise: Noise) -> Floats:
        """Of ``light``, (h, w), for the sum over the channels."""
        own = self.light * np.float32(self.ratio)
        quantum = np.float32(4 / 12 / 255**2)
        slope = np.float32(noise.shot) + quantum
        return np.asarray((slope * own + np.float32(noise.read)) / np.float32(self.ratio**2))

    def moved(self, flow: Floats | None) -> "Seen":
        """The frame as a flow brings it here."""
        import cv2

        if flow is None:
            return self
        x, y = _grid(flow)
        linear, nearest = cv2.INTER_LINEAR, cv2.INTER_NEAREST
        replicate = cv2.BORDER_REPLICATE
        height, width = self.light.shape
        outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
        return replace(
            self,
            light=cv2.remap(self.light, x, y, linear, None, replicate),
            clipped=cv2.compare(cv2.remap(self.clipped, x, y, linear), 64, cv2.CMP_GT),
            dark=cv2.remap(self.dark, x, y, nearest, None, replicate),
            valid=np.where(outside, np.uint8(0), np.uint8(255)) if outside.any() else None,
        )


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the light so far: at first what the present frame shows."""

    light: Floats
    variance: Floats
    clipped: Mask
    dark: Mask
    floor: float

    @classmethod
    def of(cls, seen: Seen, noise: Noise) -> "Known":
        """The present frame alone."""
        return cls(seen.light, seen.variance(noise), seen.clipped, seen.dark, seen.floor)

    @cached_property
    def level(self) -> Floats:
        """The light, smoothed."""
        import cv2

        return np.asarray(cv2.GaussianBlur(self.light, (0, 0), 1.0))

    @cached_property
    def edge(self) -> Floats:
        """The squared gradient, smoothed."""
        import cv2

        dx = cv2.Scharr(self.light, cv2.CV_32F, 1, 0, scale=1 / 32)
        dy = cv2.Scharr(self.light, cv2.CV_32F, 0, 1, scale=1 / 32)
        return np.asarray(cv2.GaussianBlur(dx * dx + dy * dy, (0, 0), 1.0))

    def extended(self, seen: Seen, belief: Floats | None, noise: Noise) -> "Known":
        """With a neighbour's light where the known one was a bound."""
        if seen.ratio < 1:
            where = self.clipped > 0
            light = np.maximum(seen.light, self.light)
            clipped = np.where(where & (seen.clipped == 0), np.uint8(0), self.clipped)
            known = replace(self, clipped=clipped)
        else:
            where = (self.dark > 0) & (seen.dark == 0)
            where &= True if belief is None else belief > 0.5
            light = seen.light
            known = replace(self, dark=np.where(where, np.uint8(0), self.dark))
        if seen.valid is not None:
            where &= seen.valid > 0
        return replace(
            known,
            light=np.where(where, light, self.light),
            variance=np.where(where, seen.variance(noise), self.variance),
        )


def one_sided(known: Known, seen: Seen) -> Floats:
    """Seen minus known where no bound explains the difference, else zero; (h, w)."""
    import cv2

    difference = cv2.subtract(seen.light, known.light)
    below, above = cv2.min(difference, 0.0), cv2.max(difference, 0.0)
    cv2.copyTo(below, known.clipped, difference)
    cv2.copyTo(above, seen.clipped, difference)
    over = cv2.max(cv2.subtract(seen.light, known.floor), 0.0)
    cv2.copyTo(over, known.dark, difference)
    under = cv2.min(cv2.subtract(seen.floor, known.light), 0.0)
    cv2.copyTo(under, seen.dark, difference)
    difference[cv2.bitwise_and(known.clipped, seen.clipped) > 0] = 0
    difference[cv2.bitwise_and(known.dark, seen.dark) > 0] = 0
    if seen.valid is not None:
        difference[seen.valid == 0] = 0
    return np.asarray(difference, np.float32)


def disagreement(known: Known, seen: Seen, strength: Strength, noise: Noise) -> Floats:
    """Difference in tolerances, (h, w): 1 is what noise and errors explain. See hdrcli.motion."""
    import cv2

    difference = one_sided(known, seen)
    variance = known.variance + seen.variance(noise)
    steady = np.float32(strength.relative) * known.level + np.float32(strength.floor)
    steady = steady * steady + np.float32(motion.MISREGISTRATION**2) * known.edge
    worst = np.zeros_like(difference)
    for sigma in motion.SCALES:
        smooth = cv2.GaussianBlur(difference, (0, 0), sigma)
        averaged = np.float32(4 * min(1.0, 1 / (4 * np.pi * sigma**2)))
        np.maximum(worst, smooth * smooth / (steady + averaged * variance), out=worst)
    return np.asarray(np.sqrt(np.float32(CHANNELS) * worst))


def photometric(known: Known, seen: Seen) -> Seen:
    """The light fitted to the known one, for comparing alone: a small error of the response must
    not pass for motion. One curve of brightness from medians, as in hdrcli.motion."""
    part = (slice(None, None, 3), slice(None, None, 3))
    bounds = known.clipped[part] | known.dark[part] | seen.clipped[part] | seen.dark[part]
    usable = bounds == 0
    ours = np.log2(np.maximum(known.light[part][usable], 1e-6))
    theirs = np.log2(np.maximum(seen.light[part][usable], 1e-6))
    middle, gap = (ours + theirs) / 2, theirs - ours
    step = np.floor(middle).astype(np.intp)
    enough = max(motion.FEWEST, len(step) // 50)
    kinds, counts = np.unique(step, return_counts=True)
    kinds = kinds[counts >= enough]
    if not len(kinds):
        return seen
    at = np.array([np.median(middle[step == k]) for k in kinds])
    error = np.array([motion.agreed(gap[step == k]) for k in kinds])
    error = np.clip(np.convolve(np.pad(error, 1, "edge"), (0.25, 0.5, 0.25), "valid"), -1, 1)
    beyond = np.clip(np.abs(error) - motion.TOLERATED_EV, 0, motion.MISMATCH_EV)
    error = np.sign(error) * beyond
    if not error.any():
        return seen
    top = max(float(seen.light.max()), 1e-6)
    light = top * np.linspace(1e-6, 1, 4096)
    gain = np.exp2(-np.interp(np.log2(light), at + error / 2, error)).astype(np.float32)
    index = np.rint(seen.light * np.float32(4095 / top)).astype(np.intp)
    return replace(seen, light=seen.light * gain[np.clip(index, 0, 4095)])


# --- flow -------------------------------------------------------------------------------------


def between(before: Timed, after: Timed) -> Floats | None:
    """Flow from a frame to a later one of its exposure, (h, w, 2); None where nothing moved."""
    import cv2

    key = f"flow to {after.index}"
    if key not in before.memo:
        one, two = small(before).grey, small(after).grey
        still = cv2.absdiff(one, two)
        flow = None
        if np.count_nonzero(cv2.GaussianBlur(still, (0, 0), 1.0) > ALIKE) > MOVED * still.size:
            flow = _kept(one, two, still, _dis().calc(one, two, None))
        before.memo[key] = flow
    found: Floats | None = before.memo[key]
    return found


def _dis() -> Any:  # noqa: ANN401
    import cv2

    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(1)  # half of the pixels of the reduced picture: fine motion counts here
    dis.setVariationalRefinementIterations(1)  # more cost as much as the rest, and gain nothing
    return dis


def _kept(
    one: NDArray[np.uint8], two: NDArray[np.uint8], still: NDArray[np.uint8], flow: Floats
) -> Floats:
    """The flow where it brings the frames together, zero elsewhere, with soft borders."""
    import cv2

    x, y = _grid(flow)
    helped = cv2.absdiff(one, cv2.remap(two, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE))
    gain = cv2.GaussianBlur(cv2.subtract(still, helped, dtype=cv2.CV_32F), (0, 0), 2.0)
    use = cv2.dilate((gain > 1).astype(np.float32), np.ones((9, 9), np.uint8))
    return np.asarray(flow * cv2.GaussianBlur(use, (0, 0), 1.5)[..., None], np.float32)


def _grid(flow: Floats) -> tuple[Floats, Floats]:
    """Where a flow leads, x and y."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def split(flow: Floats, part: float) -> tuple[Floats, Floats]:
    """Flows from a moment between two frames to the first and to the second.

    ``part`` is how far the moment lies on the way, 0 to 1. A pixel x then comes from
    x' = x - part F(x'), found by fixed-point steps.
    """
    import cv2

    back = -part * flow
    for _ in range(2):
        x, y = _grid(back)
        moved = cv2.remap(flow, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        back = np.float32(-part) * np.asarray(moved, np.float32)
    return back, np.asarray(back * np.float32((part - 1) / part), np.float32)


def expected_flows(window: Window) -> dict[int, Floats | None]:
    """By the index of each neighbour: the flow to it if everything moves evenly."""
    flows: dict[int, Floats | None] = {}
    for before, after in window.others:
        if before is not None and after is not None:
            flows.update(_halves(window.now, before, after))
        else:
            only = before or after
            if only is not None:
                flows[only.index] = _towards(window, only)
    return flows


def twin_flows(window: Window, order: list[Timed]) -> dict[int, Floats | None]:
    """The same of the frames of the present one's exposure, as far as they are among ``order``."""
    asked = {timed.index for timed in order}
    twins = [twin for twin in window.alike if twin is not None and twin.index in asked]
    return {twin.index: _to_twin(window.now, twin) for twin in twins}


def _to_twin(now: Timed, twin: Timed) -> Floats | None:
    """From the present frame; a flow from an earlier frame is turned round."""
    if twin.index > now.index:
        return between(now, twin)
    flow = between(twin, now)
    return None if flow is None else split(flow, 1.0)[0]


def _halves(now: Timed, before: Timed, after: Timed) -> dict[int, Floats | None]:
    flow = between(before, after)
    if flow is None:
        return {before.index: None, after.index: None}
    part = (now.pts - before.pts) / (after.pts - before.pts)
    back, forth = split(flow, float(np.clip(part, 0.05, 0.95)))
    return {before.index: back, after.index: forth}


def _towards(window: Window, other: Timed) -> Floats | None:
    """At an end of the clip: what the present frame's own exposure says of the motion."""
    now, (before, after) = window.now, window.alike
    twin = after if after is not None else before
    if twin is None:
        return None
    flow = between(now, twin)
    if flow is None:
        return None
    return np.asarray(flow * np.float32((other.pts - now.pts) / (twin.pts - now.pts)))


# --- a window ---------------------------------------------------------------------------------


def analyse(
    window: Window, bracket: Bracket, order: list[Timed], strength: str, noise: Noise
) -> Motion:
    """Flow and confidence of every frame of the bracket, whose frames are ``order``'s."""
    setting = motion.STRENGTHS[strength]
    count = len(order)
    if setting is None or count == 1:
        return Motion.none(count, noise)
    scale = 1 / factor_of(bracket.size)
    known = Known.of(Seen.of(window.now, 1.0), noise)
    expected = expected_flows(window) | twin_flows(window, order)
    found: list[tuple[Floats | None, Floats | None]] = [(None, None)] * count
    for i in motion.outward(count, bracket.reference):
        seen = Seen.of(order[i], float(bracket.ratios[i]))
        flow, belief = judge(known, seen, expected.get(order[i].index), setting, noise)
        found[i] = (flow, belief)
        known = known.extended(seen.moved(flow), belief, noise)
    return Motion(
        flows=tuple(flow for flow, _ in found),
        confidence=tuple(belief for _, belief in found),
        noise=(noise,) * count,
        disagreement=(None,) * count,
        scale=(scale, scale),
    )


def judge(
    known: Known, seen: Seen, flow: Floats | None, strength: Strength, noise: Noise
) -> tuple[Floats | None, Floats | None]:
    """Flow and belief of a frame; None where there is none, and where all is believed."""
    fitted = photometric(known, seen)
    moved = fitted.moved(flow)
    judged = disagreement(known, moved, strength, noise)
    off = np.count_nonzero(judged > strength.start)
    if off == 0 and moved.valid is None:
        return flow, None
    much = off > motion.DISBELIEF * judged.size
    if much and seen.ratio > 1:  # the present frame is blind elsewhere
        flow = directly(known, fitted, flow, judged, strength, noise)
        moved = fitted.moved(flow)
        judged = disagreement(known, moved, strength, noise)
    every = np.ones((1, 1), bool) if moved.valid is None else moved.valid > 0
    return flow, motion.believe(judged, every, strength)


def _pair(ours: Floats, theirs: Floats, ratio: float) -> list[NDArray[np.uint8]]:
    """Two views of the light, on one scale, as codes of one exposure."""
    exposure = max(ratio, 1.0)
    ceiling = motion.CLIP_LIGHT * min(1.0, exposure)
    return [_grey(light * np.float32(exposure / ceiling)) for light in (ours, theirs)]


def exposed_alike(now: Small, other: Small, ratio: float) -> list[NDArray[np.uint8]]:
    """Two reduced frames as codes of one exposure; ``ratio`` is the other's over the first's."""
    return _pair(now.light, other.light * np.float32(1 / ratio), ratio)


def directly(
    known: Known,
    seen: Seen,
    flow: Floats | None,
    judged: Floats,
    strength: Strength,
    noise: Noise,
) -> Floats:
    """The flow between known and seen themselves, where it fits better than the expected one."""
    import cv2

    pair = _pair(known.light, seen.light, seen.ratio)
    start = None if flow is None else flow.copy()
    direct = np.asarray(_dis().calc(pair[0], pair[1], start), np.float32)
    helped = disagreement(known, seen.moved(direct), strength, noise)
    gain = cv2.GaussianBlur(judged - helped, (0, 0), 2.0)
    told = (gain > 0.1) & ((known.clipped | known.dark) == 0)  # a bound agrees with any flow
    use = cv2.dilate(told.astype(np.float32), np.ones((7, 7), np.uint8))
    use = cv2.GaussianBlur(use, (0, 0), 1.5)[..., None]
    before = np.float32(0) if flow is None else flow * (1 - use)
    return np.asarray(before + direct * use, np.float32)


def bracket_of(window: Window) -> tuple[Bracket, list[Timed]]:
    """The window as a bracket, darkest first, and its frames in that order."""
    order = sorted(window.frames, key=lambda timed: (timed.frame.exposure or 0, timed.index))
    reference = next(i for i, timed in enumerate(order) if timed is window.now)
    return Bracket(tuple(timed.frame for timed in order), reference), order
