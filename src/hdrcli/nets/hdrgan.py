"""HDR-GAN (Niu, Wu, Dai, Liu, Li and Zhang, IEEE TIP 2021).

Letters of the paper: X_i the inputs (eq. 2), E_s^i the features of encoder i at scale s (0 is full
size), M_s the merged features (eq. 3, 4), D_i^s the decoding blocks (eq. 5), H^(i) the outputs, q
the discriminator's output and p its projection on the hypersphere (eq. 7), N the north pole.

Where paper and published code differ, the code's way is taken, because weights are trained so:
X_i = [L_i, T(H_i)], both scaled to [-1, 1]; that is, the second half is the linearised photograph
after the μ-law of eq. 1, and the outputs are in that domain too. All convolutions reflect the
picture at its border. Discriminator, sphere loss and spectral normalisation are for training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from hdrcli.nets.fused import ReflectConv2d, convolve
from hdrcli.nets.head import Float32Conv2d

_BOTTLENECK = 512  # channels that a merging block may read


class HDRGAN(nn.Module):
    """The generator: three photographs to H^(1) … H^(scales - 1).

    channels: at full size; doubled at every scale. scales: 3 in the paper, 2 and 4 in table II.
    merging=False: the encoders are joined by one convolution ("w/o merging blocks").
    spectral=True normalises the weights while training; `fold` makes them plain ones.
    """

    def __init__(
        self,
        *,
        channels: int = 32,
        scales: int = 3,
        merging: bool = True,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        c = [channels << s for s in range(scales)]
        self.channels = channels
        self.scales = scales
        self.encoders = nn.ModuleList(Encoder(c) for _ in range(3))
        self.merge = nn.ModuleList(Merge(n) if merging else Join(n) for n in c)
        blocks = [(i, s) for i in range(1, scales) for s in range(scales - i)]
        self.up = nn.ModuleDict({f"{i}{s}": Upsample(c[s + 1], c[s]) for i, s in blocks})
        self.decoders = nn.ModuleDict(
            {f"{i}{s}": Residual((i + 2) * c[s], c[s]) for i, s in blocks}
        )
        self.outputs = nn.ModuleList(Float32Conv2d(channels, 3, 1) for _ in range(1, scales))
        if spectral:
            for module in (self.encoders, self.merge, self.decoders, self.outputs):
                _normalise(module)

    @property
    def multiple_of(self) -> int:
        """Heights and widths that the network takes; at least three pixels at the last scale."""
        return 1 << (self.scales - 1)

    @property
    def reach(self) -> int:
        """Pixels around an output pixel that it depends on."""
        last = self.scales - 1
        encode = sum((2 + (s < last)) << s for s in range(self.scales))
        merge = (8 if isinstance(self.merge[0], Merge) else 1) << last
        decode = sum(3 << s for s in range(last))
        return encode + merge + decode + self.multiple_of - 1

    def forward(self, X_1: Tensor, X_2: Tensor, X_3: Tensor) -> tuple[Tensor, ...]:
        """Fuse short, reference and long, each (B, 6, H, W): [L_i, T(H_i)], RGB, in [-1, 1].

        H_i = L_i^2.2 / t_i with t relative to the shortest exposure, 8-bit codes over 255 as L_i.
        Returns H^(1), H^(2), …, each (B, 3, H, W) in float32: tone-mapped like the input, in
        (-1, 1); radiance is ((1 + μ)^((y + 1) / 2) - 1) / μ, 1 where the short frame clips. The
        last one is the best of the paper's network.
        """
        E = [encoder(x) for encoder, x in zip(self.encoders, (X_1, X_2, X_3), strict=True)]
        D = self.decode(self.fuse(E), E[1])
        return tuple(
            torch.tanh(output(D[f"{i}0"])) for i, output in enumerate(self.outputs, start=1)
        )

    def fuse(self, E: list[list[Tensor]]) -> list[Tensor]:
        """M_s, one per scale, (B, C·2^s, H/2^s, W/2^s), from the features of the three encoders."""
        scales = zip(*E, strict=True)
        return [merge(*features) for merge, features in zip(self.merge, scales, strict=True)]

    def decode(self, M: list[Tensor], E_2: list[Tensor]) -> dict[str, Tensor]:
        """D_i^s by name "is" (eq. 5): [up(D_{i-1}^{s+1}), M_s, E_s^2, D_1^s … D_{i-1}^s].

        D_0 is M: the first level reads the merged features of the next scale.
        """
        D = {f"0{s}": m for s, m in enumerate(M)}
        for name, block in self.decoders.items():
            i, s = int(name[0]), int(name[1])
            up = self.up[name](D[f"{i - 1}{s + 1}"])
            finished = [D[f"{j}{s}"] for j in range(1, i)]
            D[name] = block(torch.cat([up, M[s], E_2[s], *finished], 1))
        return D


class Encoder(nn.Module):
    """One photograph's features at every scale; each photograph has its own encoder."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        widths = zip([6, *channels], channels, strict=False)
        self.blocks = nn.ModuleList(Residual(cin, cout) for cin, cout in widths)
        self.down = nn.ModuleList(conv3x3(c, c, stride=2) for c in channels[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 6, H, W) to E_0, E_1, …, at full size, half, …"""
        E = [self.blocks[0](x)]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            E.append(block(convolve(down, E[-1], "relu")))
        return E


class Residual(nn.Module):
    """Two convolutions and a skip, itself a 1 × 1 convolution where the width changes."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(cin, cout)
        self.conv2 = conv3x3(cout, cout)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) to (B, cout, H, W)."""
        skip = self.skip(x)
        return convolve(self.conv2, convolve(self.conv1, x, "relu"), "relu", plus=skip)


class Merge(nn.Module):
    """Reference-based residual merging: what the three photographs add to the reference (eq. 3, 4).

    Dilation 2 lets features look for what has moved.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        cin = 3 * channels
        self.bottleneck: nn.Module = nn.Identity()
        if cin > _BOTTLENECK:
            cin = _BOTTLENECK // 3 * 3
            self.bottleneck = nn.Conv2d(3 * channels, cin, 1, groups=3)
        self.convs = nn.ModuleList(
            conv3x3(cin if i == 0 else channels, channels, dilation=2) for i in range(4)
        )

    def forward(self, short: Tensor, reference: Tensor, long: Tensor) -> Tensor:
        """Three times (B, C, h, w) to M (B, C, h, w)."""
        *first, last = self.convs
        x = self.bottleneck(torch.cat((short, reference, long), 1))
        for conv in first:
            x = convolve(conv, x, "relu")
        return convolve(last, x, "relu", plus=reference)


