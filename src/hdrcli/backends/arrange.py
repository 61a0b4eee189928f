"""Which frames a network of the papers gets, and in what order.

Three frames (all but DeepHDRVideo): the reference and one frame on either side of it, so that the
three cover the range best. On the darker side that is the nearest frame that clips hardly
anywhere, or the darkest there is; on the brighter side the nearest one that is hardly anywhere too
dark to see detail, or the brightest. A frame further than ``WIDEST`` stops from the reference is
taken only where there is no nearer one: no network was trained with more. Where a side has no
frame the reference stands in for it.

DeepHDRVideo takes a window of a video whose exposures alternate: three exposures m l s m l s m
around the reference in the middle, two exposures r o r o r, the other one being the darker frame
where the reference clips and else the brighter.

The frames that are left over are merged classically afterwards (extend.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion
from hdrcli.sights import light_of
from hdrcli.strips import Placement

Floats = NDArray[np.float32]

SAME = 0.3  # stops: frames nearer than that have the same exposure
WIDEST = 4.6  # stops between a frame and the reference
CLIPPED = 0.001  # part of the picture that may clip in a frame that holds the highlights
SHADOW = 0.1  # codes whose largest channel is below it show little
SHADOWS = 0.01  # part of the picture that may lie in them in a frame that holds the shadows
SAMPLES = 200_000  # pixels that are looked at

# Of short, reference and long: the order in time, by the number of a window's exposures.
WINDOWS = {3: (1, 2, 0, 1, 2, 0, 1), 2: (1, 0, 1, 0, 1)}


def triple(bracket: Bracket) -> tuple[int, int, int]:
    """Places in the bracket of the short frame, the reference and the long one."""
    evs, reference = bracket.evs, bracket.reference
    darker = [i for i in reversed(range(reference)) if evs[i] < -SAME]
    brighter = [i for i in range(reference + 1, len(evs)) if evs[i] > SAME]
    short = _first_holding(bracket, darker, _clipped, CLIPPED)
    long = _first_holding(bracket, brighter, _in_shadow, SHADOWS)
    return (
        reference if short is None else short,
        reference,
        reference if long is None else long,
    )


def window(bracket: Bracket, exposures: int, frames: int) -> tuple[int, ...]:
    """Places in the bracket of the frames of a video window, the reference in its middle."""
    short, reference, long = triple(bracket)
    if exposures == 2:
        dark_first = short != reference and (
            long == reference or _clipped(bracket.ref) > CLIPPED / 10
        )
        short = short if dark_first else long
    order = [(short, reference, long)[place] for place in WINDOWS[exposures]]
    cut = (len(order) - frames) // 2
    return tuple(order[cut : len(order) - cut])


def _first_holding(
    bracket: Bracket, outward: Sequence[int], lacks: Callable[[Frame], float], tolerated: float
) -> int | None:
    """The nearest frame that lacks little of the picture, else the outermost allowed."""
    allowed = [i for i in outward if abs(bracket.evs[i]) <= WIDEST] or list(outward[:1])
    for i in allowed:
        if lacks(bracket.frames[i]) <= tolerated:
            return i
    return allowed[-1] if allowed else None


def _clipped(frame: Frame) -> float:
    """Part of the picture, in [0, 1], that clips in a frame."""
    return float(np.mean(_tops(frame) >= frame.clip))


def _in_shadow(frame: Frame) -> float:
    """Part of the picture, in [0, 1], of which a frame shows little."""
    return float(np.mean(_tops(frame) < SHADOW))


def _tops(frame: Frame) -> NDArray[np.float64]:
    """The largest channels of a sample of a frame's pixels, over the largest code."""
    step = max(1, int((frame.size[0] * frame.size[1] / SAMPLES) ** 0.5))
    return np.asarray(frame.codes[::step, ::step].max(axis=2) / max(frame.levels - 1, 1))


