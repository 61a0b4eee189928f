"""Motion in a window: from frames of one exposure before and after, checked against the present.

Two frames of the same exposure tell their motion far better than two of different ones (Kang et
al., "High dynamic range video", SIGGRAPH 2003): the flow between them is split at the moment of
the current frame, as if everything moved evenly meanwhile. Where the current frame shows
otherwise, the flow to it is found directly; where neither fits, the neighbour is not believed.

Flows between frames of one exposure are kept with the frames, since a window shares them with
the next. Where two neighbours are alike there is no flow, and nothing is resampled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion
from hdrcli.frames import Bracket, Frame
from hdrcli.motion import Guide, Motion, Noise, Strength, View
from hdrcli.video.clip import Timed
from hdrcli.video.windows import Window

Floats = NDArray[np.float32]

MAX_PIXELS = 300_000  # of the pictures that motion is estimated on
ALIKE = 6  # codes of 255 by which frames of one exposure may differ where nothing moves
MOVED = 2e-4  # of the picture: less than that is noise
DARK = 9 / 255  # codes of video up to here are an upper bound: its blacks are crushed hard
DARK_BOUND = 13 / 255  # the code whose light that bound is
DISBELIEF = 2e-3  # of the picture that does not fit, from which the flow is sought directly


@dataclass(frozen=True, eq=False)
class Small:
    """A reduced frame, kept with it."""

    codes: NDArray[Any]  # (h, w, 3) of the frame's type
    grey: NDArray[np.uint8]  # (h, w)
    light: Floats  # (h, w, 3), the frame's white at 1.0
    clipped: NDArray[np.bool_]
    dark: NDArray[np.bool_]
    floor: float  # light that dark pixels do not exceed


def reduced_size(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Height and width of the reduced picture, and its scale along x and y."""
    height, width = size
    shrink = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    small = max(1, round(height * shrink)), max(1, round(width * shrink))
    return small, (small[1] / width, small[0] / height)


def small(timed: Timed) -> Small:
    """The frame reduced; made once, by whoever asks first."""
    import cv2

    found: Small | None = timed.memo.get("small")
    if found is None:
        frame = timed.frame
        (height, width), _ = reduced_size(frame.size)
        codes = cv2.resize(frame.codes, (width, height), interpolation=cv2.INTER_AREA)
        found = Small(
            codes,
            _grey(codes, frame),
            motion.light_of(codes, frame),
            motion.clipped_of(codes, frame),
            np.asarray(codes.max(axis=2) <= DARK * (frame.levels - 1), bool)
            if frame.levels
            else np.zeros(codes.shape[:2], bool),
            frame.response.at(DARK_BOUND) if frame.levels else 0.0,
        )
        timed.memo["small"] = found
    return found


def _grey(codes: NDArray[Any], frame: Frame) -> NDArray[np.uint8]:
    """Eight-bit codes for flow; light is given a gamma."""
    import cv2

    if frame.levels:
        grey = cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY)
        return np.asarray(grey if grey.dtype == np.uint8 else grey >> 8, np.uint8)
    light = np.clip(np.nan_to_num(codes), 0, 1)
    return np.asarray(np.rint(255 * cv2.cvtColor(light, cv2.COLOR_RGB2GRAY) ** 0.4545), np.uint8)


def view(timed: Timed, ratio: float) -> View:
    """What motion.py compares."""
    made = small(timed)
    every = np.ones(made.dark.shape, bool)
    return View(made.light, made.clipped, made.dark, every, ratio, made.floor)


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

    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)


def _kept(
    one: NDArray[np.uint8], two: NDArray[np.uint8], still: NDArray[np.uint8], flow: Floats
) -> Floats:
    """The flow where it brings the frames together, zero elsewhere, with soft borders."""
    import cv2

    x, y = _grid(flow)
    helped = cv2.absdiff(one, cv2.remap(two, x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE))
    gain = cv2.GaussianBlur(still.astype(np.float32) - helped, (0, 0), 2.0)
    use = cv2.dilate((gain > 1).astype(np.float32), np.ones((9, 9), np.uint8))
    return np.asarray(flow * cv2.GaussianBlur(use, (0, 0), 1.5)[..., None], np.float32)


