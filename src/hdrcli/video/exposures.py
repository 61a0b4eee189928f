"""Which exposures a clip alternates between: period, phase, ratio, and the curve of its codes.

All of it is found once, from the first seconds, and then held: what is solved again for every
frame flickers.

The pixels alone cannot tell a steeper curve from longer steps (Grossberg and Nayar 2003), so a
curve is taken: the one the file claims, where the ratio of static flat blocks is the same at
every brightness; else that of a video camera, BT.709, with its crushed blacks lifted by as much
as makes the ratio most alike.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import rec709_decode
from hdrcli.errors import BracketError
from hdrcli.frames import Response, sampled
from hdrcli.response.white import agreed, greys_alike, told
from hdrcli.video.clip import BT709
from hdrcli.video.probe import Probe

log = logging.getLogger("hdrcli")

Doubles = NDArray[np.float64]

PERIODS = (2, 3)
LONGEST = 8  # frames; longer periods are not looked for
SEEN = 0.008  # difference of mean codes from which exposures show
STEADY = 0.35  # frames a period apart differ at most so much of what neighbours differ by
LEAST_EV = 0.3  # exposures nearer than this are one
LOW, HIGH = 3 / 255, 250 / 255  # codes that tell a ratio
CERTAIN = 8 / 255  # from this code on the darker of two counts fully
SAME = 0.014  # codes by which a static block may differ a period later
FLAT = 0.03  # spread of a flat block
FEWEST = 40  # blocks that make a ratio sure
LIFTS = np.linspace(0, 0.012, 13)  # light added to crushed blacks, of white
LIKELY_LIFT = 0.004
BLOCK_EV = 0.15  # error of the ratio of one block
BENT_EV = 0.25  # difference of ratio, dark blocks against bright ones, that refutes a curve
LIFTED = "BT.709, blacks lifted"
GREY = 0.45  # code of a well exposed frame's mean


@dataclass(frozen=True, eq=False)
class Pattern:
    """The exposures of a clip, in the order of its frames.

    ``exposures`` are relative, or seconds where those were given; ``levels`` the mean codes seen
    at each place. ``first`` is the place of frame 0. ``measured`` is the ratio of the pixels in
    EV against the anchor, None where they cannot tell. 1.0 in a merged frame is what the
    exposure at ``anchor`` records as white.
    """

    exposures: tuple[float, ...]
    levels: tuple[float, ...]
    first: int
    response: Response
    anchor: int
    source: str  # pixels, given, sidecar
    measured: tuple[float, ...] | None = None
    blocks: int = 0  # static blocks that the ratio rests on
    why: str = ""  # of the curve
    white: float = 1.0  # code, over the largest, of greys that clip: see response/white.py
    crushed: bool = False  # the curve's blacks had to be lifted: dark codes are not trusted

    @property
    def period(self) -> int:
        """Frames after which the exposures repeat."""
        return len(self.exposures)

    @property
    def evs(self) -> tuple[float, ...]:
        """Stops of each place against the darkest one."""
        least = min(self.exposures)
        return tuple(float(np.log2(e / least)) for e in self.exposures)

    def described(self) -> str:
        """One line for people."""
        steps = ", ".join(f"{ev:+.2f}" for ev in self.evs)
        return f"period {self.period}, {steps} EV (by {self.source}), {self.response.name}"


@dataclass(frozen=True, eq=False)
class Cycle:
    """What the mean codes of the first frames tell."""

    period: int
    first: int  # a frame from which on the period is kept
    last: int  # and up to which
    levels: tuple[float, ...]  # mean code at (index - first) % period

    def place(self, index: int) -> int:
        """Place in the pattern, counted from ``first``."""
        return (index - self.first) % self.period


def find_cycle(levels: Sequence[float], period: int | None = None) -> Cycle:
    """Find the period of mean codes. BracketError, saying what was found, where there is none."""
    codes = np.asarray(levels)
    if len(codes) < 3 and period is None:
        raise BracketError(
            f"the clip has only {len(codes)} frame{'s' * (len(codes) != 1)}: "
            "a period cannot be seen",
            hint="give --ev, or merge the frames as photographs: hdrcli merge",
        )
    found = period or _period_of(codes)
    first, last = _steady_run(codes, found)
    part = codes[first : last + 1]
    places = [part[k::found] for k in range(found)]
    fallback = float(np.median(part))
    return Cycle(
        found, first, last, tuple(float(np.median(p)) if len(p) else fallback for p in places)
    )


def _period_of(codes: Doubles) -> int:
    steps = {n: _step(codes, n) for n in range(1, min(LONGEST, len(codes) - 1) + 1)}
    between = float(np.quantile(np.abs(np.diff(codes)), 0.6))
    found = [n for n, step in steps.items() if n > 1 and step < STEADY * between]
    if between < SEEN or not found:
        raise BracketError(
            f"the exposures do not alternate: neighbouring frames differ by "
            f"{255 * steps[1]:.1f} of 255 codes in the mean, frames two apart by "
            f"{255 * steps.get(2, 0):.1f}, three apart by {255 * steps.get(3, 0):.1f}",
            hint="hdrcli video is for clips that alternate two or three exposures; "
            "--ev and --pattern say them outright",
        )
    if found[0] not in PERIODS:
        raise BracketError(
            f"the exposures repeat after {found[0]} frames, not after 2 or 3",
            hint="say them outright, one per frame: --ev 0,3,0,6",
        )
    return found[0]


def _step(codes: Doubles, apart: int) -> float:
    return float(np.median(np.abs(codes[apart:] - codes[:-apart])))


def _steady_run(codes: Doubles, period: int) -> tuple[int, int]:
    """First and last frame of the longest run that keeps the period."""
    if len(codes) <= period:
        return 0, len(codes) - 1
    between = max(float(np.quantile(np.abs(np.diff(codes)), 0.6)), SEEN)
    kept = np.abs(codes[period:] - codes[:-period]) < max(STEADY * between, SEEN / 2)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(int), [0]])))
    runs = [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if not runs:
        return 0, len(codes) - 1
    start, end = max(runs, key=lambda run: run[1] - run[0])
    return start, end + period


# --- ratios -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Blocks:
    """Static flat blocks seen at two neighbouring places of the pattern; codes in [0, 1]."""

    dark: Doubles
    bright: Doubles
    places: tuple[int, int]  # of the darker and of the brighter

    @property
    def weight(self) -> Doubles:
        """How much a block tells: a code of the dark frame is off by half a code, and more."""
        return np.asarray(np.minimum(self.dark / CERTAIN, 1) ** 2)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Two probes that follow each other, at two places of the pattern, darker and brighter."""

    dark: Probe
    bright: Probe
    places: tuple[int, int]
    still: NDArray[np.bool_]  # (h, w), what does not move in either


