"""Weighted means of what the frames say of the light: average, debevec, robertson.

All three are one sum over the frames, X = sum(w_i c_i X_i) / sum(w_i c_i), with
X_i = light behind the code / exposure relative to the reference, c_i the confidence from
motion.py, and w_i a weight that depends on the code alone, so that it is a table. They differ in
that table, and in whether light or its logarithm is averaged.

The weight of a pixel is looked up at its largest channel: a pixel with one clipped channel is a
clipped pixel, and its hue is not believed.

A frame is not heard where the light of the reference would clip in it, and it shows something
darker: that has moved; or its camera shows colours that are far beyond white as greys below it.

Where no frame is believed the shortest takes over, even where it clips: its clipping level is
then the best lower bound there is. The reference's own clipped code is never used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels, strips
from hdrcli.backends.registry import WEIGHT_NAMES, Settings
from hdrcli.frames import Bracket, Codes, Frame, Radiance
from hdrcli.motion import Motion
from hdrcli.once import once
from hdrcli.sights import Noise, least_beside
from hdrcli.strips import Placement, Strip

Floats = NDArray[np.float32]
Tops = NDArray[np.uint16]  # (h, W), the largest channels of the reference, see ``tops_of``
WeightCurve = Callable[[Floats, float, Noise], Floats]

APART = (0.75, 0.94)  # codes between which a channel loses belief beside one that clips
NEARLY = np.float32(0.7)  # of the reference's bright light that is there in any case
LIKELY = np.float32(1.25)  # times the channels that do not clip: what a doubted frame may still say
FALLBACK = 1e-7  # weight of the shortest frame where nothing else is known
CERTAINLY = 1.4  # times white: light of the reference that a frame cannot show unclipped
FLOAT_LEVELS = 65536  # a float frame's weight is looked up at this many steps
CERTAIN = np.ones(1, np.float32)  # the belief in each pixel of a frame that is fully believed


def photon_weight(light: Floats, ratio: float, noise: Noise) -> Floats:
    """Inverse of the variance of X_i = light / ratio (Hasinoff et al., CVPR 2010, section 3)."""
    quantum = np.gradient(light.astype(np.float64)) ** 2 / 12
    return np.asarray(ratio**2 / (noise.shot * light + noise.read + quantum), np.float32)


def hat_weight(light: Floats, ratio: float, noise: Noise) -> Floats:
    """Debevec and Malik, equation 4: trust the middle of the codes, not their ends."""
    z = np.linspace(0, 1, len(light), dtype=np.float32)
    return np.asarray(np.maximum(1 - np.abs(2 * z - 1), np.float32(1e-4)))


def gaussian_weight(light: Floats, ratio: float, noise: Noise) -> Floats:
    """Robertson et al., equations 7 and 10: a Gaussian over the codes, times exposure squared."""
    z = np.linspace(0, 1, len(light), dtype=np.float32)
    return np.asarray(np.exp(-4 * (2 * z - 1) ** 2) * ratio**2, np.float32)


def plateau_weight(light: Floats, ratio: float, noise: Noise) -> Floats:
    """Flat over most of the codes, falling to both ends (as in hdrgen and Luminance HDR)."""
    z = np.linspace(0, 1, len(light), dtype=np.float32)
    return np.asarray(np.maximum(1 - np.abs(2 * z - 1) ** np.float32(12), np.float32(1e-4)))


def flat_weight(light: Floats, ratio: float, noise: Noise) -> Floats:
    """The same for every code that does not clip."""
    return np.ones(len(light), np.float32)


WEIGHTS: dict[str, WeightCurve] = {
    "noise": photon_weight,
    "hat": hat_weight,
    "gaussian": gaussian_weight,
    "plateau": plateau_weight,
    "flat": flat_weight,
}
assert tuple(WEIGHTS) == WEIGHT_NAMES


@dataclass(frozen=True, eq=False)
class Source:
    """One frame as the sum wants it: tables of light and of weight, placement, confidence."""

    placement: Placement | Strip
    light: Floats  # (3, levels), X_i
    weight: Floats  # (levels,), at the largest channel
    telling: Floats  # (levels,), how much a largest channel measures: 0 where it clips
    fallback: float  # weight that is added: where nothing else is known this frame decides
    beyond: int  # code of the reference from which on the frame certainly clips; or beyond all
    confidence: Floats | None
    scale: tuple[float, float]
    ratio: float
    logarithmic: bool

    def over(self, rows: slice) -> "Source":
        """The same for these rows of the reference alone."""
        assert isinstance(self.placement, Placement)
        return replace(self, placement=self.placement.over(rows))

    def doubted(self, rows: slice) -> bool:
        """Whether the frame is not fully believed all over these rows."""
        if self.confidence is None:
            return False
        return bool((strips.small_rows(self.confidence, self.scale, rows) < 1).any())

    @once
    def linear(self) -> Floats:
        """(3, levels), what codes say of the light, never as a logarithm."""
        return np.exp(self.light) if self.logarithmic else self.light

    @property
    def white(self) -> np.float32:
        """The light at which the frame clips; of a float frame, 1 of its own."""
        levels = self.placement.frame.levels
        return np.float32(self.linear.max() if levels else 1 / self.ratio)

    def seen(self, rows: slice) -> "Seen":
        """What the frame shows at these rows of the reference."""
        codes, valid = self.placement.codes(rows)
        belief = believed(self, valid, rows, codes.shape[1])
        return Seen(self, np.ascontiguousarray(codes), belief, doubted=self.doubted(rows))


@dataclass(frozen=True, eq=False)
class Seen:
    """What a frame shows at some rows: brought there once, for the sum and for the highlights."""

    source: Source
    codes: Codes  # (h, W, 3), contiguous
    belief: Floats | None  # (h, W) in [0, 1]; None: everywhere, fully
    doubted: bool  # whether belief is lacking for more than what the frame does not cover


class WeightedMean:
    """Base of the three: a weight curve, and the domain that is averaged."""

    weight = "noise"
    logarithmic = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        asked = settings.options.get("weight") or "noise"
        self.curve = WEIGHTS[self.weight if asked == "noise" else asked]

    def merge(
        self,
        bracket: Bracket,
        motion: Motion,
        guess: Floats | None = None,
        deviation: NDArray[np.floating] | None = None,
    ) -> Radiance:
        """Merge an aligned bracket. Pixels that clip in every frame are counted.

        ``guess`` (h, w, 3), on the motion's reduced picture, corrects the logarithm of light
        that clips in the reference and that no darker frame is believed about. ``deviation``
        (H, W), of any float type, is filled with 1 / sqrt(sum(w_i c_i)): under the weights of
        ``average`` the standard deviation of a pixel's largest channel, the reference's white
        at 1.0, and thousands where nothing is known but a bound.
        """
        sources = self.sources(bracket, motion)
        height, width = bracket.size
        out = np.empty((height, width, 3), self.settings.dtype)

        highlights = Highlights.of(sources, bracket.reference)

        def work(rows: slice) -> int:
            near, lost = [source.over(rows) for source in sources], 0
            room = np.empty((0, width, 4), np.float32)  # fresh memory for each block is slow
            for part in strips.inner_blocks(rows, width):
                count = part.stop - part.start
                room = room if len(room) >= count else np.empty((count, width, 4), np.float32)
                seen = [source.seen(part) for source in near]
                tops = tops_of(bracket.ref, part)
                total = summed(seen, room[:count], tops)
                if deviation is not None:
                    deviation[part] = 1 / np.sqrt(total[..., 3])
                if self.logarithmic:
                    settle(total, np.exp(total[..., :3] / total[..., 3:]))
                if highlights is not None:
                    highlights.mend(total, tops, seen, part, guess)
                lost += divide(total, out[part])
            return lost

        pixels = strips.placed_pixels(bracket.size)
        lost = sum(strips.run(work, bracket.size, self.settings.threads, pixels))
        assert bracket.ref.exposure is not None
        return Radiance(
            out, bracket.ref.primaries, bracket.ref.exposure, clipped=lost / (height * width)
        )

    def sources(self, bracket: Bracket, motion: Motion) -> list[Source]:
        """Tables and placements of every frame, darkest first."""
        return [self._source(frame, i, bracket, motion) for i, frame in enumerate(bracket.frames)]

    def _source(self, frame: Frame, i: int, bracket: Bracket, motion: Motion) -> Source:
        ratio = float(bracket.ratios[i])
        table = frame.table if frame.levels else _identity()
        brightest = table.max(axis=1)
        telling = unclipped(len(table), frame)
        weight = self.curve(brightest, ratio, motion.noise[i]) * telling
        light = table / np.float32(ratio)
        if frame.levels:  # codes that clip are one white: only the fallback ever reads them
            most = len(table) - 1
            light[int(np.ceil(frame.clip * most)) :] = light[round(frame.white * most)].max()
        if self.logarithmic:
            light = np.log(np.maximum(light, _floor(light)))
        return Source(
            placement=Placement(frame, motion.flows[i], motion.scale),
            light=np.ascontiguousarray(light.T, np.float32),
            weight=np.ascontiguousarray(weight, np.float32),
            telling=telling,
            fallback=FALLBACK if i == 0 else 0.0,
            beyond=beyond(bracket.ref, ratio) if frame.levels else kernels.ANY_CODE,
            confidence=motion.confidence[i],
            scale=motion.scale,
            ratio=ratio,
            logarithmic=self.logarithmic,
        )


class Average(WeightedMean):
    """The noise-optimal mean: inverse variance under Poisson-Gaussian noise."""


class Debevec(WeightedMean):
    """Debevec and Malik, "Recovering High Dynamic Range Radiance Maps", equation 6."""

    weight = "hat"
    logarithmic = True


class Robertson(WeightedMean):
    """Robertson et al., "Dynamic range improvement through multiple exposures", equation 8."""

    weight = "gaussian"


def beyond(reference: Frame, ratio: float) -> int:
    """The code of the reference from which on a frame of this exposure certainly clips.

    Or one beyond all codes, where no code tells.
    """
    if not reference.levels:
        return kernels.ANY_CODE
    table, least = reference.table.min(axis=1), CERTAINLY / ratio
    return int(np.searchsorted(table, least)) if least < table[-1] else kernels.ANY_CODE


def tops_of(reference: Frame, rows: slice) -> Tops:
    """The largest channel's codes of some rows of the reference, (h, W); 0 where none tells."""
    codes = np.ascontiguousarray(reference.codes[rows])
    tops = np.zeros(codes.shape[:2], np.uint16)
    if reference.levels:
        kernels.largest_of_three(codes, tops, tops.size)
    return tops if reference.valid is None else tops * reference.valid[rows]


