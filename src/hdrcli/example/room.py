"""The room itself: surfaces, what they are made of, and the picture of all that stands still."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hdrcli.example.garden import garden, sky
from hdrcli.example.light import (
    BACK,
    CEILING,
    EYE,
    FLOOR,
    LEFT,
    OPENING,
    RIGHT,
    SUN,
    SUN_LIGHT,
    Box,
    Capsule,
    Column,
    Floats,
    Leaf,
    Solid,
    Sphere,
    dot,
    glazing,
    illuminate,
    in_view,
    sunlight,
    vec,
)
from hdrcli.example.texture import bookshelf, fractal, noise, painting, planks, rug

Material = Callable[[Floats], Floats]  # points (N, 3) to albedo (N, 3)


@dataclass(frozen=True)
class Thing:
    """A solid and what it is made of. ``glow`` is light of its own."""

    solid: Solid
    albedo: Material
    glow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gloss: float = 0.0  # strength of the reflection of the door
    shades: bool = True  # whether it stands in the sun's way


def plain(red: float, green: float, blue: float, rough: float = 0.15) -> Material:
    """One colour, slightly uneven."""

    def albedo(p: Floats) -> Floats:
        uneven = fractal((p[..., 0] + p[..., 2]) * 14, p[..., 1] * 14 + p[..., 2] * 5)
        return (1 - rough + 2 * rough * uneven)[..., None] * vec([red, green, blue])

    return albedo


def fabric(red: float, green: float, blue: float) -> Material:
    """Woven, with a fine grain."""

    def albedo(p: Floats) -> Floats:
        grain = noise((p[..., 0] + p[..., 2]) * 130, (p[..., 1] + 0.3 * p[..., 2]) * 130)
        soft = fractal(p[..., 2] * 3, p[..., 1] * 3 + p[..., 0])
        return (0.65 + 0.4 * grain + 0.3 * soft)[..., None] * vec([red, green, blue])

    return albedo


def _books(p: Floats) -> Floats:
    return bookshelf(p[..., 2], p[..., 1])


def _wood(p: Floats) -> Floats:
    grain = fractal(p[..., 2] * 3 + p[..., 0] * 40, p[..., 1] * 30 + p[..., 0] * 5)
    return (0.7 + 0.6 * grain)[..., None] * vec([0.24, 0.12, 0.055])


THINGS: tuple[Thing, ...] = (
    Thing(Box((LEFT, 0, 3.9), (-2.95, 2.28, 6.3)), _books, shades=False),
    # a sofa along the right wall
    Thing(Box((2.15, 0.03, 4.3), (3.15, 0.44, 6.1)), fabric(0.13, 0.20, 0.24)),
    Thing(Box((2.85, 0.40, 4.3), (3.18, 0.88, 6.1)), fabric(0.13, 0.20, 0.24)),
    Thing(Box((2.10, 0.03, 4.12), (3.15, 0.62, 4.32)), fabric(0.13, 0.20, 0.24)),
    Thing(Box((2.10, 0.03, 6.08), (3.15, 0.62, 6.28)), fabric(0.13, 0.20, 0.24)),
    Thing(Box((2.62, 0.44, 4.42), (2.84, 0.80, 4.84)), fabric(0.58, 0.30, 0.06)),
    Thing(Box((2.62, 0.44, 5.46), (2.84, 0.80, 5.90)), fabric(0.60, 0.55, 0.46)),
    # a low table with fruit
    Thing(Box((0.55, 0.40, 4.35), (1.65, 0.445, 5.05)), _wood, gloss=0.6),
    *(
        Thing(Box((x, 0, z), (x + 0.05, 0.40, z + 0.05)), _wood)
        for x in (0.58, 1.57)
        for z in (4.38, 4.97)
    ),
    Thing(Sphere((0.86, 0.515, 4.62), 0.07), plain(0.62, 0.26, 0.03, 0.1), gloss=0.35),
    Thing(Sphere((0.99, 0.508, 4.70), 0.063), plain(0.50, 0.05, 0.03, 0.2), gloss=0.5),
    Thing(Sphere((0.90, 0.505, 4.77), 0.06), plain(0.30, 0.42, 0.05, 0.2), gloss=0.5),
    Thing(Box((1.20, 0.445, 4.50), (1.45, 0.475, 4.72)), plain(0.06, 0.17, 0.26)),
    Thing(Box((1.22, 0.475, 4.52), (1.44, 0.50, 4.71)), plain(0.60, 0.56, 0.48)),
    # a lamp in the corner
    Thing(Column(2.55, 6.35, 0.018, 0.03, 1.6), plain(0.05, 0.045, 0.04), gloss=0.4),
    Thing(Column(2.55, 6.35, 0.16, 0.0, 0.03), plain(0.05, 0.045, 0.04)),
    Thing(Column(2.55, 6.35, 0.21, 1.55, 1.90), plain(0.7, 0.6, 0.45), glow=(2.6, 1.55, 0.66)),
    # a plant's pot
    Thing(Column(-2.55, 6.35, 0.19, 0.0, 0.42), plain(0.55, 0.52, 0.48, 0.1)),
)


def _leaves() -> tuple[Thing, ...]:
    """A rubber plant: stems from the pot, leaves around them, the same in every picture."""
    rng = np.random.default_rng(7)
    things = []
    for _ in range(7):
        lean = rng.normal(0, 0.17, 2)
        height = rng.uniform(0.9, 1.5)
        foot = np.array([-2.55, 0.4, 6.35])
        tip = foot + np.array([lean[0], height, 0.5 * lean[1]])
        things.append(
            Thing(Capsule(tuple(foot), tuple(tip), 0.009), plain(0.10, 0.12, 0.04), shades=False)
        )
        for up in np.linspace(0.25, 1, 7):
            turn, droop = rng.uniform(0, 2 * np.pi), rng.uniform(-0.35, 0.5)
            along = np.array([np.cos(turn), droop, 0.5 * np.sin(turn)])
            along *= rng.uniform(0.10, 0.15) / np.linalg.norm(along)
            across = np.cross(along, [0.2 * np.sin(turn), 1, 0.6])
            across *= rng.uniform(0.042, 0.055) / np.linalg.norm(across)
            leaf = Leaf(tuple(foot + up * (tip - foot) + along), tuple(along), tuple(across))
            green = plain(0.06 + 0.05 * rng.random(), 0.17 + 0.08 * rng.random(), 0.035, 0.25)
            things.append(Thing(leaf, green, gloss=0.25, shades=False))
    return tuple(things)


THINGS += _leaves()
SHADERS = tuple(thing.solid for thing in THINGS if thing.shades)


def still(u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """Light along the directions (u, v, 1), two arrays (N,).

    The first result is all light, (N, 3); the second is the part of it that comes straight
    from the sun, (N, 3), which someone who walks by may take away; the third is the depth z of
    the surface, (N,), inf behind the glass.
    """
    toward = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float32)
    depth, which = _first_hit(toward)
    points = EYE + depth[..., None] * toward
    light = np.zeros_like(points)
    sunny = np.zeros_like(points)
    for index in np.unique(which):
        here = np.flatnonzero(which == index)
        if index < len(THINGS):
            light[here], sunny[here] = _shade_thing(THINGS[index], points[here], toward[here])
        else:
            shade = _WALLS[index - len(THINGS)]
            light[here], sunny[here] = shade(points[here], toward[here])
    behind = (which == len(THINGS)) & (glazing(points[..., 0], points[..., 1], 1e-6) > 0.5)
    return light, sunny, np.where(behind, np.float32(np.inf), depth)


def _first_hit(toward: Floats) -> tuple[Floats, np.ndarray]:
    """Depth and index of the nearest of THINGS, then of the walls, floor and ceiling."""
    u, v = toward[..., 0], toward[..., 1]
    with np.errstate(divide="ignore"):
        walls = [
            np.full_like(u, BACK),
            np.where(v < 0, (FLOOR - EYE[1]) / v, np.inf),
            np.where(v > 0, (CEILING - EYE[1]) / v, np.inf),
            np.where(u < 0, LEFT / u, np.inf),
            np.where(u > 0, RIGHT / u, np.inf),
        ]
    depth = np.minimum.reduce(walls)
    which = np.argmin(np.stack(walls), axis=0) + len(THINGS)
    for index, thing in enumerate(THINGS):
        near = in_view(thing.solid, toward)
        hit = thing.solid.hit(EYE, toward[near])
        nearer = hit < depth[near]
        depth[near[nearer]] = hit[nearer]
        which[near[nearer]] = index
    return depth.astype(np.float32), which


def _shade_thing(thing: Thing, points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    normals = thing.solid.normal(points)
    light, sunny = lit(thing.albedo(points), points, normals)
    light += vec(thing.glow) * (0.75 + 0.25 * np.abs(normals[..., 2:]))
    if thing.gloss:
        light += thing.gloss * reflection(points, normals, toward, 0.02)
    return light, sunny


def lit(albedo: Floats, points: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Light from a matt surface, and the sun's part of it."""
    facing = np.maximum(dot(normals, SUN / np.float32(np.sqrt(dot(SUN, SUN)))), 0)
    seen = np.zeros_like(facing)
    toward_sun = np.flatnonzero(facing > 0)
    seen[toward_sun] = sunlight(points[toward_sun] + 1e-3 * normals[toward_sun], SHADERS)
    sunny = albedo * SUN_LIGHT * (seen * facing)[..., None]
    return albedo * illuminate(points, normals) + sunny, sunny


