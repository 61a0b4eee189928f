"""Pairs of codes of one scene point in two frames: the evidence for curves and exposures.

What is kept is decided by the brighter code, whole strata of codes at a time, because leaving out
single dark codes for being too dark would make the rest seem brighter than they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response.samples import Blocks, Samples

Doubles = NDArray[np.float64]
Whole = NDArray[np.intp]

TABLE = 16_384  # codes of a curve that is looked up
FLOOR_EV = 0.02  # no pair is more certain than this
AVERAGED = 4.0  # how many independent pixels a block is worth: between 1 (detail) and 16 (noise)
QUANTUM = 0.3 / 255  # standard deviation of rounding to 8 bits
BINS = 48  # strata of the brighter code
PER_BIN = 80  # pairs per stratum and pair of frames
MOST = 10_000  # pairs in all
LOWEST = 10 / 255  # the darkest code of the brighter frame
TEXTURED_EV = 0.3  # a block of the brighter frame that varies more than this shows detail
NOISY_EV = 0.5  # strata whose darker codes vary more than this inside a block are left out
BLACK_PART = 0.1  # and those of whose darker codes more than this part touch black
NEAR_EV, FAR_EV = 0.2, 4.6  # stops between the frames of a pair
MEMBERS = 12  # pairs in a stratum that has a say


@dataclass(frozen=True, eq=False)
class Pairs:
    """Codes of one scene point in two frames, N of them."""

    dark: Doubles  # (N,) code in the darker frame, in [0, 1]
    bright: Doubles  # (N,) code in the brighter frame
    sigma: Doubles  # (N,) expected error of g(bright) - g(dark), in EV
    link: Whole  # (N,) which of ``partners``
    partners: tuple[tuple[int, int], ...]  # frames (darker, brighter)

    def given(self, evs: Doubles) -> Doubles:
        """The step between the two frames of each pair, EV."""
        steps = np.array([evs[j] - evs[i] for i, j in self.partners] or [0.0], np.float64)
        return np.asarray(steps[self.link])

    def without(self, frame: int) -> NDArray[np.bool_]:
        """Which pairs do not involve a frame, (N,)."""
        apart = np.array([frame not in both for both in self.partners] or [True])
        return np.asarray(apart[self.link])

    def only(self, which: NDArray[np.bool_]) -> "Pairs":
        """Some of the pairs."""
        return Pairs(
            self.dark[which],
            self.bright[which],
            self.sigma[which],
            self.link[which],
            self.partners,
        )


@lru_cache(maxsize=32)
def _tables(response: Response) -> tuple[Doubles, Doubles]:
    """log2 light, and its slope in EV per unit of code, at TABLE codes."""
    light = response.table(TABLE).mean(axis=1)
    logs = np.log2(np.maximum(light, 2.0**-24)).astype(np.float64)
    reach = TABLE // 128  # two codes of 8 bits
    padded = np.pad(logs, reach, mode="edge")
    at = np.arange(TABLE)
    width = np.minimum(at + reach, TABLE - 1) - np.maximum(at - reach, 0)
    slopes = (padded[2 * reach :] - padded[: -2 * reach]) / width * (TABLE - 1)
    return logs, slopes


def _at(codes: NDArray[np.floating]) -> Whole:
    return np.asarray(np.clip(codes, 0, 1) * (TABLE - 1) + 0.5).astype(np.intp)


def light_ev(response: Response, codes: NDArray[np.floating]) -> Doubles:
    """log2 light of a code in [0, 1] by a response's mean curve, finite everywhere."""
    return np.asarray(_tables(response)[0][_at(codes)])


def slope_ev(response: Response, codes: NDArray[np.floating]) -> Doubles:
    """EV per unit of code."""
    return np.asarray(_tables(response)[1][_at(codes)])


def partners_of(evs: Doubles) -> list[tuple[int, int]]:
    """Frames (darker, brighter) near enough in exposure to see the same things well."""
    order = np.argsort(evs, kind="stable")
    return [
        (int(i), int(j))
        for a, i in enumerate(order)
        for j in order[a + 1 : a + 4]
        if NEAR_EV <= evs[j] - evs[i] <= FAR_EV
    ]


@dataclass(frozen=True, eq=False)
class _Seen:
    """One frame's points, seen through a curve. Each channel makes points of its own here."""

    codes: NDArray[np.float32]  # (P,) in [0, 1]
    spread: Doubles  # (P,) EV
    usable: NDArray[np.bool_]  # (P,)
    black: NDArray[np.bool_]  # (P,)
    brights: Whole  # (Q,) points fit to be the brighter ones of pairs, stratum by stratum
    strata: NDArray[np.uint8]  # (Q,) of those


@lru_cache(maxsize=16)  # a bracket's exposures and its curve are found through the same one
def _seen(blocks: Blocks, response: Response) -> _Seen:
    codes, usable, black = blocks.codes.ravel(), blocks.usable.ravel(), blocks.black.ravel()
    variance = np.square(blocks.spread.ravel(), dtype=np.float64) + QUANTUM**2
    spread = slope_ev(response, codes) * np.sqrt(variance)
    brights = np.flatnonzero(usable & (codes > LOWEST) & (spread < TEXTURED_EV))
    strata = np.minimum((codes[brights] * BINS).astype(np.uint8), BINS - 1)
    order = np.argsort(strata, kind="stable")
    return _Seen(codes, spread, usable, black, brights[order], strata[order])


