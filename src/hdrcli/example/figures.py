"""What moves: someone walking through the room, someone in the garden, a ball."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hdrcli.example.light import (
    BACK,
    EYE,
    SUN,
    SUN_LIGHT,
    Capsule,
    Floats,
    Solid,
    Sphere,
    Triple,
    dot,
    in_view,
    vec,
)
from hdrcli.example.room import lit

Place = Callable[[float, float, float], Triple]  # ahead, up and to the side, from the middle
Colour = Triple


@dataclass(frozen=True)
class Part:
    """A solid of one colour, or striped where there is a second."""

    solid: Solid
    colour: Colour
    stripe: Colour | None = None


@dataclass(frozen=True)
class Clothes:
    """The colours of a person."""

    top: Colour
    legs: Colour
    hair: Colour = (0.035, 0.022, 0.014)
    skin: Colour = (0.50, 0.31, 0.22)
    shoes: Colour = (0.05, 0.04, 0.04)


@dataclass(frozen=True)
class Walker:
    """Someone who walks to and fro between two places, at one distance from the camera."""

    clothes: Clothes
    x: tuple[float, float]
    z: float
    ground: float
    start: float  # where at time 0, as a part of the way there and back
    speed: float = 1.15  # metres per second
    height: float = 1.70  # metres

    def parts(self, seconds: float) -> tuple[Part, ...]:
        """Limbs at a moment."""
        low, high = self.x
        way = 2 * (high - low)
        along = (self.start * way + self.speed * seconds) % way
        back = along > way / 2
        x = low + (way - along if back else along)
        return self._body(x, -1.0 if back else 1.0, along / self.speed)

    def _body(self, x: float, facing: float, seconds: float) -> tuple[Part, ...]:
        unit = self.height / 1.75
        phase = 2 * np.pi * seconds / 1.08  # a stride takes about a second
        c = self.clothes

        def at(dx: float, y: float, dz: float) -> Triple:
            return (x + facing * dx * unit, self.ground + y * unit, self.z + dz * unit)

        bob = 0.018 * np.cos(2 * phase)
        hip, neck = (0.0, 0.93 + bob), (0.05, 1.45 + bob)
        parts = [
            Part(
                Capsule(at(0.0, 1.02 + bob, -0.05), at(0.03, 1.36 + bob, -0.06), 0.125 * unit),
                c.top,
            ),
            Part(
                Capsule(at(0.0, 1.02 + bob, 0.05), at(0.03, 1.36 + bob, 0.06), 0.125 * unit), c.top
            ),
            Part(
                Capsule(at(0.0, 0.95 + bob, -0.06), at(0.0, 0.95 + bob, 0.06), 0.12 * unit), c.legs
            ),
            Part(Capsule(at(*neck, 0), at(0.065, 1.53 + bob, 0), 0.05 * unit), c.skin),
            Part(Sphere(at(0.085, 1.635 + bob, 0), 0.105 * unit), c.skin),
            Part(Sphere(at(0.055, 1.655 + bob, 0), 0.112 * unit), c.hair),
            Part(Capsule(at(0.02, 1.64 + bob, 0), at(-0.04, 1.50 + bob, 0), 0.065 * unit), c.hair),
        ]
        for side, shift in ((-1, 0.0), (1, np.pi)):
            swing = phase + shift
            parts += self._leg(at, hip, side, swing)
            parts += self._arm(at, (0.02, 1.40 + bob), side, swing + np.pi)
        return tuple(parts)

    def _leg(self, at: Place, hip: tuple[float, float], side: int, swing: float) -> list[Part]:
        thigh = 0.46 * np.sin(swing)
        shin = thigh - 0.12 - 0.55 * max(0.0, np.cos(swing)) * (1.1 - np.sin(swing)) / 1.1
        knee = (hip[0] + 0.45 * np.sin(thigh), hip[1] - 0.45 * np.cos(thigh))
        ankle = (knee[0] + 0.43 * np.sin(shin), knee[1] - 0.43 * np.cos(shin))
        tip = (ankle[0] + 0.16 * np.cos(0.5 * shin), ankle[1] - 0.02 + 0.16 * np.sin(0.5 * shin))
        unit, z, c = self.height / 1.75, 0.09 * side, self.clothes
        return [
            Part(Capsule(at(*hip, z), at(*knee, z), 0.082 * unit), c.legs),
            Part(Capsule(at(*knee, z), at(*ankle, z), 0.058 * unit), c.legs),
            Part(Capsule(at(*ankle, z), at(*tip, z), 0.045 * unit), c.shoes),
        ]

    def _arm(self, at: Place, shoulder: tuple[float, float], side: int, swing: float) -> list[Part]:
        upper = 0.5 * np.sin(swing)
        lower = upper + 0.35 + 0.2 * np.sin(swing)
        elbow = (shoulder[0] + 0.29 * np.sin(upper), shoulder[1] - 0.29 * np.cos(upper))
        wrist = (elbow[0] + 0.25 * np.sin(lower), elbow[1] - 0.25 * np.cos(lower))
        unit, z, c = self.height / 1.75, 0.205 * side, self.clothes
        return [
            Part(Capsule(at(*shoulder, 0.88 * z), at(*elbow, z), 0.052 * unit), c.top),
            Part(Capsule(at(*elbow, z), at(*wrist, z), 0.042 * unit), c.top),
            Part(Sphere(at(*wrist, z), 0.05 * unit), c.skin),
        ]


@dataclass(frozen=True)
class Ball:
    """A striped ball that bounces to and fro."""

    x: tuple[float, float]
    z: float
    start: float
    speed: float = 1.5  # metres per second
    radius: float = 0.14
    bounce: float = 0.62  # seconds from one to the next

    def parts(self, seconds: float) -> tuple[Part, ...]:
        """The ball at a moment."""
        low, high = self.x
        way = 2 * (high - low)
        along = (self.start * way + self.speed * seconds) % way
        x = low + min(along, way - along)
        flight = (seconds / self.bounce + 0.35) % 1.0
        y = self.radius + 0.5 * 9.81 * self.bounce**2 * flight * (1 - flight)
        ball = Sphere((float(x), float(y), self.z), self.radius)
        return (Part(ball, (0.72, 0.05, 0.03), stripe=(0.75, 0.70, 0.60)),)


Mover = Walker | Ball

MOVERS: tuple[Mover, ...] = (
    Walker(
        Clothes(top=(0.55, 0.56, 0.58), legs=(0.20, 0.16, 0.10)),
        x=(-3.4, 1.2),
        z=12.5,
        ground=-0.15,
        start=0.51,
    ),
    Walker(
        Clothes(top=(0.42, 0.045, 0.05), legs=(0.035, 0.05, 0.11)),
        x=(-2.0, 1.75),
        z=5.75,
        ground=0.0,
        start=0.13,
    ),
    Ball(x=(-1.75, 0.15), z=4.15, start=0.80),
)


def shade(part: Part, points: Floats) -> Floats:
    """Light from the surface of a part, (N, 3)."""
    normals = part.solid.normal(points)
    albedo = np.broadcast_to(vec(part.colour), points.shape)
    if part.stripe is not None:
        sector = (np.arctan2(normals[..., 1], normals[..., 0]) / np.pi * 3).astype(int)
        albedo = np.where((sector % 2 == 0)[..., None], vec(part.stripe), albedo)
    if points[..., 2].mean() < BACK:
        return lit(albedo, points, normals)[0]
    up = 0.55 + 0.45 * normals[..., 1:2]
    facing = np.maximum(dot(normals, SUN / np.float32(np.linalg.norm(SUN))), 0)[..., None]
    return albedo * (up * vec([1.5, 1.6, 1.7]) + facing * SUN_LIGHT)


def nearest(parts: tuple[Part, ...], toward: Floats) -> tuple[Floats, Floats]:
    """What rays from EYE see of the parts: depth (N,), inf where nothing, and light (N, 3)."""
    depth = np.full(toward.shape[:-1], np.inf, np.float32)
    which = np.full(depth.shape, -1)
    for index, part in enumerate(parts):
        near = in_view(part.solid, toward)
        hit = part.solid.hit(EYE, toward[near])
        nearer = hit < depth[near]
        depth[near[nearer]] = hit[nearer]
        which[near[nearer]] = index
    light = np.zeros((*depth.shape, 3), np.float32)
    for index, part in enumerate(parts):
        here = np.flatnonzero(which == index)
        if len(here):
            light[here] = shade(part, EYE + depth[here, None] * toward[here])
    return depth, light
