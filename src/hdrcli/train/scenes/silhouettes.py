"""Shapes of moving things, as signed distances in pixels: blobs, polygons, limbs, thin things.

Each silhouette has `distance(x, y, moments)`: for points x, y (S, S) in pixels around its
centre and N moments in frame intervals, the signed distance (N, S, S) to its outline,
positive inside, and the part (N, S, S) each point belongs to, counted from 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hdrcli.train.scenes.dice import Dice

Segment = tuple[float, float, float, float, float]  # ax, ay, bx, by, radius


class Silhouette(Protocol):
    """What a mover needs to know of its shape."""

    @property
    def reach(self) -> float:
        """The farthest any point of it is from its centre, in pixels."""

    @property
    def thinnest(self) -> float:
        """The thickness of its thinnest part, in pixels."""

    def distance(self, x: Tensor, y: Tensor, moments: list[float]) -> tuple[Tensor, Tensor]:
        """Return signed distance and part at every point and moment."""


@dataclass(frozen=True)
class Blob:
    """A radius that waves around the centre, and changes with time."""

    radius: float
    elongation: float
    waves: tuple[tuple[float, float, float], ...]  # amplitude, phase, phase per interval

    @property
    def reach(self) -> float:
        """See Silhouette."""
        return self.radius * max(self.elongation, 1.0) * (1.0 + sum(abs(w[0]) for w in self.waves))

    @property
    def thinnest(self) -> float:
        """See Silhouette."""
        return self.radius * min(self.elongation, 1.0)

    def distance(self, x: Tensor, y: Tensor, moments: list[float]) -> tuple[Tensor, Tensor]:
        """See Silhouette; the distance is exact for circles only."""
        y = y / self.elongation
        angle, length = torch.atan2(y, x), torch.hypot(x, y)
        out = []
        for moment in moments:
            radius = torch.ones_like(angle)
            for order, (amplitude, phase, drift) in enumerate(self.waves, start=2):
                radius = radius + amplitude * torch.cos(order * angle + phase + drift * moment)
            out.append(self.radius * radius - length)
        stacked = torch.stack(out)
        return stacked, torch.zeros_like(stacked, dtype=torch.long)


@dataclass(frozen=True)
class Polygon:
    """A convex polygon: the inside of some half-planes."""

    sides: tuple[tuple[float, float], ...]  # direction of the normal, distance in pixels

    @property
    def reach(self) -> float:
        """See Silhouette."""
        return 1.7 * max(offset for _, offset in self.sides)

    @property
    def thinnest(self) -> float:
        """See Silhouette."""
        return min(offset for _, offset in self.sides)

    def distance(self, x: Tensor, y: Tensor, moments: list[float]) -> tuple[Tensor, Tensor]:
        """See Silhouette; a circle cuts off what reaches too far."""
        inside = self.reach - torch.hypot(x, y)
        for turn, offset in self.sides:
            inside = torch.minimum(inside, offset - math.cos(turn) * x - math.sin(turn) * y)
        stacked = inside.expand(len(moments), *inside.shape)
        return stacked, torch.zeros_like(stacked, dtype=torch.long)


@dataclass(frozen=True)
class Limbs:
    """Rods with round ends whose places follow time: figures, branches, wires."""

    radius: float
    pose: Callable[[float], list[Segment]]  # in units of the radius

    @property
    def reach(self) -> float:
        """See Silhouette."""
        return 1.15 * self.radius

    @property
    def thinnest(self) -> float:
        """See Silhouette."""
        return 2.0 * self.radius * min(segment[4] for segment in self.pose(0.0))

    def distance(self, x: Tensor, y: Tensor, moments: list[float]) -> tuple[Tensor, Tensor]:
        """See Silhouette; the part is the rod a point is deepest in."""
        poses = [self.pose(moment) for moment in moments]
        seen: dict[tuple[Segment, ...], tuple[Tensor, Tensor]] = {}
        for pose in poses:
            if tuple(pose) not in seen:
                rods = self.radius * torch.tensor(pose, device=x.device)  # (L, 5)
                nearest, part = _depth(x, y, rods).max(0)
                seen[tuple(pose)] = nearest, part
        drawn = [seen[tuple(pose)] for pose in poses]
        return torch.stack([d for d, _ in drawn]), torch.stack([p for _, p in drawn])


def _depth(x: Tensor, y: Tensor, rods: Tensor) -> Tensor:
    """How deep points (S, S) lie in each of L rods (L, 5): (L, S, S), negative outside."""
    ax, ay, bx, by, radius = rods[..., None, None].unbind(1)
    ux, uy = bx - ax, by - ay
    x, y = x - ax, y - ay
    along = (x * ux).addcmul_(y, uy).div_((ux * ux + uy * uy).clamp_min(1e-6)).clamp_(0.0, 1.0)
    return radius - torch.hypot(x.sub_(along * ux), y.sub_(along * uy))


def blob(dice: Dice, radius: float) -> Blob:
    """Return an ellipse or a wavy blob of about this radius."""
    rough = 0.0 if dice.chance(0.3) else dice.uniform(0.05, 0.25)
    waves = tuple(
        (rough * dice.normal() / order, dice.uniform(0, 2 * math.pi), dice.normal(0.4))
        for order in range(2, 7)
    )
    elongation = dice.uniform(0.6, 1.6)
    return Blob(radius / max(elongation, 1.0), elongation, waves)


def polygon(dice: Dice, radius: float) -> Polygon:
    """Return a convex polygon of three to seven sides."""
    count = dice.integer(3, 7)
    start = dice.uniform(0, 2 * math.pi)
    return Polygon(
        tuple(
            (start + 2 * math.pi * (i + dice.uniform(-0.3, 0.3)) / count,
             radius / 1.7 * dice.uniform(0.5, 1.0))
            for i in range(count)
        )
    )  # fmt: skip


def figure(dice: Dice, radius: float) -> Limbs:
    """Return a walking figure: head, trunk, arms and legs that swing with time."""
    stout, pace = dice.uniform(0.75, 1.35), dice.uniform(0.25, 1.3)
    phase, swing = dice.uniform(0, 2 * math.pi), dice.uniform(0.25, 0.6)
    bend = dice.uniform(0.1, 0.7)

    def limb(x: float, y: float, angle: float, knee: float, length: float) -> list[Segment]:
        mx, my = x + length * math.sin(angle), y + length * math.cos(angle)
        ex, ey = mx + length * math.sin(angle + knee), my + length * math.cos(angle + knee)
        thick = 0.075 * stout
        return [(x, y, mx, my, thick), (mx, my, ex, ey, 0.85 * thick)]

    def pose(moment: float) -> list[Segment]:
        stride = math.sin(phase + pace * moment)
        rods: list[Segment] = [
            (0.0, -0.82, 0.0, -0.78, 0.125),
            (0.0, -0.5, 0.0, 0.0, 0.17 * stout),
        ]
        for side in (1.0, -1.0):
            leg, arm = side * swing * stride, -side * swing * stride
            rods += limb(0.0, 0.05, leg, -bend * max(side * stride, 0.0), 0.43)
            rods += limb(0.0, -0.52, 1.2 * arm, 0.4 * bend, 0.27)
        return rods

    return Limbs(radius, pose)


def branches(dice: Dice, radius: float) -> Limbs:
    """Return thin things: twigs, wires, a lattice; swaying a little, or not at all."""
    thick = dice.log_uniform(0.6, 3.0) / radius
    sway = 0.0 if dice.chance(0.5) else dice.normal(0.05)
    spread = 0.0 if dice.chance(0.3) else dice.uniform(0.2, 1.5)
    turn = dice.uniform(0, 2 * math.pi)
    rods: list[Segment] = []
    for _ in range(dice.integer(2, 9)):
        a, b = dice.uniform(-0.9, 0.9), dice.uniform(-0.6, 0.6)
        way, half = turn + dice.normal(spread), dice.uniform(0.3, 0.9)
        dx, dy = half * math.cos(way), half * math.sin(way)
        cx, cy = 0.5 * (a + b), 0.5 * (a - b)
        ends = (max(-1.0, min(1.0, v)) for v in (cx - dx, cy - dy, cx + dx, cy + dy))
        ax, ay, bx, by = ends
        rods.append((0.75 * ax, 0.75 * ay, 0.75 * bx, 0.75 * by, thick * dice.uniform(0.5, 1.5)))

    def pose(moment: float) -> list[Segment]:
        lean = sway * math.sin(moment)
        return [(ax, ay, bx + lean, by, thick) for ax, ay, bx, by, thick in rods]

    return Limbs(radius, pose)
