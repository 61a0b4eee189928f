"""Weighted means of what the frames say of the light: average, debevec, robertson.

All three are one sum over the frames, X = sum(w_i c_i X_i) / sum(w_i c_i), with
X_i = light behind the code / exposure relative to the reference, c_i the confidence from
motion.py, and w_i a weight that depends on the code alone, so that it is a table. They differ in
that table, and in whether light or its logarithm is averaged.

The weight of a pixel is looked up at its largest channel: a pixel with one clipped channel is a
clipped pixel, and its hue is not believed.

Where no frame is believed the shortest takes over, even where it clips: its clipping level is
then the best lower bound there is. The reference's own clipped code is never used.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels, strips
from hdrcli.backends.registry import WEIGHT_NAMES, Settings
from hdrcli.frames import Bracket, Codes, Frame, Radiance
from hdrcli.motion import CLIP, Motion, Noise
from hdrcli.strips import Placement, Strip

Floats = NDArray[np.float32]
WeightCurve = Callable[[Floats, float, Noise], Floats]

FADE = 235 / 255  # from here to CLIP the weight of a code falls to zero
APART = (0.75, 0.94)  # codes between which a channel loses belief beside one that clips
NEARLY = np.float32(0.7)  # of the reference's bright light that is there in any case
LIKELY = np.float32(3)  # times the channels that do not clip: what a doubted frame may still say
DIM = np.float32(1e-6)  # light that nothing is divided by
FALLBACK = 1e-7  # weight of the shortest frame where nothing else is known
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
    fallback: float  # weight that is added: where nothing else is known this frame decides
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

    def radiance(self, codes: NDArray[Any]) -> tuple[Floats, np.float32]:
        """What codes, (n, 3), say of the light, never as a logarithm; and the clipping level."""
        if not self.placement.frame.levels:
            return finite(codes) / np.float32(self.ratio), np.float32(1 / self.ratio)
        table = np.exp(self.light) if self.logarithmic else self.light
        return looked_up(table, codes), table.max()

    def seen(self, rows: slice) -> "Seen":
        """What the frame shows at these rows of the reference."""
        codes, valid = self.placement.codes(rows)
        belief = believed(self, valid, rows, codes.shape[1])
        return Seen(self, np.ascontiguousarray(codes), belief, doubted=self.doubted(rows))

    def telling(self, codes: NDArray[Any]) -> Floats:
        """How much codes, (n, 3), measure, (n, 1): 1 below FADE, 0 where the largest clips."""
        if not self.placement.frame.levels:
            return np.ones((len(codes), 1), np.float32)
        z = codes.max(axis=1, keepdims=True) / np.float32(self.placement.frame.levels - 1)
        return np.asarray(np.clip((CLIP - z) / (CLIP - FADE), 0, 1), np.float32)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a frame shows at some rows: brought there once, for the sum and for the highlights."""

    source: Source
    codes: Codes  # (h, W, 3), contiguous
    belief: Floats | None  # (h, W) in [0, 1]; None: everywhere, fully
    doubted: bool  # whether belief is lacking for more than what the frame does not cover

    def at(self, where: tuple[NDArray[np.intp], ...]) -> tuple[NDArray[Any], Floats]:
        """Codes (n, 3) at some pixels, and how far they are believed, (n, 1)."""
        sure = np.ones(len(where[0]), np.float32) if self.belief is None else self.belief[where]
        return self.codes[where], sure[:, None]


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
                total = summed(seen, room[:count])
                if deviation is not None:
                    deviation[part] = 1 / np.sqrt(total[..., 3])
                if self.logarithmic:
                    settle(total, np.exp(total[..., :3] / total[..., 3:]))
                if highlights is not None:
                    highlights.mend(total, seen, part, guess)
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
        return [
            self._source(frame, i, float(bracket.ratios[i]), motion)
            for i, frame in enumerate(bracket.frames)
        ]

    def _source(self, frame: Frame, i: int, ratio: float, motion: Motion) -> Source:
        table = frame.table if frame.levels else _identity()
        brightest = table.max(axis=1)
        weight = self.curve(brightest, ratio, motion.noise[i]) * unclipped(len(table), frame)
        light = table / np.float32(ratio)
        if frame.levels:  # codes that clip are one white: only the fallback ever reads them
            light[int(np.ceil(CLIP * (len(table) - 1))) :] = light[-1].max()
        if self.logarithmic:
            light = np.log(np.maximum(light, _floor(light)))
        return Source(
            placement=Placement(frame, motion.flows[i], motion.scale),
            light=np.ascontiguousarray(light.T, np.float32),
            weight=np.ascontiguousarray(weight, np.float32),
            fallback=FALLBACK if i == 0 else 0.0,
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


def unclipped(levels: int, frame: Frame) -> Floats:
    """1 where a code is below clipping, a ramp, 0 from CLIP on; float frames have no known clip."""
    if not frame.levels:
        return np.ones(levels, np.float32)
    z = np.linspace(0, 1, levels, dtype=np.float32)
    return np.asarray(np.clip((CLIP - z) / (CLIP - FADE), 0, 1))


def summed(seen: Iterable[Seen], total: Floats) -> Floats:
    """The weighted sum over what frames show, (h, W, 4): w X of each channel, and w."""
    total[:] = 0
    for one in seen:
        add(one, total)
    return total


def add(seen: Seen, total: Floats) -> None:
    """Add what one frame shows to a sum, (h, W, 4)."""
    source, codes, belief = seen.source, seen.codes, seen.belief
    if not source.placement.frame.levels:
        add_floats(source, codes, belief, total)
        return
    kernels.accumulate(
        codes,
        source.light,
        source.weight,
        CERTAIN if belief is None else belief,
        0 if belief is None else 1,
        np.float32(source.fallback),
        total,
        len(source.weight),
        total.size // 4,
    )


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

    @classmethod
    def of(cls, sources: list[Source], reference: int) -> "Highlights | None":
        """Of the reference's codes; None where it never clips, or no frame is darker."""
        frame = sources[reference].placement.frame
        if not frame.levels or reference == 0:
            return None
        most = frame.levels - 1
        beside = apart(np.arange(frame.levels), frame.levels)
        light = np.ascontiguousarray(frame.table.T)
        return cls(reference, light, beside, int(np.ceil(FADE * most)), int(np.ceil(CLIP * most)))

    def mend(self, total: Floats, seen: list[Seen], rows: slice, guess: Floats | None) -> None:
        """Mend a sum of these rows, (h, W, 4), over what all frames show there."""
        own, darker = seen[self.reference], seen[: self.reference]
        if any(one.doubted for one in darker):
            self._mend_doubted(total, own, darker, rows, guess)
            return
        weight = own.source.weight
        kernels.mend(
            own.codes,
            self.light,
            weight,
            self.beside,
            self.fade,
            self.ceiling,
            total,
            len(weight),
            total.size // 4,
        )

    def _mend_doubted(
        self, total: Floats, own: Seen, darker_ones: list[Seen], rows: slice, guess: Floats | None
    ) -> None:
        """The same where not all darker frames are fully believed."""
        weight, width = own.source.weight, total.shape[1]
        largest = strips.largest(own.codes)
        where = np.nonzero(largest >= self.fade)
        if not len(where[0]):
            return
        here, known = own.codes[where], total[where][:, 3:]
        was = total[where][:, :3] / known
        darker = Darker.of(darker_ones, where)
        light = looked_up(self.light, here)
        extra = np.maximum(weight[here] - weight[largest[where]][:, None], 0)
        extra *= self.beside[here]
        nobody = np.maximum(1 - 4 * darker.belief, 0) ** 2
        extra = np.maximum(extra, nobody * weight[self.fade])  # rather that than a ghost
        measured = (known * was + extra * light) / (known + extra)
        shown = (here >= APART[0] * (len(weight) - 1)) & (darker.belief < 1)  # bright: no shade
        measured = np.maximum(measured, np.where(shown, NEARLY * light, 0))
        more = None
        if guess is not None:
            more = strips.upsample(guess, own.source.scale, rows, width)[where]
        likely = np.where(here < self.ceiling, LIKELY * light / np.maximum(darker.light, DIM), 1)
        bound = self.light[:, self.ceiling]
        clipped = darker.beyond(was, likely.min(axis=1, keepdims=True), bound, more)
        settle(total, np.where(here >= self.ceiling, clipped, measured), where)


def looked_up(tables: Floats, codes: NDArray[Any]) -> Floats:
    """Codes (n, 3) in tables (3, levels)."""
    return np.stack([np.take(tables[c], codes[:, c]) for c in range(3)], axis=-1)


@dataclass(frozen=True, eq=False)
class Darker:
    """What the frames darker than the reference say of n pixels where it clips.

    ``belief`` (n, 1): in what they measure. A frame that clips too measures nothing, but the
    shortest, whose clipping level is the best there is. ``least`` (n, 3): what the light is at
    least, as frames tell that clip themselves. ``light`` (n, 3) of the shortest frame, ``open``
    where it does not clip, and ``sure`` (n, 1), the belief in it.
    """

    belief: Floats
    least: Floats
    light: Floats
    open: NDArray[np.bool_]
    sure: Floats

    @classmethod
    def of(cls, seen: list[Seen], where: tuple[NDArray[np.intp], ...]) -> "Darker":
        """Of what frames show, darkest first, at some pixels."""
        belief = np.zeros((len(where[0]), 1), np.float32)
        least = np.zeros((len(where[0]), 3), np.float32)
        for one in reversed(seen):  # what the shortest shows is left over
            codes, sure = one.at(where)
            light, white = one.source.radiance(codes)
            clips = light >= white * np.float32(1 - 1e-5)
            least = np.maximum(least, sure * clips * white)
            told = 1 if one is seen[0] else one.source.telling(codes)
            belief = np.maximum(belief, sure * told)
        return cls(belief, least, light, ~clips, sure)

    def beyond(self, mean: Floats, likely: Floats, bound: Floats, guess: Floats | None) -> Floats:
        """The light, (n, 3), where the reference clips at ``bound``, (3,).

        As far as the frames are believed it is their mean; else the shortest frame's, but at
        least what clips: ``likely`` (n, 1) is the most of it that fits the channels of the
        reference that do not clip, if it is not believed.
        """
        bound = np.maximum(self.least, bound)
        fits = self.sure + (1 - self.sure) * np.minimum(likely, 1)
        mixed = self.belief * mean + (1 - self.belief) * np.maximum(fits * self.light, bound)
        above = np.log(np.maximum(mixed, np.float32(1e-6)) / bound)
        if guess is not None:  # what clips everywhere stays neutral
            above += (1 - self.belief) * self.open * guess
        return np.asarray(bound * np.exp(np.maximum(above, 0)), np.float32)


def apart(codes: NDArray[np.generic], levels: int) -> Floats:
    """How much a channel is believed whose neighbour channel clips: 1 far below clipping.

    JPEG and interpolation carry the clipping of one channel into those that nearly clip.
    """
    z = np.asarray(codes, np.float32) / np.float32(levels - 1)
    return np.asarray(np.clip((APART[1] - z) / (APART[1] - APART[0]), 0, 1), np.float32)


def _identity() -> Floats:
    return np.repeat(np.linspace(0, 1, FLOAT_LEVELS, dtype=np.float32)[:, None], 3, axis=1)


def _floor(light: Floats) -> np.float32:
    """The smallest light a logarithm is taken of: half of the first code above black."""
    return np.float32(light[light > 0].min() / 2)
