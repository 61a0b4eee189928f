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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.backends.registry import WEIGHT_NAMES, Settings
from hdrcli.frames import Bracket, Frame, Radiance
from hdrcli.motion import CLIP, Motion, Noise
from hdrcli.strips import Placement, Planes, Strip

Floats = NDArray[np.float32]
WeightCurve = Callable[[Floats, float, Noise], Floats]

FADE = 235 / 255  # from here to CLIP the weight of a code falls to zero
APART = (0.75, 0.94)  # codes between which a channel loses belief beside one that clips
NEARLY = np.float32(0.7)  # of the reference's bright light that is there in any case
FALLBACK = 1e-7  # weight of the shortest frame where nothing else is known
NEIGHBOURS = 16  # columns of the reduced picture: doubts no further apart are one
FLOAT_LEVELS = 65536  # a float frame's weight is looked up at this many steps


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
    """One frame as the kernel wants it: tables of light and of weight, placement, confidence."""

    placement: Placement | Strip
    light: tuple[Floats, ...]  # per channel, (1, levels), divided by the ratio
    weight: Floats  # (1, levels), at the largest channel
    fallback: Floats | None  # (1, levels), added where nothing else is known
    confidence: Floats | None
    scale: tuple[float, float]
    ratio: float
    logarithmic: bool

    def over(self, rows: slice) -> "Source":
        """The same for these rows of the reference alone."""
        assert isinstance(self.placement, Placement)
        return replace(self, placement=self.placement.over(rows))


class WeightedMean:
    """Base of the three: a weight curve, and the domain that is averaged."""

    weight = "noise"
    logarithmic = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        asked = settings.options.get("weight") or "noise"
        self.curve = WEIGHTS[self.weight if asked == "noise" else asked]

    def merge(self, bracket: Bracket, motion: Motion, guess: Floats | None = None) -> Radiance:
        """Merge an aligned bracket. Pixels that clip in every frame are counted.

        ``guess`` (h, w, 3), on the motion's reduced picture, corrects the logarithm of light
        that clips in the reference and that no darker frame is believed about.
        """
        sources = self.sources(bracket, motion)
        height, width = bracket.size
        out = np.empty((height, width, 3), self.settings.dtype)

        def work(rows: slice) -> int:
            near, lost = [source.over(rows) for source in sources], 0
            for part in strips.inner_blocks(rows, width):
                planes, clipping = mean_block(near, bracket.reference, part, guess)
                store(planes, out[part])
                lost += clipping
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
            light=tuple(np.ascontiguousarray(light[None, :, c], np.float32) for c in range(3)),
            weight=np.ascontiguousarray(weight[None], np.float32),
            fallback=np.full((1, len(table)), FALLBACK, np.float32) if i == 0 else None,
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


@dataclass(frozen=True, eq=False)
class Block:
    """Codes of a frame at some of the reference's rows, (h, w) each."""

    planes: Planes
    largest: NDArray[Any]
    valid: NDArray[np.bool_] | None

    @classmethod
    def of(cls, source: Source, rows: slice) -> "Block":
        """Bring them there."""
        import cv2

        codes, valid = source.placement.codes(rows)
        planes = tuple(cv2.split(codes))
        return cls(planes, cv2.max(cv2.max(planes[0], planes[1]), planes[2]), valid)

    def silent(self, source: Source) -> bool:
        """Whether the frame clips all over the block, so that it says nothing."""
        if not source.placement.frame.levels:
            return False
        return not source.weight[0, int(self.largest.min()) :].any()


