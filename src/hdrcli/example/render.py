"""The still picture, a bit wider than a photograph, so that a hand may shake."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hdrcli.example.light import EYE, Floats
from hdrcli.example.room import still

HALF_WIDTH = 0.70  # slope at the photograph's right edge: a 25 mm lens on 35 mm film
MARGIN = 0.035  # of the width, added on every side
ROWS = 32  # rendered at a time: what fits the processor's cache
EDGE = 0.2  # in log2 steps between neighbours; above it a pixel gets more rays
EXTRA = ((-0.25, -0.375), (0.375, -0.25), (-0.375, 0.25), (0.25, 0.375))  # a rotated grid


@dataclass(frozen=True)
class Canvas:
    """A picture plane of ``width`` × ``height`` pixels with margins, seen from EYE."""

    width: int
    height: int

    @property
    def margin(self) -> int:
        """Pixels around the photograph on each side."""
        return round(self.width * MARGIN) + 2

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, margins included."""
        return self.height + 2 * self.margin, self.width + 2 * self.margin

    @property
    def focal(self) -> float:
        """Pixels per unit of slope."""
        return self.width / 2 / HALF_WIDTH

    def slopes(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """The direction (u, v, 1) behind each pixel position; v points up."""
        u = (columns + 0.5 - self.shape[1] / 2) / self.focal
        v = (self.shape[0] / 2 - rows - 0.5) / self.focal
        return u.astype(np.float32), v.astype(np.float32)

    def pixels(self, points: Floats) -> tuple[Floats, Floats]:
        """Rows and columns where points (N, 3), relative to EYE, appear."""
        columns = points[..., 0] / points[..., 2] * self.focal + self.shape[1] / 2 - 0.5
        rows = self.shape[0] / 2 - 0.5 - points[..., 1] / points[..., 2] * self.focal
        return rows, columns


@dataclass(frozen=True)
class Still:
    """All that does not move: its light, and the part of it that comes straight from the sun."""

    canvas: Canvas
    light: Floats  # (H, W, 3) with margins
    sunny: Floats  # (H, W, 3)
    depth: Floats  # (H, W), inf behind the glass

    @cached_property
    def sunlit(self) -> tuple[NDArray[np.intp], Floats]:
        """Flat indices of the pixels that the sun reaches, and their points (N, 3)."""
        where = np.flatnonzero((self.sunny.max(axis=2) > 0) & np.isfinite(self.depth))
        return where, self.points(where)

    def points(self, where: NDArray[np.intp]) -> Floats:
        """The places in the room behind some pixels, (N, 3)."""
        rows, columns = np.divmod(where, self.depth.shape[1])
        u, v = self.canvas.slopes(rows, columns)
        depth = self.depth.ravel()[where]
        return EYE + depth[:, None] * np.stack([u, v, np.ones_like(u)], axis=1)


def render(canvas: Canvas, done: Callable[[float], None] = lambda _: None) -> Still:
    """Every pixel once, and four times more where a neighbour differs.

    ``done`` is told now and then how much there is already, in [0, 1].
    """
    height, width = canvas.shape
    light = np.empty((height, width, 3), np.float32)
    sunny = np.empty_like(light)
    depth = np.empty((height, width), np.float32)

    def strip(start: int) -> None:
        rows = np.arange(start, min(start + ROWS, height), dtype=np.float32)
        at = np.meshgrid(rows, np.arange(width, dtype=np.float32), indexing="ij")
        first = still(*canvas.slopes(at[0].ravel(), at[1].ravel()))
        block = slice(start, start + len(rows))
        light[block], sunny[block] = (part.reshape(len(rows), width, 3) for part in first[:2])
        depth[block] = first[2].reshape(len(rows), width)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, height, ROWS)
        for count, _ in enumerate(pool.map(strip, starts), 1):
            done(0.5 * count / len(starts))
        parts = _parts(np.flatnonzero(_edges(light)))
        finer = pool.map(lambda part: _refine(canvas, light, sunny, part), parts)
        for count, _ in enumerate(finer, 1):
            done(0.5 + 0.5 * count / len(parts))
    return Still(canvas, light, sunny, depth)


def _edges(light: Floats) -> np.ndarray:
    """Pixels whose neighbours differ visibly at some exposure, (H, W) bool."""
    stops = np.log2(light.sum(axis=2) + np.float32(1e-3))
    edges = np.zeros(stops.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(stops, axis=axis)) > EDGE
        lower = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        upper = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        edges[lower] |= step
        edges[upper] |= step
    return edges


def _parts(indices: np.ndarray) -> list[np.ndarray]:
    return np.array_split(indices, max(1, len(indices) // 40_000))


def _refine(canvas: Canvas, light: Floats, sunny: Floats, part: np.ndarray) -> None:
    rows, columns = np.divmod(part, light.shape[1])
    sums = [np.zeros((len(part), 3), np.float32), np.zeros((len(part), 3), np.float32)]
    for right, down in EXTRA:
        found = still(*canvas.slopes(rows + down, columns + right))
        sums[0] += found[0]
        sums[1] += found[1]
    light[rows, columns] = sums[0] / len(EXTRA)
    sunny[rows, columns] = sums[1] / len(EXTRA)
