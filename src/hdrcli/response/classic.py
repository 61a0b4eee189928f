"""The classical recoveries, each on the sampled scene points, one curve for all channels.

White balance acts on linear light, before the camera's curve, so the three channels tell of one
curve; this also settles the scale between them, which each channel alone leaves free.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Response
from hdrcli.response import recover
from hdrcli.response.pairs import light_ev, partners_of
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]
Whole = NDArray[np.intp]

LEVELS = 256
STEADY = 6 / 255  # spread of codes inside a block that still counts as smooth
STATIC_EV = 0.3  # by which a point's light may differ between frames
POINTS = 4000
LAMBDA = 400.0  # Debevec's smoothness, per point and code
ROBERTSON_ROUNDS = 30
MITSUNAGA_ROUNDS = 3
STIFFNESS = 1e6  # of the smoothing between the rounds of Robertson
DEGREES = range(2, 9)  # Mitsunaga and Nayar's polynomials


def debevec(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Debevec and Malik, SIGGRAPH 1997, equation 3: g(z) and ln E by least squares."""
    z, usable = _points(samples, evs, recover.from_samples(samples, evs, prior))
    return _response("debevec", np.exp(solve_debevec(z, usable, evs * np.log(2), LAMBDA)))


def solve_debevec(z: Whole, usable: NDArray[np.bool_], log_t: Doubles, lam: float) -> Doubles:
    """g, the log exposure behind each code, (256,); ``z`` (P, F) codes, ``log_t`` (F,).

    The P unknown ln E are eliminated by hand (Schur complement), so that thousands of points
    cost a system of 256 unknowns.
    """
    w = np.where(usable, _hat(z), 0.0) ** 2
    total = w.sum(axis=1, keepdims=True) + 1e-12
    middle = (w * log_t).sum(axis=1, keepdims=True) / total
    normal: Doubles = np.diag(np.bincount(z.ravel(), weights=w.ravel(), minlength=LEVELS) + 0.0)
    for frame in range(z.shape[1]):
        shared = w * w[:, frame : frame + 1] / total
        where = z * LEVELS + z[:, frame : frame + 1]
        normal -= np.bincount(where.ravel(), weights=shared.ravel(), minlength=LEVELS**2).reshape(
            LEVELS, LEVELS
        )
    right = np.bincount(z.ravel(), weights=(w * (log_t - middle)).ravel(), minlength=LEVELS)
    bend = np.diff(np.eye(LEVELS), 2, axis=0) * _hat(np.arange(1, LEVELS - 1))[:, None]
    normal += lam * len(z) / LEVELS * bend.T @ bend  # λ w g''
    normal[LEVELS // 2, LEVELS // 2] += 1.0  # g is 0 in the middle
    return np.asarray(np.linalg.solve(normal + 1e-9 * np.eye(LEVELS), right))


def robertson(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Robertson, Borman and Stevenson, ICIP 1999: alternate light (eq. 8) and curve (eq. 10)."""
    start = recover.from_samples(samples, evs, prior)  # from far off it needs hundreds of rounds
    z, usable = _points(samples, evs, start)
    t = np.exp2(evs - evs.mean())
    weight = np.where(usable, np.exp(-4 * (z - 127.5) ** 2 / 127.5**2), 0.0) + 1e-12
    curve = start.table(LEVELS).mean(axis=1).astype(np.float64)
    seen = np.bincount(z.ravel(), weights=usable.ravel(), minlength=LEVELS)
    for _ in range(ROBERTSON_ROUNDS):
        light = (weight * t * curve[z]).sum(axis=1) / (weight * t**2).sum(axis=1)
        behind = np.where(usable, light[:, None] * t, 0.0)
        total = np.bincount(z.ravel(), weights=behind.ravel(), minlength=LEVELS)
        curve = _smooth(total / np.maximum(seen, 1e-9), seen.astype(np.float64))
        curve /= curve[LEVELS // 2]
    return _response("robertson", curve)


def mitsunaga(samples: Samples, evs: Doubles, prior: Response) -> Response:
    """Mitsunaga and Nayar, CVPR 1999: the polynomial f with f(a) / f(b) = the exposures' ratio."""
    z, usable = _points(samples, evs, recover.from_samples(samples, evs, prior))
    parts = []
    for i, j in partners_of(evs):
        both = usable[:, i] & usable[:, j]
        dark, bright = z[both, i] / (LEVELS - 1), z[both, j] / (LEVELS - 1)
        parts.append((dark, bright, np.full(len(dark), 2.0 ** (evs[j] - evs[i]))))
    dark, bright, ratio = (np.concatenate(part) for part in zip(*parts, strict=True))
    fits = [_polynomial(dark, bright, ratio, prior, degree) for degree in DEGREES]
    best = min(fits, key=lambda fit: fit[0])[1]
    return _response("mitsunaga", np.asarray(np.polyval(best, np.linspace(0, 1, LEVELS))))


def _polynomial(
    dark: Doubles, bright: Doubles, ratio: Doubles, prior: Response, degree: int
) -> tuple[float, Doubles]:
    """Equation 8, with f(0) = 0 and f(1) = 1: the error in stops, and coefficients.

    Each row is divided by the light it speaks of, as found in the round before: an error of
    one stop counts the same in the shadows.
    """
    powers = np.arange(degree, 0, -1)
    rows = ratio[:, None] * dark[:, None] ** powers - bright[:, None] ** powers
    free = rows[:, :-1] - rows[:, -1:]  # the linear coefficient is 1 minus the others
    light = np.exp2(light_ev(prior, bright))
    coefficients = np.zeros(degree + 1)
    for _ in range(MITSUNAGA_ROUNDS):
        scale = 1 / (light + 1e-3)
        found = np.linalg.lstsq(free * scale[:, None], -rows[:, -1] * scale, rcond=None)[0]
        coefficients = np.concatenate([found, [1 - found.sum(), 0.0]])
        light = np.maximum(np.polyval(coefficients, bright), 1e-4)
    below = np.maximum(np.polyval(coefficients, dark), 1e-6)
    error = np.median(np.abs(np.log2(light / below / ratio)))
    falls = (np.diff(np.polyval(coefficients, np.linspace(0, 1, LEVELS))) < 0).sum()
    return float(error + falls), coefficients


def _points(samples: Samples, evs: Doubles, curve: Response) -> tuple[Whole, NDArray[np.bool_]]:
    """Codes (P, F) of points, spread over brightness, and where they are smooth and static.

    What moved is found as what ``curve``, which is about right, cannot explain.
    """
    codes = samples.codes.transpose(1, 2, 0).reshape(-1, len(evs))
    flat = np.stack([f.usable & ~f.black & (f.spread < STEADY) for f in samples.frames])
    usable = flat.transpose(1, 2, 0).reshape(codes.shape)
    light = light_ev(curve, codes) - evs
    usable &= np.abs(light - _middle(light, usable)[:, None]) < STATIC_EV
    good = np.flatnonzero(usable.sum(axis=1) >= 2)
    order = good[np.argsort(codes[good].mean(axis=1), kind="stable")]
    even = np.linspace(0, len(order) - 1, min(POINTS, len(order))).astype(np.intp)
    z = np.rint(codes[order[even]] * (LEVELS - 1)).astype(np.intp)
    return z, usable[order[even]]


def _middle(values: Doubles, known: NDArray[np.bool_]) -> Doubles:
    """The median of each row's known values, 0 where there is none."""
    ordered = np.sort(np.where(known, values, np.inf), axis=1)
    middle = ordered[np.arange(len(values)), np.maximum(known.sum(axis=1) - 1, 0) // 2]
    return np.where(np.isfinite(middle), middle, 0.0)


def _hat(codes: NDArray[np.intp]) -> Doubles:
    """Debevec and Malik's equation 4: trust the middle of the range, not its ends."""
    return (np.minimum(codes, LEVELS - 1 - codes) + 1) / (LEVELS / 2)


def _smooth(curve: Doubles, seen: Doubles) -> Doubles:
    """Whittaker smoothing of the logarithm, by how often each code was seen."""
    logs = np.log(np.maximum(curve, 1e-6))
    bend = np.diff(np.eye(LEVELS), 3, axis=0)
    weight = np.minimum(seen, 50.0) + 1e-3
    smooth = np.linalg.solve(np.diag(weight) + STIFFNESS * bend.T @ bend, weight * logs)
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
