"""One scale of light from a window: of every pixel, the brightest exposure that shows it clearly.

The brightest exposure has the least noise. Where its codes near clipping, or it is not believed,
the next darker one takes over, smoothly. Which exposure a pixel is taken from thus depends on the
light alone and not on which frame is the present one, so that an error of the response does not
flicker with the exposures. Most tiles need one exposure only, and cost one table look-up.

What neither shows clearly is taken from another moment, and never darker than the level at which
the present frame clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion
from hdrcli.video.aligned import LEAST_BELIEF, Neighbour, Tile

Floats = NDArray[np.float32]

CLEAR = (0.80, 0.96)  # codes between which an exposure gives way to the next darker one
CRUSHED = 1 / 255  # a code that says nothing but "dark"
DARK = {False: 3.7 / 255, True: 11 / 255}  # codes to be relied on; by whether blacks are crushed
COLOURED = (6 / 255, 44 / 255)  # grey codes between which crushed blacks gain their colour
BOUND = 0.92  # of the clipping level, which no clipped code lies below
NOTHING = 1 / 512  # a share too small to be seen


@dataclass(frozen=True, eq=False)
class Exposure:
    """The frames of a window that have one exposure, and the tables of their codes."""

    members: tuple[Neighbour, ...]
    ratio: float  # to the exposure whose white is 1.0
    darkest: bool
    brightest: bool
    present: bool
    crushed: bool

    @property
    def frame(self) -> Frame:
        """Any of them: they have one response."""
        return self.members[0].frame

    @cached_property
    def light(self) -> Floats:
        """(1, levels) or (1, levels, 3): light of each code. Codes that clip are one white."""
        table = self.frame.table / np.float32(self.ratio)
        top = len(table) - 1
        table[int(np.ceil(self.frame.clip * top)) :] = table[round(self.frame.white * top)].max()
        if (table == table[:, :1]).all():
            return np.ascontiguousarray(table[None, :, 0])
        return np.ascontiguousarray(table[None])

    @cached_property
    def bound(self) -> Floats:
        """(1, levels): the least light behind a code that clips, else 0."""
        codes = np.linspace(0, 1, self.frame.levels)
        least = BOUND * float(self.light.max())
        return np.where(codes >= self.frame.clip, least, 0).astype(np.float32)[None]

    @cached_property
    def clear(self) -> Floats | None:
        """(1, levels), by the largest code: 1 far below clipping, 0 from about there on."""
        if self.darkest or not self.frame.levels:
            return None
        codes = np.linspace(0, 1, self.frame.levels) + (1 - self.frame.white)
        return np.interp(codes, CLEAR, (1, 0)).astype(np.float32)[None]

    @cached_property
    def lit(self) -> Floats | None:
        """(1, levels), by the grey code: 0 where a code says only "dark"."""
        if self.brightest or not self.frame.levels:
            return None
        codes = np.linspace(0, 1, self.frame.levels)
        rise = np.clip((codes - CRUSHED) / (DARK[self.crushed] - CRUSHED), 0, 1)
        return (rise * rise * (3 - 2 * rise)).astype(np.float32)[None]

    @cached_property
    def hue(self) -> Floats | None:
        """(1, levels), by the grey code: how far its colour is believed."""
        if self.brightest or not self.crushed or not self.frame.levels:
            return None
        codes = np.linspace(0, 1, self.frame.levels)
        return np.interp(codes, COLOURED, (0, 1)).astype(np.float32)[None]

    def seen(self, tile: Tile) -> "Seen":
        """What they show there; two frames are mixed by their beliefs."""
        import cv2

        codes = [member.codes(tile) for member in self.members]
        beliefs = [member.believed(tile) for member in self.members]
        if len(codes) == 1:
            return Seen(self, codes[0], beliefs[0])
        one, two = beliefs
        if one is None and two is None:
            return Seen(self, np.asarray(cv2.addWeighted(codes[0], 0.5, codes[1], 0.5, 0)), None)
        full = np.ones(codes[0].shape[:2], np.float32)
        one, two = (full if b is None else np.ascontiguousarray(b) for b in (one, two))
        return Seen(self, _mixed(codes, (one, two)), np.asarray(cv2.max(one, two)))

    def __post_init__(self) -> None:
        assert 1 <= len(self.members) <= 2, len(self.members)


def _mixed(codes: Sequence[Codes], beliefs: tuple[Floats, Floats]) -> Codes:
    import cv2

    one, two = (b + np.float32(LEAST_BELIEF) for b in beliefs)
    first, second = (np.ascontiguousarray(c) for c in codes)
    if first.dtype != np.uint16:
        return np.asarray(cv2.blendLinear(first, second, one, two))
    mixed = cv2.blendLinear(first.astype(np.float32), second.astype(np.float32), one, two)
    return np.asarray(np.rint(mixed), np.uint16)


@dataclass(frozen=True, eq=False)
class Seen:
    """What an exposure shows of a tile."""

    exposure: Exposure
    codes: Codes  # (h, w, 3)
    belief: Floats | None  # (h, w); None: full

    @cached_property
    def largest(self) -> NDArray[Any]:
        """The largest of the three codes of each pixel."""
        import cv2

        red, green, blue = cv2.split(self.codes)
        return np.asarray(cv2.max(cv2.max(red, green), blue))

    @cached_property
    def grey(self) -> NDArray[Any]:
        """The luma of each pixel's codes."""
        import cv2

        return np.asarray(cv2.cvtColor(self.codes, cv2.COLOR_RGB2GRAY))

    @property
    def top(self) -> int:
        """The largest code there is."""
        return max(1, self.exposure.frame.levels - 1)

    @cached_property
    def clarity(self) -> Floats | None:
        """How clearly it shows each pixel, (h, w), whoever moved; None: all of them fully."""
        import cv2

        table, dark = self.exposure.clear, self.exposure.lit
        found: Floats | None = None
        if table is not None and near_clipping(self.codes, self.exposure.frame):
            found = np.asarray(cv2.LUT(self.largest, table))
        if dark is not None and self.codes.min() < DARK[self.exposure.crushed] * self.top:
            lit = np.asarray(cv2.LUT(self.grey, dark))
            found = lit if found is None else found * lit
        return found

    def share(self) -> Floats | None:
        """Clarity times belief; None where both are full."""
        if self.clarity is None or self.belief is None:
            return self.belief if self.clarity is None else self.clarity
        return np.asarray(self.clarity * self.belief, np.float32)

    def light(self) -> Floats:
        """(h, w, 3), on the one scale."""
        import cv2

        if self.exposure.frame.levels:
            light = np.asarray(cv2.LUT(self.codes, self.exposure.light))
            table = self.exposure.hue
            if table is None or self.codes.min() >= COLOURED[1] * self.top:
                return light
            return paled(light, np.asarray(cv2.LUT(self.grey, table)))
        light = np.nan_to_num(np.asarray(self.codes, np.float32), nan=0, posinf=0, neginf=0)
        return np.asarray(light / np.float32(self.exposure.ratio))

    def lost(self) -> int:
        """How many pixels clip."""
        frame = self.exposure.frame
        if not frame.levels or self.codes.max() < frame.clip * self.top:
            return 0
        return int(np.count_nonzero(self.largest >= frame.clip * self.top))


