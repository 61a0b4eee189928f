"""What training minimises: the losses of the papers, by name in ``LOSSES``.

All take what a network returns, as a sequence, and the truth in the domain of that output:
linear for PSFNet, APNT-Fusion and DeepHDRVideo, tone-mapped in [-1, 1] for HDR-GAN (see
``tone_mapped``), gamma-encoded and relative to the medium frame for ADNet. All return one number
in float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hdrcli.importers import import_files
from hdrcli.nets.apntfusion import (
    SATURATED,
    MatchingTrunk,
    displayed,
    masked_saturated,
    whitened,
)
from hdrcli.nets.hdrgan import Discriminator, discriminator_loss, generator_loss
from hdrcli.nets.matching import PATCH, near, rows

MU = 5000.0
NTIRE_GAMMA = 2.24
NTIRE_PERCENTILE = 0.99
LEAST_SQUARE = 3e-5  # of the μ-law: 45 dB, from which on less error counts less
LEAST_SHARE = 1e-3  # of a batch that counts as not well exposed: there may be nothing to fill in

Trunk = Callable[[Tensor], Sequence[Tensor]]  # whitened RGB to features of several depths


@dataclass(frozen=True)
class Aids:
    """What some of the losses need besides output and truth.

    ``badly_exposed`` is 1 - M of DeepHDRVideo, (B, 1 or 3, H, W) in [0, 1]; ``trunk`` gives the
    features of its perceptual part; ``discriminator`` and ``adversarial`` (the weight λ) are
    HDR-GAN's. Where one is None its term is left out.
    """

    badly_exposed: Tensor | None = None
    trunk: Trunk | None = None
    discriminator: Discriminator | None = None
    adversarial: float = 1.0


Loss = Callable[[Sequence[Tensor], Tensor, Aids], Tensor]


def mu_law(light: Tensor) -> Tensor:
    """T(H) = log(1 + μH) / log(1 + μ), μ = 5000; what is below 0 counts as 0."""
    return torch.log1p(MU * light.float().clamp(min=0)) / math.log1p(MU)


def tone_mapped(light: Tensor) -> Tensor:
    """HDR-GAN's domain: linear [0, 1] to μ-law [-1, 1]."""
    return 2 * mu_law(light) - 1


def mu_law_l1(outputs: Sequence[Tensor], truth: Tensor, aids: Aids) -> Tensor:
    """Mean of |T(Ĥ) - T(H)|: PSFNet (6), APNT-Fusion (16), ADNet (6) on linear data.

    Further outputs of a network, if any, count as much as the first.
    """
    aim = mu_law(truth)
    return torch.stack([functional.l1_loss(mu_law(output), aim) for output in outputs]).mean()


def log_squares(outputs: Sequence[Tensor], truth: Tensor, aids: Aids) -> Tensor:
    """What a mean of PSNR-μ counts: the logarithm of the error that each picture has in the μ-law.

    A noisy picture thus teaches as much as one with a ghost, whose squared error is a hundredfold.
    """
    aim = mu_law(truth)
    errors = [(mu_law(output) - aim).square().mean((1, 2, 3)) for output in outputs]
    return torch.stack([torch.log1p(error / LEAST_SQUARE).mean() / 2 for error in errors]).mean()


def hybrid(outputs: Sequence[Tensor], truth: Tensor, aids: Aids) -> Tensor:
    """HDR-GAN's (6) and (9): every output against the truth, and against the adversary."""
    supervised = torch.stack([functional.l1_loss(y.float(), truth.float()) for y in outputs]).sum()
    if aids.discriminator is None:
        return supervised
    deceived = generator_loss([aids.discriminator(y) for y in outputs])
    return supervised + aids.adversarial * deceived


def adversary(outputs: Sequence[Tensor], truth: Tensor, discriminator: Discriminator) -> Tensor:
    """What HDR-GAN's discriminator minimises in its turn; the generator gets no gradient."""
    return discriminator_loss(discriminator(truth), [discriminator(y.detach()) for y in outputs])


def masked_l1(outputs: Sequence[Tensor], truth: Tensor, aids: Aids) -> Tensor:
    """DeepHDRVideo's (6) and (7): μ-law L1 per badly exposed pixel, and L1 of trunk features.

    Without a mask it is the loss of its first stage, (1).
    """
    loss = mu_law_l1(outputs, truth, aids)
    if aids.badly_exposed is not None:
        loss = loss / aids.badly_exposed.float().mean().clamp(min=LEAST_SHARE)
    if aids.trunk is not None:
        loss = loss + sum(perceptual(y, truth, aids.trunk) for y in outputs) / len(outputs)
    return loss


def perceptual(output: Tensor, truth: Tensor, trunk: Trunk) -> Tensor:
    """Σ_k mean |φ_k(T(Ĥ)) - φ_k(T(H))| over the features that ``trunk`` returns.

    The paper's are VGG16's relu1_2, relu2_2 and relu3_3. Here they are relu1_1, relu2_1 and
    relu3_1 of VGG19, which is the trunk that APNT-Fusion matches by (``vgg``).
    """
    with torch.no_grad():
        aims = trunk(whitened(mu_law(truth)))
    found = trunk(whitened(mu_law(output)))
    terms = [functional.l1_loss(f.float(), a.float()) for f, a in zip(found, aims, strict=True)]
    return torch.stack(terms).sum()


