"""Denoiser: takes noise that can be seen out of a merge, and never more than the noise explains.

A merge knows how uncertain each of its pixels is: the inverse of its weights' sum is the variance
of what it says. Where the frames that would have averaged the noise away are not believed, or
where it is dark, that is much. The network sees the merge in units of that deviation, says where
the light more likely is, and is heard up to REACH deviations, so that the result stays what the
measurements allow; and what it adds up to over KEPT pixels is taken back, for a mean over so many
is hardly noise, and light must not get lost:

    v = log(1 + X / KNEE)                        v's deviation: s = deviation / (KNEE + X)
    r = s REACH tanh(UNet((v - mean of v around) / s, v, s, clipped)) known(s, clipped)
    v <- v + hearing(s, X) (r - mean of r around)

Light that is known to LEAST_SEEN of itself is not touched at all. Nor is a channel that is dark
beside the others of its pixel, unless its noise would be seen in their company: the green of a
red lamp.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets.flowmerge import UNet, zeroed

INPUTS = 8
KNEE = 2e-3  # light, the reference's white at 1.0, below which differences count more than ratios
DARKNESS = 5e-3  # light whose shot noise is as large as the noise of reading: see sights.Noise
MOST = 0.5  # the largest deviation of v that is reckoned with: of a bound nothing is known
REACH = 2.0  # deviations
LEAST_SEEN, WELL_SEEN = 0.01, 0.02  # deviations of v between which noise begins to be seen
BARELY = 0.2, 0.3  # the same of light where the reference clips: beyond, it is only bounded
BESIDE = 0.25  # of a pixel's brightest channel, in the company of which the others are seen
STEEP = 8.0  # deviations from the mean around beyond which it is not noise, whatever it is
NEAR = 4  # px, of the mean that a pixel is compared with
KEPT = 8  # px, of the means that stay


class Denoiser(nn.Module):
    """The whole network. ``multiple_of`` sides divide by 8."""

    multiple_of = 8

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48)) -> None:
        super().__init__()
        self.unet = UNet(INPUTS, tuple(widths))
        self.last = zeroed(nn.Conv2d(widths[0], 12, 3, 1, 1))

    def forward(self, radiance: Tensor, deviation: Tensor, clipped: Tensor) -> Tensor:
        """Radiance (B, 3, H, W) without the noise that would be seen.

        ``radiance``: linear, the reference's white at 1.0. ``deviation`` (B, 1, H, W): of it.
        ``clipped`` (B, 1, H, W): 1 where the reference clips.
        """
        noise = noise_of(radiance, deviation)
        return moved(radiance, hearing(noise, radiance) * self.residual(radiance, noise, clipped))

    def everywhere(self, radiance: Tensor, deviation: Tensor, clipped: Tensor) -> Tensor:
        """The same without regard to what can be seen: what the training sees."""
        noise = noise_of(radiance, deviation)
        return moved(radiance, self.residual(radiance, noise, clipped))

    def residual(self, radiance: Tensor, noise: Tensor, clipped: Tensor) -> Tensor:
        """What is added to v, (B, 3, H, W)."""
        said = F.pixel_shuffle(self.said(seen(radiance, noise, clipped)), 2)
        reach = REACH * noise
        wanted = reach * torch.tanh(said / REACH) * known(noise, clipped)
        return (wanted - around(wanted, KEPT)).clamp(-reach, reach)

    def said(self, x: Tensor) -> Tensor:
        """What the network says of what it sees, (B, INPUTS, H, W): (B, 12, H / 2, W / 2)."""
        features = self.unet(x.contiguous(memory_format=torch.channels_last))
        return torch.as_tensor(self.last(features[0]))


def noise_of(radiance: Tensor, deviation: Tensor) -> Tensor:
    """The deviation of v, (B, 3, H, W). ``deviation`` is the brightest channel's."""
    brightest = radiance.amax(1, keepdim=True)
    each = deviation * ((radiance + DARKNESS) / (brightest + DARKNESS)).sqrt()
    return (each / (KNEE + radiance)).clamp_max(MOST)


def hearing(noise: Tensor, radiance: Tensor) -> Tensor:
    """How far a correction is heard, 0 to 1: as the noise is seen in its pixel."""
    company = radiance.maximum(BESIDE * radiance.amax(1, keepdim=True))
    noticed = noise * (KNEE + radiance) / (KNEE + company)
    return ((noticed - LEAST_SEEN) / (WELL_SEEN - LEAST_SEEN)).clamp(0, 1)


def known(noise: Tensor, clipped: Tensor) -> Tensor:
    """How far light is measured at all, 0 to 1: what is only bounded by clipping has no noise."""
    least, most = BARELY
    unsure = ((noise.amax(1, keepdim=True) - least) / (most - least)).clamp(0, 1)
    return 1 - clipped * unsure


def seen(radiance: Tensor, noise: Tensor, clipped: Tensor) -> Tensor:
    """What the network sees, (B, INPUTS, H, W), each about as large as 1."""
    v = torch.log1p(radiance / KNEE)
    apart = ((v - around(v, NEAR)) / noise).clamp(-STEEP, STEEP) / 2
    amount = noise.amax(1, keepdim=True).clamp_min(1e-4).log() / 2 + 1.5
    return torch.cat([apart, v / 4 - 1, amount, clipped], dim=1)


def around(x: Tensor, size: int) -> Tensor:
    """Means over blocks of ``size`` pixels, and between them, (B, C, H, W)."""
    means = F.avg_pool2d(x, size)
    return F.interpolate(means, scale_factor=size, mode="bilinear", align_corners=False)


def moved(radiance: Tensor, residual: Tensor) -> Tensor:
    """Radiance whose v is larger by ``residual``; where that is 0, the very same."""
    return (radiance + (KNEE + radiance) * torch.expm1(residual)).clamp_min(0)