def near_clipping(codes: Codes, frame: Frame) -> bool:
    """Whether any code of a frame is so bright that a darker exposure takes part."""
    bright = CLEAR[0] - (1 - frame.white)
    return frame.levels > 0 and bool(codes.max() > bright * (frame.levels - 1))


def paled(light: Floats, colour: Floats) -> Floats:
    """Light (h, w, 3) with so much (h, w) of its colour: that of two or three codes is chance."""
    import cv2

    grey = cv2.transform(light, np.full((1, 3), 1 / 3, np.float32))
    rest = cv2.multiply(grey, cv2.subtract(1.0, colour))
    kept = cv2.multiply(light, cv2.merge((colour, colour, colour)))
    return np.asarray(cv2.add(kept, cv2.merge((rest, rest, rest))))


def exposures_of(
    bracket: Bracket, motion: Motion, anchor: float, *, crushed: bool
) -> list[Exposure]:
    """The frames of a bracket by exposure, brightest first."""
    factor = max(1, round(1 / motion.scale[0]))
    ranks: dict[float, list[int]] = {}
    for i, exposure in enumerate(bracket.exposures):
        ranks.setdefault(round(float(np.log2(exposure)), 2), []).append(i)
    order = sorted(ranks, reverse=True)
    return [
        Exposure(
            tuple(
                Neighbour(bracket.frames[i], motion.flows[i], motion.confidence[i], factor)
                for i in ranks[key]
            ),
            float(bracket.exposures[ranks[key][0]]) / anchor,
            darkest=key == order[-1],
            brightest=key == order[0],
            present=bracket.reference in ranks[key],
            crushed=crushed,
        )
        for key in order
    ]