def reflection(points: Floats, normals: Floats, toward: Floats, blur: float) -> Floats:
    """The door and the sky behind it, mirrored in a polished surface: (N, 3). Schlick, 1994."""
    length = np.sqrt(dot(toward, toward))
    cosine = -dot(toward, normals)
    mirrored = toward + 2 * cosine[..., None] * normals
    ahead = mirrored[..., 2] > 1e-3
    forward = np.where(ahead, mirrored[..., 2], 1)
    steps = (BACK - points[..., 2]) / forward
    at = points + steps[..., None] * mirrored
    seen = glazing(at[..., 0], at[..., 1], blur + 0.03 * np.abs(steps)) * ahead
    slope_u, slope_v = mirrored[..., 0] / forward, mirrored[..., 1] / forward
    shine = np.where(
        (slope_v > 0.02)[..., None],
        np.minimum(sky(slope_u, np.maximum(slope_v, 0.02)), 6),
        vec([0.7, 0.75, 0.35]),
    )
    fresnel = 0.04 + 0.96 * (1 - np.clip(cosine / length, 0, 1)) ** 5
    return shine * (seen * fresnel)[..., None]


# ---- walls, floor, ceiling -------------------------------------------------------------------


def _facing(points: Floats, x: float, y: float, z: float) -> Floats:
    return np.broadcast_to(vec([x, y, z]), points.shape)


