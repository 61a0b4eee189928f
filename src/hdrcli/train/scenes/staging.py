"""Staging a bracket: what each frame sees, before any camera records it.

A canvas, a camera that shakes or drifts over it, layers and things that move, light that
changes. Lengths in a recipe are pixels at 320 rows; smaller frames get smaller motion.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hdrcli.train.scenes import motion, silhouettes
from hdrcli.train.scenes.dice import Dice
from hdrcli.train.scenes.material import Scenes, opening
from hdrcli.train.scenes.recipe import Recipe

_SHAPES: dict[str, Callable[[Dice, float], silhouettes.Silhouette]] = {
    "blob": silhouettes.blob,
    "polygon": silhouettes.polygon,
    "figure": silhouettes.figure,
    "branches": silhouettes.branches,
}
_SCALE_OF_SPEED = 320.0  # speeds and shakes are meant for frames of this height


@dataclass(frozen=True)
class Item:
    """One bracket before the camera."""

    light: Tensor  # (N, 3, H, W) radiance in each frame
    moving: Tensor  # (1, H, W)
    timeline: motion.Timeline
    flow: Tensor  # (N, 2, H, W) from the reference's pixels to where they are in each frame


def margin_of(size: tuple[int, int]) -> int:
    """Return how many pixels of scene a canvas has on each side of a frame of this size."""
    return 8 + math.ceil(0.06 * max(size))


def stage(
    scenes: Scenes,
    dice: Dice,
    canvas: Tensor,
    size: tuple[int, int],
    timeline: motion.Timeline,
    recipe: Recipe,
    *,
    drift: bool = False,
) -> Item:
    """Return what each frame of a bracket sees: camera, light and things move over a canvas.

    `canvas` (3, h, w) is the scene with `margin_of(size)` pixels around the frame; 1.0 is
    the reference's white. `drift` lets the camera pan evenly instead of shaking.
    """
    height, width = size
    margin = margin_of(size)
    small = min(1.0, min(size) / _SCALE_OF_SPEED)
    static = dice.chance(recipe.static)
    reach = dice.pick(list(recipe.shakes), list(recipe.shakes.values()))
    shake = 0.0 if static else dice.uniform(*reach) * small
    paths = (_drift if drift else _shaken)(dice, timeline, shake, size)
    grid = motion.camera_grid(paths.to(canvas.device), height, width, margin)
    cover = torch.zeros(len(timeline), height, width, device=canvas.device)
    light = motion.read_canvas(canvas, grid)
    if shake > 0 and dice.chance(recipe.parallax):
        _near_layer(light, cover, scenes, dice, grid, canvas, 2.0 * shake)
    if not static and dice.chance(recipe.moving_light):
        light, cover = _lit(light, cover, dice)
    movers = []
    for _ in range(0 if static else dice.integer(*recipe.movers)):
        mover = _mover(scenes, dice, size, small, timeline, recipe)
        movers.append((mover, motion.draw(light, cover, mover, timeline, grid, margin)))
    if shake > 0 and dice.chance(recipe.camera_blur):
        light = _camera_blur(light, dice, timeline, small)
    flow = motion.true_flow(paths.to(canvas.device), timeline, movers, size, margin)
    return Item(light, cover.amax(0, keepdim=True), timeline, flow)


def _shaken(dice: Dice, timeline: motion.Timeline, shake: float, size: tuple[int, int]) -> Tensor:
    """Hand shake (N, 3, 3): what a global alignment leaves. The reference is off the pixel
    raster like the others half of the time, so that it is not the only sharp frame."""
    shift = 0.6 * shake * dice.randn(len(timeline), 2).clamp(-1.6, 1.6)
    turn = shake / max(size) * 0.7 * dice.randn(len(timeline), 4).clamp(-1.5, 1.5)
    tilt = shake / max(size) ** 2 * 0.3 * dice.randn(len(timeline), 2).clamp(-1.5, 1.5)
    paths = torch.eye(3).repeat(len(timeline), 1, 1)
    paths[:, :2, 2] = shift
    paths[:, :2, :2] += 0.3 * turn.view(-1, 2, 2) + torch.stack(
        (torch.zeros(len(timeline)), -turn[:, 0], turn[:, 0], torch.zeros(len(timeline))), -1
    ).view(-1, 2, 2)
    paths[:, 2, :2] = tilt
    paths[timeline.reference] = torch.eye(3)
    if shake > 0 and dice.chance(0.5):
        paths[timeline.reference, :2, 2] = dice.rand(2) - 0.5
    return paths


def _drift(dice: Dice, timeline: motion.Timeline, shake: float, size: tuple[int, int]) -> Tensor:
    """A camera that pans, turns and zooms evenly, with a little shake: (N, 3, 3)."""
    speed = 2.0 * shake * dice.randn(2).clamp(-1.0, 1.0)
    turn, zoom = (shake / max(size) * dice.normal(0.4) for _ in range(2))
    limit = 6.0 / max(1.0, max(abs(m) for m in timeline.moments))
    paths = _shaken(dice, timeline, 0.2 * shake, size)
    for n, moment in enumerate(timeline.moments):
        paths[n, :2, 2] += speed.clamp(-limit, limit) * moment
        paths[n, 0, 1] -= turn * moment
        paths[n, 1, 0] += turn * moment
        paths[n, :2, :2] *= 1.0 + zoom * moment
    return paths


def _near_layer(
    light: Tensor,
    cover: Tensor,
    scenes: Scenes,
    dice: Dice,
    grid: Tensor,
    canvas: Tensor,
    reach: float,
) -> None:
    """Draw, in place, things so near that the shaking camera sees them shift: parallax."""
    height, width = canvas.shape[1:]
    near = scenes.background(dice, height, width)
    near = near * (canvas.mean() / near.mean().clamp_min(1e-6) * dice.log_uniform(0.1, 3.0))
    mask = opening(dice, height, width, canvas.device)[None]
    shifts = (reach * (2.0 * dice.rand(grid.shape[0], 1, 1, 2) - 1.0)).to(grid.device)
    seen = motion.read_canvas(torch.cat((near * mask, mask)), grid + shifts)
    light.mul_(1.0 - seen[:, 3:]).add_(seen[:, :3])
    torch.maximum(cover, seen[:, 3], out=cover)


def _lit(light: Tensor, cover: Tensor, dice: Dice) -> tuple[Tensor, Tensor]:
    gains = motion.light_change(dice, *light.shape[:1], *light.shape[2:]).to(light.device)
    spread = gains.amax(0) / gains.amin(0) - 1.0
    changed = (spread / 0.1).clamp(0.0, 1.0)
    return light * gains, torch.maximum(cover, changed)


def _mover(
    scenes: Scenes,
    dice: Dice,
    size: tuple[int, int],
    small: float,
    timeline: motion.Timeline,
    recipe: Recipe,
) -> motion.Mover:
    height, width = size
    radius = dice.log_uniform(*recipe.sizes) * min(size)
    shape = dice.pick(list(recipe.shapes), list(recipe.shapes.values()))
    outline = _SHAPES[shape](dice, max(radius, 3.0))
    speed = dice.log_uniform(*recipe.speeds) * small
    level = dice.normal(0.35) if shape == "figure" else dice.uniform(0.0, 2 * math.pi)
    heading = level + math.pi * dice.integer(0, 1)
    softness = dice.log_uniform(1.0, 2.0)
    if dice.chance(recipe.soft):
        softness = dice.uniform(2.0, 2.5 + 0.3 * radius)
    turning = shape in ("blob", "polygon") and dice.chance(0.6)
    reach = outline.reach + softness + 0.5 * max(timeline.shutters) * speed + 2.0
    side = min(math.ceil(2.0 * reach), 2 * max(size))
    # Things are as bright as what stands around them, mostly; some are lamps.
    brightness = (
        dice.log_uniform(2.5, 60.0) if dice.chance(recipe.glowing) else dice.log_uniform(0.01, 2.5)
    )
    texture = scenes.texture(dice, side, side) * brightness
    tints = torch.exp(0.5 * dice.randn(4, 1) + 0.25 * dice.randn(4, 3))
    return motion.Mover(
        outline,
        texture,
        (tints if dice.chance(0.6) else torch.ones(1, 3)).to(texture.device),
        centre=(dice.uniform(-0.05, 1.05) * width, dice.uniform(*recipe.heights) * height),
        velocity=(speed * math.cos(heading), speed * math.sin(heading)),
        angle=dice.uniform(0, 2 * math.pi) if shape in ("blob", "polygon") else dice.normal(0.06),
        spin=dice.normal(0.15) if turning else 0.0,
        growth=math.exp(dice.normal(0.03)),
        softness=softness,
        opacity=1.0 if dice.chance(0.8) else dice.uniform(0.6, 1.0),
    )


def _camera_blur(light: Tensor, dice: Dice, timeline: motion.Timeline, small: float) -> Tensor:
    """Smear each frame along the camera's path while its shutter was open, the reference too."""
    heading, length = dice.uniform(0, 2 * math.pi), dice.uniform(1.0, 8.0) * small
    travel = torch.tensor(
        [[s * 2 * length * math.cos(heading), s * 2 * length * math.sin(heading)]
         for s in timeline.shutters],
        device=light.device,
    )  # fmt: skip
    return motion.streak(light, travel, outside="reflection")
