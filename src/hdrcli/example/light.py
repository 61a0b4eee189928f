"""The geometry of the example's room, and how light falls into it.

Metres; x to the right, y up, z away from the camera, which stands at EYE and looks along z.
Light is in arbitrary linear units, about 1 for a lit wall indoors and some thousands for the sun.
Points are arrays (N, 3), and so are colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Triple = tuple[float, float, float]


def vec(numbers: Sequence[float]) -> NDArray[np.float32]:
    """A point, a direction or a colour."""
    return np.array(numbers, np.float32)


EYE = vec([0.0, 1.5, 0.0])
LEFT, RIGHT, FLOOR, CEILING, BACK = -3.4, 3.2, 0.0, 3.2, 7.0  # the walls
OPENING = (-2.1, 0.9, 0.06, 2.85)  # the glass door in the back wall: x from, x to, y from, y to

SUN = np.array(
    [-0.125, 0.172, 1.0], np.float32
)  # towards it, as slopes: where it is in the picture
SUN_LIGHT = vec([9.0, 6.6, 4.2])  # on a surface that faces it
SUN_RADIUS = 0.011  # as a slope; the true sun's is 0.0047
LAMP = vec([2.55, 1.72, 6.35])
LAMP_LIGHT = vec([0.62, 0.38, 0.17])
SKY_LIGHT = vec([2.5, 2.7, 3.1])
GARDEN_LIGHT = vec([0.75, 0.85, 0.5])
BOUNCE = vec([0.55, 0.42, 0.27])  # sunlight that the floor sends up
AMBIENT = vec([0.030, 0.029, 0.030])


@dataclass(frozen=True)
class Box:
    """An axis-parallel box between two corners."""

    low: Triple
    high: Triple

    def hit(self, start: Floats, toward: Floats) -> Floats:
        """Steps of ``toward`` until each ray enters the box, inf where it misses: (N,)."""
        enter = np.zeros(np.broadcast(start, toward).shape[:-1], np.float32)
        leave = np.full_like(enter, np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis in range(3):  # slabs, Kay and Kajiya 1986
                inverse = 1 / toward[..., axis]
                one = (np.float32(self.low[axis]) - start[..., axis]) * inverse
                two = (np.float32(self.high[axis]) - start[..., axis]) * inverse
                np.maximum(enter, np.minimum(one, two), out=enter)
                np.minimum(leave, np.maximum(one, two), out=leave)
        return np.where(enter < leave, enter, np.float32(np.inf))

    def normal(self, points: Floats) -> Floats:
        """The normal of the face that each point is nearest to."""
        middle = (vec(self.low) + vec(self.high)) / 2
        half = (vec(self.high) - vec(self.low)) / 2
        outward = (points - middle) / half
        axis = np.abs(outward).argmax(axis=-1)
        return np.asarray(np.sign(outward) * np.eye(3, dtype=np.float32)[axis], np.float32)


@dataclass(frozen=True)
class Sphere:
    """A ball."""

    centre: Triple
    radius: float

    def hit(self, start: Floats, toward: Floats) -> Floats:
        """As Box.hit."""
        to = start - vec(self.centre)
        return first_root(dot(toward, toward), dot(to, toward), dot(to, to) - self.radius**2)

    def normal(self, points: Floats) -> Floats:
        """Outward."""
        return (points - vec(self.centre)) / np.float32(self.radius)


@dataclass(frozen=True)
class Column:
    """An upright cylinder without ends, standing at (x, z)."""

    x: float
    z: float
    radius: float
    bottom: float
    top: float

    def hit(self, start: Floats, toward: Floats) -> Floats:
        """As Box.hit."""
        flat = vec([1, 0, 1])
        to = (start - vec([self.x, 0, self.z])) * flat
        along = toward * flat
        steps = first_root(dot(along, along), dot(to, along), dot(to, to) - self.radius**2)
        height = start[..., 1] + np.where(np.isfinite(steps), steps, 0) * toward[..., 1]
        return np.where((height > self.bottom) & (height < self.top), steps, np.inf)

    def normal(self, points: Floats) -> Floats:
        """Outward."""
        out = (points - vec([self.x, 0, self.z])) / np.float32(self.radius)
        out[..., 1] = 0
        return out


@dataclass(frozen=True)
class Capsule:
    """A round bar between two points: an arm, a leg. After Inigo Quilez."""

    start: Triple
    end: Triple
    radius: float

    def hit(self, start: Floats, toward: Floats) -> Floats:
        """As Box.hit."""
        axis = vec(self.end) - vec(self.start)
        to = start - vec(self.start)
        square, along, at = dot(axis, axis), toward @ axis, to @ axis
        a = square * dot(toward, toward) - along**2
        half_b = square * dot(to, toward) - at * along
        c = square * dot(to, to) - at**2 - self.radius**2 * square
        side = first_root(a, half_b, c)
        place = at + np.where(np.isfinite(side), side, 0) * along
        side = np.where((place > 0) & (place < square), side, np.float32(np.inf))
        ends = (Sphere(end, self.radius).hit(start, toward) for end in (self.start, self.end))
        return np.asarray(np.minimum.reduce([side, *ends]), np.float32)

    def normal(self, points: Floats) -> Floats:
        """Outward."""
        axis = vec(self.end) - vec(self.start)
        to = points - vec(self.start)
        place = np.clip(to @ axis / dot(axis, axis), 0, 1)
        return (to - place[..., None] * axis) / np.float32(self.radius)


@dataclass(frozen=True)
class Leaf:
    """A flat oval with a given middle, two half axes at right angles, seen from both sides."""

    centre: Triple
    along: Triple
    across: Triple

    def hit(self, start: Floats, toward: Floats) -> Floats:
        """As Box.hit."""
        along, across = vec(self.along), vec(self.across)
        normal = np.cross(along, across)
        to = vec(self.centre) - start
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = (to @ normal) / (toward @ normal)
            off = steps[..., None] * toward - to
            s, t = off @ along / dot(along, along), off @ across / dot(across, across)
        pointed = np.abs(t) < 1 - s * s  # two parabolas make the outline of a leaf
        return np.where(pointed & (steps > 0), steps, np.float32(np.inf))

    def normal(self, points: Floats) -> Floats:
        """The side that looks at the camera, bent up a little along the middle rib."""
        normal = np.cross(vec(self.along), vec(self.across))
        normal /= np.sqrt(dot(normal, normal))
        normal = -normal if normal[2] > 0 else normal
        return np.broadcast_to(normal, points.shape).astype(np.float32)


Solid = Box | Sphere | Column | Capsule | Leaf


def bounds(solid: Solid) -> Box:
    """The smallest box around a solid."""
    if isinstance(solid, Box):
        return solid
    if isinstance(solid, Capsule):
        low = np.minimum(solid.start, solid.end) - solid.radius
        high = np.maximum(solid.start, solid.end) + solid.radius
        return Box(tuple(low), tuple(high))
    if isinstance(solid, Leaf):
        reach = np.abs(solid.along) + np.abs(solid.across) + 1e-3
        return Box(tuple(solid.centre - reach), tuple(solid.centre + reach))
    if isinstance(solid, Sphere):
        (x, y, z), r = solid.centre, solid.radius
        return Box((x - r, y - r, z - r), (x + r, y + r, z + r))
    x, z, r = solid.x, solid.z, solid.radius
    return Box((x - r, solid.bottom, z - r), (x + r, solid.top, z + r))


def crosses(solid: Solid, start: Floats, toward: Floats) -> NDArray[np.intp]:
    """Which rays pass the ball around a solid: a cheap test before the exact one."""
    box = bounds(solid)
    middle = (vec(box.low) + vec(box.high)) / 2
    reach = (vec(box.high) - vec(box.low)) / 2
    to = middle - start
    along = to @ toward / dot(toward, toward)
    aside = to - along[..., None] * toward
    return np.flatnonzero((dot(aside, aside) <= dot(reach, reach)) & (along > -1))


def in_view(solid: Solid, toward: Floats) -> NDArray[np.intp]:
    """Which rays from EYE can meet the solid at all, judged by its bounds."""
    box = bounds(solid)
    x, y, z = np.meshgrid(*zip(box.low, box.high, strict=True))
    u, v = (x - EYE[0]) / z, (y - EYE[1]) / z
    across, up = toward[..., 0], toward[..., 1]
    if up.min() > v.max() or up.max() < v.min():  # a quick way out: rays come in strips
        return np.empty(0, np.intp)
    inside = (across >= u.min()) & (across <= u.max()) & (up >= v.min()) & (up <= v.max())
    return np.flatnonzero(inside)


def dot(a: Floats, b: Floats) -> Floats:
    """The scalar product along the last axis."""
    return np.asarray(np.einsum("...i,...i->...", a, b), np.float32)


def first_root(a: Floats, half_b: Floats, c: Floats) -> Floats:
    """The smaller root of a t² + 2 half_b t + c where it is ahead, else inf."""
    inside = half_b * half_b - a * c
    root = (-half_b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where((inside > 0) & (root > 0), root, np.inf)


def smoothstep(low: float, high: float, x: Floats) -> Floats:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray((t * t * (3 - 2 * t)), np.float32)


def glazing(x: Floats, y: Floats, soft: Floats | float) -> Floats:
    """How much of the back wall is glass at (x, y), in [0, 1], its edges ``soft`` metres wide.

    Two leaves with two bars each stand in the opening.
    """
    x0, x1, y0, y1 = OPENING
    middle = (x0 + x1) / 2
    edges = np.minimum.reduce([x - x0 - 0.05, x1 - 0.05 - x, y - y0 - 0.08, y1 - 0.05 - y])
    bars = np.minimum.reduce(
        [np.abs(x - middle) - 0.07, np.abs(y - 1.0) - 0.025, np.abs(y - 2.0) - 0.025]
    )
    return np.asarray(np.clip(np.minimum(edges, bars) / soft + 0.5, 0, 1), np.float32)


def sunlight(points: Floats, solids: tuple[Solid, ...] = ()) -> Floats:
    """How much of the sun each point sees through the door, in [0, 1], (N,)."""
    steps = np.maximum(BACK - points[..., 2], 0) / SUN[2]
    at = points + steps[..., None] * SUN
    seen = glazing(at[..., 0], at[..., 1], 0.004 + 2 * SUN_RADIUS * steps)
    seen[points[..., 2] >= BACK] = 1
    lit = np.flatnonzero(seen > 0)
    for solid in solids if len(lit) else ():
        near = lit[crosses(solid, points[lit], SUN)]
        seen[near] *= np.isinf(solid.hit(points[near] + 1e-3 * SUN, SUN))
    return seen


def illuminate(points: Floats, normals: Floats) -> Floats:
    """All light but the sun's that falls on each point: (N, 3)."""
    total = AMBIENT * corner_shade(points)[..., None]
    for light, at in _door_panes():
        total = total + light * _from_area(points, normals, at)[..., None]
    to_lamp = LAMP - points
    square = dot(to_lamp, to_lamp) + 0.02
    facing = np.maximum(dot(to_lamp, normals) / np.sqrt(square), 0)
    up_or_down = 0.35 + 0.65 * np.abs(to_lamp[..., 1]) / np.sqrt(
        square
    )  # the shade's ends are open
    total = total + LAMP_LIGHT * (facing * up_or_down / square)[..., None]
    patch = vec([0.6, 0.0, 4.6]) - points
    square = dot(patch, patch) + 1.5
    facing = np.maximum(dot(patch, normals) / np.sqrt(square), 0)
    return np.asarray((total + BOUNCE * (facing / square)[..., None]), np.float32)