def neighbours(probes: Sequence[Probe], cycle: Cycle) -> list[Neighbours]:
    """Those of the run that keeps the period."""
    run, pairs = probes[cycle.first : cycle.last + 1], []
    for i, (one, two) in enumerate(pairwise(run)):
        a, b = i % cycle.period, (i + 1) % cycle.period
        if cycle.levels[a] > cycle.levels[b]:
            one, two, a, b = two, one, b, a
        still = _static(run, i, cycle.period) & _static(run, i + 1, cycle.period)
        pairs.append(Neighbours(one, two, (a, b), still))
    return pairs


def white_of(pairs: Sequence[Neighbours]) -> float:
    """The code of white, over the largest code: see response/white.py."""
    found = []
    for pair in pairs:
        one, two = pair.dark, pair.bright
        looks = (one.mean, one.spread, two.mean, two.spread)
        found.append(greys_alike(*(part[pair.still] for part in looks)))
    return agreed(found, (pair.bright.mean.reshape(-1, 3) for pair in pairs))


def matched_blocks(pairs: Sequence[Neighbours], white: float) -> list[Blocks]:
    """Pairs of blocks of neighbouring frames, one entry per pair of places.

    Those as bright as what clips, where ``white`` is the code of white, tell nothing.
    """
    found: dict[tuple[int, int], list[tuple[Doubles, Doubles]]] = {}
    for pair in pairs:
        found.setdefault(pair.places, []).append(_usable(pair, HIGH - (1 - white)))
    return [
        Blocks(
            np.concatenate([dark for dark, _ in parts]),
            np.concatenate([bright for _, bright in parts]),
            places,
        )
        for places, parts in found.items()
    ]


def _static(run: Sequence[Probe], i: int, period: int) -> NDArray[np.bool_]:
    others = [run[j] for j in (i - period, i + period) if 0 <= j < len(run)]
    still = np.ones(run[i].mean.shape[:2], bool)
    for other in others:
        still &= np.abs(other.mean - run[i].mean).max(axis=2) < SAME
    return still


def _usable(pair: Neighbours, highest: float) -> tuple[Doubles, Doubles]:
    dark, bright = pair.dark, pair.bright
    good = pair.still[..., None] & (dark.mean >= LOW) & (bright.mean <= highest)
    good &= (dark.spread < FLAT + 0.1 * dark.mean) & (bright.spread < 3 * FLAT)
    return dark.mean[good].astype(np.float64), bright.mean[good].astype(np.float64)


