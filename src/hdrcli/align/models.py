"""Plane transformations: applying, fitting, choosing and judging them.

All are 3×3 float64, mapping (x, y) with pixel centres at integers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2): x, y
Matrix = NDArray[np.float64]

SIGMA = 0.08  # pixels: no local shift is measured better than this
SETTLED = 1e-6  # pixels: errors that change by less are final
MAX_SCALE = 1.15  # between two hand-held frames of one lens, and zoom breathing
MAX_SHEAR = 1.06  # ratio of the singular values at the centre
MAX_PERSPECTIVE = 0.12  # change of scale between the centre and a corner
MAX_ROTATION = 25.0  # degrees
MIN_OVERLAP = 0.4  # of the reference


def apply(matrix: Matrix, points: Points) -> Points:
    """Map points through a homography."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def corners(size: tuple[int, int]) -> Points:
    """The four corner pixels of a picture of height, width, clockwise from the top left."""
    bottom, right = size[0] - 1.0, size[1] - 1.0
    return np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]])


def lattice(size: tuple[int, int], n: int = 9) -> Points:
    """n × n points spread over a picture of height, width, its corners among them."""
    ys, xs = np.meshgrid(*(np.linspace(0, side - 1.0, n) for side in size), indexing="ij")
    return np.stack([xs.ravel(), ys.ravel()], axis=1)


def displacement(matrix: Matrix, size: tuple[int, int]) -> float:
    """How far the points of a picture move, root mean square, in pixels."""
    at = lattice(size)
    return float(np.sqrt(((apply(matrix, at) - at) ** 2).sum(axis=1).mean()))


def coverage(matrix: Matrix, size: tuple[int, int]) -> float:
    """The part of the reference that the frame covers."""
    ys, xs = np.meshgrid(*((np.arange(40) + 0.5) / 40 * side - 0.5 for side in size), indexing="ij")
    at = apply(matrix, np.stack([xs.ravel(), ys.ravel()], axis=1))
    inside = (at >= -0.5) & (at <= np.array([size[1], size[0]]) - 0.5)
    return float(inside.all(axis=1).mean())


@dataclass(frozen=True)
class Parts:
    """A homography in a photographer's words, at the centre of the picture."""

    shift: tuple[float, float]  # pixels, how far the centre moves
    rotation: float  # degrees
    scale: float
    shear: float  # ratio of the two singular values, ≥ 1
    perspective: float  # largest change of scale from the centre to a corner


def parts(matrix: Matrix, size: tuple[int, int]) -> Parts:
    """Take a homography apart, at the centre of a picture of height, width."""
    centre = (corners(size)[0] + corners(size)[2]) / 2
    shift = apply(matrix, centre[None])[0] - centre
    local = _jacobian(matrix, centre)
    u, singular, vt = np.linalg.svd(local)
    turn = u @ vt
    depth = _depth(matrix, np.vstack([centre[None], corners(size)]))
    return Parts(
        shift=(float(shift[0]), float(shift[1])),
        rotation=float(np.degrees(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1]))),
        scale=float(np.sqrt(singular[0] * singular[1])),
        shear=float(singular[0] / max(singular[1], 1e-9)),
        perspective=float(np.abs(depth[1:] / depth[0] - 1).max()),
    )


def _depth(matrix: Matrix, points: Points) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[2, :2] + matrix[2, 2])


def _jacobian(matrix: Matrix, point: NDArray[np.float64]) -> NDArray[np.float64]:
    depth = float(matrix[2, :2] @ point + matrix[2, 2])
    mapped = apply(matrix, point[None])[0]
    return np.asarray((matrix[:2, :2] - np.outer(mapped, matrix[2, :2])) / depth)


def implausible(matrix: Matrix, size: tuple[int, int]) -> str | None:
    """Say why a transformation cannot be two photographs of one bracket; None if it can."""
    if not np.isfinite(matrix).all() or (_depth(matrix, corners(size)) <= 0).any():
        return "the transformation found turns the picture inside out"
    found = parts(matrix, size)
    limits = {
        f"a scale of {found.scale:.3f}": abs(np.log(found.scale)) > np.log(MAX_SCALE),
        f"a shear of {found.shear:.3f}": found.shear > MAX_SHEAR,
        f"a perspective of {found.perspective:.3f}": found.perspective > MAX_PERSPECTIVE,
        f"a rotation of {found.rotation:.1f}°": abs(found.rotation) > MAX_ROTATION,
        f"an overlap of {coverage(matrix, size):.0%}": coverage(matrix, size) < MIN_OVERLAP,
    }
    broken = [what for what, over in limits.items() if over]
    return f"{broken[0]} is more than a hand does" if broken else None


# --- fitting -----------------------------------------------------------------------------------

Weights = NDArray[np.float64]


def _translation(a: Points, b: Points, w: Weights) -> Matrix:
    out = np.eye(3)
    out[:2, 2] = (w[:, None] * (b - a)).sum(axis=0) / w.sum()
    return out


def _similarity(a: Points, b: Points, w: Weights) -> Matrix:
    x, y, o, i = a[:, 0], a[:, 1], np.zeros(len(a)), np.ones(len(a))
    p, q, u, v = _solve([np.stack([x, -y, i, o], 1), np.stack([y, x, o, i], 1)], b, w)
    return np.array([[p, -q, u], [q, p, v], [0, 0, 1]])


def _affine(a: Points, b: Points, w: Weights) -> Matrix:
    x, y, o, i = a[:, 0], a[:, 1], np.zeros(len(a)), np.ones(len(a))
    rows = [np.stack([x, y, i, o, o, o], 1), np.stack([o, o, o, x, y, i], 1)]
    return np.vstack([_solve(rows, b, w).reshape(2, 3), [0, 0, 1]])


