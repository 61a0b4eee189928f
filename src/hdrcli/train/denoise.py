"""Training of the denoiser: what FlowMerge merges of synthetic brackets, beside the true light.

The pool is made by the very merge that photographs go through, with its deviations, so that the
noise is what is left of a camera's after weights, belief, interpolation and JPEG; its deviations
are scaled to the noise there is, as photographs' are. Half of the scenes get a texture as fine and
about as faint as the noise, so that the network learns to keep what is more than noise explains.
Some are dyed, as lamps and evenings do. The loss is one of decibels, in the mu-law and in linear
light, so that a dark room counts as much as a bright one, and one of deviations, which tells from
the first step on what is noise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from numpy.typing import NDArray
from torch import Tensor, nn

from hdrcli import motion
from hdrcli.backends import flowmerge
from hdrcli.backends.average import Average
from hdrcli.backends.denoise import clips
from hdrcli.backends.noise import FEWEST, TO_DEVIATION, halved
from hdrcli.backends.registry import Settings
from hdrcli.nets.denoise import DARKNESS, KNEE, LEAST_SEEN, MOST, Denoiser, noise_of
from hdrcli.nets.flowmerge import FlowMerge
from hdrcli.train import priors
from hdrcli.train.flowmerge import BEYOND, RECIPE
from hdrcli.train.loss import mu_law
from hdrcli.train.pooled import Arrays, Judged, Plan, Task
from hdrcli.train.scenes import Batch

LINEAR = 0.5  # weight of the decibels in linear light beside those in the mu-law
LEAST = 3e-6  # mean squares that are not worth less
UNSURE = 0.12  # deviation of the logarithm of how much noise there is said to be
SCALES = 0.35, 1.4  # between which deviations are scaled, as backends/denoise.py does
DYED, DEEPEST = 0.4, 3.0  # of the examples; the most that a channel is darkened, in e-folds
GRAINED, MIXED = 0.5, 0.3  # of the examples get texture; of that so much is coloured, or uneven
GRAIN = 0.3, 3.0  # its size in deviations of the noise
COARSEST, STRONGEST = 1.3, 0.4  # px, and in logarithms of light
OUTLIER = 2.0  # deviations from which an error counts by its size alone
Floats = NDArray[np.float32]
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
        truth = batch.radiance[item].numpy()
        scale = told_by(truth[1], image.pixels[..., 1], deviation)
        yield {
            "merged": np.minimum(image.pixels.transpose(2, 0, 1), BRIGHTEST).astype(np.float16),
            "deviation": scale * deviation[None],
            "clipped": clips(bracket.ref, np.s_[:, :])[None],
            "ratio": np.array(bracket.ratios.min(), np.float32),
            "reference": bracket.ref.linear().transpose(2, 0, 1).astype(np.float16),
            "radiance": np.minimum(truth, BRIGHTEST).astype(np.float16),
        }


def told_by(truth: Floats, light: Floats, deviation: Floats) -> np.float32:
    """How much noise there is over ``deviation``, (h, w): the error's, within SCALES.

    Of green, at half the size and with what is smooth taken out, as photographs tell it: see
    backends/noise.py.
    """
    error = motion.finest(halved(np.asarray(light - truth, np.float32)))
    expected = halved(deviation) / 2
    usable = (halved(np.minimum(truth, 2)) < 0.9) & (expected < 0.2)
    if np.count_nonzero(usable) < FEWEST:
        return np.float32(1)
    found = TO_DEVIATION * np.median(np.abs(error[usable]) / expected[usable])
    return np.float32(np.clip(found, *SCALES))


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
    radiance, truth, deviation = dyed(radiance, truth, deviation)
    radiance, truth = grained(radiance, truth, deviation)
    deviation = deviation * torch.exp(UNSURE * torch.randn(len(deviation), 1, 1, 1))
    return loss_of(net.everywhere(radiance, deviation, clipped), truth, deviation, ratio)


def dyed(radiance: Tensor, truth: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, some with two channels darker, and with the noise that they would then have."""
    count = len(radiance)
    dye = torch.exp(-DEEPEST * torch.rand(count, 3, 1, 1))
    dye[torch.arange(count), torch.randint(0, 3, (count,))] = 1
    dye = torch.where(torch.rand(count, 1, 1, 1) < DYED, dye, torch.ones_like(dye))
    darker = dye * radiance
    before, after = (x.amax(1, keepdim=True) + DARKNESS for x in (radiance, darker))
    had, has = dye**2 * (radiance + DARKNESS) / before, (darker + DARKNESS) / before
    more = deviation * (has - had).clamp_min(0).sqrt() * torch.randn_like(darker)
    return (darker + more).clamp_min(0), dye * truth, deviation * (after / before).sqrt()


def grained(radiance: Tensor, truth: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Merges (B, 3, H, W) and their truth with the same fine texture, in some of them."""
    grains = [
        grain_of(*one) if float(torch.rand(())) < GRAINED else torch.ones_like(one[0])
        for one in zip(radiance, deviation, strict=True)
    ]
    factor = torch.stack(grains)
    return radiance * factor, truth * factor


def grain_of(radiance: Tensor, deviation: Tensor) -> Tensor:
    """Factors of light, (3, H, W): blurred a little, grey or coloured, everywhere or in parts."""
    noise = noise_of(radiance[None], deviation[None])
    heard = noise[(noise > LEAST_SEEN) & (noise < MOST)]
    if len(heard) < FEWEST:
        return torch.ones_like(radiance)
    height, width = radiance.shape[1:]
    chance = torch.rand(4).tolist()
    grain = torch.randn(1, 3 if chance[0] < MIXED else 1, height, width)
    sigma = COARSEST * chance[1]
    grain = blurred(grain, sigma) if sigma > MIXED else grain
    if chance[2] > MIXED:
        cells = torch.randn(1, 1, *torch.randint(2, 9, (2,)).tolist())
        where = F.interpolate(cells, size=(height, width), mode="bicubic")
        grain = grain / grain.std() * torch.sigmoid(4 * where)
    size = GRAIN[0] * (GRAIN[1] / GRAIN[0]) ** chance[3] * float(heard.median())
    return torch.exp(min(size, STRONGEST) * grain / grain.std())[0].expand(3, -1, -1)


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """(1, C, H, W) under a Gaussian."""
    reach = math.ceil(3 * sigma)
    along = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    each = (along / along.sum()).expand(picture.shape[1], 1, 1, -1)
    across = F.conv2d(F.pad(picture, (reach, reach, 0, 0), "reflect"), each, groups=len(each))
    down = each.transpose(2, 3)
    return F.conv2d(F.pad(across, (0, 0, reach, reach), "reflect"), down, groups=len(each))


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