@dataclass(frozen=True, eq=False)
class Stack:
    """The frames of some places in the bracket, as codes at the reference's pixels.

    ``places`` may repeat a frame; it is kept once. ``flow`` moves frames by the motion's flow too,
    and gives how far each is believed as a fourth channel beside its light.
    """

    bracket: Bracket
    places: tuple[int, ...]
    motion: Motion
    flow: bool = False
    threads: int | None = None

    @property
    def used(self) -> list[int]:
        """The frames, each once, darkest first."""
        return sorted(set(self.places))

    @property
    def order(self) -> list[int]:
        """For each place which of ``used`` it is."""
        return [self.used.index(place) for place in self.places]

    @property
    def ratios(self) -> Floats:
        """Exposure of every place over that of the shortest, (N,)."""
        exposures = self.bracket.exposures[list(self.places)]
        return np.asarray(exposures / exposures.min(), np.float32)

    @cached_property
    def white(self) -> np.float32:
        """The light of greys that clip: networks learned that it is 1, and are given it so."""
        ref = self.bracket.ref
        return np.float32(ref.response.at(ref.white) if ref.levels else 1)

    @cached_property
    def _aligned(self) -> list[tuple[Codes, NDArray[np.bool_] | None]]:
        return [self._align(place) for place in self.used]

    def _align(self, place: int) -> tuple[Codes, NDArray[np.bool_] | None]:
        frame = self.bracket.frames[place]
        flow = self.motion.flows[place] if self.flow else None
        if frame.warp is None and flow is None:
            return frame.codes, frame.valid
        placement = Placement(frame, flow, self.motion.scale)
        codes, valid = np.empty_like(frame.codes), np.ones(frame.size, bool)

        def work(rows: slice) -> None:
            codes[rows], known = placement.codes(rows)
            if known is not None:
                valid[rows] = known

        strips.run(work, frame.size, self.threads)
        return codes, None if valid.all() else valid

    def light(self, rows: slice, cols: slice) -> Floats:
        """Linear light of a part of ``used``, (n, h, w, 3) in [0, 1] of each one's ``white``; with
        ``flow`` (n, h, w, 4), belief in [0, 1] being the fourth channel."""
        parts = [
            (codes[rows, cols], None if valid is None else valid[rows, cols])
            for codes, valid in self._aligned
        ]
        light = self._filled(parts)
        if not self.flow:
            return light
        size = self.bracket.size
        rows, cols = slice(*rows.indices(size[0])), slice(*cols.indices(size[1]))
        return np.concatenate((light, self._believed(parts, rows, cols)[..., None]), axis=3)

    def _believed(
        self,
        parts: Sequence[tuple[Codes, NDArray[np.bool_] | None]],
        rows: slice,
        cols: slice,
    ) -> Floats:
        """How far each frame of ``used`` is believed, (n, h, w): nothing where it shows nothing."""
        belief = np.ones((len(parts), rows.stop - rows.start, cols.stop - cols.start), np.float32)
        for place, known, (_, valid) in zip(self.used, belief, parts, strict=True):
            small = self.motion.confidence[place]
            if small is not None:
                known[...] = strips.upsample(small, self.motion.scale, rows, cols)
            if valid is not None and place != self.bracket.reference:
                known *= valid
        return belief

    def reduced(self, pixels: int) -> Floats:
        """The same of the whole picture, reduced to at most so many pixels."""
        import cv2

        height, width = self.bracket.size
        shrink = min(1.0, (pixels / (height * width)) ** 0.5)
        if shrink == 1:
            return self.light(slice(None), slice(None))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        parts = []
        for codes, valid in self._aligned:
            small = None
            if valid is not None:
                small = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            part = cv2.resize(codes, size, interpolation=cv2.INTER_AREA)
            parts.append((part, None if small is None else small.astype(bool)))
        return self._filled(parts)

    def _filled(self, parts: Sequence[tuple[Codes, NDArray[np.bool_] | None]]) -> Floats:
        """Light of codes; where a frame shows nothing, what it would have taken of the reference's.

        A network must not see the smear of a border as a thing that has moved.
        """
        lights = [
            np.clip(light_of(codes, self.bracket.frames[place]) / self.white, 0, 1)
            for place, (codes, _) in zip(self.used, parts, strict=True)
        ]
        own = self.used.index(self.bracket.reference)
        reference, hidden = lights[own], parts[own][1]
        if hidden is not None and self.flow:  # it shows nothing there: the brightest frame does
            gain = np.float32(1 / self.bracket.ratios[self.used[-1]])
            reference[~hidden] = lights[-1][~hidden] * gain
        for place, light, (_, valid) in zip(self.used, lights, parts, strict=True):
            if valid is not None and place != self.bracket.reference and not valid.all():
                gain = np.float32(self.bracket.ratios[place])
                light[~valid] = np.clip(reference[~valid] * gain, 0, 1)
        return np.stack(lights)
