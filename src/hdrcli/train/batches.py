"""What a training step sees: linear light, exposure ratios and truth, made ahead in a thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from hdrcli.train.config import Preset
from hdrcli.train.scenes import Batch, Scenes, bracket_batch, video_windows


@dataclass(frozen=True)
class Sample:
    """A batch as the forms of ``nets.forms`` take it. 1.0 in ``truth`` is the reference's white."""

    linear: Tensor  # (B, N, 3, H, W) in [0, 1] of each frame's own white
    ratios: Tensor  # (B, N) exposures over that of the shortest frame
    truth: Tensor  # (B, 3, H, W)

    def to(self, device: torch.device) -> "Sample":
        """Return the sample on another device."""
        return Sample(*(tensor.to(device) for tensor in vars(self).values()))


def sample_of(batch: Batch) -> Sample:
    """Bring generated brackets to ratios of the shortest frame."""
    ratios = batch.exposures / batch.exposures.amin(1, keepdim=True)
    return Sample(batch.linear, ratios, batch.radiance)


def material(scenes: Scenes, preset: Preset, step: int, frames: int) -> Sample:
    """Return the sample of a step; the same for the same step, preset, material and device."""
    seed = step // preset.reuse
    size = (preset.patch, preset.patch)
    if preset.period:
        batch = video_windows(
            scenes,
            seed,
            size=size,
            batch=preset.batch,
            frames=frames,
            period=preset.period,
            recipe=preset.recipe,
        )
    else:
        batch = bracket_batch(
            scenes, seed, size=size, batch=preset.batch, frames=frames, recipe=preset.recipe
        )
    dice = torch.Generator().manual_seed(step)
    return turned(lacking(sample_of(batch), preset.doubled, dice), dice)


def lacking(sample: Sample, probability: float, dice: torch.Generator) -> Sample:
    """Replace the first or the last frame of some brackets by the reference, as backends do."""
    middle = sample.ratios.shape[1] // 2
    linear, ratios = sample.linear.clone(), sample.ratios.clone()
    for item, (draw, end) in enumerate(torch.rand(len(ratios), 2, generator=dice).tolist()):
        if draw < probability:
            place = 0 if end < 0.5 else -1
            linear[item, place] = linear[item, middle]
            ratios[item, place] = ratios[item, middle]
    return Sample(linear, ratios / ratios.amin(1, keepdim=True), sample.truth)


def turned(sample: Sample, dice: torch.Generator) -> Sample:
    """Mirror, transpose and recolour a whole batch: one of 48 ways."""
    across, down, over = (torch.rand(3, generator=dice) < 0.5).tolist()
    colours = torch.randperm(3, generator=dice).to(sample.linear.device)

    def turn(pixels: Tensor) -> Tensor:
        flips = [axis for axis, flip in ((-1, across), (-2, down)) if flip]
        pixels = pixels.index_select(-3, colours).flip(flips)
        square = pixels.shape[-1] == pixels.shape[-2]
        return pixels.transpose(-1, -2) if over and square else pixels

    return Sample(turn(sample.linear).contiguous(), sample.ratios, turn(sample.truth).contiguous())


Source = Callable[[int, int], Sample]  # step, frames; the same for the same step


class Ahead:
    """Samples of step after step, the next ones being made while one is used."""

    def __init__(self, source: Source, *, depth: int = 2) -> None:
        self._source, self._depth = source, depth
        self._pool = ThreadPoolExecutor(1, "batches")
        self._waiting: dict[tuple[int, int], Future[Sample]] = {}

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def sample(self, step: int, frames: int) -> Sample:
        """Return the sample of a step with so many frames, and start on the following ones."""
        keys = [(step + ahead, frames) for ahead in range(self._depth + 1)]
        for key in keys:
            if key not in self._waiting:
                self._waiting[key] = self._pool.submit(self._source, *key)
        found = self._waiting.pop(keys[0]).result()
        for key in set(self._waiting) - set(keys):
            self._waiting.pop(key).cancel()
        return found


def every(sequence: Sample) -> Iterator[Sample]:
    """Split a sample into samples of one bracket."""
    for item in range(len(sequence.truth)):
        one = slice(item, item + 1)
        yield Sample(sequence.linear[one], sequence.ratios[one], sequence.truth[one])