def _door_panes() -> list[tuple[Floats, Floats]]:
    """Small lights that stand for the door: what each sends in, and where it is."""
    x0, x1, y0, y1 = OPENING
    columns, rows = 2, 4
    area = (x1 - x0) * (y1 - y0) / (columns * rows)
    panes = []
    for j in range(rows):
        y = y0 + (j + 0.5) / rows * (y1 - y0)
        light = (SKY_LIGHT if y > EYE[1] else GARDEN_LIGHT) * np.float32(area / np.pi)
        for i in range(columns):
            x = x0 + (i + 0.5) / columns * (x1 - x0)
            panes.append((light, vec([x, y, BACK])))
    return panes


def _from_area(points: Floats, normals: Floats, at: Floats) -> Floats:
    to = at - points
    square = dot(to, to) + 0.15  # a pane is not a point
    return np.asarray(
        np.maximum(dot(to, normals), 0) * np.maximum(to[..., 2], 0) / square**2, np.float32
    )


def corner_shade(points: Floats) -> Floats:
    """Corners see less of the room: 1 in the open, about a half in a corner, (N,)."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    shade = np.ones_like(x)
    for distance in (x - LEFT, RIGHT - x, y - FLOOR, CEILING - y, BACK - z):
        shade *= 1 - 0.45 * np.exp(-np.maximum(distance, 0) / 0.3) * (distance > 1e-3)
    return shade