def unclipped(levels: int, frame: Frame) -> Floats:
    """1 where a code is below clipping, a ramp, then 0; float frames have no known clip."""
    if not frame.levels:
        return np.ones(levels, np.float32)
    z = np.linspace(0, 1, levels, dtype=np.float32)
    return np.asarray(np.clip((frame.clip - z) / (frame.clip - frame.fade), 0, 1))


def summed(seen: Sequence[Seen], total: Floats, tops: Tops) -> Floats:
    """The weighted sum over what frames show, (h, W, 4): w X of each channel, and w."""
    total[:] = 0
    add(seen, total, tops)
    return total


def add(seen: Sequence[Seen], total: Floats, tops: Tops) -> None:
    """Add what frames show to a sum, (h, W, 4)."""
    for levels, alike in groupby(seen, lambda one: one.source.placement.frame.levels):
        if levels:
            add_codes(tuple(alike), total, tops)
        else:
            for one in alike:
                add_floats(one.source, one.codes, one.belief, total)


def add_codes(seen: Sequence[Seen], total: Floats, tops: Tops) -> None:
    """The same of frames of one number of codes, in a pass over the sum, or two."""
    for bounded, some in groupby(seen, lambda one: one.source.beyond < kernels.ANY_CODE):
        alike = tuple(some)
        shown = tuple(one.codes for one in alike)
        light = tuple(one.source.light for one in alike)
        weight = tuple(one.source.weight for one in alike)
        belief = tuple(CERTAIN if one.belief is None else one.belief for one in alike)
        doubted = np.array([one.belief is not None for one in alike], np.int64)
        counts = len(weight[0]), total.size // 4, len(alike)
        if bounded:
            ends = np.array([one.source.beyond for one in alike], np.int64)
            kernels.accumulate_within(
                shown, light, weight, belief, doubted, ends, tops, total, *counts
            )
        else:
            least = np.array([one.source.fallback for one in alike], np.float32)
            kernels.accumulate(shown, light, weight, belief, doubted, least, total, *counts)


