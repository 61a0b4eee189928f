"""Synthetic brackets and video windows in batches: a scene, its motion, a camera.

Everything follows from a seed: the same seed, recipe, material and device give the same
bits, so a training step's number is all that a resumed training needs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hdrcli.train.scenes import camera, motion, silhouettes
from hdrcli.train.scenes.dice import Dice
from hdrcli.train.scenes.material import Scenes, expose

_SHAPES: dict[str, Callable[[Dice, float], silhouettes.Silhouette]] = {
    "blob": silhouettes.blob,
    "polygon": silhouettes.polygon,
    "figure": silhouettes.figure,
    "branches": silhouettes.branches,
}
_SCALE_OF_SPEED = 320.0  # speeds and shakes are meant for frames of this height


@dataclass(frozen=True)
class Recipe:
    """What brackets are like: ranges and probabilities; the defaults are for training.

    Lengths are pixels at 320 rows and shrink with smaller frames.
    """

    frames: dict[int, float] = field(
        default_factory=lambda: {2: 0.15, 3: 0.55, 4: 0.08, 5: 0.14, 7: 0.08}
    )
    step_ev: tuple[float, float] = (1.0, 4.0)
    span_ev: float = 8.0  # at most, darkest to brightest
    middle_reference: float = 0.7  # probability; any other frame else
    exposure_error_ev: float = 0.3  # at most, in the exposures told, of half the brackets
    static: float = 0.2  # probability of no motion at all
    shakes: dict[tuple[float, float], float] = field(  # pixels, with the probability of each range
        default_factory=lambda: {(0.0, 0.0): 0.17, (0.2, 3.0): 0.7, (1.0, 8.0): 0.13}
    )
    movers: tuple[int, int] = (1, 5)
    shapes: dict[str, float] = field(
        default_factory=lambda: {"blob": 0.35, "polygon": 0.15, "figure": 0.3, "branches": 0.2}
    )
    sizes: tuple[float, float] = (0.08, 0.45)  # radius as a part of the frame's height
    heights: tuple[float, float] = (-0.05, 1.05)  # of their centres, as a part of the frame's
    speeds: tuple[float, float] = (0.5, 60.0)  # pixels per frame interval
    soft: float = 0.25  # probability of a wide soft edge, as of things out of focus
    glowing: float = 0.08  # probability that a mover is a light
    moving_light: float = 0.06
    camera_blur: float = 0.12
    photon_noise: tuple[float, float] = (3e-5, 1.5e-3)
    read_noise: tuple[float, float] = (5e-8, 3e-6)
    curves: dict[str, float] = field(
        default_factory=lambda: {"srgb": 0.5, "gamma": 0.15, "tone": 0.15, "style": 0.2}
    )
    told_srgb: float = 0.3  # probability that an S-curve camera is taken for plain sRGB
    jpeg: float = 0.8
    unquantised: float = 0.06
    quality: tuple[int, int] = (85, 98)


@dataclass(frozen=True)
class Batch:
    """B brackets of N frames, darkest first (video windows: in order of time).

    1.0 in `radiance` is the level at which the reference frame clips.
    """

    codes: Tensor  # (B, N, 3, H, W) uint8, as the camera wrote them
    linear: Tensor  # (B, N, 3, H, W) float32 in [0, 1] of each frame's own clip, by told_decode
    exposures: Tensor  # (B, N) relative to the reference, as told to the merger
    true_exposures: Tensor  # (B, N) as they were
    reference: Tensor  # (B,) int64
    radiance: Tensor  # (B, 3, H, W) noise-free, unclamped, at the reference's moment and viewpoint
    decode: Tensor  # (B, 256, 3) the true response: signal in [0, 1] of each code
    told_decode: Tensor  # (B, 256, 3) the response the merger believes in
    noise: Tensor  # (B, 2) variance = a × signal + b in each frame's own [0, 1]
    moving: Tensor  # (B, 1, H, W) 0 to 1: where things or light moved in any frame

    def to(self, device: str | torch.device) -> "Batch":
        """Return the batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Item:
    """One bracket before the camera."""

    light: Tensor  # (N, 3, H, W) radiance in each frame
    moving: Tensor  # (1, H, W)
    timeline: motion.Timeline