def pairs_of(samples: Samples, partners: Sequence[tuple[int, int]], response: Response) -> Pairs:
    """Well-chosen pairs of the frames (darker, brighter): smooth, unclipped, over all codes."""
    if not partners:
        nothing = np.zeros(0)
        return Pairs(nothing, nothing, nothing, nothing.astype(np.intp), ())
    most = max(min(PER_BIN, MOST // (BINS * len(partners))), 8)
    seen = [_seen(blocks, response) for blocks in samples.frames]
    darker, brighter = ([seen[i] for i in side] for side in zip(*partners, strict=True))
    spread_out = [_spread_out(*both, most) for both in zip(darker, brighter, strict=True)]
    at, full = (np.stack(part) for part in zip(*spread_out, strict=True))  # (L, BINS, most)
    dark, bright = (_picked([s.codes for s in side], at) for side in (darker, brighter))
    noise = _medians(_picked([s.spread for s in darker], at), full)
    touching = (full & _picked([s.black for s in darker], at)).sum(axis=2)
    good = (noise < NOISY_EV) & (touching <= BLACK_PART * full.sum(axis=2))
    good &= _medians(dark, full) > LOWEST / 2
    detail = _picked([s.spread for s in brighter], at)
    sigma = np.sqrt(FLOOR_EV**2 + (detail**2 + noise[..., None] ** 2) / AVERAGED)
    chosen = full & good[..., None]
    return Pairs(
        dark[chosen].astype(np.float64),
        bright[chosen].astype(np.float64),
        sigma[chosen],
        np.nonzero(chosen)[0],
        tuple(partners),
    )


def _spread_out(dark: _Seen, bright: _Seen, most: int) -> tuple[Whole, NDArray[np.bool_]]:
    """Of each stratum of brighter codes up to ``most`` points from all over the picture.

    Returns them and which of them exist, both (BINS, most).
    """
    both = dark.usable[bright.brights]
    points, strata = bright.brights[both], bright.strata[both]
    edges = np.searchsorted(strata, np.arange(BINS + 1, dtype=np.uint8))
    count = np.diff(edges)[:, None]
    place = (np.arange(most) * np.maximum(count / most, 1.0)).astype(np.intp)
    full = place < count
    if not len(points):
        return np.zeros(full.shape, np.intp), full
    return points[np.minimum(edges[:-1, None] + place, len(points) - 1)], full


def _picked(values: Sequence[NDArray[Any]], at: Whole) -> NDArray[Any]:
    """Of each pair of frames the values of its points, (L, BINS, most)."""
    return np.stack([own[where] for own, where in zip(values, at, strict=True)])


def _medians(values: NDArray[np.floating], full: NDArray[np.bool_]) -> Doubles:
    """The median of the existing values along the last axis; inf where there is none."""
    ordered = np.sort(np.where(full, values, np.inf), axis=-1)
    middle = np.maximum(full.sum(axis=-1, keepdims=True) - 1, 0) // 2
    return np.take_along_axis(ordered, middle, axis=-1)[..., 0].astype(np.float64)


def group_medians(values: Doubles, group: Whole, count: int) -> tuple[Doubles, Whole]:
    """Median and size of each of ``count`` groups; 0 for an empty one."""
    rising = np.argsort(values)
    short = group.astype(np.min_scalar_type(count))  # which numpy sorts by its digits
    ordered = values[rising[np.argsort(short[rising], kind="stable")]]
    sizes = np.bincount(group, minlength=count)
    middle = np.cumsum(sizes) - sizes + np.maximum(sizes - 1, 0) // 2
    medians = ordered[np.minimum(middle, len(ordered) - 1)] if len(ordered) else np.zeros(count)
    return np.asarray(np.where(sizes > 0, medians, 0.0)), sizes


def errors(pairs: Pairs, evs: Doubles, response: Response) -> Doubles:
    """By how much the light behind each pair departs from the step of its frames, EV."""
    steps = light_ev(response, pairs.bright) - light_ev(response, pairs.dark)
    return steps - pairs.given(evs)


def systematic(pairs: Pairs, evs: Doubles, response: Response) -> float:
    """RMS over the code range of the frames' systematic disagreement, in EV.

    Per pair of frames and stratum of codes the median is taken, so that noise cancels and only
    what a wrong curve or exposure does remains. A few strata may be full of what moved.
    """
    group = pairs.link * 16 + np.minimum((pairs.bright * 16).astype(np.intp), 15)
    count = 16 * max(len(pairs.partners), 1)
    medians, sizes = group_medians(errors(pairs, evs, response), group, count)
    sigma, _ = group_medians(pairs.sigma, group, count)
    many = np.flatnonzero(sizes >= MEMBERS)
    if not len(many):
        return np.inf
    worth = 1 / (sigma[many] ** 2 / sizes[many] + FLOOR_EV**2)
    squares = medians[many] ** 2
    calm = np.argsort(squares)[: max(int(0.85 * len(many)), 1)]
    return float(np.sqrt(np.average(squares[calm], weights=worth[calm])))