def add_floats(source: Source, codes: Codes, belief: Floats | None, total: Floats) -> None:
    """The same of a float frame, whose numbers are light already and may exceed 1."""
    light = finite(codes) / np.float32(source.ratio)
    if source.logarithmic:
        light = np.log(np.maximum(light, np.float32(1e-8)))
    at = np.clip(np.nan_to_num(codes).max(axis=-1), 0, 1) * (FLOAT_LEVELS - 1)
    weight = source.weight[np.rint(at).astype(np.uint16)]
    if belief is not None:
        weight *= belief
    weight += np.float32(source.fallback)
    total[..., :3] += weight[..., None] * light
    total[..., 3] += weight


def believed(
    source: Source, valid: NDArray[np.bool_] | None, rows: slice, width: int
) -> Floats | None:
    """How far a frame is believed at some rows, (h, width) in [0, 1]; None: everywhere, fully."""
    if not source.doubted(rows):
        return None if valid is None else valid.astype(np.float32)
    assert source.confidence is not None
    belief = strips.upsample(source.confidence, source.scale, rows, width)
    return np.ascontiguousarray(belief if valid is None else belief * valid)


def finite(light: NDArray[Any]) -> Floats:
    """Light of a float frame; what is no number is none."""
    return np.nan_to_num(np.asarray(light, np.float32), nan=0, posinf=0, neginf=0)


