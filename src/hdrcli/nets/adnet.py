"""ADNet: attention-guided deformable convolution (Liu et al., CVPRW 2021).

Letters of the paper: I_i the photographs (1 short, 2 medium = reference r, 3 long), Ĩ_i the
gamma-corrected photographs (eq. 1), A the spatial attention, P the PCD alignment, f_i^t and f_i^l
the features they give, I^H the result.

Where paper and published code differ, the code's way is taken, because weights are trained so:
Ĩ_i is not the linear I_i^γ / t_i of eq. 1 but stays gamma-encoded and relative to the reference,
Ĩ_i = (I_i^γ · t_r / t_i)^(1/γ), γ = 2.24, and the network returns I^H in that domain, unbounded
above. `output="sigmoid"` bounds it to [0, 1], as others train it on Kalantari's data.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hdrcli.nets.deform import DeformConv
from hdrcli.nets.fused import Chain, convolve
from hdrcli.nets.head import Float32Conv2d
from hdrcli.nets.layers import PCDAlign, ResidualBlock, conv3x3, lrelu

OUTPUTS = {"relu": torch.relu, "sigmoid": torch.sigmoid}
# Pixels that each kind of alignment sees around an output pixel, pyramid and offsets' convolutions
# included, offsets not.
_ALIGN_REACH = {"pcd": 38, "single": 6, "none": 0}


class ADNet(nn.Module):
    """Three photographs to I^H (eq. 2).

    channels, growth, dense_layers, blocks: widths and depths of the features and of the DRDBs.
    groups: deformable groups; divides channels. output: "relu" or "sigmoid".
    Ablations (table 3): attention; align "pcd", "single" (one scale) or "none"; dual=False gives
    both branches both halves of the input. The paper's baseline is attention=True, align="none",
    dual=False; variant 1 attention=False, align="single", dual=False; variant 2 the same with
    "pcd".
    """

    multiple_of = 4  # the features are halved twice

    def __init__(
        self,
        *,
        channels: int = 64,
        growth: int = 32,
        dense_layers: int = 5,
        blocks: int = 3,
        groups: int = 8,
        output: str = "relu",
        attention: bool = True,
        align: str = "pcd",
        dual: bool = True,
    ) -> None:
        super().__init__()
        if align not in _ALIGN_REACH or output not in OUTPUTS or not (attention or align != "none"):
            raise ValueError(f"no such ADNet: {align=}, {output=}, {attention=}")
        self.channels = channels
        self.depth = blocks * dense_layers
        self.dual, self.attention, self.align, self.output = dual, attention, align, output
        c, cin = channels, 3 if dual else 6
        self.pyramid_feats: PyramidFeatures | None = None
        self.align_module: PCDAlign | DeformAlign | None = None
        if align != "none":
            self.pyramid_feats = PyramidFeatures(cin, c, levels=3 if align == "pcd" else 1)
            kind = PCDAlign if align == "pcd" else DeformAlign
            self.align_module = kind(c, groups=groups)
        if attention:
            self.att_module_l = SpatialAttention(c)
            self.att_module_h = SpatialAttention(c)
            self.feat_extract = conv3x3(cin, c)
        features = 3 * (int(attention) + int(align != "none"))
        self.conv1 = conv3x3(features * c, c)
        self.RDB = nn.ModuleList(DRDB(c, growth, dense_layers) for _ in range(blocks))
        self.conv2 = Chain(nn.Conv2d(blocks * c, c, 1), conv3x3(c, c))
        self.post_conv = Chain(conv3x3(c, c), nn.LeakyReLU(0.01), Float32Conv2d(c, 3, 3, padding=1))

    @property
    def reach(self) -> int:
        """Pixels around an output pixel that it depends on, besides how far the offsets point.

        Deformable offsets are not bounded; trained ones are a few pixels.
        """
        fuse = 1 + 2 * self.depth + 1 + 2
        return fuse + max(3 if self.attention else 0, _ALIGN_REACH[self.align])

    def forward(self, X_1: Tensor, X_2: Tensor, X_3: Tensor) -> Tensor:
        """Fuse short, reference (medium) and long, each (B, 6, H, W).

        Channels: I_i RGB in [0, 1], then Ĩ_i RGB (for the reference I_r again). H and W are
        multiples of 4. Returns I^H (B, 3, H, W) in float32, gamma-encoded, relative to the
        reference, at least 0.
        """
        features, skip = self.features((X_1, X_2, X_3))
        return OUTPUTS[self.output](self.fuse(features, skip))

    def features(self, X: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Every frame's f^l then f^t, in order of exposure (B, 6C, H, W), and the global skip."""
        halves = [x.chunk(2, 1) if self.dual else (x, x) for x in X]
        aligned = self._aligned([gamma for _, gamma in halves])
        attended = self._attended([ldr for ldr, _ in halves])
        every = [f for frame in zip(aligned, attended, strict=True) for f in frame if f is not None]
        return torch.cat(every, 1), every[len(every) // 3]

    def _aligned(self, gamma: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """f_i^l = P(Ĩ_i, Ĩ_r) (eq. 4); the reference's own features are not aligned."""
        if self.pyramid_feats is None or self.align_module is None:
            return (None, None, None)
        reference = self.pyramid_feats(gamma[1])
        short, long = (
            self.align_module(self.pyramid_feats(image), reference) for image in gamma[::2]
        )
        return short, reference[0], long

    def _attended(self, ldr: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """f_i^t = A(I_i, I_r) · features of I_i (eq. 3); the reference's are not weighted."""
        if not self.attention:
            return (None, None, None)
        short, reference, long = (convolve(self.feat_extract, image, "relu") for image in ldr)
        return (
            short * self.att_module_l(short, reference),
            reference,
            long * self.att_module_h(long, reference),
        )

    def fuse(self, features: Tensor, skip: Tensor) -> Tensor:
        """Fusion subnet (figure 2c) up to the last activation."""
        x = self.conv1(features)
        dense = []
        for block in self.RDB:
            x = block(x)
            dense.append(x)
        x = self.conv2(torch.cat(dense, 1), plus=skip)
        return cast("Tensor", self.post_conv(x))


class PyramidFeatures(nn.Module):
    """Features of one Ĩ_i at full, half and quarter size; shared by the frames."""

    def __init__(self, cin: int, channels: int, *, levels: int) -> None:
        super().__init__()
        c = channels
        self.conv1 = Chain(nn.Conv2d(cin, c, 1), nn.LeakyReLU(0.1))
        self.feature_extraction = nn.Sequential(ResidualBlock(c))
        self.downsample = nn.ModuleList(
            Chain(conv3x3(c, c, stride=2), nn.LeakyReLU(0.1), conv3x3(c, c), nn.LeakyReLU(0.1))
            for _ in range(levels - 1)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, cin, H, W) to [(B, C, H, W), (B, C, H/2, W/2), …], one per level."""
        levels = [self.feature_extraction(self.conv1(image))]
        for downsample in self.downsample:
            levels.append(downsample(levels[-1]))
        return levels


class DeformAlign(nn.Module):
    """Deformable alignment at one scale (variant 1 of table 3)."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.offset_conv1 = conv3x3(2 * channels, channels)
        self.offset_conv2 = conv3x3(channels, channels)
        self.dcnpack = DeformConv(channels, groups=groups)

    def forward(self, neighbour: list[Tensor], reference: list[Tensor]) -> Tensor:
        """Bring the first level of the neighbour to the reference: (B, C, H, W)."""
        both = torch.cat((neighbour[0], reference[0]), 1)
        guide = convolve(self.offset_conv1, both, "leaky_relu")
        guide = convolve(self.offset_conv2, guide, "leaky_relu")
        return lrelu(self.dcnpack(neighbour[0], guide))


class SpatialAttention(nn.Module):
    """Table 1: the weights, in [0, 1], of one frame's features. Leaky ReLU 0.01 as in the code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.att1 = conv3x3(2 * channels, 2 * channels)
        self.att2 = conv3x3(2 * channels, channels)

    def forward(self, feature: Tensor, reference: Tensor) -> Tensor:
        """(B, C, H, W) twice to (B, C, H, W)."""
        both = torch.cat((feature, reference), 1)
        return convolve(self.att2, convolve(self.att1, both, "leaky_relu", slope=0.01), "sigmoid")


class DRDB(nn.Module):
    """Dilated residual dense block (Yan et al., AHDRNet, CVPR 2019)."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.dense_layers = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth, 3, padding=2, dilation=2)
            for i in range(layers)
        )
        self.conv_1x1 = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        dense = x
        for layer in self.dense_layers:
            dense = torch.cat((dense, convolve(layer, dense, "relu")), 1)
        return convolve(self.conv_1x1, dense, plus=x)