def mean_block(
    sources: list[Source], reference: int, rows: slice, guess: Floats | None = None
) -> tuple[list[Floats], int]:
    """Merge one block: three (h, w) planes of radiance, and how many pixels clip everywhere."""
    import cv2

    width = sources[0].placement.frame.size[1]
    shape = (rows.stop - rows.start, width)
    total = [np.zeros(shape, np.float32) for _ in range(3)]
    norm = np.zeros(shape, np.float32)
    shortest: list[Floats] = []
    own: Block | None = None
    for i, source in enumerate(sources):
        block = Block.of(source, rows)
        own = block if i == reference else own
        if i > 0 and block.silent(source):
            continue
        light, weight = said(source, block, rows, width)
        shortest = shortest or light
        norm += weight
        for channel, plane in zip(total, light, strict=True):
            cv2.accumulateProduct(plane, weight, channel)
    assert own is not None
    lost = int(np.count_nonzero(norm <= 2 * FALLBACK))
    for channel in total:
        channel /= norm
    if sources[0].logarithmic:
        for channel in (*total, *shortest):
            np.exp(channel, out=channel)
    mend_highlights(total, norm, shortest, own, sources, reference, rows, guess)
    return total, lost


def mend_highlights(
    total: list[Floats],
    norm: Floats,
    shortest: list[Floats],
    own: Block,
    sources: list[Source],
    reference: int,
    rows: slice,
    guess: Floats | None,
) -> None:
    """Where the reference clips: never darker than its clipping, and no ghost of another moment.

    A channel of the reference that does not clip is still a measurement, though the pixel is
    not believed as a whole. A channel that clips is at least its clipping level; where no darker
    frame is believed, it is taken from the shortest frame, corrected by the guess if there is one.
    """
    frame = sources[reference].placement.frame
    ceiling, fade = CLIP * (frame.levels - 1), FADE * (frame.levels - 1)
    if not frame.levels or reference == 0 or own.largest.max() < fade:
        return
    where = np.flatnonzero(own.largest.ravel() >= fade)
    weight, known = sources[reference].weight[0], norm.ravel()[where]
    pixel = weight[own.largest.ravel()[where]]
    belief = darker_belief(sources[:reference], rows, frame.size[1], where)
    level = None
    if guess is not None and belief is not None:
        full = strips.upsample(guess, sources[0].scale, rows, frame.size[1])
        level = full.reshape(-1, 3)[where]
    beside, shown = apart(np.arange(frame.levels), frame.levels), APART[0] * (frame.levels - 1)
    for c, plane in enumerate(total):
        here, channel = own.planes[c].ravel()[where], plane.ravel()
        was = channel[where]
        extra = np.maximum(weight[here] - pixel, 0) * beside[here]
        if belief is not None:  # rather nearly clipped than of another moment
            extra = np.maximum(extra, np.maximum(1 - 4 * belief, 0) ** 2 * weight[int(fade)])
        light = frame.table[:, c][here]
        measured = (known * was + extra * light) / (known + extra)
        if belief is not None:  # what the reference shows bright is no shade
            bright = np.where((here >= shown) & (belief < 1), NEARLY * light, 0)
            measured = np.maximum(measured, bright)
        clips = np.flatnonzero(here >= ceiling)
        bound = frame.table[int(np.ceil(ceiling)), c]
        if belief is None:
            measured[clips] = np.maximum(was[clips], bound)
        elif len(clips):
            least = shortest[c].ravel()[where[clips]]
            white = sources[0].light[c].max()
            more = None if level is None else level[clips, c]
            measured[clips] = beyond(was[clips], belief[clips], least, bound, white, more)
        channel[where] = measured


def beyond(
    mean: Floats,
    belief: Floats,
    shortest: Floats,
    bound: np.float32,
    white: np.float32,
    guess: Floats | None,
) -> Floats:
    """Light where the reference clips at ``bound`` and a darker frame is believed only so far."""
    mixed = belief * mean + (1 - belief) * np.maximum(shortest, bound)
    above = np.log(np.maximum(mixed, np.float32(1e-6)) / bound)
    if guess is not None:  # what clips everywhere stays neutral
        above += (1 - belief) * (shortest < white * np.float32(1 - 1e-5)) * guess
    return np.asarray(bound * np.exp(np.maximum(above, 0)), np.float32)


