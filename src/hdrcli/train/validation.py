"""A fixed set of brackets on which a training is judged, its curve, and a sheet of its pictures."""

import json
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hdrcli.nets import forms
from hdrcli.nets.deephdrvideo import DeepHDRVideo
from hdrcli.train.batches import Sample, every, followed, sample_of
from hdrcli.train.config import Preset
from hdrcli.train.scenes import Recipe, Scenes, bracket_batch, video_windows
from hdrcli.train.scenes.sheet import tone_mapped

if TYPE_CHECKING:
    from hdrcli.train.loop import Training

SEED = 1_000_000_007  # no training gets that far
EVERY = 6  # of the pictures one is held out from training
CLIPPED = 0.95  # of a frame's white: more tells nothing
WALKERS = Recipe(
    frames={3: 1.0},
    step_ev=(2.0, 2.0),
    middle_reference=1.0,
    exposure_error_ev=0.0,
    static=0.1,
    shakes={(0.0, 0.0): 0.4, (0.2, 1.5): 0.6},
    movers=(1, 3),
    shapes={"figure": 1.0},
    sizes=(0.15, 0.3),
    heights=(0.4, 0.8),
    speeds=(10.0, 60.0),
    photon_noise=(1e-4, 1e-3),
    read_noise=(1e-7, 2e-6),
    told_srgb=0.0,
    curves={"srgb": 1.0},
)


@dataclass(frozen=True)
class Scores:
    """Mean dB over the set: the network, the reference alone, the mean of valid frames."""

    psnr_mu: float
    psnr_l: float
    reference_mu: float
    reference_l: float
    merge_mu: float
    merge_l: float


def divided(scenes: Scenes) -> tuple[Scenes, Scenes]:
    """Return the material of training and that of validation, which share no picture.

    With fewer than EVERY pictures both are all of them.
    """
    pictures = scenes.pictures
    if len(pictures) < EVERY:
        return scenes, scenes
    training, held_out = copy(scenes), copy(scenes)
    training.pictures = [p for i, p in enumerate(pictures) if i % EVERY]
    held_out.pictures = pictures[::EVERY]
    return training, held_out


def generated(
    scenes: Scenes,
    preset: Preset,
    *,
    frames: int = 3,
    size: tuple[int, int] = (128, 192),
    count: int = 5,
) -> Sample:
    """Make brackets, or windows of video, of held-out pictures: people who walk, 2 EV apart."""
    if preset.period:
        batch = video_windows(
            scenes,
            SEED,
            size=size,
            batch=count,
            frames=frames,
            period=preset.period,
            recipe=WALKERS,
        )
        return followed(batch, SEED, preset.period) if preset.followed else sample_of(batch)
    batch = bracket_batch(scenes, SEED, size=size, batch=count, frames=frames, recipe=WALKERS)
    return sample_of(batch)


