"""FlowMerge: a merge that starts from physics and learns the rest.

The classical merge decides everything a photon count and a careful comparison can decide: the
frames come here already brought to the reference by flow, with a prior belief in each pixel.
The network corrects that belief, the last pixels of the flow, and guesses the light where the
reference clips and no other frame can be believed. The merge itself stays explicit and in
linear light:

    X = Σ w_i c_i X_i / Σ w_i c_i        w_i: inverse variance, zero where a code clips
    c_i = sigmoid(logit(prior_i) + PairNet(reference, frame_i))
    X  <- bound exp(relu(log(X / bound) + heard(belief) FillNet))   where the reference clips

FillNet is told what such light is around, where a frame is believed, spread from there into what
is not known; it says how much of that to take, and what else. With the last layers at zero, as
they start, it is the classical merge. PairNet sees one frame beside the reference at a time, with
the same weights for all, so that any number of frames and any reference work. Everything runs at
half resolution and coarser.
"""

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets.fused import conv2d, convolve

if TYPE_CHECKING:
    from collections.abc import Iterable

PAIR_INPUTS = 18
FILL_INPUTS = 16
CERTAIN = 0.995  # the prior is held inside (1 - this, this), so that it can be corrected
FAR = 4.5  # EV from the reference to which a correction is heard in full
REACH = 2.0  # px, the largest correction of the flow
DEPTH = 3.0  # the largest correction of a clipped logarithm, e-folds
HEARD = 2.0  # times the doubt in darker frames: from a half on the guess is heard in full
STEPS = 7  # halvings over which light spreads from where it is known
SHOT, READ, QUANTUM = 2e-4, 1e-6, 4 / 12 / 255**2  # of the noise model, white at 1.0
APART = (0.63, 1.045)  # times fade: light between which a channel beside a clipped one is doubted
LIKELY = 1.25  # times the channels that do not clip: what a doubted frame may still say
DIM = 1e-6  # light that nothing is divided by
GAMMA, BLACKEST = 1 / 2.2, 1e-6  # of what the networks see, and the light that is black there
FALLBACK = 1e-7  # weight of the shortest frame where nothing else is known


@dataclass(frozen=True)
class Evidence:
    """B brackets of N frames at the reference's pixels, after flow; all float tensors.

    ``light`` (B, N, 3, H, W): linear, each frame's own white at 1.0. ``weight`` (B, N, 1, H, W):
    inverse variance of light / ratio, zero where a code clips. ``clipped``, ``belief`` (the prior
    in [0, 1]), ``valid``: (B, N, 1, H, W). ``disagreement``: (B, N, 1, H, W), in tolerances.
    ``ratio`` (B, N): exposure over the reference's. ``reference`` (B,) int64. ``fade`` and
    ``bound`` (B,): light from which a code of the reference is trusted less, and clips; ``dark``
    (B,): light up to which it is black. Frames are sorted darkest first.
    """

    light: Tensor
    weight: Tensor
    clipped: Tensor
    belief: Tensor
    valid: Tensor
    disagreement: Tensor
    ratio: Tensor
    reference: Tensor
    fade: Tensor
    bound: Tensor
    dark: Tensor

    def others(self) -> Tensor:
        """Indices of the frames that are not the reference, (B, N - 1), in order."""
        frames = torch.arange(self.light.shape[1], device=self.light.device)
        own = (frames[None] == self.reference[:, None]).to(torch.int8)
        return own.argsort(dim=1, stable=True)[:, :-1]

    def of_reference(self, what: Tensor) -> Tensor:
        """Take the reference's entry of a (B, N, ...) tensor: (B, ...)."""
        index = self.reference.view(-1, *[1] * (what.dim() - 1)).expand(-1, 1, *what.shape[2:])
        return what.gather(1, index).squeeze(1)


@dataclass(frozen=True)
class Highlights:
    """What FillNet is asked about: maps (B, C, H, W) of the reference's moment.

    ``reference`` and ``shortest`` (C = 3): light of these frames, their own white at 1.0.
    ``radiance`` (C = 3): the merge so far. ``clipped`` and ``belief`` (C = 1): where the reference
    clips, and how far a darker frame is believed. ``ratio`` (B,): exposure of the shortest frame
    over the reference's. ``around``: what is known beside.
    """

    reference: Tensor
    shortest: Tensor
    radiance: Tensor
    clipped: Tensor
    belief: Tensor
    ratio: Tensor
    around: "Around"