def merged_tile(exposures: Sequence[Exposure], tile: Tile, out: Floats) -> int:
    """Merge a tile into ``out``; returns how many of its pixels clip in every exposure."""
    import cv2

    seen: list[Seen] = []
    weights: list[Floats] = []
    left: Floats | None = None  # None: all of it
    for exposure in exposures:
        found = exposure.seen(tile)
        share = found.share()
        if left is None and share is None:
            out[...] = found.light()
            return found.lost() if exposure.darkest else 0
        seen.append(found)
        weights.append(_taken(left, share, found.codes.shape[:2]))
        left = np.asarray((np.float32(1) if left is None else left) - weights[-1], np.float32)
        if cv2.minMaxLoc(left)[1] < NOTHING:
            break
    else:
        assert left is not None
        left_over(seen, weights, left)
    out[...] = _sum(seen, weights)
    lift_clipped(exposures, tile, out)
    return seen[-1].lost() if seen[-1].exposure.darkest else 0


def _taken(left: Floats | None, share: Floats | None, size: tuple[int, ...]) -> Floats:
    if left is None:
        return np.ones(size, np.float32) if share is None else share
    return left if share is None else np.asarray(left * share, np.float32)


def left_over(seen: Sequence[Seen], weights: list[Floats], left: Floats) -> None:
    """Share out what no exposure shows clearly that is believed: another moment is better than
    none, and the level at which the second darkest exposure clips better than crushed codes."""
    import cv2

    for i, found in enumerate(seen):
        if cv2.minMaxLoc(left)[1] < NOTHING:
            return
        more = left if found.clarity is None else left * found.clarity
        weights[i] = np.asarray(weights[i] + more, np.float32)
        left = np.asarray(left - more, np.float32)
    bound = max(0, len(seen) - 2)
    weights[bound] = np.asarray(weights[bound] + left, np.float32)


def _sum(seen: Sequence[Seen], weights: Sequence[Floats]) -> Floats:
    import cv2

    total: Floats | None = None
    for found, weight in zip(seen, weights, strict=True):
        if cv2.minMaxLoc(weight)[1] < NOTHING:
            continue
        light = found.light()
        part = cv2.multiply(light, cv2.merge((weight, weight, weight)), dst=light)
        total = np.asarray(part if total is None else cv2.add(total, part, dst=total))
    assert total is not None, "the weights of a pixel sum to one"
    return total


def lift_clipped(exposures: Sequence[Exposure], tile: Tile, out: Floats) -> None:
    """What clips in the present frame is no darker than that, whatever a neighbour shows."""
    import cv2

    now = next(exposure for exposure in exposures if exposure.present)
    codes = now.frame.codes[tile.part]
    if not now.frame.levels or now.darkest or codes.max() < now.frame.clip * (now.frame.levels - 1):
        return
    out[...] = cv2.max(np.ascontiguousarray(out), cv2.LUT(codes, now.bound))