def vgg(path: Path) -> MatchingTrunk:
    """VGG19 up to relu3_1 from torchvision's file. Raises WeightsError."""
    state, arch = import_files("apntfusion", [path])
    trunk = MatchingTrunk(arch["trunk"])
    trunk.load_state_dict({name.removeprefix("Psi."): value for name, value in state.items()})
    return trunk


def tanh_mu_law_l1(outputs: Sequence[Tensor], truth: Tensor, aids: Aids) -> Tensor:
    """NTIRE's form, as ADNet was trained: ^2.24, over the truth's 99th percentile, tanh, μ-law, L1.

    The challenge's metric divides by the percentile of the truth, and so does this; ADNet's code
    takes that of the prediction under the name of the reference.
    """
    white = percentile(truth, NTIRE_PERCENTILE) ** NTIRE_GAMMA
    aim = compressed(truth, white)
    terms = [functional.l1_loss(compressed(y, white), aim) for y in outputs]
    return torch.stack(terms).mean()


def compressed(encoded: Tensor, white: Tensor) -> Tensor:
    """Gamma-encoded (B, 3, H, W) to μ-law of tanh of light over ``white`` (B, 1, 1, 1)."""
    return mu_law(torch.tanh(encoded.float().clamp(min=0) ** NTIRE_GAMMA / white))


def percentile(picture: Tensor, share: float) -> Tensor:
    """The value that ``share`` of a picture's numbers do not exceed, (B, 1, 1, 1), above 0."""
    numbers = picture.detach().float().flatten(1)
    rank = max(1, math.ceil(share * numbers.shape[1]))
    return numbers.kthvalue(rank, dim=1).values.clamp(min=1e-6).view(-1, 1, 1, 1)


LOSSES: Mapping[str, Loss] = {
    "mu-law": mu_law_l1,
    "log-squares": log_squares,
    "hybrid": hybrid,
    "masked": masked_l1,
    "tanh-mu-law": tanh_mu_law_l1,
}


def matching_loss(
    trunk: nn.Module,
    light: Tensor,
    tau_m: Tensor | float,
    generator: torch.Generator | None = None,
    *,
    places: int = 128,
    farthest: int = 12,
    temperature: float = 0.05,
    noise: float = 1e-4,
) -> Tensor:
    """Teach APNT-Fusion's matching trunk Ψ, to which the argmax lets no other gradient through.

    ``light`` (B, 3, H, W) is the truth, linear in [0, 1], sides multiples of 4; ``tau_m`` is the
    exposure of the medium over the short. A copy moved by up to ``farthest`` quarter-size pixels
    stands in for the short frame; both get sensor noise of variance ``noise`` × light and the
    masked domain. Then of all ``places`` a patch shall be likest to its own copy (InfoNCE, van den
    Oord et al., 2018).
    """
    cells = torch.randint(-farthest, farthest + 1, (2,), generator=generator).tolist()
    level = SATURATED / torch.as_tensor(tau_m).to(light).view(-1, 1, 1, 1)
    seen = [noisy(x, noise, generator) for x in (light.roll([4 * c for c in cells], (2, 3)), light)]
    photographs = torch.cat([displayed(masked_saturated(x, level), level) for x in seen])
    terms = []
    for scale, features in enumerate(trunk(photographs)):
        copy, original = features.float().chunk(2)
        back = copy.roll([-(4 * c >> scale) for c in cells], (2, 3))
        likeness = likenesses(back, original, places, generator) / temperature
        aim = torch.arange(likeness.shape[1], device=light.device).expand(len(light), -1)
        terms.append(functional.cross_entropy(likeness.transpose(1, 2), aim))
    return torch.stack(terms).mean()


def noisy(light: Tensor, noise: float, generator: torch.Generator | None) -> Tensor:
    """Light with shot noise of variance ``noise`` × light, not below 0."""
    draw = torch.randn(light.shape, generator=generator).to(light)
    return (light + draw * (noise * light).sqrt()).clamp(min=0)


def likenesses(
    copy: Tensor, original: Tensor, places: int, generator: torch.Generator | None
) -> Tensor:
    """Cosines of the 3×3 patches at some random places of both (B, C, h, w): (B, n, n)."""
    batch, _, h, w = copy.shape
    some = torch.randperm(h * w, generator=generator)[:places].to(copy.device)
    at = torch.cartesian_prod(torch.arange(batch, device=copy.device), some)
    k = torch.stack([at[:, 0], at[:, 1] // w, at[:, 1] % w], dim=1)
    patch = near(k, torch.Size((batch, h, w)), PATCH, PATCH)
    mine, copies = (
        functional.normalize(rows(x, PATCH)[patch].view(batch, len(some), -1), dim=2)
        for x in (original, copy)
    )
    return mine @ copies.mT
