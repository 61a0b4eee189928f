"""What a training step sees: linear light, exposure ratios and truth, made ahead in a thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from hdrcli.backends.arrange import WINDOWS
from hdrcli.train import windows
from hdrcli.train.config import Preset
from hdrcli.train.scenes import Batch, Scenes, bracket_batch, video_windows
from hdrcli.train.scenes.dice import Dice


@dataclass(frozen=True)
class Sample:
    """A batch as the forms of ``nets.forms`` take it. 1.0 in ``truth`` is the reference's white."""

    linear: Tensor  # (B, N, 3, H, W) in [0, 1] of each frame's own white; a fourth: belief
    ratios: Tensor  # (B, N) exposures over that of the shortest frame
    truth: Tensor  # (B, 3, H, W)
    flow: Tensor | None = None  # (B, N, 2, H, W) x, y, from the reference to each frame, if known

    def to(self, device: torch.device) -> "Sample":
        """Return the sample on another device."""
        return self.each(lambda tensor: tensor.to(device))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Sample":
        """Change every tensor that there is."""
        flow = None if self.flow is None else change(self.flow)
        return Sample(change(self.linear), change(self.ratios), change(self.truth), flow)


def sample_of(batch: Batch) -> Sample:
    """Bring generated brackets to ratios of the shortest frame."""
    ratios = batch.exposures / batch.exposures.amin(1, keepdim=True)
    return Sample(batch.linear, ratios, batch.radiance, batch.flow)


def material(scenes: Scenes, preset: Preset, step: int, frames: int) -> Sample:
    """Return the sample of a step; the same for the same step, preset, material and device."""
    dice = torch.Generator().manual_seed(step)
    return turned(lacking(_made(scenes, preset, step, frames), preset.doubled, dice), dice)


def _made(scenes: Scenes, preset: Preset, step: int, frames: int) -> Sample:
    seed = step // preset.reuse
    still = float(torch.rand((), generator=torch.Generator().manual_seed(seed))) < preset.stills
    size, recipe = (preset.patch, preset.patch), preset.recipe
    if preset.period and not still:
        if preset.followed:
            recipe = replace(recipe, jpeg=windows.STILL_CODED)
        batch = video_windows(
            scenes,
            seed,
            size=size,
            batch=preset.batch,
            frames=frames,
            period=preset.period,
            recipe=recipe,
        )
        return followed(batch, seed, preset.period) if preset.followed else sample_of(batch)
    count = preset.period or frames
    batch = bracket_batch(scenes, seed, size=size, batch=preset.batch, frames=count, recipe=recipe)
    if preset.followed:
        return Sample(*windows.of_brackets(batch, frames), batch.radiance)
    sample = sample_of(batch)
    return as_window(sample, batch.reference, frames) if preset.period else sample


def followed(batch: Batch, seed: int, period: int) -> Sample:
    """Windows of video, moved to the frame in the middle by the classical motion."""
    return Sample(*windows.of_clips(batch, period, Dice(seed)), batch.radiance)


def as_window(sample: Sample, reference: Tensor, frames: int) -> Sample:
    """Make video windows of brackets of two or three, as the backend does: frames come repeatedly.

    ``reference`` (B,) is the place of each bracket's; of three frames it is the second.
    """
    order = WINDOWS[sample.ratios.shape[1]]
    cut = (len(order) - frames) // 2
    place = torch.tensor(order[cut : len(order) - cut], device=reference.device)[None]
    if sample.ratios.shape[1] == 2:
        place = torch.where(place == 1, reference[:, None], 1 - reference[:, None])
    place = place.expand(len(reference), -1)
    rows = torch.arange(len(reference), device=reference.device)[:, None]
    flow = None if sample.flow is None else sample.flow[rows, place]
    return Sample(sample.linear[rows, place], sample.ratios[rows, place], sample.truth, flow)


def lacking(sample: Sample, probability: float, dice: torch.Generator) -> Sample:
    """Replace the first or the last frame of some brackets by the reference, as backends do."""
    if not probability:
        return sample
    middle = sample.ratios.shape[1] // 2
    linear, ratios = sample.linear.clone(), sample.ratios.clone()
    for item, (draw, end) in enumerate(torch.rand(len(ratios), 2, generator=dice).tolist()):
        if draw < probability:
            place = 0 if end < 0.5 else -1
            linear[item, place] = linear[item, middle]
            ratios[item, place] = ratios[item, middle]
    ratios = ratios / ratios.amin(1, keepdim=True)
    return Sample(linear, ratios, sample.truth)  # the flow is no longer that of all frames


def turned(sample: Sample, dice: torch.Generator) -> Sample:
    """Mirror, transpose and recolour a whole batch: one of 48 ways."""
    across, down, over = (torch.rand(3, generator=dice) < 0.5).tolist()
    colours = torch.randperm(3, generator=dice).to(sample.linear.device)

    over = over and sample.truth.shape[-1] == sample.truth.shape[-2]

    def turn(pixels: Tensor) -> Tensor:
        flips = [axis for axis, flip in ((-1, across), (-2, down)) if flip]
        pixels = pixels.flip(flips)
        return (pixels.transpose(-1, -2) if over else pixels).contiguous()

    linear = turn(torch.cat((sample.linear[..., colours, :, :], sample.linear[..., 3:, :, :]), -3))
    truth = turn(sample.truth.index_select(-3, colours))
    if sample.flow is None:
        return Sample(linear, sample.ratios, truth)
    signs = sample.flow.new_tensor([-1.0 if flip else 1.0 for flip in (across, down)])
    flow = turn(sample.flow * signs[:, None, None])
    return Sample(linear, sample.ratios, truth, flow.flip(2) if over else flow)


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
        yield sequence.each(partial(_only, item))


def _only(item: int, tensor: Tensor) -> Tensor:
    return tensor[item : item + 1]
