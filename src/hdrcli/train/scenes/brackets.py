"""Synthetic brackets and video windows in batches: a scene, its motion, a camera.

Everything follows from a seed: the same seed, recipe, material and device give the same
bits, so a training step's number is all that a resumed training needs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hdrcli.train.scenes import camera, motion
from hdrcli.train.scenes.dice import Dice
from hdrcli.train.scenes.material import Scenes, expose
from hdrcli.train.scenes.recipe import Recipe
from hdrcli.train.scenes.staging import Item, margin_of, stage

THREE_STEP_EV = (1.0, 3.5)  # between the exposures of a clip of three
METERED = (0.4, 1.3)  # which exposure a clip is metered for: 0 the darkest, 1 the brightest
SAME_SHUTTER = 0.5  # probability that frames of a clip are open equally long


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
    flow: Tensor  # (B, N, 2, H, W) x, y: from the reference's pixels to theirs in each frame

    def to(self, device: str | torch.device) -> "Batch":
        """Return the batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


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
    period; things move at constant velocity and the camera drifts. The scene is exposed for
    the clip and not for the reference: mostly the darkest frame holds nearly all of it.
    """
    recipe = recipe or Recipe()
    dice = Dice(seed)
    items = []
    for _ in range(batch):
        step = dice.uniform(*(recipe.step_ev if period == 2 else THREE_STEP_EV))
        start, middle = dice.integer(0, period - 1), frames // 2
        levels = [step * ((start + n) % period) for n in range(frames)]
        white = step * (period - 1) * dice.uniform(*METERED)
        exposures = [2.0 ** (level - white) for level in levels]
        alike = dice.chance(SAME_SHUTTER)  # the gain alternates
        shutters = _shutters(dice, [1.0] * frames if alike else exposures)
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


def _canvas(scenes: Scenes, dice: Dice, size: tuple[int, int]) -> Tensor:
    margin = margin_of(size)
    scene = scenes.background(dice, size[0] + 2 * margin, size[1] + 2 * margin)
    clipped = 0.0005 if dice.chance(0.2) else 0.5 * dice.uniform() ** 1.7
    return expose(scene, clipped, median=0.02 if dice.chance(0.8) else 0.001)


def photograph(items: list[Item], dice: Dice, recipe: Recipe) -> Batch:
    """Return what cameras drawn from the recipe make of staged brackets of one size."""
    device = items[0].light.device
    light = torch.stack([item.light for item in items])
    true = torch.tensor([item.timeline.exposures for item in items], device=device)
    reference = torch.tensor([item.timeline.reference for item in items], device=device)
    rows = torch.arange(len(items), device=device)
    whites = true[rows, reference]
    radiance = light[rows, reference] * whites[:, None, None, None]
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
    true = true / whites[:, None]
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
        flow=torch.stack([item.flow for item in items]),
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
