"""PSFNet: Ye, Xiao, Lam and Okatani, "Progressive and Selective Fusion Network for High Dynamic
Range Imaging", ACM Multimedia 2021.

Letters and equation numbers are the paper's. X_i = [L_i, H_i] with H_i = L_i^2.2 / t_i
(equation 1), darkest frame first, the second is the reference. What the paper leaves open
follows the work it cites: softmax over the branches of the SFFB and the hidden width from
selective kernels (Li et al., 2019), the dual attention block from MIRNet (Zamir et al., 2020),
both re-implemented from their papers.

No weights were ever published, so the names of the parameters are ours.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hdrcli.nets.fused import Chain, conv2d, convolve
from hdrcli.nets.head import Float32Conv2d
from hdrcli.nets.pooling import GlobalPool

FRAMES = 3


class PSFNet(nn.Module):
    """Three exposures to one HDR image (Figure 1).

    ``channels``, ``blocks`` (PSFBs) and ``dual_blocks`` are sizes. The ablations of the paper:
    ``fusion`` "sffb", "sum" or "concat" (Table 2), ``blocks`` 0 (without PSFBs), ``dual_blocks``
    0 (without DAB), ``local_skip``, ``global_skip`` (Table 3), ``blocks`` 4 to 8 (Table 4).
    """

    multiple_of = 1  # every height and width will do

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 6,
        dual_blocks: int = 4,
        reduction: int = 8,
        fusion: Literal["sffb", "sum", "concat"] = "sffb",
        *,
        local_skip: bool = True,
        global_skip: bool = True,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.local_skip, self.global_skip = local_skip, global_skip
        self.extract = conv3x3(6, channels)
        self.psfbs = nn.Sequential(
            *(PSFB(channels, FUSIONS[fusion](channels, reduction)) for _ in range(blocks))
        )
        self.reduce = conv3x3((FRAMES + 1) * channels, channels)
        self.dual = nn.Sequential(
            *(DualAttentionBlock(channels, reduction) for _ in range(dual_blocks))
        )
        self.after_dual = conv3x3(channels, channels)
        self.before_output = conv3x3(channels, channels)
        self.output = Float32Conv2d(channels, 3, 3, padding=1)

    @property
    def reach(self) -> int:
        """Pixels around an output pixel that it depends on, with the pools frozen."""
        return 1 + 2 * len(self.psfbs) + 1 + 4 * len(self.dual) + 3

    def forward(self, X_1: Tensor, X_2: Tensor, X_3: Tensor) -> Tensor:
        """Fuse short, reference and long, each (B, 6, H, W).

        Returns (B, 3, H, W) in float32: linear, in (0, 1), 1 is where the short frame clips.
        """
        F = self.features(X_1, X_2, X_3)
        F_2 = F.chunk(FRAMES)[1].clone()  # of its own, so that the blocks may overwrite F
        for psfb in self.psfbs:
            F = psfb(F)
        Z_1 = self.reduced(F, F_2)
        del F
        return torch.sigmoid(self.output(self.reconstruct(Z_1, F_2)))

    def features(self, X_1: Tensor, X_2: Tensor, X_3: Tensor) -> Tensor:
        """F_1, F_2, F_3 by one convolution, one after the other in the batch: (3B, C, H, W)."""
        return convolve(self.extract, torch.cat([X_1, X_2, X_3]), "relu")

    def reduced(self, F: Tensor, F_2: Tensor) -> Tensor:
        """Z_1 from the blocks' features of all frames and the first ones of the reference."""
        Z_0 = torch.cat([*F.chunk(FRAMES), F_2], dim=1)
        return convolve(self.reduce, Z_0, "relu")

    def reconstruct(self, Z_1: Tensor, F_2: Tensor) -> Tensor:
        """Section 3.3, up to the last convolution. The skips are those of AHDRNet [28]."""
        Z = convolve(self.after_dual, self.dual(Z_1), plus=Z_1 if self.local_skip else None)
        if self.global_skip:
            Z = Z + F_2
        return convolve(self.before_output, Z, "relu")


