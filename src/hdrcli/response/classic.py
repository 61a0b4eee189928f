"""The classical recoveries, each on the sampled scene points, one curve for all channels.

White balance acts on linear light, before the camera's curve, so the three channels tell of one
curve; this also settles the scale between them, which each channel alone leaves free.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]
Whole = NDArray[np.intp]

LEVELS = 256
STEADY = 6 / 255  # spread of codes inside a block that still counts as smooth
POINTS = 400  # points of Debevec's linear system: it is solved densely
LAMBDA = 40.0  # Debevec's smoothness; his figures use 10 to 100 for fewer points
ROBERTSON_ROUNDS, ROBERTSON_POINTS = 30, 4000
DEGREES = range(2, 9)  # Mitsunaga and Nayar's polynomials


def debevec(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Debevec and Malik, SIGGRAPH 1997, equation 3: g(z) and ln E by least squares."""
    del prior
    codes, usable = _points(samples, POINTS)
    return _response("debevec", np.exp(solve_debevec(codes, usable, evs * np.log(2), LAMBDA)))


def solve_debevec(z: Whole, usable: NDArray[np.bool_], log_t: Doubles, lam: float) -> Doubles:
    """g, the log exposure behind each code, (256,); ``z`` (P, F) codes, ``log_t`` (F,)."""
    w = np.where(usable, _hat(z), 0.0)
    point, frame = np.indices(z.shape)
    at = np.arange(z.size)
    rows = np.zeros((z.size, LEVELS + len(z)))
    rows[at, z.ravel()] = w.ravel()  # w (g(z) - ln E) = w ln t
    rows[at, LEVELS + point.ravel()] = -w.ravel()
    values = w.ravel() * log_t[frame.ravel()]
    bend = np.zeros((LEVELS - 2, rows.shape[1]))
    bend[:, :LEVELS] = np.diff(np.eye(LEVELS), 2, axis=0)
    bend *= np.sqrt(lam) * _hat(np.arange(1, LEVELS - 1))[:, None]  # λ w g'' = 0
    middle = np.zeros((1, rows.shape[1]))
    middle[0, LEVELS // 2] = 1.0  # g is 0 in the middle
    system = np.vstack([rows, bend, middle])
    normal = system.T @ system + 1e-9 * np.eye(system.shape[1])
    return np.asarray(np.linalg.solve(normal, rows.T @ values)[:LEVELS])


def robertson(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Robertson, Borman and Stevenson, ICIP 1999: alternate light (eq. 8) and curve (eq. 10)."""
    z, usable = _points(samples, ROBERTSON_POINTS)
    t = np.exp2(evs - evs.mean())
    weight = np.where(usable, np.exp(-4 * (z - 127.5) ** 2 / 127.5**2), 0.0) + 1e-12
    curve = prior.table(LEVELS).mean(axis=1).astype(np.float64)
    seen = np.bincount(z.ravel(), weights=usable.ravel(), minlength=LEVELS)
    for _ in range(ROBERTSON_ROUNDS):
        light = (weight * t * curve[z]).sum(axis=1) / (weight * t**2).sum(axis=1)
        behind = np.where(usable, light[:, None] * t, 0.0)
        total = np.bincount(z.ravel(), weights=behind.ravel(), minlength=LEVELS)
        known = np.flatnonzero(seen > 0)
        curve = np.interp(np.arange(LEVELS), known, total[known] / seen[known])
        curve /= curve[LEVELS // 2]
    return _response("robertson", _smooth(curve, seen.astype(np.float64)))


def mitsunaga(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Mitsunaga and Nayar, CVPR 1999: the polynomial f with f(a) / f(b) = the exposures' ratio."""
    del prior
    z, usable = _points(samples, ROBERTSON_POINTS)
    order = np.argsort(evs, kind="stable")
    steps = [(i, j) for i, j in pairwise(order) if evs[j] > evs[i]]
    dark = np.concatenate([z[usable[:, i] & usable[:, j], i] for i, j in steps]) / 255
    bright = np.concatenate([z[usable[:, i] & usable[:, j], j] for i, j in steps]) / 255
    ratio = np.concatenate(
        [np.full((usable[:, i] & usable[:, j]).sum(), 2.0 ** (evs[j] - evs[i])) for i, j in steps]
    )
    fits = [_polynomial(dark, bright, ratio, degree) for degree in DEGREES]
    best = min(fits, key=lambda fit: fit[0])[1]
    light = np.asarray(np.polyval(best, np.linspace(0, 1, LEVELS)), np.float64)
    return _response("mitsunaga", light)


def _polynomial(
    dark: Doubles, bright: Doubles, ratio: Doubles, degree: int
) -> tuple[float, Doubles]:
    """Equation 8, with f(0) = 0 and f(1) = 1: the error in stops, and coefficients."""
    powers = np.arange(degree, 0, -1)
    rows = ratio[:, None] * dark[:, None] ** powers - bright[:, None] ** powers
    free = rows[:, :-1] - rows[:, -1:]  # the linear coefficient is 1 minus the others
    scale = 1 / (bright + 0.02)
    found = np.linalg.lstsq(free * scale[:, None], -rows[:, -1] * scale, rcond=None)[0]
    coefficients = np.concatenate([found, [1 - found.sum(), 0.0]])
    light = [np.maximum(np.polyval(coefficients, c), 1e-6) for c in (dark, bright)]
    error = np.median(np.abs(np.log2(light[1] / light[0] / ratio)))
    falls = (np.diff(np.polyval(coefficients, np.linspace(0, 1, LEVELS))) < 0).sum()
    return float(error + falls), coefficients


def _points(samples: Samples, count: int) -> tuple[Whole, NDArray[np.bool_]]:
    """Codes (P, F) of smooth points, spread over brightness, and where they count."""
    codes = np.rint(samples.codes.transpose(1, 2, 0).reshape(-1, len(samples.codes)) * 255)
    flat = samples.usable & (samples.spread < STEADY)
    usable = flat.transpose(1, 2, 0).reshape(codes.shape)
    good = np.flatnonzero(usable.sum(axis=1) >= 2)
    order = good[np.argsort(codes[good].mean(axis=1), kind="stable")]
    even = np.linspace(0, len(order) - 1, min(count, len(order))).astype(np.intp)
    z = codes[order[even]].astype(np.intp)
    return z, usable[order[even]]


def _hat(codes: NDArray[np.intp]) -> Doubles:
    """Debevec and Malik's equation 4: trust the middle of the range, not its ends."""
    return (np.minimum(codes, LEVELS - 1 - codes) + 1) / (LEVELS / 2)


def _smooth(curve: Doubles, seen: Doubles) -> Doubles:
    """Whittaker smoothing of the logarithm, by how often each code was seen."""
    logs = np.log(np.maximum(curve, 1e-6))
    bend = np.diff(np.eye(LEVELS), 3, axis=0)
    weight = np.minimum(seen, 50.0) + 1e-3
    smooth = np.linalg.solve(np.diag(weight) + 3e4 * bend.T @ bend, weight * logs)
    return np.asarray(np.exp(smooth))


def _response(name: str, light: Doubles) -> Response:
    """Rising (pool adjacent violators), 0 at black, 1 at white, the same for all channels."""
    curve = rising(np.maximum(np.nan_to_num(light), 0))
    curve = (curve / curve[-1]).astype(np.float32)
    curve[0] = 0.0
    return Response(name, np.repeat(curve[:, None], 3, axis=1))


def rising(values: Doubles) -> Doubles:
    """The nearest non-decreasing sequence in least squares: pool adjacent violators."""
    level: list[float] = []
    count: list[int] = []
    for value in values:
        level.append(float(value))
        count.append(1)
        while len(level) > 1 and level[-2] > level[-1]:
            total = count[-2] + count[-1]
            level[-2] = (level[-2] * count[-2] + level[-1] * count[-1]) / total
            count[-2] = total
            del level[-1], count[-1]
    return np.repeat(level, count)
