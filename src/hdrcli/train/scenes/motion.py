"""What moves between the frames of a bracket: the camera, things in the scene, light.

Lengths are pixels of the frame, times are frame intervals, counted from the reference's
middle: the reference is at 0. A canvas is the scene with a margin around the frame, so
that shaken frames see real content at their borders.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's name for it)

from hdrcli.train.scenes.dice import Dice
from hdrcli.train.scenes.material import pixel_grid
from hdrcli.train.scenes.silhouettes import Silhouette


@dataclass(frozen=True)
class Timeline:
    """When each of N frames was taken and for how long its shutter was open."""

    moments: list[float]  # middle of the exposure; the reference's is 0
    shutters: list[float]  # open time, as a part of the interval between frames
    exposures: list[float]  # relative to the reference's
    reference: int

    def __len__(self) -> int:
        return len(self.moments)


@dataclass(frozen=True)
class Mover:
    """A textured thing that travels, turns and grows; radiance relative to the canvas."""

    silhouette: Silhouette
    texture: Tensor  # (3, S, S)
    tints: Tensor  # (parts, 3), gain of each part of the silhouette
    centre: tuple[float, float]  # in frame pixels, at the reference's moment
    velocity: tuple[float, float]  # pixels per interval
    angle: float
    spin: float  # radians per interval
    growth: float  # factor per interval
    softness: float  # width of the edge in pixels
    opacity: float

    def place(self, moment: float) -> tuple[float, float, float, float]:
        """Return centre x, y, angle and scale at a moment."""
        x = self.centre[0] + self.velocity[0] * moment
        y = self.centre[1] + self.velocity[1] * moment
        return x, y, self.angle + self.spin * moment, self.growth**moment


def camera_grid(homographies: Tensor, height: int, width: int, margin: int) -> Tensor:
    """Return where each frame's pixels lie on the canvas, in pixels: (N, H, W, 2).

    `homographies` (N, 3, 3) act on positions around the frame's centre in pixels.
    """
    x, y = pixel_grid(height, width, homographies.device)
    points = torch.stack((x - width / 2, y - height / 2, torch.ones_like(x)), -1)
    moved = torch.einsum("nij,hwj->nhwi", homographies, points)
    centre = torch.tensor([width / 2 + margin, height / 2 + margin], device=homographies.device)
    return moved[..., :2] / moved[..., 2:] + centre


def read_canvas(canvas: Tensor, grid: Tensor) -> Tensor:
    """Return what frames see of a canvas (C, h, w), mirrored outside: (N, C, H, W)."""
    canvas = canvas.expand(grid.shape[0], *canvas.shape)
    size = torch.tensor([canvas.shape[-1], canvas.shape[-2]], device=grid.device)
    return F.grid_sample(
        canvas, grid * (2.0 / size) - 1.0, padding_mode="reflection", align_corners=False
    )


def streak(pictures: Tensor, travel: Tensor, *, outside: str = "zeros") -> Tensor:
    """Return pictures (K, C, h, w) smeared along `travel` (K, 2) pixels, centred.

    Two, four or eight evenly spaced copies, by the longest travel, made by halvings;
    `outside` is grid_sample's padding.
    """
    height, width = pictures.shape[-2:]
    x, y = pixel_grid(height, width, pictures.device)
    base = torch.stack((2.0 * x / width - 1.0, 2.0 * y / height - 1.0), -1)
    size = torch.tensor([width, height], device=travel.device)
    step = (travel * (2.0 / size))[:, None, None, :]

    def shifted(source: Tensor, part: float) -> Tensor:
        return F.grid_sample(source, base + part * step, padding_mode=outside, align_corners=False)

    parts = _halvings(float(travel.norm(dim=1).max()))
    start = -0.5 * sum(parts)  # centres the copies
    pictures = 0.5 * (shifted(pictures, start) + shifted(pictures, start + parts[0]))
    for part in parts[1:]:
        pictures = 0.5 * (pictures + shifted(pictures, part))
    return pictures


def _halvings(length: float) -> tuple[float, ...]:
    """Distances between copies, as parts of the travel: enough of them to leave no gaps."""
    return (0.5, 0.25, 0.125)[: 1 + (length > 1.5) + (length > 4.0)]


def draw(frames: Tensor, cover: Tensor, mover: Mover, timeline: Timeline, grid: Tensor,
         margin: int) -> Tensor:  # fmt: skip
    """Draw a mover into frames (N, 3, H, W) and raise `cover` (N, H, W) to its opacity there.

    Later movers hide earlier ones. Each frame is drawn only around the mover. Returns where it
    hides the reference (H, W), bool.
    """
    mine = torch.zeros_like(cover[0], dtype=torch.bool)
    sprites, scale = _sprites(mover, timeline)
    half = sprites.shape[-1] / 2.0
    for n, moment in enumerate(timeline.moments):
        x, y, angle, size = mover.place(moment)
        reach = (mover.silhouette.reach + mover.softness) * size
        reach += 0.5 * timeline.shutters[n] * math.hypot(*mover.velocity) + 2.0
        window = _window(grid[n], x + margin, y + margin, reach)
        if window is None:
            continue
        rows, columns = window
        dx = grid[n, rows, columns, 0] - (x + margin)
        dy = grid[n, rows, columns, 1] - (y + margin)
        cos, sin = math.cos(angle) / (size * scale * half), math.sin(angle) / (size * scale * half)
        where = torch.stack((cos * dx + sin * dy, cos * dy - sin * dx), -1)[None]
        seen = F.grid_sample(sprites[n : n + 1], where, align_corners=False)[0]
        frames[n, :, rows, columns] *= 1.0 - seen[3]
        frames[n, :, rows, columns] += seen[:3]
        cover[n, rows, columns] = torch.maximum(cover[n, rows, columns], seen[3])
        if n == timeline.reference:
            mine[rows, columns] = seen[3] > 0.5
    return mine


def true_flow(
    paths: Tensor,
    timeline: Timeline,
    movers: list[tuple[Mover, Tensor]],
    size: tuple[int, int],
    margin: int,
) -> Tensor:
    """Return where the reference's pixels are in each frame, less where they are: (N, 2, H, W).

    x, then y, in pixels. `paths` are the frames' homographies, `movers` what was drawn, in that
    order, and where each hides the reference. What a frame cannot see of it is followed as well.
    """
    height, width = size
    x, y = pixel_grid(height, width, paths.device)
    pixels = torch.stack((x - width / 2, y - height / 2), -1)
    on_canvas = camera_grid(paths[timeline.reference][None], height, width, margin)[0]
    offset = torch.tensor([width / 2 + margin, height / 2 + margin], device=paths.device)
    flows = []
    for path, moment in zip(paths, timeline.moments, strict=True):
        there = on_canvas
        for mover, mine in movers:
            there = torch.where(mine[..., None], _moved(mover, on_canvas, moment, margin), there)
        points = torch.cat((there - offset, torch.ones_like(there[..., :1])), -1)
        seen = torch.einsum("ij,hwj->hwi", torch.linalg.inv(path), points)
        flows.append((seen[..., :2] / seen[..., 2:] - pixels).permute(2, 0, 1))
    return torch.stack(flows)


def _moved(mover: Mover, points: Tensor, moment: float, margin: int) -> Tensor:
    """Where points (H, W, 2) of a thing on the canvas at moment 0 are at another."""
    x_0, y_0, angle_0, size_0 = mover.place(0.0)
    x, y, angle, size = mover.place(moment)
    dx, dy = points[..., 0] - (x_0 + margin), points[..., 1] - (y_0 + margin)
    cos = math.cos(angle - angle_0) * size / size_0
    sin = math.sin(angle - angle_0) * size / size_0
    return torch.stack((x + margin + cos * dx - sin * dy, y + margin + sin * dx + cos * dy), -1)


def _sprites(mover: Mover, timeline: Timeline) -> tuple[Tensor, float]:
    """Return premultiplied colour and opacity (N, 4, S, S), and pixels of frame per pixel of it."""
    blurs = [
        [s * v for v in mover.velocity] for s in timeline.shutters
    ]  # pixels travelled while the shutter is open
    longest = max(math.hypot(*b) for b in blurs)
    side = mover.texture.shape[-1]
    reach = mover.silhouette.reach + mover.softness + 0.5 * longest + 2.0
    scale = 2.0 * reach / side
    x, y = pixel_grid(side, side, mover.texture.device)
    x, y = (x - side / 2) * scale, (y - side / 2) * scale
    distance, tint = _outlined(mover, x, y, timeline.moments)
    alpha = mover.opacity * (distance / mover.softness + 0.5).clamp(0.0, 1.0)
    sprites = torch.cat((mover.texture * tint * alpha, alpha), 1)
    smeared = [n for n, b in enumerate(blurs) if math.hypot(*b) > 0.7]
    if smeared:
        travel = [_turned(blurs[n], -mover.place(timeline.moments[n])[2]) for n in smeared]
        vectors = torch.tensor(travel, device=sprites.device) / scale
        sprites[smeared] = streak(sprites[smeared], vectors)
    return sprites, scale


def _outlined(mover: Mover, x: Tensor, y: Tensor, moments: list[float]) -> tuple[Tensor, Tensor]:
    """Signed distance (N, 1, S, S) and gain by part (N, 3, S, S); coarse where none sees it."""
    coarse = mover.silhouette.thinnest > 3.0
    if coarse:
        x, y = (F.avg_pool2d(v[None, None], 2, ceil_mode=True)[0, 0] for v in (x, y))
    distance, part = mover.silhouette.distance(x, y, moments)
    tint = mover.tints[part.remainder(mover.tints.shape[0])].permute(0, 3, 1, 2)
    distance = distance[:, None]
    if coarse:
        side = mover.texture.shape[-1]
        distance, tint = (
            F.interpolate(v, scale_factor=2.0, mode="bilinear")[..., :side, :side]
            for v in (distance, tint)
        )
    return distance, tint


def _turned(vector: list[float], angle: float) -> list[float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return [cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]]


def _window(grid: Tensor, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
    """The part of a frame that can see a disc on the canvas; None where none can."""
    height, width = grid.shape[:2]
    # A frame is shifted and turned only a little against the canvas: its corners tell by how much.
    corners = grid[:: height - 1, :: width - 1].tolist()
    shift_x = [corners[i][j][0] - (j * (width - 1) + 0.5) for i in (0, 1) for j in (0, 1)]
    shift_y = [corners[i][j][1] - (i * (height - 1) + 0.5) for i in (0, 1) for j in (0, 1)]
    left, right = int(x - reach - max(shift_x)) - 1, int(x + reach - min(shift_x)) + 2
    top, bottom = int(y - reach - max(shift_y)) - 1, int(y + reach - min(shift_y)) + 2
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return None
    return slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))


def light_change(dice: Dice, count: int, height: int, width: int) -> Tensor:
    """Return how a moving light scales a canvas in each frame: (N, 1, height, width), about 1."""
    strength = dice.uniform(0.1, 0.8)
    start, pace = dice.uniform(0, 2 * math.pi), dice.uniform(0.3, 1.5)
    fields = dice.randn(2, 1, 1, 4, 4)
    phases = torch.tensor([start + pace * n for n in range(count)])[:, None, None, None]
    waves = torch.cos(phases) * fields[0] + torch.sin(phases) * fields[1]
    return torch.exp(
        strength * F.interpolate(waves, (height, width), mode="bicubic", align_corners=False)
    )
