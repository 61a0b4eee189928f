"""Noise and patterns: what makes a wall a wall. Arrays in, arrays of the same shape out."""

import numpy as np
from numpy.typing import NDArray

from hdrcli.example.light import Floats, smoothstep, vec

_TABLE = np.random.default_rng(20).random(65536).astype(np.float32)


def lattice(i: NDArray[np.integer], j: NDArray[np.integer]) -> Floats:
    """A fixed random number in [0, 1) for each pair of integers."""
    return np.take(_TABLE, ((j & 255) << 8) | (i & 255))


def noise(x: Floats, y: Floats) -> Floats:
    """Smooth value noise in [0, 1) with features about 1 unit wide."""
    i, j = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    fx, fy = x - i, y - j
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    top = lattice(i, j) * (1 - fx) + lattice(i + 1, j) * fx
    low = lattice(i, j + 1) * (1 - fx) + lattice(i + 1, j + 1) * fx
    return np.asarray((top * (1 - fy) + low * fy), np.float32)


def fractal(x: Floats, y: Floats, octaves: int = 4) -> Floats:
    """Noise at several scales, in [0, 1): clouds, plaster, foliage."""
    total = np.zeros(np.broadcast(x, y).shape, np.float32)
    for k in range(octaves):
        total += noise(x * 2**k + 17 * k, y * 2**k + 31 * k) * np.float32(0.5 ** (k + 1))
    return total / np.float32(1 - 0.5**octaves)


def planks(x: Floats, z: Floats, footprint: Floats) -> Floats:
    """A floor of oak planks along z, (N, 3); lines blur with the ``footprint`` of a pixel."""
    row = np.floor(x / 0.17).astype(np.int32)
    along = z / 1.5 + lattice(row, row * 0 + 5)
    board = np.floor(along).astype(np.int32)
    tone = 0.72 + 0.5 * lattice(row, board + 90)
    grain = fractal(x * 60, z * 2.2 + 9 * tone) * 0.35 + fractal(x * 9, z * 0.8) * 0.2
    across = np.abs(x / 0.17 - row - 0.5) * 0.17
    ends = np.abs(along - board - 0.5) * 1.5
    width = 0.0025 + footprint
    gap = np.maximum(
        1 - smoothstep(0, 1, (0.085 - across) / width), 1 - smoothstep(0, 1, (0.75 - ends) / width)
    )
    gap *= 0.0025 / width * 1.2
    light = (tone * (0.72 + grain)) * (1 - 0.75 * np.minimum(gap, 1))
    return light[..., None] * vec([0.40, 0.25, 0.135])


def rug(x: Floats, z: Floats) -> Floats:
    """A woven rug over [-1, 1] × [-1, 1], (N, 3)."""
    border = np.maximum(np.abs(x), np.abs(z))
    weave = 0.85 + 0.3 * noise(x * 160, z * 160)
    diamonds = np.abs((x * 3) % 1 - 0.5) + np.abs((z * 3) % 1 - 0.5)
    field = np.where((diamonds * 4).astype(np.int32) % 2 == 0, 0, 1)[..., None]
    colour = np.where(field, vec([0.42, 0.07, 0.05]), vec([0.12, 0.09, 0.20]))
    band = (border * 24).astype(np.int32) % 2 == 0
    cream, navy = vec([0.62, 0.52, 0.36]), vec([0.07, 0.08, 0.17])
    edge = np.where(band[..., None], cream, navy)
    return np.asarray(
        np.where((border > 0.8)[..., None], edge, colour) * weave[..., None], np.float32
    )


BOOKS = np.array(
    [[0.45, 0.08, 0.06], [0.06, 0.13, 0.28], [0.55, 0.47, 0.30], [0.07, 0.20, 0.12],
     [0.30, 0.17, 0.07], [0.68, 0.63, 0.55], [0.10, 0.09, 0.09], [0.50, 0.28, 0.06]],
    np.float32,
)  # fmt: skip


def bookshelf(along: Floats, y: Floats) -> Floats:
    """Shelves of books: ``along`` the wall and up, metres, (N, 3)."""
    shelf = np.floor(y / 0.38).astype(np.int32)
    up = y - shelf * 0.38
    slot = np.floor(along / 0.045 + 3 * lattice(shelf, shelf * 0 + 3)).astype(np.int32)
    across = np.abs((along / 0.045 + 3 * lattice(shelf, shelf * 0 + 3)) % 1 - 0.5)
    pair = np.where(lattice(slot // 2, shelf + 40) > 0.6, slot // 2 * 2, slot)  # some are thicker
    which = (lattice(pair, shelf) * len(BOOKS)).astype(np.int32)
    tall = 0.22 + 0.10 * lattice(pair, shelf + 17)
    round_back = 1 - 0.55 * smoothstep(0.25, 0.5, across)
    title = np.where((np.abs(up - 0.16) < 0.03) & (lattice(pair, shelf + 5) > 0.5), 1.6, 1.0)
    book = BOOKS[which] * (round_back * title)[..., None]
    there = (up < tall) & (up > 0.0) & (lattice(pair, shelf + 71) > 0.08)
    dark = vec([0.035, 0.026, 0.02]) * np.ones_like(book)
    wood = vec([0.30, 0.19, 0.10]) * (0.8 + 0.4 * noise(along * 3, y * 60))[..., None]
    colour = np.where(there[..., None], book, dark)
    plank = (up > 0.35) | (np.abs(along % 1.2 - 0.6) > 0.58)
    return np.where(plank[..., None], wood, colour)


def painting(x: Floats, y: Floats) -> Floats:
    """A framed landscape over [-1, 1] × [-1, 1], (N, 3)."""
    sky = vec([0.62, 0.45, 0.30]) + (y * 0.2)[..., None] * vec([-1, 0.2, 1.2])
    ridge = 0.5 * fractal(x * 2 + 3, x * 0 + 0.5) - 0.25
    hill = vec([0.10, 0.16, 0.20]) * (1 + fractal(x * 9, y * 9))[..., None]
    water = vec([0.30, 0.32, 0.33]) * (0.6 + 0.8 * noise(x * 3, y * 40))[..., None]
    inside = np.where((y > ridge)[..., None], sky, hill)
    inside = np.where((y < -0.35)[..., None], water, inside)
    border = np.maximum(np.abs(x), np.abs(y))
    mount = np.where((border > 0.72)[..., None], vec([0.72, 0.70, 0.65]), inside)
    return np.where((border > 0.92)[..., None], vec([0.16, 0.10, 0.05]), mount)