class Validation:
    """Brackets that no training sees, kept in memory."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.plain = self._plain_scores()

    def _plain_scores(self) -> tuple[float, float, float, float]:
        found = []
        for one in every(self.sample):
            truth = relative(one, one.truth)
            found.append([*psnrs(reference(one), truth), *psnrs(merged(one), truth)])
        mu, linear, merge_mu, merge_l = np.mean(found, 0).tolist()
        return mu, linear, merge_mu, merge_l

    def results(self, training: "Training") -> list[Tensor]:
        """H (1, 3, H, W) of every bracket by the average of the weights."""
        name = training.stage()[0].name
        with torch.no_grad():
            return [_result(training, training.average, one, name) for one in every(self.sample)]

    def scores(self, results: Sequence[Tensor]) -> Scores:
        """Measure results."""
        pairs = zip(results, every(self.sample), strict=True)
        found = [psnrs(result, relative(one, one.truth)) for result, one in pairs]
        mu, linear = np.mean(found, 0).tolist()
        return Scores(mu, linear, *self.plain)

    def draw(self, results: Sequence[Tensor], out: Path) -> None:
        """Write ``curve.png`` and ``sheet.png``."""
        from PIL import Image

        curve(out / "log.jsonl", out / "curve.png")
        Image.fromarray(self.sheet(results)).save(out / "sheet.png")

    def sheet(self, results: Sequence[Tensor]) -> np.ndarray:
        """Return RGB: per bracket reference, merge, network and truth, tone-mapped, and the error.

        The error is that of the network in μ-law, black none, white 0.1 and more.
        """
        rows = []
        for result, one in zip(results, every(self.sample), strict=True):
            truth = relative(one, one.truth)
            gain = one.ratios[0, one.ratios.shape[1] // 2]
            shown = [reference(one), merged(one), result.cpu(), truth]
            cells = [tone_mapped((x.clamp(0, 1) * gain)[0]) for x in shown]
            error = (forms.tone(shown[2].clamp(0, 1)) - forms.tone(truth)).abs().amax(1)[0]
            grey = (error / 0.1).clamp(0, 1).mul(255).byte().numpy()
            cells.append(np.repeat(grey[..., None], 3, 2))
            rows.append(np.concatenate(cells, 1))
        return np.concatenate(rows, 0)


def _result(training: "Training", net: torch.nn.Module, one: Sample, stage: str) -> Tensor:
    one = one.to(training.device)
    fed = forms.inputs(training.form, one.linear, one.ratios)
    if stage == "coarse" and isinstance(net, DeepHDRVideo):
        extra = (fed[0].shape[1] - net.window) // 2
        window = slice(extra, extra + net.window)
        output = net.coarse(*(part[:, window] for part in fed))
    else:
        output = forms.answer(net(*fed))
    return forms.light(training.form, output, one.ratios).clamp(0, 1).cpu()


def relative(one: Sample, truth: Tensor) -> Tensor:
    """Truth relative to the shortest frame, cut at its white."""
    ratio = one.ratios[:, one.ratios.shape[1] // 2].view(-1, 1, 1, 1)
    return (truth / ratio).clamp(0, 1)


def reference(one: Sample) -> Tensor:
    """The frame in the middle alone, relative to the shortest."""
    middle = one.ratios.shape[1] // 2
    return one.linear[:, middle, :3] / one.ratios[:, middle].view(-1, 1, 1, 1)


def merged(one: Sample) -> Tensor:
    """The mean of all frames by photons where they are not clipped, the shortest everywhere.

    It knows nothing of motion: where things move it ghosts.
    """
    ratios = one.ratios[:, :, None, None, None]
    linear = one.linear[:, :, :3]
    clipped = linear.amax(2, keepdim=True) >= CLIPPED
    weights = ratios * (~clipped | (ratios <= 1.001))
    return (weights * linear / ratios).sum(1) / weights.sum(1)


def psnrs(estimate: Tensor, truth: Tensor) -> tuple[float, float]:
    """PSNR-mu and PSNR-L in dB of light in [0, 1]."""
    estimate = estimate.clamp(0, 1)
    return _psnr(forms.tone(estimate), forms.tone(truth)), _psnr(estimate, truth)


def _psnr(estimate: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(max(float((estimate - truth).square().mean()), 1e-10))


def curve(log: Path, png: Path, size: tuple[int, int] = (720, 420)) -> None:
    """Draw PSNR-mu over minutes from a log, with the reference alone and the merge as lines."""
    from PIL import Image, ImageDraw

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    width, height = size
    values = [line[key] for line in lines for key in ("psnr_mu", "reference_mu", "merge_mu")]
    low, high = math.floor(min(values)), math.ceil(max(values))
    longest = max(lines[-1]["minutes"], 1e-6)

    def at(minutes: float, value: float) -> tuple[float, float]:
        x = 50 + (width - 70) * minutes / longest
        return x, height - 40 - (height - 70) * (value - low) / max(high - low, 1)

    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for value in range(low, high + 1, max(1, (high - low) // 8)):
        pen.line([at(0, value), at(longest, value)], fill="#dddddd")
        pen.text((8, at(0, value)[1] - 6), f"{value} dB", fill="black")
    for key, colour in (("merge_mu", "#999999"), ("reference_mu", "#cc7722"), ("psnr_mu", "navy")):
        pen.line([at(line["minutes"], line[key]) for line in lines], fill=colour, width=2)
    pen.text((50, 8), "PSNR-mu: network blue, reference orange, mean of frames grey", fill="black")
    pen.text((50, height - 24), f"0 to {longest:.1f} minutes", fill="black")
    image.save(png)