def apart(codes: NDArray[np.generic], levels: int) -> Floats:
    """How much a channel is believed whose neighbour channel clips: 1 far below clipping.

    JPEG and interpolation carry the clipping of one channel into those that nearly clip.
    """
    z = np.asarray(codes, np.float32) / np.float32(levels - 1)
    return np.asarray(np.clip((APART[1] - z) / (APART[1] - APART[0]), 0, 1), np.float32)


def doubted(source: Source, rows: slice, width: int) -> list[slice]:
    """The columns where a frame is not believed all over these rows; neighbours as one."""
    if source.confidence is None:
        return []
    small = strips.small_rows(source.confidence, source.scale, rows)
    at = np.flatnonzero((small < 1).any(axis=0))
    if not len(at):
        return []
    apart = np.flatnonzero(np.diff(at) > NEIGHBOURS)
    scale = source.scale[0]
    return [
        slice(max(0, int((at[a] - 1) / scale)), min(width, int((at[b] + 2) / scale) + 1))
        for a, b in zip((0, *(apart + 1)), (*apart, len(at) - 1), strict=True)
    ]


def darker_belief(
    sources: list[Source], rows: slice, width: int, where: NDArray[np.intp]
) -> Floats | None:
    """The largest confidence of the darker frames at these pixels of the block; None: full."""
    belief = np.zeros(len(where), np.float32)
    for source in sources:
        if not doubted(source, rows, width):
            return None
        assert source.confidence is not None
        full = strips.upsample(source.confidence, source.scale, rows, width)
        belief = np.maximum(belief, full.ravel()[where])
    return belief


def evidence(source: Source, rows: slice, width: int) -> tuple[list[Floats], Floats]:
    """What one frame says of a block: three planes of X_i (or its logarithm), and the weight."""
    return said(source, Block.of(source, rows), rows, width)


def said(source: Source, block: Block, rows: slice, width: int) -> tuple[list[Floats], Floats]:
    """The same, of codes that have been brought there."""
    weight = lookup(block.largest, source.weight)
    for columns in doubted(source, rows, width):
        assert source.confidence is not None
        weight[:, columns] *= strips.upsample(source.confidence, source.scale, rows, columns)
    if block.valid is not None:
        weight *= block.valid
    if source.fallback is not None:
        weight += FALLBACK
    return [light_plane(source, c, plane) for c, plane in enumerate(block.planes)], weight


def light_plane(source: Source, channel: int, codes: NDArray[np.generic]) -> Floats:
    """X_i of one channel, or its logarithm. Float codes are light already, and may exceed 1."""
    if source.placement.frame.levels:
        return lookup(codes, source.light[channel])
    light = np.nan_to_num(np.asarray(codes, np.float32), nan=0, posinf=0, neginf=0)
    light = light / np.float32(source.ratio)
    return np.log(np.maximum(light, np.float32(1e-8))) if source.logarithmic else light


def lookup(codes: NDArray[np.generic], table: Floats) -> Floats:
    """Look codes up in a (1, levels) table; float codes are looked up at the nearest level."""
    import cv2

    if codes.dtype == np.uint8:
        return np.asarray(cv2.LUT(codes, table))
    if codes.dtype == np.uint16:
        return np.asarray(np.take(table[0], codes.astype(np.uint16, copy=False)))
    at = np.clip(np.nan_to_num(np.asarray(codes, np.float32)), 0, 1) * (table.shape[1] - 1)
    return np.asarray(np.take(table[0], np.rint(at).astype(np.uint16)))


def store(planes: list[Floats], out: NDArray[np.floating]) -> None:
    """Interleave three planes into a block of the result, of float32 or float16."""
    import cv2

    if out.dtype == np.float32:
        cv2.merge(planes, out)
        return
    merged = cv2.merge(planes)
    cv2.add(merged, 0, out, dtype=cv2.CV_16F)


def _identity() -> Floats:
    return np.repeat(np.linspace(0, 1, FLOAT_LEVELS, dtype=np.float32)[:, None], 3, axis=1)


def _floor(light: Floats) -> np.float32:
    """The smallest light a logarithm is taken of: half of the first code above black."""
    return np.float32(light[light > 0].min() / 2)
