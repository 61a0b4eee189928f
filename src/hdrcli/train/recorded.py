"""Samples cut from photographed data sets instead of made-up scenes."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdrcli.errors import InputError
from hdrcli.frames import Frame
from hdrcli.train.batches import Sample, lacking, turned
from hdrcli.train.config import Preset
from hdrcli.train.data import Item, frames_of, items, truth_of

HELD_OUT = 10  # of the brackets one is for validation
KEPT = 24  # brackets in memory
VALIDATION = (256, 384)  # px, of the middle of a picture


class Recorded:
    """Patches of the brackets of a data set, a place and a bracket drawn by each step's number.

    The frames are taken as they lie: the data sets are aligned by their authors.
    """

    def __init__(self, training: Sequence[Item], held_out: Sequence[Item], preset: Preset) -> None:
        self.training, self.held_out, self.preset = training, held_out, preset

    @classmethod
    def of(cls, folder: Path, preset: Preset) -> "Recorded":
        """Divide the brackets of a folder. Raises InputError where there are none with truth."""
        known = [item for item in items(folder) if item.truth is not None]
        if not known:
            raise InputError(f"{folder}: no bracket with truth", hint="train on scenes:DIR instead")
        if len(known) < HELD_OUT:
            return cls(known, known, preset)
        kept = [item for place, item in enumerate(known) if place % HELD_OUT]
        return cls(kept, known[::HELD_OUT], preset)

    def __call__(self, step: int, frames: int) -> Sample:
        """Return the sample of a step."""
        preset, dice = self.preset, np.random.default_rng(step)
        cut = []
        for _ in range(preset.batch):
            item = self.training[int(dice.integers(len(self.training)))]
            height, width = bracket(item)[0][0].size
            size = (min(preset.patch, height), min(preset.patch, width))
            top, left = (
                int(dice.integers(n - s + 1)) for n, s in zip((height, width), size, strict=True)
            )
            cut.append(patch(item, frames, (top, left), size))
        sample = stacked(cut)
        turns = torch.Generator().manual_seed(step)
        return turned(lacking(sample, preset.doubled, turns), turns)

    def validation(self, frames: int) -> Sample:
        """Return the middles of some held-out brackets, as large as all of them allow."""
        chosen = self.held_out[:5]
        sizes = np.array([bracket(item)[0][0].size for item in chosen])
        size = tuple(
            int(min(n, most)) // 8 * 8 for n, most in zip(sizes.min(0), VALIDATION, strict=True)
        )
        corners = (sizes - size) // 2
        return stacked(
            [
                patch(item, frames, (int(top), int(left)), (size[0], size[1]))
                for item, (top, left) in zip(chosen, corners, strict=True)
            ]
        )


@lru_cache(maxsize=KEPT)
def bracket(item: Item) -> tuple[tuple[Frame, ...], np.ndarray]:
    """Read the frames and the truth of a bracket. Raises InputError where sizes differ."""
    frames = frames_of(item)
    truth = truth_of(item)
    for frame in frames:
        if frame.size != truth.shape[:2]:
            raise InputError(f"{item.name}: {frame.name} and its truth differ in size")
    return frames, truth


def patch(item: Item, frames: int, at: tuple[int, int], size: tuple[int, int]) -> Sample:
    """Cut one patch, (top, left) and (height, width), of so many frames around the reference."""
    rows, cols = (slice(start, start + length) for start, length in zip(at, size, strict=True))
    every, truth = bracket(item)
    first = item.reference - frames // 2
    if first < 0 or first + frames > len(every):
        raise InputError(
            f"{item.name}: {len(every)} frames, and the network takes {frames}",
            hint="train this network on scenes:DIR",
        )
    places = range(first, first + frames)
    linear = torch.stack([_tensor(every[place].linear(rows, cols)) for place in places])
    ratios = torch.tensor([2.0 ** item.evs[place] for place in places])
    return Sample(linear[None], ratios[None] / ratios.min(), _tensor(truth[rows, cols])[None])


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).permute(2, 0, 1)


def stacked(samples: Sequence[Sample]) -> Sample:
    """Join samples of one bracket each. Raises InputError for pictures of different sizes."""
    sizes = {sample.truth.shape for sample in samples}
    if len(sizes) != 1:
        raise InputError("pictures of different sizes, some smaller than a patch of the preset")
    return Sample(
        torch.cat([sample.linear for sample in samples]),
        torch.cat([sample.ratios for sample in samples]),
        torch.cat([sample.truth for sample in samples]),
    )
