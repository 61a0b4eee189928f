"""What is seen through the door: a garden in the evening, against the sun."""

import numpy as np

from hdrcli.example.light import EYE, SUN, SUN_RADIUS, Floats, smoothstep, vec
from hdrcli.example.texture import fractal, noise

GROUND = -0.15  # metres; the terrace lies a step lower than the room
HEDGE = 26.0  # metres away
DISC = np.array([4200.0, 3300.0, 2300.0], np.float32)


def garden(u: Floats, v: Floats) -> Floats:
    """Radiance in the directions (u, v, 1), two arrays (N,): (N, 3)."""
    light = sky(u, v)
    for layer in (_hills, _trees, _lawn):
        cover, colour = layer(u, v)
        light += cover[..., None] * (colour - light)
    return light + _glow(u, v)


def sky(u: Floats, v: Floats) -> Floats:
    """Clouds and blue, without the sun: (N, 3)."""
    height = np.clip(v / 0.25, 0, 1)[..., None]
    blue = vec([3.1, 2.6, 2.0]) * (1 - height) + vec([0.9, 1.6, 2.9]) * height
    depth = 1 / np.maximum(v + 0.06, 0.02)
    puff = fractal(u * depth * 1.3 + 11, depth * 0.9, 5)
    cloud = smoothstep(0.47, 0.72, puff)[..., None]
    near = np.exp(-_from_sun(u, v) / 0.11)[..., None]
    white = vec([3.4, 3.0, 2.7]) * (0.8 + 2.4 * near)
    shaded = white * (0.55 + 0.45 * smoothstep(0.85, 0.5, puff)[..., None])
    return np.asarray((blue + cloud * (shaded - blue)), np.float32)


def _from_sun(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.hypot(u - SUN[0], v - SUN[1]), np.float32)


def _glow(u: Floats, v: Floats) -> Floats:
    """The disc and its aureole, in front of nothing: it lies in the eye and in the air."""
    away = _from_sun(u, v)
    disc = 1 - smoothstep(SUN_RADIUS - 0.0008, SUN_RADIUS + 0.0008, away)
    disc *= v > 0.06
    aureole = 16 * np.exp(-away / 0.013) + 1.4 * np.exp(-away / 0.07)
    return np.asarray(
        disc[..., None] * DISC + aureole[..., None] * vec([1.0, 0.8, 0.55]), np.float32
    )


def _hills(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    ridge = 0.035 + 0.05 * (fractal(u * 4 + 5, u * 0 + 2.5) - 0.3)
    haze = np.clip(v / 0.06, 0, 1)[..., None]
    colour = vec([1.15, 1.05, 0.95]) * (1 - haze) + vec([0.62, 0.72, 0.85]) * haze
    return smoothstep(0.001, -0.001, v - ridge), colour


def _trees(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """A hedge with trees behind it, dark against the sky, with bright leaves at the rim."""
    crowns = np.zeros_like(u)
    for centre, width, height in ((-0.36, 0.09, 0.19), (-0.24, 0.05, 0.09), (0.07, 0.075, 0.17)):
        crowns = np.maximum(
            crowns, height * np.sqrt(np.maximum(1 - ((u - centre) / width) ** 2, 0))
        )
    leaves = fractal(u * 70, v * 70, 4)
    top = np.maximum(0.012 + 0.006 * noise(u * 90, v * 0), crowns - 0.02)
    inside = top + 0.045 * (leaves - 0.5) - v
    lit = 0.12 + 0.5 * leaves**2 + 0.9 * np.exp(-np.maximum(inside, 0) / 0.006)
    colour = lit[..., None] * vec([0.55, 0.62, 0.16])
    return smoothstep(-0.0012, 0.0012, inside), colour.astype(np.float32)


def _lawn(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Tiles of the terrace, then grass mown in stripes up to the hedge."""
    z = (GROUND - EYE[1]) / np.minimum(v, -1e-3)
    z = np.minimum(z, 200)
    x = u * z
    stripe = smoothstep(-0.1, 0.1, np.sin(2 * np.pi * (x + 0.25 * z) / 2.4).astype(np.float32))
    blades = fractal(x * 9, z * 3, 3)
    shadow = 0.35 + 0.65 * smoothstep(0.42, 0.58, fractal(x * 0.35 + 3, z * 0.16, 3))
    grass = (0.55 + 0.35 * stripe + 0.5 * blades) * shadow
    lawn = grass[..., None] * vec([0.95, 1.0, 0.28])
    joint = np.minimum(np.abs(x / 0.6 % 1 - 0.5), np.abs(z / 0.6 % 1 - 0.5))
    stone = (0.75 + 0.4 * fractal(x * 5, z * 5, 3)) * smoothstep(
        0.0, 0.035 + 0.004 * z, 0.5 - 0.5 * (joint < 0) - np.abs(0.5 - joint) + 0.5
    )
    tiles = stone[..., None] * vec([1.35, 1.12, 0.85])
    colour = np.where((z < 10.5)[..., None], tiles, lawn)
    return smoothstep(0.0005, -0.0005, v + (EYE[1] - GROUND) / HEDGE), colour.astype(np.float32)
