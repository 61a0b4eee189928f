"""One moment of the scene: the still picture, and what moves drawn into it with its shadows."""

import numpy as np

from hdrcli.example.figures import Mover, Part, nearest
from hdrcli.example.light import (
    BACK,
    EYE,
    SUN,
    SUN_RADIUS,
    Box,
    Floats,
    bounds,
    crosses,
    glazing,
    vec,
)
from hdrcli.example.render import Still

FINE = 2  # rays per pixel along each axis where something moves
CONTACT = 0.45  # metres around a foot that it darkens


def moment(still: Still, movers: tuple[Mover, ...], seconds: float, suns: int = 5) -> Floats:
    """Light of the scene at a time, (H, W, 3) with the margins of the canvas.

    ``suns`` is how many points of the sun cast shadows: more are softer.
    """
    picture = still.light.copy()
    crowd = [mover.parts(seconds) for mover in movers]
    for parts in crowd:
        if _box(parts).high[2] < BACK:
            _cast_shadow(picture, still, parts, suns)
            _darken_floor(picture, still, parts)
    for parts in sorted(crowd, key=lambda parts: -_box(parts).low[2]):  # far ones first
        _draw(picture, still, parts)
    return picture


def _box(parts: tuple[Part, ...]) -> Box:
    boxes = [bounds(part.solid) for part in parts]
    low = np.min([box.low for box in boxes], axis=0)
    high = np.max([box.high for box in boxes], axis=0)
    return Box(tuple(low), tuple(high))


def _cast_shadow(picture: Floats, still: Still, parts: tuple[Part, ...], suns: int) -> None:
    where, points = still.sunlit
    near = crosses(_box(parts), points, SUN)
    points, where = points[near], where[near]
    blocked = np.zeros(len(where), np.float32)
    for k in range(suns):
        away = SUN_RADIUS * np.sqrt((k + 0.5) / suns)  # a sunflower, Vogel 1979
        turn = k * np.pi * (3 - np.sqrt(5))
        sun = SUN + vec([away * np.cos(turn), away * np.sin(turn), 0])
        dark = np.zeros(len(where), bool)
        for part in parts:
            some = crosses(part.solid, points, sun)
            dark[some] |= np.isfinite(part.solid.hit(points[some], sun))
        blocked += dark / np.float32(suns)
    picture.reshape(-1, 3)[where] -= still.sunny.reshape(-1, 3)[where] * blocked[:, None]


def _darken_floor(picture: Floats, still: Still, parts: tuple[Part, ...]) -> None:
    """Feet and balls keep light from the floor under them."""
    for part in parts:
        box = bounds(part.solid)
        x, z = (box.low[0] + box.high[0]) / 2, (box.low[2] + box.high[2]) / 2
        if box.low[1] > CONTACT:
            continue
        floor = Box((x - CONTACT, 0, z - CONTACT), (x + CONTACT, 0, z + CONTACT))
        rows, columns = _window(still, floor, margin=0)
        index = np.arange(still.depth.size).reshape(still.depth.shape)[rows, columns].ravel()
        points = still.points(index[np.isfinite(still.depth.ravel()[index])])
        index = index[np.isfinite(still.depth.ravel()[index])]
        flat = np.abs(points[:, 1]) < 1e-3
        points, index = points[flat], index[flat]
        square = (points[:, 0] - x) ** 2 + (points[:, 2] - z) ** 2
        wide = 0.09 + 0.5 * max(box.low[1], 0)
        shade = 0.55 * (0.09 / wide) ** 2 * np.exp(-square / (2 * wide**2))
        sunny = still.sunny.reshape(-1, 3)[index]
        dull = np.maximum(picture.reshape(-1, 3)[index] - sunny, 0)
        picture.reshape(-1, 3)[index] -= dull * shade[:, None]


def _window(still: Still, box: Box, margin: int = 2) -> tuple[slice, slice]:
    """Rows and columns of the canvas that may show the box."""
    x, y, z = np.meshgrid(*zip(box.low, box.high, strict=True))
    corners = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1) - EYE
    rows, columns = still.canvas.pixels(corners)
    height, width = still.canvas.shape
    top, left = int(rows.min()) - margin, int(columns.min()) - margin
    bottom, right = int(rows.max()) + 2 + margin, int(columns.max()) + 2 + margin
    return (
        slice(min(max(top, 0), height), min(max(bottom, 0), height)),
        slice(min(max(left, 0), width), min(max(right, 0), width)),
    )


def _draw(picture: Floats, still: Still, parts: tuple[Part, ...]) -> None:
    rows, columns = _window(still, _box(parts))
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    if 0 in shape:
        return
    fine_rows = (np.arange(shape[0] * FINE) + 0.5) / FINE - 0.5 + rows.start
    fine_columns = (np.arange(shape[1] * FINE) + 0.5) / FINE - 0.5 + columns.start
    u, v = still.canvas.slopes(*np.meshgrid(fine_rows, fine_columns, indexing="ij"))
    toward = np.stack([u.ravel(), v.ravel(), np.ones(u.size, np.float32)], axis=1)
    depth, light = nearest(parts, toward)
    before = still.depth[rows, columns].repeat(FINE, axis=0).repeat(FINE, axis=1).ravel()
    cover = (depth < before).astype(np.float32)
    if _box(parts).low[2] > BACK:
        cover *= glazing(u.ravel() * BACK + EYE[0], v.ravel() * BACK + EYE[1], 0.003)
    alpha = _reduced(cover[:, None], shape)
    picture[rows, columns] *= 1 - alpha
    picture[rows, columns] += _reduced(light * cover[:, None], shape)


def _reduced(fine: Floats, shape: tuple[int, int]) -> Floats:
    """Mean of the rays of each pixel, (h, w, C)."""
    return np.asarray(
        fine.reshape(shape[0], FINE, shape[1], FINE, -1).mean(axis=(1, 3)), np.float32
    )
