"""The camera's curve from the bracket itself: one smooth departure from what the file claims.

Two codes c_i, c_j of one scene point in frames EV stops apart obey g(c_j) - g(c_i) = EV, g being
the log2 light behind a code (Debevec and Malik 1997, equation 2, with the irradiance
eliminated). Here g = prior + s: s is a cubic P-spline (Eilers and Marx 1996) of the code plus a
change of exponent, pulled towards zero. Noise and detail weigh each pair, a robust loss drops
what moved. With the exposures unknown too, the pull towards the prior fixes the exponent, which
the pixels alone cannot know (Grossberg and Nayar 2003, section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]

KNOTS = 14  # intervals of the spline over the code range
TABLE = 4096  # codes of a prior that are looked up
CURVE = 1024  # samples of a recovered curve
FLOOR_EV = 0.02  # no pair is more certain than this
AVERAGED = 4.0  # how many independent pixels a block is worth: between 1 (detail) and 16 (noise)
QUANTUM = 0.3 / 255  # standard deviation of rounding to 8 bits
BINS = 48  # strata of the brighter code
PER_BIN = 32  # pairs per stratum, frame pair and channel
MOST = 14_000  # pairs in all
LOWEST = 10 / 255  # the darkest code of the brighter frame
TEXTURED_EV = 0.3  # a block of the brighter frame that varies more than this shows detail
NOISY_EV = 0.5  # strata whose darker codes vary more than this inside a block are left out
BLACK_PART = 0.1  # and those of whose darker codes more than this part touch black
NEAR_EV, FAR_EV = 0.2, 4.6  # stops between the frames of a pair
MIDDLE = (0.1, 0.9)  # codes between which the mean slope is held near the prior's
ROUNDS = 9  # reweightings
MEMBERS = 12  # pairs in a stratum that has a say


@dataclass(frozen=True, eq=False)
class Pairs:
    """Codes of one scene point in two frames, N of them."""

    dark: Doubles  # (N,) code in the darker frame
    bright: Doubles  # (N,) code in the brighter frame
    frames: NDArray[np.intp]  # (N, 2) the frames' numbers, darker first
    channel: NDArray[np.intp]  # (N,)
    sigma: Doubles  # (N,) expected error of g(bright) - g(dark), in EV


@dataclass(frozen=True)
class Strength:
    """How far the fit may depart from the prior."""

    bend: float  # weight of the squared second difference of the spline
    exponent: float  # standard deviation of the change of exponent
    slope: float  # standard deviation of the spline's mean slope, EV over the code range
    exposure: float  # standard deviation of the exposures' error, EV; 0: they are exact


KNOWN = Strength(bend=8.0, exponent=0.3, slope=3.0, exposure=0.0)
UNKNOWN = Strength(bend=6.0, exponent=1e-5, slope=1e-5, exposure=20.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """A fitted departure from the prior."""

    exponent: float
    spline: Doubles  # (KNOTS + 3,)
    errors: Doubles  # (F,) EV by which each frame departs from what was given
    residual: float  # robust standard deviation of g(bright) - g(dark) - EV
    before: float  # the same for the prior
    covered: tuple[float, float]  # lowest and highest code that took part


def prior_ev(response: Response, codes: Doubles) -> Doubles:
    """log2 light of a code in [0, 1] by a response's mean curve, finite everywhere."""
    curve = _curve(response)
    light = np.interp(codes, np.linspace(0, 1, len(curve)), curve)
    return np.asarray(np.log2(np.maximum(light, 2.0**-24)))


@lru_cache(maxsize=16)
def _curve(response: Response) -> Doubles:
    return np.asarray(response.table(TABLE).mean(axis=1), np.float64)


def slope_ev(response: Response, codes: Doubles, step: float = 2 / 255) -> Doubles:
    """EV per unit of code."""
    low, high = np.maximum(codes - step, 0), np.minimum(codes + step, 1)
    return np.asarray((prior_ev(response, high) - prior_ev(response, low)) / (high - low))


def basis(codes: Doubles) -> Doubles:
    """Departure from the prior per unknown, (N, KNOTS + 4): exponent, then cubic B-splines."""
    x = np.clip(codes, 0, 1) * KNOTS
    cell = np.minimum(x.astype(np.intp), KNOTS - 1)
    t = x - cell
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    rows = np.zeros((len(codes), KNOTS + 4))
    rows[:, 0] = np.log2((codes + 0.055) / 1.055)
    for k, piece in enumerate(pieces):
        rows[np.arange(len(codes)), 1 + cell + k] = piece / 6
    return rows