def settle(total: Floats, light: Floats, where: tuple[Any, ...] = np.s_[:, :]) -> None:
    """Make some light the mean of a sum, whose weight stays what it is."""
    total[(*where, slice(0, 3))] = light * total[(*where, 3)][..., None]


def divide(total: Floats, out: NDArray[np.floating]) -> int:
    """The means of a sum, (h, w, 3), as float32 or float16; how many are of nothing but bounds.

    Light is at least 0.
    """
    lost, least = np.empty(1, np.int64), np.float32(2 * FALLBACK)
    if out.dtype == np.float16:
        kernels.divide_to_half(total, least, out.view(np.uint16), lost, total.size // 4)
    else:
        kernels.divide(total, least, out, lost, total.size // 4)
    return int(lost[0])


@dataclass(frozen=True, eq=False)
class Highlights:
    """Where the reference clips: never darker than its clipping, and no ghost of another moment.

    A channel of the reference that does not clip is still a measurement, though the pixel is
    not believed as a whole. A channel that clips is at least its clipping level; where no darker
    frame is believed, it is taken from the shortest frame, corrected by the guess if there is one.
    """

    reference: int
    light: Floats  # (3, levels)
    beside: Floats  # (levels,): how much a channel is believed beside one that clips
    fade: int  # the codes where belief in the reference begins to fall, and where it has gone
    ceiling: int
    least: np.float32  # of its clipping level: what a channel beside one as bright is at least

    @classmethod
    def of(cls, sources: list[Source], reference: int) -> "Highlights | None":
        """Of the reference's codes; None where it never clips, or no frame is darker."""
        frame = sources[reference].placement.frame
        if not frame.levels or reference == 0:
            return None
        most = frame.levels - 1
        beside = apart(frame)
        light = np.ascontiguousarray(frame.table.T)
        return cls(
            reference,
            light,
            beside,
            int(np.ceil(frame.fade * most)),
            int(np.ceil(frame.clip * most)),
            np.float32(least_beside(frame)),
        )

    def mend(
        self, total: Floats, tops: Tops, seen: list[Seen], rows: slice, guess: Floats | None
    ) -> None:
        """Mend a sum of these rows, (h, W, 4), over what all frames show there."""
        own, darker = seen[self.reference], seen[: self.reference]
        if any(one.doubted for one in darker):
            self._mend_doubted(total, tops, own, darker, rows, guess)
            return
        weight = own.source.weight
        kernels.mend(
            own.codes,
            tops,
            self.light,
            weight,
            self.beside,
            self.fade,
            self.ceiling,
            self.least,
            total,
            len(weight),
            total.size // 4,
        )

    def _mend_doubted(
        self,
        total: Floats,
        tops: Tops,
        own: Seen,
        darker: list[Seen],
        rows: slice,
        guess: Floats | None,
    ) -> None:
        """The same where not all darker frames are fully believed."""
        bright = tops >= self.fade
        if not bright.any():
            return
        found = np.zeros((*bright.shape, 8), np.float32)
        for seen in darker:
            told_of(seen, bright, found, shortest=seen is darker[0])
        shift, guessed = guessed_of(guess, own.source, rows, total.shape[1])
        weight = own.source.weight
        kernels.mend_doubted(
            own.codes,
            tops,
            self.light,
            weight,
            self.beside,
            self.fade,
            self.ceiling,
            int(np.ceil(APART[0] * (len(weight) - 1))),
            NEARLY,
            LIKELY,
            self.least,
            found,
            darker[0].source.white,
            shift,
            guessed,
            total,
            len(weight),
            bright.size,
        )


def told_of(seen: Seen, bright: NDArray[np.bool_], found: Floats, *, shortest: bool) -> None:
    """What a frame darker than the reference says of its ``bright`` pixels: kernels.darken."""
    source, belief = seen.source, seen.belief
    if not source.placement.frame.levels:
        told_of_floats(seen, found, shortest=shortest)
        return
    kernels.darken(
        bright.view(np.uint8),
        seen.codes,
        source.linear,
        source.telling,
        CERTAIN if belief is None else belief,
        0 if belief is None else 1,
        source.white,
        int(shortest),
        found,
        len(source.weight),
        bright.size,
    )


def told_of_floats(seen: Seen, found: Floats, *, shortest: bool) -> None:
    """The same of a float frame, which measures everything below its white, and no more."""
    light, white = finite(seen.codes) / np.float32(seen.source.ratio), seen.source.white
    sure = np.ones(light.shape[:2], np.float32) if seen.belief is None else seen.belief
    found[..., 0] = np.maximum(found[..., 0], sure)
    clips = light >= white * kernels.NEARLY_WHITE
    least = np.where(clips, (sure * white)[..., None], 0)
    found[..., 1:4] = np.maximum(found[..., 1:4], least)
    if shortest:
        found[..., 4:7], found[..., 7] = light, sure


def guessed_of(guess: Floats | None, source: Source, rows: slice, width: int) -> tuple[Floats, int]:
    """The guess at some rows, (h, width, 3), and 1; 0 and no such map where there is none."""
    if guess is None or not strips.small_rows(guess, source.scale, rows).any():
        return CERTAIN, 0
    return np.ascontiguousarray(strips.upsample(guess, source.scale, rows, width)), 1


def apart(frame: Frame) -> Floats:
    """By code, how much a channel is believed whose neighbour channel clips: 1 far below clipping.

    JPEG and interpolation carry the clipping of one channel into those that nearly clip.
    """
    z = np.linspace(0, 1, frame.levels, dtype=np.float32) + np.float32(1 - frame.white)
    return np.asarray(np.clip((APART[1] - z) / (APART[1] - APART[0]), 0, 1), np.float32)


def _identity() -> Floats:
    return np.repeat(np.linspace(0, 1, FLOAT_LEVELS, dtype=np.float32)[:, None], 3, axis=1)


def _floor(light: Floats) -> np.float32:
    """The smallest light a logarithm is taken of: half of the first code above black."""
    return np.float32(light[light > 0].min() / 2)