def _plaster(a: Floats, b: Floats) -> Floats:
    return 0.94 + 0.12 * fractal(a * 8, b * 8) - 0.05 * fractal(a * 0.7, b * 0.7)


def _back_wall(points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    x, y = points[..., 0], points[..., 1]
    x0, x1, y0, y1 = OPENING
    frame = np.minimum.reduce([x - x0, x1 - x, y - y0, y1 - y]) > -0.09
    albedo = _plaster(x, y)[..., None] * vec([0.62, 0.58, 0.50])
    white = frame | (y < 0.12)
    albedo = np.where(white[..., None], vec([0.70, 0.69, 0.66]), albedo)
    light = albedo * illuminate(points - vec([0, 0, 2e-3]), _facing(points, 0, 0, -1))
    glass = glazing(x, y, 0.003)[..., None]
    through = np.flatnonzero(glass[..., 0] > 0)
    light[through] *= 1 - glass[through]
    light[through] += glass[through] * garden(toward[through, 0], toward[through, 1])
    return light.astype(np.float32), np.zeros_like(light)


def _floor(points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    x, z = points[..., 0], points[..., 2]
    footprint = 2e-4 * z**2
    albedo = planks(x, z, footprint)
    on_rug = (np.abs(x - 1.1) < 1.35) & (np.abs(z - 4.7) < 0.95)
    albedo[on_rug] = rug((x[on_rug] - 1.1) / 1.35, (z[on_rug] - 4.7) / 0.95)
    normals = _facing(points, 0, 1, 0)
    light, sunny = lit(albedo, points, normals)
    shade = _footings(x, z)[..., None]
    light = (light - sunny) * shade + sunny
    shine = reflection(points, normals, toward, 0.10)
    dull = 1.6 * (0.6 + 0.6 * fractal(x * 5, z * 5, 3)) * ~on_rug
    return light + dull[..., None] * shine, sunny


FOOTINGS = (  # things that darken the floor around them: x from, x to, z from, z to, height
    (2.10, 3.2, 4.12, 6.28, 0.10),
    (LEFT, -2.95, 3.9, 6.3, 0.05),
    (0.55, 1.65, 4.35, 5.05, 0.35),
    (2.45, 2.65, 6.25, 6.45, 0.03),
    (-2.74, -2.36, 6.16, 6.54, 0.05),
)


def _footings(x: Floats, z: Floats) -> Floats:
    """Darkness on the floor under and around furniture, 1 is none."""
    shade = np.ones_like(x)
    for x0, x1, z0, z1, height in FOOTINGS:
        outside = np.hypot(
            np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(z0 - z, z - z1), 0)
        )
        shade *= 1 - 0.72 * np.exp(-outside / (0.08 + 0.6 * height))
    return shade


def _ceiling(points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    albedo = _plaster(points[..., 0], points[..., 2])[..., None] * vec([0.72, 0.71, 0.68])
    return lit(albedo, points, _facing(points, 0, -1, 0))


def _left_wall(points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    albedo = _plaster(points[..., 2], points[..., 1])[..., None] * vec([0.60, 0.55, 0.46])
    return lit(albedo, points, _facing(points, 1, 0, 0))


def _right_wall(points: Floats, toward: Floats) -> tuple[Floats, Floats]:
    y, z = points[..., 1], points[..., 2]
    albedo = _plaster(z, y)[..., None] * vec([0.30, 0.36, 0.34])
    across, up = (5.2 - z) / 0.55, (y - 1.72) / 0.40
    hung = np.maximum(np.abs(across), np.abs(up)) < 1
    albedo[hung] = painting(across[hung], up[hung])
    albedo[y < 0.12] = vec([0.70, 0.69, 0.66])
    return lit(albedo, points, _facing(points, -1, 0, 0))


_WALLS = (_back_wall, _floor, _ceiling, _left_wall, _right_wall)