def bracket_batch(
    scenes: Scenes,
    seed: int,
    *,
    size: tuple[int, int] = (128, 128),
    batch: int = 8,
    frames: int | None = None,
    recipe: Recipe | None = None,
) -> Batch:
    """Return a batch of brackets, (height, width) each, on the device of the material.

    `frames` None draws the number of frames, one for the whole batch, from the recipe.
    """
    recipe = recipe or Recipe()
    dice = Dice(seed)
    count = frames or dice.pick(list(recipe.frames), list(recipe.frames.values()))
    items = []
    for _ in range(batch):
        exposures, reference = _exposures(dice, count, recipe)
        timeline = timeline_of(dice, exposures, reference)
        canvas = _canvas(scenes, dice, size)
        items.append(stage(scenes, dice, canvas, size, timeline, recipe))
    return photograph(items, dice, recipe)


def video_windows(
    scenes: Scenes,
    seed: int,
    *,
    size: tuple[int, int] = (128, 128),
    batch: int = 8,
    frames: int = 3,
    period: int = 2,
    recipe: Recipe | None = None,
) -> Batch:
    """Return windows of a clip whose exposures alternate with this period (2 or 3).

    Frames are in order of time; the reference is the middle one, at any place of the
    period; things move at constant velocity and the camera drifts.
    """
    recipe = recipe or Recipe()
    dice = Dice(seed)
    items = []
    for _ in range(batch):
        step = dice.uniform(*recipe.step_ev) if period == 2 else dice.uniform(1.0, 3.0)
        start, middle = dice.integer(0, period - 1), frames // 2
        levels = [step * ((start + n) % period) for n in range(frames)]
        exposures = [2.0 ** (level - levels[middle]) for level in levels]
        shutters = _shutters(dice, exposures)
        moments = [float(n - middle) for n in range(frames)]
        timeline = motion.Timeline(moments, shutters, exposures, middle)
        canvas = _canvas(scenes, dice, size)
        items.append(stage(scenes, dice, canvas, size, timeline, recipe, drift=True))
    return photograph(items, dice, recipe)


def _exposures(dice: Dice, count: int, recipe: Recipe) -> tuple[list[float], int]:
    """Relative exposures, darkest first, the reference's being 1, and the reference."""
    low, high = recipe.step_ev
    widest = max(low, min(high, recipe.span_ev / (count - 1)))
    step = dice.uniform(low, widest)
    step = max(low, round(2 * step) / 2) if dice.chance(0.7) else step
    middle = (count - 1) // 2 if dice.chance(0.7) else count // 2
    reference = middle if dice.chance(recipe.middle_reference) else dice.integer(0, count - 1)
    return [2.0 ** (step * (n - reference)) for n in range(count)], reference


def timeline_of(dice: Dice, exposures: list[float], reference: int) -> motion.Timeline:
    """Frames taken one after another, in any order of exposure."""
    count = len(exposures)
    order = dice.permutation(count)
    orders = {
        "rising": list(range(count)),
        "falling": list(range(count))[::-1],
        "any": order,
    }
    ranks = orders[dice.pick(["rising", "falling", "any"], [0.5, 0.15, 0.35])]
    moments = [rank - ranks[reference] + dice.normal(0.05) for rank in ranks]
    moments[reference] = 0.0
    return motion.Timeline(moments, _shutters(dice, exposures), exposures, reference)


def _shutters(dice: Dice, exposures: list[float]) -> list[float]:
    """Open times: the longest is up to half an interval, the others shorter in proportion."""
    longest = 0.0 if dice.chance(0.25) else dice.uniform(0.02, 0.5)
    return [longest * exposure / max(exposures) for exposure in exposures]


def margin_of(size: tuple[int, int]) -> int:
    """Return how many pixels of scene a canvas has on each side of a frame of this size."""
    return 8 + math.ceil(0.06 * max(size))


