"""The camera's curve from the bracket itself: one smooth departure from what the file claims.

Two codes c_i, c_j of one scene point in frames EV stops apart obey g(c_j) - g(c_i) = EV, g being
the log2 light behind a code (Debevec and Malik 1997, equation 2, with the irradiance
eliminated). Here g = prior + s: s is a cubic P-spline (Eilers and Marx 1996) of the code plus a
change of exponent, pulled towards zero. Noise and detail weigh each pair, a robust loss drops
what moved.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response.pairs import Pairs, errors, light_ev, pairs_of, partners_of
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]

KNOTS = 14  # intervals of the spline over the code range
CURVE = 1024  # samples of a recovered curve
MIDDLE = (0.1, 0.9)  # codes between which the mean slope of an unknown curve is held
ROUNDS = 9  # reweightings
STIFFEST = 1e5  # at this bend the spline is a straight line
WIDEST = 3.0  # times the expected error: a wider scatter is disagreement
INLIER = 2.5  # pairs within so many standard deviations show one scene
PART = 512  # rows multiplied at once: BLAS wakes threads for more, which takes longer than it saves


@dataclass(frozen=True)
class Strength:
    """How far the fit may depart from the prior."""

    bend: float  # weight of the squared second difference of the spline
    exponent: float  # standard deviation of the change of exponent
    slope: float  # standard deviation of the spline's mean slope, EV over the code range


KNOWN = Strength(bend=8.0, exponent=0.3, slope=3.0)


@dataclass(frozen=True, eq=False)
class Curve:
    """A fitted departure from the prior, and the pairs that agree with it."""

    exponent: float
    spline: Doubles  # (KNOTS + 3,)
    inliers: NDArray[np.bool_]  # (N,)


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


def solve(pairs: Pairs, evs: Doubles, prior: Response, strength: Strength) -> Curve:
    """Fit the departure to pairs of frames whose exposures are known.

    The loss is Geman and McClure's: what moved loses its say altogether.
    """
    target = -errors(pairs, evs, prior)
    rows = np.column_stack([basis(pairs.bright) - basis(pairs.dark), target])
    penalty = _penalty(strength)
    weight = 1 / pairs.sigma**2
    unknowns: Doubles = np.zeros(len(penalty))
    scale = 4.0
    for _ in range(ROUNDS):
        error = _times(rows, np.append(unknowns, -1.0)) / pairs.sigma
        scale = max(0.7 * scale, 1.0, 1.4826 * float(np.median(np.abs(error))))
        robust: Doubles = weight / (1 + (error / (1.5 * scale)) ** 2) ** 2 / scale**2
        normal = _normal(rows, robust)
        unknowns = np.asarray(np.linalg.solve(normal[:-1, :-1] + penalty, normal[:-1, -1]))
    error = _times(rows, np.append(unknowns, -1.0)) / pairs.sigma
    return Curve(float(unknowns[0]), unknowns[1:], np.abs(error) < INLIER * min(scale, WIDEST))


def _normal(rows: Doubles, weight: Doubles) -> Doubles:
    """The weighted products of the columns of ``rows`` (N, K) with each other, (K, K)."""
    total: Doubles = np.zeros((rows.shape[1], rows.shape[1]))
    for at in range(0, len(rows), PART):
        part = rows[at : at + PART]
        total += part.T @ (part * weight[at : at + PART, None])
    return total


def _times(rows: Doubles, vector: Doubles) -> Doubles:
    """rows @ vector, in this thread."""
    return np.asarray(np.einsum("nk,k->n", rows, vector))


def _penalty(strength: Strength) -> Doubles:
    """The pull towards the prior, as a quadratic form over all unknowns."""
    n = KNOTS + 3
    bend = np.diff(np.eye(n), 2, axis=0) * KNOTS
    ends = basis(np.array(MIDDLE))[:, 1:]
    slope = (ends[1:] - ends[:1]) / strength.slope
    full = np.zeros((n + 1, n + 1))
    full[0, 0] = strength.exponent**-2
    full[1:, 1:] = strength.bend * bend.T @ bend + slope.T @ slope + 1e-6 * np.eye(n)
    return full


def departure(curve: Curve, codes: Doubles) -> Doubles:
    """EV to add to the prior; 0 at white."""
    unknowns = np.concatenate([[curve.exponent], curve.spline])
    return _times(basis(codes) - basis(np.ones(1)), unknowns)


def as_response(curve: Curve, prior: Response, name: str = "recovered") -> Response:
    """The recovered curve as a Response: monotone, white 1.0, the same for all channels."""
    codes = np.linspace(0, 1, CURVE)
    light = np.exp2(light_ev(prior, codes) + departure(curve, codes))
    light[0] = 0.0
    light = np.maximum.accumulate(light)
    light = (light / light[-1]).astype(np.float32)
    return Response(name, np.repeat(light[:, None], 3, axis=1))


def recovered(pairs: Pairs, evs: Doubles, prior: Response) -> tuple[Response, Pairs]:
    """The curve the pairs ask for, and the pairs that agree with it.

    The spline is stiffened until light rises with the code.
    """
    strength = KNOWN
    while True:
        curve = solve(pairs, evs, prior, strength)
        if rising(curve, prior) or strength.bend > STIFFEST:
            return as_response(curve, prior), pairs.only(curve.inliers)
        strength = replace(strength, bend=strength.bend * 4, exponent=strength.exponent / 1.5)


def rising(curve: Curve, prior: Response) -> bool:
    """Whether light rises at least a fifth as fast as by the prior, everywhere."""
    codes = np.linspace(1 / 255, 1, 255)
    own = np.diff(light_ev(prior, codes))
    return bool((np.diff(departure(curve, codes)) > -0.8 * own).all())


def from_samples(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Recover by this module's own method."""
    return recovered(pairs_of(samples, partners_of(evs), prior), evs, prior)[0]