@dataclass(frozen=True)
class Around:
    """Light that clips in the reference, spread from where a darker frame is believed about it.

    ``rise`` (B, 3, H, W): the logarithm of that light over the merge so far, within DEPTH.
    ``distance`` (B, 3, H, W): from where it is known, in halvings of the picture.
    """

    rise: Tensor
    distance: Tensor


@dataclass(frozen=True)
class Correction:
    """What PairNet says: ``logit`` (B, N, 1, H, W), ``flow`` (B, N, 2, H, W) in pixels, x, y."""

    logit: Tensor
    flow: Tensor


@dataclass(frozen=True)
class Merged:
    """The explicit merge: ``radiance`` (B, 3, H, W), the reference's white at 1.0.

    Where the reference clips: ``belief`` (B, 1, H, W) in what the darker frames measure, and
    ``least`` (B, 3, H, W), the light there is at least.
    """

    radiance: Tensor
    belief: Tensor
    least: Tensor


class ConvBlock(nn.Module):
    """Two 3×3 convolutions with ReLU; the second adds to the first."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.deepen = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self._deepened(convolve(self.enter, x, "relu"))

    def of_quads(self, x: Tensor) -> Tensor:
        """The same of ``pixel_unshuffle(x, 2)``, which need not be made: (B, inputs / 4, H, W).

        A convolution of 3 x 3 quads of pixels is one of 6 x 6 pixels, two apart.
        """
        if torch.is_grad_enabled():
            return self.forward(F.pixel_unshuffle(x, 2))
        weight, bias = self.enter.weight, self.enter.bias
        outputs, inputs = len(weight), weight.shape[1] // 4
        quads = weight.reshape(outputs, inputs, 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3)
        pixels = quads.reshape(outputs, inputs, 6, 6).contiguous(memory_format=torch.channels_last)
        return self._deepened(conv2d(x, pixels, bias, (2, 2), (2, 2), then="relu"))

    def _deepened(self, x: Tensor) -> Tensor:
        return convolve(self.deepen, x, "relu", plus=x)


class UNet(nn.Module):
    """A small U-net from half resolution down; its finest features are at half resolution."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            ConvBlock(before, after, stride=1 if i == 0 else 2)
            for i, (before, after) in enumerate(zip((4 * inputs, *widths), widths, strict=False))
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in itertools.pairwise(widths)
        )
        self.merge = nn.ModuleList(nn.Conv2d(fine, fine, 3, 1, 1) for fine in widths[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of (B, inputs, H, W) at 1/2, 1/4, ... resolution, finest first."""
        first, *others = cast("Iterable[ConvBlock]", self.down)
        steps = [first.of_quads(x)]
        for block in others:
            steps.append(block(steps[-1]))
        out = [steps[-1]]
        for i in range(len(self.merge) - 1, -1, -1):
            above = F.interpolate(self.lateral[i](out[0]), size=steps[i].shape[-2:], mode="nearest")
            out.insert(0, convolve(self.merge[i], steps[i] + above, "relu"))
        return out


class FlowMerge(nn.Module):
    """The whole network. ``multiple_of`` sides divide by 16."""

    multiple_of = 16

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 48, 64, 96),
        fill_widths: tuple[int, ...] = (24, 32, 48, 64, 64),
    ) -> None:
        super().__init__()
        self.pair = UNet(PAIR_INPUTS, tuple(widths))
        self.logit = zeroed(nn.Conv2d(widths[0], 4, 3, 1, 1))
        self.flow = zeroed(nn.Conv2d(widths[1], 2, 3, 1, 1))
        self.fill = UNet(FILL_INPUTS, tuple(fill_widths))
        self.level = zeroed(nn.Conv2d(fill_widths[0], 16, 3, 1, 1))

    def forward(self, evidence: Evidence) -> Tensor:
        """Radiance of the reference's moment, (B, 3, H, W), the reference's white at 1.0."""
        _, merged, moved = self.judge(evidence, self.correct(evidence))
        return fill_in(merged, moved, self.guess(merged, moved))

    @staticmethod
    def judge(evidence: Evidence, correction: Correction) -> tuple[Tensor, "Merged", Evidence]:
        """Apply a correction: confidence (B, N, 1, H, W), the merge, and the moved evidence."""
        moved = apply_flow(evidence, correction.flow)
        confidence = corrected(moved, correction.logit)
        return confidence, merge(moved, confidence), moved

    def correct(self, evidence: Evidence) -> Correction:
        """Corrections of belief and flow, frame by frame beside the reference.

        Outside of training the frames are taken one after the other, so that memory does not grow
        with their number.
        """
        others = evidence.others()
        each = [others[:, k : k + 1] for k in range(others.shape[1])]
        groups = [others] if self.training else each
        said = [self.hear(evidence, group) for group in groups]
        frames = evidence.light.shape[1]
        logit, flow = (torch.cat(parts, dim=1) for parts in zip(*said, strict=True))
        return Correction(spread(logit, others, frames), spread(flow, others, frames))

    def hear(self, evidence: Evidence, others: Tensor) -> tuple[Tensor, Tensor]:
        """Logit (B, K, 1, H, W) and flow (B, K, 2, H, W) of these K frames."""
        x = pair_features(evidence, others).flatten(0, 1)
        features = self.pair(x.contiguous(memory_format=torch.channels_last))
        logit = F.pixel_shuffle(self.logit(features[0]), 2)
        flow = REACH * torch.tanh(self.flow(features[1]))
        flow = F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False)
        heard = hearing(evidence, others)
        shape = others.shape
        return (
            logit.reshape(*shape, *logit.shape[1:]) * heard,
            flow.reshape(*shape, *flow.shape[1:]) * heard,
        )

    def guess(self, merged: "Merged", evidence: Evidence) -> Tensor:
        """Correction of the logarithm of clipped light, (B, 3, H, W), in e-folds."""
        return self.level_of(
            Highlights(
                reference=evidence.of_reference(evidence.light),
                shortest=evidence.light[:, 0],
                radiance=merged.radiance,
                clipped=evidence.of_reference(evidence.clipped),
                belief=merged.belief,
                ratio=evidence.ratio[:, 0],
                around=around(evidence, merged),
            )
        )

    def level_of(self, asked: Highlights) -> Tensor:
        """The same, of what FillNet is asked about."""
        features = self.fill(fill_features(asked))
        said = F.pixel_shuffle(self.level(features[0]), 2)
        return DEPTH * torch.tanh(said[:, :3]) + torch.tanh(said[:, 3:]) * asked.around.rise


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A last layer that says nothing until it has learned something."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def photon_weight(light: Tensor, ratio: Tensor, fade: Tensor, bound: Tensor) -> Tensor:
    """Inverse variance of light / ratio, (B, N, 1, H, W), zero where the largest channel clips.

    The same model as the classical merge; ``fade`` and ``bound`` (B,) are the light from which
    a code is trusted less, and not at all.
    """
    largest = light.amax(2, keepdim=True)
    low, high = fade.view(-1, 1, 1, 1, 1), bound.view(-1, 1, 1, 1, 1)
    trusted = ((high - largest) / (high - low)).clamp(0, 1)
    variance = SHOT * largest + READ + QUANTUM * largest.clamp_min(0.002)
    return trusted * ratio[..., None, None, None] ** 2 / variance


def encode(light: Tensor) -> Tensor:
    """Gamma-encode light clipped to [0, 1]: what a screen shows, and noise is even in."""
    return light.clamp(BLACKEST, 1).pow(GAMMA)


def powered(light: Tensor) -> Tensor:
    """The same of any light of at least 0, not clipped."""
    return light.clamp_min(0).pow(GAMMA)


def mu_law(x: Tensor, mu: float = 5000.0) -> Tensor:
    """Compress [0, 1] to [0, 1], Kalantari and Ramamoorthi 2017, equation 5."""
    return torch.log1p(mu * x.clamp_min(0)) / torch.log1p(torch.tensor(mu)).item()


def hearing(e: Evidence, others: Tensor) -> Tensor:
    """How far a correction is heard, (B, N - 1, 1, H, W): not in crushed blacks, nor too far apart.

    A reference that is black says nothing a frame could be judged by, and the training knows no
    frames further than FAR from it: there the careful comparison of the prior stands.
    """
    black = e.dark[:, None, None, None, None]
    bright = e.of_reference(e.light).amax(1, keepdim=True)[:, None]
    near = (FAR + 1 - take(e.ratio, others).log2().abs()).clamp(0, 1)
    return ((bright / black - 1) / 2).clamp(0, 1) * near[..., None, None, None]


def spread(x: Tensor, others: Tensor, frames: int) -> Tensor:
    """Values of the other frames, (B, N - 1, C, H, W), as (B, N, C, H, W); 0 for the reference."""
    out = x.new_zeros(len(others), frames, *x.shape[2:])
    index = others[..., None, None, None].expand(-1, -1, *x.shape[2:])
    return out.scatter(1, index, x)


def take(x: Tensor, others: Tensor) -> Tensor:
    """The entries of these frames of a (B, N, ...) tensor."""
    index = others.view(*others.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def pair_features(e: Evidence, others: Tensor) -> Tensor:
    """What PairNet sees of each of the other frames, (B, N - 1, PAIR_INPUTS, H, W)."""
    frames = others.shape[1]
    ratio = take(e.ratio, others)[..., None, None, None]  # (B, N - 1, 1, 1, 1)
    own, belief = take(e.light, others), take(e.belief, others)
    reference = e.of_reference(e.light)[:, None]
    exposure = ratio.clamp_min(1)
    ceiling = 0.95 * torch.minimum(exposure / ratio, torch.ones_like(ratio))
    codes = powered(reference), powered(own)  # powers take long, and go well with products
    both = [
        (code * powered(scale / 0.95)).clamp_min(BLACKEST**GAMMA).minimum(powered(ceiling))
        for code, scale in zip(codes, (exposure, exposure / ratio), strict=True)
    ]
    shown, seen = (code.clamp(BLACKEST**GAMMA, 1) for code in codes)  # as ``encode`` has it
    known = [
        shown.expand(-1, frames, -1, -1, -1),
        seen,
        e.of_reference(e.clipped)[:, None].expand(-1, frames, -1, -1, -1),
        take(e.clipped, others),
        take(e.valid, others),
        belief,
        torch.tanh(take(e.disagreement, others) / 4),
        torch.ones_like(belief) * ratio.log2() / 4,
    ]
    return torch.cat([*both, *known], dim=2)


def fill_features(asked: Highlights) -> Tensor:
    """What FillNet sees, (B, FILL_INPUTS, H, W)."""
    top = 1 / asked.ratio[:, None, None, None]  # the shortest frame's white
    return torch.cat(
        [
            encode(asked.reference),
            encode(asked.shortest),
            mu_law(asked.radiance / top).clamp_max(1),
            asked.clipped,
            asked.belief,
            torch.ones_like(asked.belief) * top.log2() / 8,
            asked.around.rise / DEPTH,
            asked.around.distance.mean(1, keepdim=True) / STEPS,
        ],
        dim=1,
    )


def around(e: Evidence, merged: Merged) -> Around:
    """The light of clipped surroundings, for FillNet."""
    bound = e.bound[:, None, None, None]
    return spread_out(merged.radiance, e.of_reference(e.light) >= bound, merged.belief, bound)


def spread_out(radiance: Tensor, clips: Tensor, belief: Tensor, bound: Tensor) -> Around:
    """Spread light from where it is known to where it is not, as pull and push do.

    Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.4. ``clips`` (B, 3, H, W): channels of
    the reference that clip, at ``bound``; ``belief`` (B, 1, H, W) in what darker frames measure.
    Where nothing is known within 2 ** STEPS pixels, it is ``bound``.
    """
    level = torch.log(radiance.clamp_min(DIM) / bound)
    steps = [(level, clips * belief.square())]
    for _ in range(STEPS):
        value, known = steps[-1]
        total, share = halved(value * known), halved(known)
        steps.append((total / share.clamp_min(DIM), (4 * share).clamp_max(1)))
    found, distance = torch.zeros_like(steps[-1][0]), torch.full_like(steps[-1][0], STEPS + 1)
    for i, (value, known) in reversed(list(enumerate(steps))):
        found, distance = (
            F.interpolate(x, size=value.shape[-2:], mode="bilinear", align_corners=False)
            for x in (found, distance)
        )
        found, distance = torch.lerp(found, value, known), distance + known * (i - distance)
    return Around((found - level).clamp(-DEPTH, DEPTH), distance)


def halved(x: Tensor) -> Tensor:
    """Means over blocks of 2 x 2 pixels; the last ones may be smaller."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def apply_flow(e: Evidence, flow: Tensor) -> Evidence:
    """Move every frame but the reference by a small flow."""
    frames = torch.arange(e.light.shape[1], device=flow.device)
    other = (frames[None] != e.reference[:, None]).to(flow.dtype)[..., None, None, None]
    stack = torch.cat([e.light, e.clipped], dim=2)
    moved = warp(stack.flatten(0, 1), (flow * other).flatten(0, 1)).reshape(stack.shape)
    light, clipped = moved[:, :, :3], moved[:, :, 3:]
    weight = photon_weight(light, e.ratio, e.fade, e.bound)  # interpolated weights leak past clips
    return replace(e, light=light, weight=weight, clipped=clipped)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Take x (B, C, H, W) at each pixel plus flow (B, 2, H, W), bilinearly."""
    height, width = x.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype)
    down = torch.arange(height, device=x.device, dtype=x.dtype)
    u = (across + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    v = (down[:, None] + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([u, v], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def corrected(e: Evidence, logit: Tensor) -> Tensor:
    """Confidence (B, N, 1, H, W) in [0, 1]: the prior, corrected; 1 for the reference."""
    prior = torch.logit(e.belief.clamp(1 - CERTAIN, CERTAIN))
    confidence = torch.sigmoid(prior + logit) * e.valid
    frames = torch.arange(confidence.shape[1], device=logit.device)
    own = (frames[None] == e.reference[:, None])[..., None, None, None]
    return torch.where(own, torch.ones_like(confidence), confidence)


def merge(e: Evidence, confidence: Tensor) -> Merged:
    """The explicit merge, by the rules of ``average`` (backends/average.py, Darker).

    A channel of the reference that does not clip counts though its pixel may clip. A channel that
    clips is at least its clipping level, or that of a darker frame that is believed and clips too;
    where no frame is believed that measures it, it is the shortest's.
    """
    weight = e.weight * confidence
    weight = torch.cat([weight[:, :1] + FALLBACK, weight[:, 1:]], dim=1)
    each = e.light / e.ratio[..., None, None, None]
    norm = weight.sum(1)
    total = (weight * each).sum(1) / norm
    darker = (e.ratio < 1)[..., None, None, None]
    said = torch.where(darker, confidence, torch.zeros_like(confidence))
    belief = (said * telling(e)).amax(1)
    own, bound = e.of_reference(e.light), e.bound[:, None, None, None]
    clips = e.light >= bound[:, None]
    least = (said * clips / e.ratio[..., None, None, None]).amax(1).maximum(bound)
    alone = photon_weight(own[:, :, None], torch.ones_like(own[:, :, 0, 0]), e.fade, e.bound)[
        :, :, 0
    ]
    extra = (alone - e.of_reference(e.weight)).clamp_min(0) * apart(own, e.fade)
    measured = (norm * total + extra * own) / (norm + extra)
    likely = torch.where(own < bound, LIKELY * own / each[:, 0].clamp_min(DIM), 1.0).amin(
        1, keepdim=True
    )
    fits = said[:, 0] + (1 - said[:, 0]) * likely.clamp_max(1)
    lifted = belief * total + (1 - belief) * torch.maximum(fits * each[:, 0], least)
    mended = torch.where(own >= bound, torch.maximum(lifted, least), measured)
    return Merged(torch.where(darker.any(1), mended, total), belief, least)


def telling(e: Evidence) -> Tensor:
    """How much each frame measures, (B, N, 1, H, W): 0 where it clips, but for the shortest."""
    largest = e.light.amax(2, keepdim=True)
    low, high = e.fade.view(-1, 1, 1, 1, 1), e.bound.view(-1, 1, 1, 1, 1)
    told = ((high - largest) / (high - low)).clamp(0, 1)
    return torch.cat([torch.ones_like(told[:, :1]), told[:, 1:]], dim=1)


def apart(light: Tensor, fade: Tensor) -> Tensor:
    """How much a channel of the reference is believed beside one that clips, as light tells."""
    low, high = (limit * fade[:, None, None, None] for limit in APART)
    return ((high - light) / (high - low)).clamp(0, 1)


def fill_in(merged: Merged, e: Evidence, guess: Tensor) -> Tensor:
    """Correct light that clips in the reference, as far as no darker frame is believed."""
    clips = e.of_reference(e.light) >= e.bound[:, None, None, None]
    above = torch.log(merged.radiance.clamp_min(DIM) / merged.least)
    heard = (HEARD * (1 - merged.belief)).clamp_max(1)
    filled = merged.least * torch.exp(F.relu(above + heard * guess))
    return torch.where(clips & (e.ratio < 1).any(1)[:, None, None, None], filled, merged.radiance)