def _tilt(a: Points, b: Points, w: Weights) -> Matrix:
    """A similarity in perspective: what a camera does that is turned in the hand."""
    x, y, o, i = a[:, 0], a[:, 1], np.zeros(len(a)), np.ones(len(a))

    def rows(u: Points, v: Points) -> list[list[Points]]:
        return [[x, -y, i, o, -x * u, -y * u], [y, x, o, i, -x * v, -y * v]]

    def matrix(found: Points) -> Matrix:
        p, q, r, t, e, f = found
        return np.array([[p, -q, r], [q, p, t], [e, f, 1]])

    return _in_perspective(a, b, w, rows, matrix)


def _homography(a: Points, b: Points, w: Weights) -> Matrix:
    x, y, o, i = a[:, 0], a[:, 1], np.zeros(len(a)), np.ones(len(a))

    def rows(u: Points, v: Points) -> list[list[Points]]:
        return [[x, y, i, o, o, o, -x * u, -y * u], [o, o, o, x, y, i, -x * v, -y * v]]

    def matrix(found: Points) -> Matrix:
        return np.append(found, 1).reshape(3, 3)

    return _in_perspective(a, b, w, rows, matrix)


def _in_perspective(
    a: Points,
    b: Points,
    w: Weights,
    rows: Callable[[Points, Points], list[list[Points]]],
    matrix: Callable[[Points], Matrix],
) -> Matrix:
    """Linear equations, divided by the last denominator so that the errors are in pixels.

    ``rows`` gives the columns of the equations for x and for y, ``matrix`` what is found.
    """
    depth = np.ones(len(a))
    out = np.eye(3)
    for _ in range(4):
        d = depth[:, None]
        sides = [np.stack(columns, 1) / d for columns in rows(*b.T)]
        out = matrix(_solve(sides, b / d, w))
        depth = _depth(out, a)
    return out


def _solve(rows: list[NDArray[np.float64]], b: Points, w: Weights) -> NDArray[np.float64]:
    root = np.sqrt(w)
    left = np.vstack([root[:, None] * part for part in rows])
    right = np.concatenate([root * b[:, 0], root * b[:, 1]])
    return np.asarray(np.linalg.lstsq(left, right, rcond=None)[0])


@dataclass(frozen=True)
class Model:
    """A kind of plane transformation and how to fit it to weighted point pairs."""

    fit: Callable[[Points, Points, Weights], Matrix]
    parameters: int
    points: int  # fewer agreeing points than this are not enough to trust it
    spread: float  # they must spread this far, standard deviation over half the picture


MODELS: Mapping[str, Model] = {
    "translation": Model(_translation, 2, 4, 0.0),
    "similarity": Model(_similarity, 4, 6, 0.15),
    "tilt": Model(_tilt, 6, 10, 0.3),
    "affine": Model(_affine, 6, 10, 0.3),
    "homography": Model(_homography, 8, 12, 0.3),
}


@dataclass(frozen=True)
class Fit:
    """A robust fit: which model, its matrix, and how far each point is from it (pixels)."""

    model: str
    matrix: Matrix
    errors: NDArray[np.float64]


def fit(
    a: Points, b: Points, start: Matrix, models: list[str], size: tuple[int, int], trust: Weights
) -> Fit:
    """Choose and fit the simplest model that explains b = H a as well as the others do.

    Geman-McClure weights, started from the errors of ``start``, leave out what moves by itself;
    the choice is by the Bayesian information criterion, with errors cut off at three sigma.
    ``trust`` is the weight of each point. Needs at least four points.
    """
    half = np.array([size[1], size[0]]) / 2
    far = half.max()
    to_unit = np.array([[1 / far, 0, -half[0] / far], [0, 1 / far, -half[1] / far], [0, 0, 1]])
    from_unit = np.linalg.inv(to_unit)
    unit_a, unit_b = apply(to_unit, a), apply(to_unit, b)
    first = _errors(start, a, b)
    agreeing = first <= max(3 * _middle(first), 3 * SIGMA)
    spread = float((a[agreeing].std(axis=0) / half).min())
    fits: list[Fit] = []
    for name in models:
        model = MODELS[name]
        if name != models[0] and (agreeing.sum() < model.points or spread < model.spread):
            continue
        errors = min((first, *(found.errors for found in fits)), key=_middle)
        for _ in range(8):
            scale = max(2 * _middle(errors), 2 * SIGMA)
            weights = trust / (1 + (errors / scale) ** 2) ** 2
            unit = model.fit(unit_a, unit_b, weights)
            matrix = from_unit @ unit @ to_unit
            before, errors = errors, _errors(matrix, a, b)
            if np.abs(errors - before).max() < SETTLED:
                break
        fits.append(Fit(name, matrix / matrix[2, 2], errors))
    sigma = max(_middle(fits[-1].errors), SIGMA)
    return min(fits, key=lambda found: _information(found, sigma, trust))


def _errors(matrix: Matrix, a: Points, b: Points) -> NDArray[np.float64]:
    off = apply(matrix, a) - b
    return np.asarray(np.sqrt((off * off).sum(axis=1)))


def _middle(errors: NDArray[np.float64]) -> float:
    """The median of some dozens, of which numpy asks more than it takes to sort them."""
    return float(median(errors.tolist()))


def _information(found: Fit, sigma: float, trust: Weights) -> float:
    truncated = np.minimum((found.errors / sigma) ** 2, 9) * (trust / trust.mean())
    return float(truncated.sum() + MODELS[found.model].parameters * np.log(2 * len(truncated)))
