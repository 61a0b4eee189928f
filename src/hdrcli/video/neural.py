"""The networks on windows of video.

FlowMerge corrects the motion of a window, which is then merged as ``average`` merges it: steadily.
DeepHDRVideo sees five or seven frames in order of time, as its paper has it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hdrcli import motion as still
from hdrcli import weights
from hdrcli.backends import flowmerge
from hdrcli.backends.arrange import SAME, Stack
from hdrcli.backends.neural import THREE, DeepHDRVideo, network, wants_aligned
from hdrcli.backends.registry import Settings
from hdrcli.errors import InputError
from hdrcli.frames import LINEAR, Bracket, Radiance
from hdrcli.motion import Motion
from hdrcli.strips import upsample
from hdrcli.video import cascade, motion
from hdrcli.video.clip import Timed
from hdrcli.video.merge import NOISE, SteadyAverage, needed
from hdrcli.video.windows import Window

if TYPE_CHECKING:
    from torch import nn

    from hdrcli.nets.forms import Form

Floats = NDArray[np.float32]

SHOWN = 0.75  # of the codes to be relied on: below it a crushed code shows nothing
BRIGHTER = 1.1  # times the present frame's exposure, from which a frame is brighter
SEEN = 600_000  # pixels of the pictures that FlowMerge judges
MOST_HELD = 2.2e9  # bytes that the process shall have in all while a tile is on the CPU


class SteadyFlow:
    """Motion as for photographs, corrected by FlowMerge, merged steadily."""

    side_by_side = False

    def __init__(self, settings: Settings, anchor: float, *, crushed: bool = False) -> None:
        self.steady = SteadyAverage(settings, anchor, crushed=crushed)
        self.net, self.device = flowmerge.loaded(settings)

    def merge(self, window: Window, strength: str) -> Radiance:
        """See merge.Merger."""
        window = needed(window)
        bracket, order = motion.bracket_of(window)
        flows = motion.expected_flows(window)
        expected = [seen_flow(flows, timed, bracket.size) for timed in order]
        moved = seen_motion(bracket, strength, expected)
        if moved.views and any(belief is not None for belief in moved.confidence):
            corrected, _ = flowmerge.correct(self.net, bracket, moved, self.device)
            moved = where_it_can_tell(corrected, moved, bracket)
        return self.steady.mean_of(bracket, moved)


def where_it_can_tell(corrected: Motion, found: Motion, bracket: Bracket) -> Motion:
    """The corrected motion of frames no brighter than the present one, else that which was found.

    A present frame that is darker than its neighbours is noisy all over. FlowMerge, which knows
    photographs, takes some of that for motion, and the neighbours that could tell better are lost.
    """
    tells = bracket.ratios < BRIGHTER
    confidence = zip(corrected.confidence, found.confidence, tells, strict=True)
    flows = zip(corrected.flows, found.flows, tells, strict=True)
    return replace(
        corrected,
        confidence=tuple(new if told else old for new, old, told in confidence),
        flows=tuple(new if told else old for new, old, told in flows),
    )


def seen_motion(
    bracket: Bracket, strength: str, expected: Sequence[Floats | None] | None = None
) -> Motion:
    """Motion between reduced frames, its views kept, to be applied to the full ones.

    ``expected``: flows for the frames, as ``seen_flow`` gives them.
    """
    if len(bracket.frames) == 1:
        return Motion.none(1, NOISE)
    factor = motion.factor_of(bracket.size, SEEN)
    reduced = [
        replace(frame, codes=motion.in_blocks(frame.codes, factor)) for frame in bracket.frames
    ]
    found = still.analyse(
        bracket.with_frames(reduced),
        strength,
        NOISE,
        keep_views=True,
        expected=expected,
    )
    return replace(found, scale=(1 / factor, 1 / factor))


def seen_flow(
    flows: Mapping[int, Floats | None], timed: Timed, size: tuple[int, int]
) -> Floats | None:
    """The expected flow to a frame, on the larger pictures that FlowMerge judges; None: unknown."""
    if timed.index not in flows:
        return None
    factor, flow = motion.factor_of(size, SEEN), flows[timed.index]
    rows, cols = (slice(0, side // factor) for side in size)
    if flow is None:  # nothing moves
        return np.zeros((rows.stop, cols.stop, 2), np.float32)
    part = factor / motion.factor_of(size)
    return np.asarray(upsample(flow, (part, part), rows, cols) / np.float32(part), np.float32)


class DeepWindow:
    """DeepHDRVideo, on windows of the length that its weights want."""

    side_by_side = False

    def __init__(self, settings: Settings, anchor: float, *, crushed: bool = False) -> None:
        self.backend = DeepHDRVideo(settings, MOST_HELD)
        self.settings, self.anchor, self.crushed = settings, anchor, crushed
        self.nets: dict[int, tuple[nn.Module, Form]] = {}  # by the number of exposures

    def net_for(self, exposures: int) -> "tuple[nn.Module, Form]":
        """The network for so many exposures. InputError where its weights are for others."""
        if exposures not in self.nets:
            entry = weights.find(THREE) if exposures == 3 else self.backend.entry
            net, form = network("deephdrvideo", *weights.load(entry))
            made_for = int(getattr(net, "exposures", exposures))
            if made_for != exposures:
                raise InputError(
                    f"the weights of deephdrvideo are for {made_for} exposures, "
                    f"the clip has {exposures}",
                    hint="choose another --backend",
                )
            self.nets[exposures] = net, form
        return self.nets[exposures]

    def merge(self, window: Window, strength: str) -> Radiance:
        """See merge.Merger. A network with a flow net aligns by itself, whatever ``strength``."""
        exposures = 1 + len(window.others)
        net, form = self.net_for(exposures)
        reach = int(getattr(net, "frames", 2 * exposures + 1)) // 2
        aligned = wants_aligned(net)
        stack = stack_of(window, reach, strength if aligned else None, self.settings.threads)
        if self.crushed and aligned:
            stack = replace(stack, bracket=uncrushed(stack.bracket))
        out, _ = self.backend.run(net, form, stack)
        reference = stack.bracket.ref
        assert reference.exposure is not None
        gain = np.float32(self.anchor / reference.exposure)
        return Radiance(np.asarray(out * gain, np.float32), reference.primaries, self.anchor)


def uncrushed(bracket: Bracket) -> Bracket:
    """The frames of a clip whose blacks are crushed, all but the brightest as light.

    Codes near black have no colour of their own, as in hdrcli.video.cascade, and where they say
    only "dark" the frame shows nothing.
    """
    import cv2

    brightest = float(bracket.exposures.max())
    frames = []
    for frame, exposure in zip(bracket.frames, bracket.exposures, strict=True):
        if frame.levels and np.log2(brightest / exposure) > SAME:
            top = np.float32(frame.levels - 1)
            grey = cv2.cvtColor(frame.codes, cv2.COLOR_RGB2GRAY).astype(np.float32) / top
            colour = np.interp(grey, cascade.COLOURED, (0, 1)).astype(np.float32)
            shown = grey >= SHOWN * cascade.DARK[True]
            shown &= True if frame.valid is None else frame.valid
            light = cascade.paled(frame.linear(), colour)
            frames.append(replace(frame, codes=light, response=LINEAR, valid=shown))
        else:
            frames.append(frame)
    return bracket.with_frames(frames)


def stack_of(window: Window, reach: int, strength: str | None, threads: int | None = None) -> Stack:
    """The frames up to ``reach`` from the present one, in order of time, as a network takes them.

    With a ``strength`` of --deghost they come moved to the present frame, with how far they are
    believed; the motion is that of ``average``.
    """
    frames = window.around(reach, 1 + len(window.others))
    unique = sorted(
        {timed.index: timed for timed in frames}.values(),
        key=lambda timed: (timed.frame.exposure or 0, timed.index),
    )
    at = {timed.index: place for place, timed in enumerate(unique)}
    bracket = Bracket(tuple(timed.frame for timed in unique), at[window.now.index])
    if strength is None:
        moved = Motion.none(len(unique), NOISE)
    else:
        moved = motion.analyse(window, bracket, unique, strength, NOISE)
    places = tuple(at[timed.index] for timed in frames)
    return Stack(bracket, places, moved, flow=strength is not None, threads=threads)