class Join(nn.Module):
    """What stands in for a merging block in the ablation: one convolution, no residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(3 * channels, channels)

    def forward(self, short: Tensor, reference: Tensor, long: Tensor) -> Tensor:
        """Three times (B, C, h, w) to M (B, C, h, w)."""
        return convolve(self.conv, torch.cat((short, reference, long), 1), "relu")


class Upsample(nn.Module):
    """Nearest neighbour to twice the size, then a convolution, which is never normalised."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = conv3x3(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, h, w) to (B, cout, 2h, 2w)."""
        return convolve(self.conv, F.interpolate(x, scale_factor=2.0, mode="nearest"), "relu")


def conv3x3(cin: int, cout: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3 × 3 over a picture that is reflected at its border; stride 2 halves, rounding up."""
    return ReflectConv2d(cin, cout, 3, stride, dilation, dilation, padding_mode="reflect")


# -- spectral normalisation [37] --------------------------------------------------------------


def _normalise(module: nn.Module) -> None:
    """Divide every convolution's weights by an estimate of their largest singular value."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d):
            spectral_norm(layer)


def fold(module: nn.Module) -> None:
    """Replace normalised weights by what they are worth now, in place: faster, plain names."""
    module.eval()  # or reading the weights would move the estimate
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d) and is_parametrized(layer, "weight"):
            remove_parametrizations(layer, "weight", leave_parametrized=True)


# -- the adversary, section III-B -------------------------------------------------------------


class Discriminator(nn.Module):
    """PatchGAN with spectral normalisation and swish: a map of how real each patch looks.

    channels: 64, then twice that in the paper. Reads pictures in the tone-mapped domain.
    """

    def __init__(self, *, channels: int = 64) -> None:
        super().__init__()
        c = [3, channels, 2 * channels, 2 * channels, 2 * channels]
        strides = (2, 2, 2, 1)
        layers: list[nn.Module] = []
        for cin, cout, stride in zip(c, c[1:], strides, strict=False):
            layers += [nn.Conv2d(cin, cout, 4, stride), nn.SiLU()]
        layers.append(nn.Conv2d(c[-1], 1, 4, padding=1, padding_mode="reflect"))
        self.layers = nn.Sequential(*layers)
        _normalise(self.layers)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, 1, h, w), about an eighth of the size; H, W ≥ 54."""
        q: Tensor = self.layers(picture)
        return q


def sphere_moments(q: Tensor, *, moments: int = 3, pole: bool = False) -> Tensor:
    """Σ_r d(p, N)^r, r = 1 … moments, of every map in the batch: (B, …) to (B,). Equations 7 to 9.

    q is flattened to a point of R^n and projected to p on the hypersphere in R^(n+1) by the
    inverse of the stereographic projection; d is the angle between p and N. The paper's N is the
    north pole e_(n+1); the published code measures from e_1, and so does this without `pole`.
    """
    q = q.flatten(1).float()
    square = q.square().sum(1)
    # p = (2 q, |q|² - 1) / (|q|² + 1)                                                      (7)
    towards = square - 1 if pole else 2 * q[:, 0]
    cosine = towards / (square + 1)
    d = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))  # (8); its slope is infinite at the ends
    return torch.stack([d**r for r in range(1, moments + 1)]).sum(0)


def generator_loss(fakes: list[Tensor], *, moments: int = 3, pole: bool = False) -> Tensor:
    """The generator's part of equation 9, a number to minimise, from D's maps of every H^(i)."""
    return -_mean_moments(fakes, moments, pole=pole)


def discriminator_loss(
    real: Tensor, fakes: list[Tensor], *, moments: int = 3, pole: bool = False
) -> Tensor:
    """The discriminator's part of equation 9, a number to minimise.

    `real` is D's map of the truth, `fakes` those of every H^(i), detached from the generator.
    """
    return _mean_moments(fakes, moments, pole=pole) - _mean_moments([real], moments, pole=pole)


def _mean_moments(maps: list[Tensor], moments: int, *, pole: bool) -> Tensor:
    return torch.stack([sphere_moments(q, moments=moments, pole=pole).mean() for q in maps]).mean()