def weighted_median(values: Doubles, weights: Doubles) -> float:
    """The value with half of the weight below it."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


@dataclass(frozen=True, eq=False)
class Ratio:
    """How a curve sees one pair of places."""

    ev: float  # weighted median
    scatter: float  # median deviation from it, EV
    bend: float  # ratio of dark blocks minus that of bright ones, EV


def ratio_of(blocks: Blocks, response: Response) -> Ratio:
    """The ratio of the brighter to the darker place, in EV."""
    curve = response.samples.mean(axis=1).astype(np.float64)
    knots = np.linspace(0, 1, len(curve))
    dark = np.maximum(np.interp(blocks.dark, knots, curve), 1e-7)
    steps = np.log2(np.maximum(np.interp(blocks.bright, knots, curve), 1e-7) / dark)
    weight = blocks.weight
    middle = weighted_median(steps, weight)
    scatter = weighted_median(np.abs(steps - middle), weight)
    half = dark < weighted_median(dark, weight)
    if min(np.count_nonzero(half), np.count_nonzero(~half)) < FEWEST // 2:
        return Ratio(middle, scatter, 0.0)
    low = weighted_median(steps[half], weight[half])
    return Ratio(middle, scatter, low - weighted_median(steps[~half], weight[~half]))


def lifted(lift: float) -> Response:
    """BT.709 as cameras write it, whose blacks are crushed: ``lift`` of white is given back.

    Code 0 stays black.
    """
    if lift == 0:
        return BT709
    return sampled(
        f"{LIFTED} {lift:.3f}",
        lambda code: (rec709_decode(code) + lift * -np.expm1(-code * 255)) / (1 + lift),
    )


def choose_curve(blocks: Sequence[Blocks], claimed: Response) -> tuple[Response, str]:
    """The curve by which the ratio is the same at every brightness, and why it was taken."""
    sure = [b for b in blocks if len(b.dark) >= FEWEST]
    if not sure:
        return claimed, "too few static blocks to check it"
    bend = _mean_bend(sure, claimed)
    if bend < BENT_EV:
        return claimed, f"explains the frames within {bend:.2f} EV"
    costs = [_cost(sure, lifted(float(lift)), float(lift)) for lift in LIFTS]
    best = float(LIFTS[int(np.argmin(costs))])
    curve = lifted(best)
    left = _mean_bend(sure, curve)
    if left > 0.8 * bend:
        return claimed, f"nothing explains the frames better (off by {bend:.2f} EV)"
    return curve, f"{claimed.name} is off by {bend:.2f} EV, this by {left:.2f}"


def _mean_bend(blocks: Sequence[Blocks], curve: Response) -> float:
    bends = [abs(ratio_of(b, curve).bend) for b in blocks]
    return float(np.average(bends, weights=[len(b.dark) for b in blocks]))


def _cost(blocks: Sequence[Blocks], curve: Response, lift: float) -> float:
    scatter = np.mean([ratio_of(b, curve).scatter for b in blocks])
    return float(scatter / BLOCK_EV + 0.5 * (lift / LIKELY_LIFT) ** 2)


def measured_evs(blocks: Sequence[Blocks], curve: Response, period: int) -> Doubles | None:
    """Stops of each place with mean 0, from the ratios of pairs; None where too little is seen."""
    pairs = [b for b in blocks if len(b.dark) >= FEWEST // 4]
    rows, values = [np.ones(period)], [0.0]
    for pair in pairs:
        weight = min(1.0, len(pair.dark) / FEWEST)
        row = np.zeros(period)
        row[pair.places[0]], row[pair.places[1]] = -weight, weight
        rows.append(row)
        values.append(weight * ratio_of(pair, curve).ev)
    matrix = np.stack(rows)
    if np.linalg.matrix_rank(matrix) < period:
        return None
    return np.asarray(np.linalg.lstsq(matrix, np.asarray(values), rcond=None)[0], np.float64)


# --- the pattern ------------------------------------------------------------------------------


def detect(probes: Sequence[Probe], claimed: Response) -> Pattern:
    """Find everything from the pixels. BracketError, saying what was found, where that fails."""
    cycle = find_cycle([probe.level for probe in probes])
    pairs = neighbours(probes, cycle)
    white = white_of(pairs)
    blocks = matched_blocks(pairs, white)
    curve, why = choose_curve(blocks, claimed)
    evs = measured_evs(blocks, curve, cycle.period)
    if evs is None:
        raise BracketError(
            f"the frames alternate with period {cycle.period}, but no static part of the "
            "picture shows in two exposures: the ratio cannot be measured",
            hint=f"say it, in stops: --ev {','.join('036'[: cycle.period])}",
        )
    if np.ptp(evs) < LEAST_EV:
        raise BracketError(
            f"the frames alternate with period {cycle.period}, but only by {np.ptp(evs):.2f} EV",
            hint="flickering light rather than exposures? --ev says them outright",
        )
    count = sum(len(b.dark) for b in blocks)
    return placed(cycle, 2.0**evs, curve, "pixels", evs=evs, blocks=count, why=why, white=white)


def placed(
    cycle: Cycle,
    exposures: Doubles,
    curve: Response,
    source: str,
    *,
    evs: Doubles | None,
    blocks: int,
    why: str,
    white: float,
) -> Pattern:
    """The pattern of exposures that are in the order of the cycle; ``white`` is white's code."""
    anchor = int(np.argmin(np.abs(np.asarray(cycle.levels) - GREY)))
    if source == "pixels":
        exposures = exposures / exposures[anchor]
    return Pattern(
        exposures=tuple(float(e) for e in exposures),
        levels=cycle.levels,
        first=cycle.place(0),
        response=curve,
        anchor=anchor,
        source=source,
        measured=None if evs is None else tuple(float(v) for v in evs - evs[anchor]),
        blocks=blocks,
        why=told(why, white),
        white=white,
        crushed=curve.name.startswith(LIFTED),
    )
