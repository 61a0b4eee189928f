"""Training of the denoiser: what FlowMerge merges of synthetic brackets, beside the true light.

The pool is made by the very merge that photographs go through, with its deviations, so that the
noise is what is left of a camera's after weights, belief, interpolation and JPEG. The loss is one
of decibels, in the mu-law and in linear light, so that a dark room counts as much as a bright one,
and one of deviations, which tells from the first step on what is noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from torch import Tensor, nn

from hdrcli import motion
from hdrcli.backends import flowmerge
from hdrcli.backends.average import Average
from hdrcli.backends.denoise import clips
from hdrcli.backends.registry import Settings
from hdrcli.nets.denoise import KNEE, Denoiser, noise_of
from hdrcli.nets.flowmerge import FlowMerge
from hdrcli.train import priors
from hdrcli.train.flowmerge import BEYOND, RECIPE
from hdrcli.train.loss import mu_law
from hdrcli.train.pooled import Arrays, Judged, Plan, Task
from hdrcli.train.scenes import Batch

LINEAR = 0.35  # weight of the decibels in linear light beside those in the mu-law
LEAST = 1e-5  # mean squares that are not worth less
OUTLIER = 2.0  # deviations from which an error counts by its size alone
BRIGHTEST = 6e4  # that half floats hold


def examples(batch: Batch) -> Iterator[Arrays]:
    """Merge every bracket of a batch by FlowMerge; its truth is added as ``radiance``."""
    for item in range(len(batch.codes)):
        bracket = priors.bracket_of(batch, item)
        found = motion.analyse(bracket, keep_views=True)
        guess = None
        if any(belief is not None for belief in found.confidence):
            found, guess = flowmerge.correct(shipped(), bracket, found)
        deviation = np.empty(bracket.size, np.float32)
        image = Average(Settings(threads=1)).merge(bracket, found, guess, deviation)
        yield {
            "merged": np.minimum(image.pixels.transpose(2, 0, 1), BRIGHTEST).astype(np.float16),
            "deviation": deviation[None],
            "clipped": clips(bracket.ref, np.s_[:, :])[None],
            "ratio": np.array(bracket.ratios.min(), np.float32),
            "reference": bracket.ref.linear().transpose(2, 0, 1).astype(np.float16),
            "radiance": np.minimum(batch.radiance[item].numpy(), BRIGHTEST).astype(np.float16),
        }


@cache
def shipped() -> FlowMerge:
    """The FlowMerge whose merges are to be cleaned."""
    return flowmerge.loaded(Settings(threads=1, device="cpu"))[0]


def stacked(arrays: Sequence[Arrays], name: str) -> Tensor:
    """One of the maps of some examples, (B, C, H, W), or a number of each, (B,)."""
    return torch.from_numpy(np.stack([a[name] for a in arrays])).float()


def learned(net: nn.Module, arrays: Sequence[Arrays]) -> tuple[Tensor, float]:
    """The loss on some examples, and its mean square in the mu-law."""
    assert isinstance(net, Denoiser)
    radiance, deviation, clipped, truth, ratio = (
        stacked(arrays, name) for name in ("merged", "deviation", "clipped", "radiance", "ratio")
    )
    return loss_of(net.everywhere(radiance, deviation, clipped), truth, deviation, ratio)


def loss_of(
    radiance: Tensor, truth: Tensor, deviation: Tensor, ratio: Tensor
) -> tuple[Tensor, float]:
    """Logarithms of the mean squares, and errors in deviations; and the mean square in the mu-law.

    ``ratio`` (B,): exposure of the shortest frame over the reference's. Where both clip even
    there, nothing is asked.
    """
    top = (1 / ratio).clamp_min(1)[:, None, None, None]
    ours, true = radiance / top, truth / top
    ours = torch.where(ours > 1, 1 + BEYOND * (ours - 1), ours)
    both = (true >= 1) & (ours >= 1)
    curved = torch.where(both, 0.0, mu_law(ours.clamp_min(0)) - mu_law(true.clamp(0, 1)))
    linear = torch.where(both, 0.0, ours - true.clamp(0, 1))
    squares = [error.square().mean((1, 2, 3)) for error in (curved, linear)]
    decibels = [(LEAST + square).log().mean() for square in squares]
    apart = torch.log1p(radiance / KNEE) - torch.log1p(truth / KNEE)
    deviations = apart / noise_of(radiance, deviation).detach()
    noise = F.huber_loss(deviations, torch.zeros_like(deviations), delta=OUTLIER)
    return decibels[0] + LINEAR * decibels[1] + noise, float(squares[0].detach().mean())


def judged(arrays: Arrays) -> Judged:
    """An example that is kept apart."""
    pictures = (stacked([arrays], name) for name in ("radiance", "reference", "merged"))
    return Judged(arrays, *(cut(picture, arrays) for picture in pictures))


def cleaned(net: nn.Module, arrays: Arrays) -> Tensor:
    """What a network makes of it."""
    given = [stacked([arrays], name) for name in ("merged", "deviation", "clipped")]
    return cut(net(*given), arrays)


def cut(radiance: Tensor, arrays: Arrays) -> Tensor:
    """Radiance relative to the shortest frame's white, cut there."""
    return (radiance * min(float(arrays["ratio"]), 1.0)).clamp(0, 1)


TASK = Task(
    backend="denoise",
    network=Denoiser,
    recipe=RECIPE,
    maps=("merged", "deviation", "clipped", "radiance"),
    coloured=("merged", "radiance"),
    examples=examples,
    loss=learned,
    judged=judged,
    shown=cleaned,
)
PLANS: Mapping[tuple[str, str], Plan] = MappingProxyType(
    {
        ("denoise", "cpu"): Plan(
            TASK, batch=8, crop=112, rate=2e-3, decay=1e-4, clip=1.0, examples=1760, held_out=56
        )
    }
)