def _grid(flow: Floats) -> tuple[Floats, Floats]:
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x + flow[..., 0], y + flow[..., 1]


def split(flow: Floats, part: float) -> tuple[Floats, Floats]:
    """Flows from a moment between two frames to the first and to the second.

    ``part`` is how far the moment lies on the way, 0 to 1. A pixel x then comes from
    x - part F(x'), x' being that very place: found by fixed-point steps.
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


def analyse(
    window: Window, bracket: Bracket, order: list[Timed], strength: str, noise: Noise
) -> Motion:
    """Flow and confidence of every frame of the bracket, whose frames are ``order``'s."""
    setting = motion.STRENGTHS[strength]
    count = len(order)
    if setting is None or count == 1:
        return Motion.none(count, noise)
    _, scale = reduced_size(bracket.size)
    guide = Guide.of(view(window.now, 1.0), noise)
    expected = expected_flows(window)
    found: list[tuple[Floats | None, Floats | None]] = [(None, None)] * count
    for i in motion.outward(count, bracket.reference):
        seen = view(order[i], float(bracket.ratios[i]))
        flow, belief, moved = judge(guide, seen, expected.get(order[i].index), setting, noise)
        found[i] = (flow, belief)
        guide = guide.extended(moved, moved.radiance, belief, noise)
    return Motion(
        flows=tuple(flow for flow, _ in found),
        confidence=tuple(belief for _, belief in found),
        noise=(noise,) * count,
        scale=scale,
    )


def judge(
    guide: Guide, seen: View, expected: Floats | None, strength: Strength, noise: Noise
) -> tuple[Floats | None, Floats | None, View]:
    """Flow, belief, and the view as the flow brings it to the guide."""
    flow = expected
    original, seen = seen, motion.photometric(guide, seen)
    moved = seen if flow is None else motion.warped(seen, flow)
    judged = motion.disagreement(guide, moved, strength, noise)
    off = np.count_nonzero(judged > strength.start)
    if off == 0 and moved.valid.all():
        return flow, None, original if flow is None else motion.warped(original, flow)
    if off > DISBELIEF * judged.size:
        flow, moved, judged = directly(guide, seen, flow, judged, strength, noise)
    believed = motion.believe(judged, moved.valid, strength)
    return flow, believed, original if flow is None else motion.warped(original, flow)


def directly(
    guide: Guide,
    seen: View,
    flow: Floats | None,
    judged: Floats,
    strength: Strength,
    noise: Noise,
) -> tuple[Floats | None, View, Floats]:
    """The flow between guide and view themselves, where it fits better than the expected one."""
    import cv2

    exposure = max(seen.ratio, 1.0)
    ceiling = motion.CLIP_LIGHT * min(1.0, exposure)
    pair = [motion.matched(v.radiance, exposure, ceiling) for v in (guide, seen)]
    start = None if flow is None else flow.copy()
    direct = np.asarray(_dis().calc(pair[0], pair[1], start), np.float32)
    helped = motion.disagreement(guide, motion.warped(seen, direct), strength, noise)
    gain = cv2.GaussianBlur(judged, (0, 0), 2.0) - cv2.GaussianBlur(helped, (0, 0), 2.0)
    told = (gain > 0.1) & ~(guide.clipped | guide.dark)  # a bound agrees with any flow
    use = cv2.dilate(told.astype(np.float32), np.ones((7, 7), np.uint8))
    use = cv2.GaussianBlur(use, (0, 0), 1.5)[..., None]
    before = np.float32(0) if flow is None else flow * (1 - use)
    mixed = np.asarray(before + direct * use, np.float32)
    moved = motion.warped(seen, mixed)
    return mixed, moved, motion.disagreement(guide, moved, strength, noise)


def bracket_of(window: Window) -> tuple[Bracket, list[Timed]]:
    """The window as a bracket, darkest first, and its frames in that order."""
    order = sorted(window.frames, key=lambda timed: (timed.frame.exposure or 0, timed.index))
    reference = next(i for i, timed in enumerate(order) if timed is window.now)
    return Bracket(tuple(timed.frame for timed in order), reference), order
