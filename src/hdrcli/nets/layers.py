"""What more than one network is made of: EDVR's residual block and PCD alignment."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdrcli.nets.deform import DeformConv
from hdrcli.nets.fused import convolve


def conv3x3(cin: int, cout: int, *, stride: int = 1) -> nn.Conv2d:
    """3 × 3 with zeros outside: H and W stay, or are halved (rounded up) by stride 2."""
    return nn.Conv2d(cin, cout, 3, stride, 1)


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.1, EDVR's, in place."""
    return F.leaky_relu(x, 0.1, inplace=True)


def upsample2(x: Tensor) -> Tensor:
    """Twice the size, bilinear, pixel centres kept."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3 × 3, no normalisation (EDSR; EDVR's `ResidualBlock_noBN`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return convolve(self.conv2, convolve(self.conv1, x, "relu"), plus=x)


class PCDAlign(nn.Module):
    """Pyramid, cascading and deformable alignment of EDVR (Wang et al., CVPRW 2019, fig. 3).

    Offsets are predicted from coarse to fine (L3, L2, L1); a last deformable convolution, the
    cascade, aligns what is left.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        c = channels
        self.L3_offset_conv1 = conv3x3(2 * c, c)
        self.L3_offset_conv2 = conv3x3(c, c)
        self.L3_dcnpack = DeformConv(c, groups=groups)
        self.L2_offset_conv1 = conv3x3(2 * c, c)
        self.L2_offset_conv2 = conv3x3(2 * c, c)
        self.L2_offset_conv3 = conv3x3(c, c)
        self.L2_dcnpack = DeformConv(c, groups=groups)
        self.L2_fea_conv = conv3x3(2 * c, c)
        self.L1_offset_conv1 = conv3x3(2 * c, c)
        self.L1_offset_conv2 = conv3x3(2 * c, c)
        self.L1_offset_conv3 = conv3x3(c, c)
        self.L1_dcnpack = DeformConv(c, groups=groups)
        self.L1_fea_conv = conv3x3(2 * c, c)
        self.cas_offset_conv1 = conv3x3(2 * c, c)
        self.cas_offset_conv2 = conv3x3(c, c)
        self.cas_dcnpack = DeformConv(c, groups=groups)

    def forward(self, neighbour: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Bring the neighbour to the reference.

        Both are pyramids of features (L1, L2, L3): (B, C, H, W), (B, C, H/2, W/2),
        (B, C, H/4, W/4); H and W are multiples of 4. Returns (B, C, H, W).
        """
        guide = convolve(self.L3_offset_conv1, _pair(neighbour[2], reference[2]), "leaky_relu")
        guide = convolve(self.L3_offset_conv2, guide, "leaky_relu")
        aligned = lrelu(self.L3_dcnpack(neighbour[2], guide))
        # Offsets double with the picture; so, roughly, does the feature they are read from.
        coarse = upsample2(guide).mul_(2)
        guide = convolve(self.L2_offset_conv1, _pair(neighbour[1], reference[1]), "leaky_relu")
        guide = convolve(self.L2_offset_conv2, _pair(guide, coarse), "leaky_relu")
        guide = convolve(self.L2_offset_conv3, guide, "leaky_relu")
        fine = self.L2_dcnpack(neighbour[1], guide)
        aligned = convolve(self.L2_fea_conv, _pair(fine, upsample2(aligned)), "leaky_relu")
        coarse = upsample2(guide).mul_(2)
        guide = convolve(self.L1_offset_conv1, _pair(neighbour[0], reference[0]), "leaky_relu")
        guide = convolve(self.L1_offset_conv2, _pair(guide, coarse), "leaky_relu")
        guide = convolve(self.L1_offset_conv3, guide, "leaky_relu")
        fine = self.L1_dcnpack(neighbour[0], guide)
        aligned = self.L1_fea_conv(_pair(fine, upsample2(aligned)))
        guide = convolve(self.cas_offset_conv1, _pair(aligned, reference[0]), "leaky_relu")
        guide = convolve(self.cas_offset_conv2, guide, "leaky_relu")
        return lrelu(self.cas_dcnpack(aligned, guide))


def _pair(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat((a, b), 1)