def pairs_of(samples: Samples, partners: Sequence[tuple[int, int]], response: Response) -> Pairs:
    """Well-chosen pairs of the frames (darker, brighter): smooth, unclipped, over all codes.

    What is kept is decided by the brighter code, whole strata at a time, because leaving out
    single dark codes for being too dark would make the rest seem brighter than they are.
    """
    most = max(min(PER_BIN, MOST // (3 * BINS * max(len(partners), 1))), 4)
    found = [_pairs(samples, i, j, c, response, most) for i, j in partners for c in range(3)]
    if not found:
        nothing = np.zeros(0)
        none = np.zeros(0, np.intp)
        return Pairs(nothing, nothing, np.zeros((0, 2), np.intp), none, nothing)
    return Pairs(
        np.concatenate([part.dark for part in found]),
        np.concatenate([part.bright for part in found]),
        np.concatenate([part.frames for part in found]),
        np.concatenate([part.channel for part in found]),
        np.concatenate([part.sigma for part in found]),
    )


def partners_of(evs: Doubles) -> list[tuple[int, int]]:
    """Frames (darker, brighter) near enough in exposure to see the same things well."""
    order = np.argsort(evs, kind="stable")
    return [
        (int(i), int(j))
        for a, i in enumerate(order)
        for j in order[a + 1 : a + 4]
        if NEAR_EV <= evs[j] - evs[i] <= FAR_EV
    ]


def _pairs(samples: Samples, i: int, j: int, c: int, response: Response, most: int) -> Pairs:
    keep = np.flatnonzero(
        samples.usable[i, :, c] & samples.usable[j, :, c] & (samples.codes[j, :, c] > LOWEST)
    )
    bright = samples.codes[j, keep, c].astype(np.float64)
    texture = slope_ev(response, bright) * samples.spread[j, keep, c]
    smooth = texture < TEXTURED_EV
    keep, bright, texture = keep[smooth], bright[smooth], texture[smooth]
    chosen, full = _spread_out(bright, most)  # (BINS, most) into keep
    dark = samples.codes[i, keep, c].astype(np.float64)
    noise = slope_ev(response, dark) * np.hypot(samples.spread[i, keep, c], QUANTUM)
    noise_there = _medians(noise[chosen], full)
    black = np.where(full, samples.black[i, keep, c][chosen], 0).sum(axis=1)
    good = (noise_there < NOISY_EV) & (black <= BLACK_PART * full.sum(axis=1))
    good &= _medians(dark[chosen], full) > LOWEST / 2
    rows = full & good[:, None]
    at = chosen[rows]
    spread = texture[at] ** 2 + np.broadcast_to(noise_there[:, None], rows.shape)[rows] ** 2
    sigma = np.sqrt(FLOOR_EV**2 + spread / AVERAGED)
    frames = np.broadcast_to(np.array([i, j], np.intp), (len(at), 2))
    return Pairs(dark[at], bright[at], frames, np.full(len(at), c, np.intp), sigma)


def _spread_out(codes: Doubles, most: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Of each stratum of codes up to ``most`` from all over the picture, and which exist."""
    stratum = np.minimum((codes * BINS).astype(np.intp), BINS - 1)
    order = np.argsort(stratum, kind="stable")
    edges = np.searchsorted(stratum[order], np.arange(BINS + 1))
    count = np.diff(edges)[:, None]
    step = np.maximum(count / most, 1.0)
    place = (np.arange(most) * step).astype(np.intp)
    full = place < count
    if not len(codes):
        return np.zeros((BINS, 0), np.intp), np.zeros((BINS, 0), bool)
    return order[np.minimum(edges[:-1, None] + place, len(codes) - 1)], full


def _medians(values: Doubles, full: NDArray[np.bool_]) -> Doubles:
    """The median of each row's existing values; inf for an empty row."""
    if not values.shape[1]:
        return np.full(len(values), np.inf)
    ordered = np.sort(np.where(full, values, np.inf), axis=1)
    middle = np.maximum(full.sum(axis=1) - 1, 0) // 2
    return ordered[np.arange(len(values)), middle]


def solve(pairs: Pairs, evs: Doubles, response: Response, strength: Strength) -> Curve:
    """Fit the departure, and the exposures' errors where they are not exact.

    The loss is Geman and McClure's: what moved loses its say altogether.
    """
    given = evs[pairs.frames[:, 1]] - evs[pairs.frames[:, 0]]
    target = given - prior_ev(response, pairs.bright) + prior_ev(response, pairs.dark)
    rows = np.hstack([basis(pairs.bright) - basis(pairs.dark), -_choice(pairs, len(evs))])
    penalty = _penalty(strength, len(evs))
    weight = 1 / pairs.sigma**2
    unknowns: Doubles = np.zeros(rows.shape[1])
    scale = 4.0
    for _ in range(ROUNDS):
        error = (rows @ unknowns - target) / pairs.sigma
        scale = max(0.7 * scale, 1.0, 1.4826 * float(np.median(np.abs(error))))
        robust: Doubles = weight / (1 + (error / (1.5 * scale)) ** 2) ** 2
        normal = rows.T @ (rows * robust[:, None]) / scale**2 + penalty
        unknowns = np.asarray(np.linalg.solve(normal, rows.T @ (robust * target) / scale**2))
    n = KNOTS + 4
    return Curve(
        float(unknowns[0]),
        unknowns[1:n],
        unknowns[n:] - unknowns[n:].mean(),
        _spread(rows @ unknowns - target),
        _spread(target),
        (float(pairs.dark.min()), float(pairs.bright.max())),
    )


def _choice(pairs: Pairs, count: int) -> Doubles:
    """(N, F): the exposure errors that enter each pair."""
    rows = np.zeros((len(pairs.dark), count))
    at = np.arange(len(rows))
    rows[at, pairs.frames[:, 1]] += 1
    rows[at, pairs.frames[:, 0]] -= 1
    return rows


def _penalty(strength: Strength, count: int) -> Doubles:
    """The pull towards the prior, as a quadratic form over all unknowns."""
    n = KNOTS + 3
    bend = np.diff(np.eye(n), 2, axis=0) * KNOTS
    ends = basis(np.array(MIDDLE))[:, 1:]
    slope = (ends[1:] - ends[:1]) / strength.slope
    spline = strength.bend * bend.T @ bend + slope.T @ slope + 1e-6 * np.eye(n)
    full = np.zeros((n + 1 + count, n + 1 + count))
    full[0, 0] = strength.exponent**-2
    full[1 : n + 1, 1 : n + 1] = spline
    full[n + 1 :, n + 1 :] = np.eye(count) * max(strength.exposure, 1e-6) ** -2
    return full


def _spread(error: Doubles) -> float:
    return float(1.4826 * np.median(np.abs(error))) if len(error) else np.inf


def departure(curve: Curve, codes: Doubles) -> Doubles:
    """EV to add to the prior; 0 at white."""
    unknowns = np.concatenate([[curve.exponent], curve.spline])
    return np.asarray((basis(codes) - basis(np.ones(1))) @ unknowns)


def as_response(curve: Curve, prior: Response, name: str) -> Response:
    """The recovered curve as a Response: monotone, white 1.0, the same for all channels."""
    codes = np.linspace(0, 1, CURVE)
    light = np.exp2(prior_ev(prior, codes) + departure(curve, codes))
    light[0] = 0.0
    light = np.maximum.accumulate(light)
    light = (light / light[-1]).astype(np.float32)
    return Response(name, np.repeat(light[:, None], 3, axis=1))


def recovered(pairs: Pairs, evs: Doubles, prior: Response) -> Response:
    """The curve the pairs ask for. The spline is stiffened until light rises with the code."""
    strength = KNOWN
    while True:
        curve = solve(pairs, evs, prior, strength)
        if rising(curve, prior) or strength.bend > 1e5:
            return as_response(curve, prior, "recovered")
        strength = replace(strength, bend=strength.bend * 4, exponent=strength.exponent / 1.5)


def rising(curve: Curve, prior: Response) -> bool:
    """Whether light rises at least a fifth as fast as by the prior, everywhere."""
    codes = np.linspace(1 / 255, 1, 255)
    own = np.diff(prior_ev(prior, codes))
    return bool((np.diff(departure(curve, codes)) > -0.8 * own).all())


def from_samples(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Recover by this module's own method."""
    return recovered(pairs_of(samples, partners_of(evs), prior), evs, prior)


def systematic(pairs: Pairs, evs: Doubles, response: Response) -> float:
    """RMS over the code range of the frames' systematic disagreement, in EV.

    Per pair of frames and stratum of codes the median is taken, so that noise and motion
    cancel and only what a wrong curve or exposure does remains.
    """
    given = evs[pairs.frames[:, 1]] - evs[pairs.frames[:, 0]]
    error = prior_ev(response, pairs.bright) - prior_ev(response, pairs.dark) - given
    count = len(evs)
    stratum = (pairs.bright * 16).astype(np.intp)
    group = (pairs.frames[:, 0] * count + pairs.frames[:, 1]) * 17 + stratum
    found = []
    for members in np.split(np.argsort(group, kind="stable"), _starts(group)):
        if len(members) >= MEMBERS:
            expected = float(np.median(pairs.sigma[members])) / np.sqrt(len(members))
            found.append((float(np.median(error[members])), 1 / (expected**2 + FLOOR_EV**2)))
    if not found:
        return np.inf
    medians, weights = np.array(sorted(found, key=lambda one: abs(one[0])))[: _most(found)].T
    return float(np.sqrt(np.average(medians**2, weights=weights)))


def _starts(group: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.flatnonzero(np.diff(np.sort(group, kind="stable"))) + 1


def _most(found: Sequence[object]) -> int:
    """The strata that count: a few are full of what moved."""
    return max(int(0.85 * len(found)), 1)