def _canvas(scenes: Scenes, dice: Dice, size: tuple[int, int]) -> Tensor:
    margin = margin_of(size)
    scene = scenes.background(dice, size[0] + 2 * margin, size[1] + 2 * margin)
    clipped = 0.0005 if dice.chance(0.2) else 0.5 * dice.uniform() ** 1.7
    return expose(scene, clipped, median=0.02 if dice.chance(0.8) else 0.001)


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
    if not static and dice.chance(recipe.moving_light):
        light, cover = _lit(light, cover, dice)
    for _ in range(0 if static else dice.integer(*recipe.movers)):
        mover = _mover(scenes, dice, size, small, timeline, recipe)
        motion.draw(light, cover, mover, timeline, grid, margin)
    if shake > 0 and dice.chance(recipe.camera_blur):
        light = _camera_blur(light, dice, timeline, small)
    return Item(light, cover.amax(0, keepdim=True), timeline)


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
    softness = dice.log_uniform(0.8, 2.0)
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


def photograph(items: list[Item], dice: Dice, recipe: Recipe) -> Batch:
    """Return what cameras drawn from the recipe make of staged brackets of one size."""
    device = items[0].light.device
    light = torch.stack([item.light for item in items])
    true = torch.tensor([item.timeline.exposures for item in items], device=device)
    reference = torch.tensor([item.timeline.reference for item in items], device=device)
    radiance = light[torch.arange(len(items), device=device), reference].clone()
    noise = torch.tensor(
        [[dice.log_uniform(*recipe.photon_noise), dice.log_uniform(*recipe.read_noise)]
         for _ in items],
        device=device,
    )  # fmt: skip
    responses, told = _responses(dice, len(items), recipe)
    decode = torch.stack([r.decode for r in responses]).to(device)
    told_decode = torch.stack([r.decode for r in told]).to(device)
    signal = camera.sensor(light.mul_(true[:, :, None, None, None]), noise, dice)
    developed = camera.develop(signal, torch.stack([r.encode for r in responses]).to(device))
    codes, linear = _stored(developed, told_decode, dice, recipe)
    return Batch(
        codes=codes,
        linear=linear,
        exposures=_told_exposures(true, reference, dice, recipe),
        true_exposures=true,
        reference=reference,
        radiance=radiance,
        decode=decode,
        told_decode=told_decode,
        noise=noise,
        moving=torch.stack([item.moving for item in items]),
    )


def _responses(
    dice: Dice, count: int, recipe: Recipe
) -> tuple[list[camera.Response], list[camera.Response]]:
    """The cameras' responses and those the merger is told."""
    kinds = [dice.pick(list(recipe.curves), list(recipe.curves.values())) for _ in range(count)]
    responses = [camera.response(dice, kind) for kind in kinds]
    plain = camera.response(dice, "srgb")
    told = [
        plain if r.name in ("tone", "style") and dice.chance(recipe.told_srgb) else r
        for r in responses
    ]
    return responses, told


def _stored(
    developed: Tensor, told_decode: Tensor, dice: Dice, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Codes as they come out of the file, and the light the merger takes them for."""
    codes = (developed * 255.0).round_().to(torch.uint8)
    fine = []
    for b in range(codes.shape[0]):
        kind = dice.uniform()
        quality, full = dice.integer(*recipe.quality), dice.chance(0.5)
        if kind < recipe.jpeg:
            codes[b] = camera.through_jpeg(codes[b], quality, full_colour=full)
        elif kind < recipe.jpeg + recipe.unquantised:
            fine.append(b)
    linear = camera.linearise(codes, told_decode)
    if fine:
        linear[fine] = camera.linearise_fine(developed[fine], told_decode[fine])
    return codes, linear


def _told_exposures(true: Tensor, reference: Tensor, dice: Dice, recipe: Recipe) -> Tensor:
    """Exposures as the metadata say: wrong by up to the recipe's error in half the brackets."""
    count, frames = true.shape
    error = recipe.exposure_error_ev * (2.0 * dice.rand(count, frames) - 1.0)
    error = error * (dice.rand(count, 1) < 0.5)
    error = error.to(true.device)
    error[torch.arange(count, device=true.device), reference] = 0.0
    return true * torch.exp2(error)