class PSFB(nn.Module):
    """Progressive and selective fusion block (Figure 2), on (3B, C, H, W)."""

    def __init__(self, channels: int, fuse: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.fuse = fuse
        self.conv2 = conv3x3(2 * channels, channels)

    def forward(self, F_0: Tensor) -> Tensor:
        """Move the three features one step; both convolutions are shared by the frames.

        F_0 may be overwritten where no gradients are kept.
        """
        F_1 = convolve(self.conv1, F_0, "relu")  # (2)
        F_2 = self.fuse(F_1.chunk(FRAMES))  # (3)
        return self.compare(F_2, F_1, F_0)  # (4)

    def compare(self, F_2: Tensor, F_1: Tensor, F_0: Tensor) -> Tensor:
        """Conv2([F_2, F_1_i]) + F_0_i. What reads F_2 is the same for all i: computed once."""
        fused, own = self.conv2.weight.chunk(2, dim=1)
        compared = conv2d(F_1, own, self.conv2.bias, plus=F_0, onto=True)
        compared.view(FRAMES, *F_2.shape).add_(conv2d(F_2, fused, None))
        return compared


class SFFB(nn.Module):
    """Selective feature fusion block (Figure 3): each frame's channels by learned shares."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.pool = GlobalPool()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.PReLU())
        self.excite = nn.ModuleList(
            nn.Conv2d(hidden, channels, 1, bias=False) for _ in range(FRAMES)
        )

    def forward(self, F_1: tuple[Tensor, ...]) -> Tensor:
        """Fuse three (B, C, H, W). The mean of the sum is the sum of the means."""
        means = [self.pool(F_1_i, slot) for slot, F_1_i in enumerate(F_1)]
        z = self.squeeze(torch.stack(means).sum(dim=0))
        shares = torch.stack([excite(z) for excite in self.excite]).softmax(dim=0)
        F_2 = shares[0] * F_1[0]
        for share, F_1_i in zip(shares[1:], F_1[1:], strict=True):
            F_2.addcmul_(share.to(F_2.dtype), F_1_i)
        return F_2


class SumFusion(nn.Module):
    """Table 2, "Summation"."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()

    def forward(self, F_1: tuple[Tensor, ...]) -> Tensor:
        """Add three (B, C, H, W)."""
        return F_1[0] + F_1[1] + F_1[2]


class ConcatFusion(nn.Module):
    """Table 2, "Concatenation": stacked, and brought back to C channels."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(FRAMES * channels, channels, 1)

    def forward(self, F_1: tuple[Tensor, ...]) -> Tensor:
        """Mix three (B, C, H, W) pixel by pixel."""
        mixed: Tensor = self.conv(torch.cat(F_1, dim=1))
        return mixed


FUSIONS = {"sffb": SFFB, "sum": SumFusion, "concat": ConcatFusion}


class DualAttentionBlock(nn.Module):
    """Residual dual attention block (Figures 4 and 5), on (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.body = Chain(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.PReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, 5, padding=2, bias=False)
        self.channel = ChannelAttention(channels, reduction)
        self.merge = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, Z: Tensor) -> Tensor:
        """Weigh places and channels side by side, mix both, add the input."""
        U = self.body(Z)
        maps = torch.cat([U.amax(dim=1, keepdim=True), U.mean(dim=1, keepdim=True)], dim=1)
        places = torch.sigmoid(self.spatial(maps))
        both = torch.cat([U * places, U * self.channel(U)], dim=1)
        return convolve(self.merge, both, plus=Z)


class ChannelAttention(nn.Module):
    """Squeeze and excitation [9]: one factor in (0, 1) per channel, (B, C, 1, 1)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_width(channels, reduction)
        self.pool = GlobalPool()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, U: Tensor) -> Tensor:
        """Look at the channel means of ``U``."""
        z = torch.relu(self.squeeze(self.pool(U)))
        factors: Tensor = torch.sigmoid(self.excite(z))
        return factors


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def hidden_width(channels: int, reduction: int) -> int:
    """Width between the two fully connected layers."""
    return max(channels // reduction, 4)
