"""APNT-Fusion: Chen, Yang, Chan, Li, Hou and Chau, "Attention-Guided Progressive Neural Texture
Fusion for High Dynamic Range Image Restoration", IEEE Transactions on Image Processing, 2022.

Letters and equation numbers are the paper's: short, medium (the reference) and long exposures
s, m, l; scales 0 (full size), 1 (half), 2 (quarter); H_k = I_k^2.2 / τ_k (equation 3) with
τ_s = 1, so that H is relative to the short exposure and the medium clips at 1 / τ_m.

Where the paper is silent or cannot be meant as printed:

- Equation 5 divides by the norm of the target patch, which is the same for every candidate, so
  that the candidate with most energy would win. SRNTT [29], where it comes from, divides by the
  candidate's: the default. ``normalize="target"`` is the printed one.
- Features are matched and swapped only where the medium is saturated. Elsewhere the medium
  knows best, and the cost is that of the saturated area.
- The sigmoid that keeps the output in [0, 1] (section III-D) is put around equation 14, whose
  H_m therefore enters as its logit: where nothing is changed H_m comes back.
- Channel attention blocks are those of RCAN [28].

No weights were ever published, so the names of the parameters are ours, but for the matching
trunk, whose names are those of torchvision's VGG19.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hdrcli.nets.fused import Chain, convolve
from hdrcli.nets.head import Float32Conv2d
from hdrcli.nets.matching import Normalize, match, swap
from hdrcli.nets.pooling import GlobalPool, recording

GAMMA = 2.2
SATURATED = 0.95  # ε: share of the linear range from which a pixel counts as saturated
SCALES = 3
DARKEST = 1e-6  # H_m below this has the logit of this
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

MEDIUM, SHORT, MASKED_SHORT = range(3)  # slots: what goes through the encoder


class APNTFusion(nn.Module):
    """Three exposures to one HDR image (Figure 1).

    Sizes: ``channels``, ``mef_blocks`` (CABs of N_mef), ``blocks`` (CABs per scale of F_enc and
    F_dec), ``reduction`` of the channel attention, ``trunk`` (widths of Ψ; VGG19 has 64, 128,
    256). ``windows`` are the search radii ω_0, ω_1, ω_2 in pixels of their scale. ``epsilon`` is
    ε of the masked domain.

    Ablations of Table II: ``ms_hdr`` False matches H_s itself, ``transfer`` False is "w/o NFT",
    ``levels`` 1 matches relu1_1 alone ("w/o VGG-L2L3"; ω_2 is then its radius), ``matching``
    "encoder" is "w/o VGG w F_enc", ``motion_attention`` and ``scale_attention`` False set these
    maps to 1.
    """

    multiple_of = 4  # the features are halved twice

    def __init__(
        self,
        channels: int = 64,
        mef_blocks: int = 8,
        blocks: int = 2,
        reduction: int = 16,
        trunk: Sequence[int] = (64, 128, 256),
        windows: Sequence[int] = (2, 2, 16),
        epsilon: float = SATURATED,
        matching: Literal["trunk", "encoder"] = "trunk",
        normalize: Normalize = "candidate",
        levels: int = SCALES,
        *,
        ms_hdr: bool = True,
        transfer: bool = True,
        motion_attention: bool = True,
        scale_attention: bool = True,
    ) -> None:
        super().__init__()
        self.windows, self.epsilon, self.levels = tuple(windows), epsilon, levels
        self.normalize, self.ms_hdr, self.transfer = normalize, ms_hdr, transfer
        self.channels = channels
        self.blocks, self.mef_blocks = blocks, mef_blocks
        C = channels
        self.F_ex = convolutions(3, C, C)
        self.F_mt_s = convolutions(2 * C, C, C) if motion_attention else None
        self.F_mt_l = convolutions(2 * C, C, C) if motion_attention else None
        self.F_sat = convolutions(3, C, C)
        self.F_enc = Encoder(C, blocks, reduction)
        self.F_dec = Decoder(C, blocks, reduction)
        self.up_1 = nn.ConvTranspose2d(C, C, 4, stride=2, padding=1)
        self.up_2 = nn.ConvTranspose2d(C, C, 8, stride=4, padding=2)
        self.F_sc_0 = convolutions(2 * C, C, C) if scale_attention else None
        self.F_sc_1 = convolutions(2 * C, C, C) if scale_attention else None
        self.N_mef = nn.Sequential(
            nn.Conv2d(6 * C, C, 3, padding=1), *(CAB(C, reduction) for _ in range(mef_blocks))
        )
        self.output = Float32Conv2d(C, 3, 3, padding=1)
        self.F_wgt = Chain(
            nn.Conv2d(C, C, 3, padding=1), nn.ReLU(), Float32Conv2d(C, 3, 3, padding=1)
        )
        self.apply(xavier)
        self.start_at_the_medium()
        self.Psi = MatchingTrunk(trunk) if transfer and matching == "trunk" else None

    def start_at_the_medium(self) -> None:
        """Begin training near H_out = H_m: a small residual, and little weight on losing H_m."""
        nn.init.xavier_uniform_(self.output.weight, gain=0.1)
        nn.init.constant_(self.F_wgt.get_parameter("2.bias"), -4.0)

    @property
    def reach(self) -> int:
        """Pixels around an output pixel that it may depend on, with the pools frozen.

        An upper bound. The search makes most of it: without saturated pixels near by, the reach
        is less by ``search``.
        """
        cabs = 2 * self.blocks  # of one scale, in its pixels
        encoded = 4 + (cabs + 1) + 2 * (cabs + 1) + 4 * cabs
        decoded = 4 * (cabs + 1) + 2 * (cabs + 2) + (cabs + 1)
        upsampled = 8
        blended = 2 + 1 + 2 * self.mef_blocks + 1
        return encoded + self.search + decoded + upsampled + blended

    @property
    def search(self) -> int:
        """Pixels from a saturated pixel to the farthest one that the match may look at."""
        if not self.transfer:
            return 0
        coarse = self.levels - 1
        far = (self.windows[-1] + 2) << coarse
        far += sum((self.windows[level] + 1) << level for level in range(coarse))
        return far + 4 + 4  # the cell that a pixel shares, the patch that covers it

    def forward(self, H_s: Tensor, H_m: Tensor, H_l: Tensor, tau_m: Tensor | float) -> Tensor:
        """Fuse short, medium and long, each (B, 3, H, W), linear, 1 where the short clips.

        ``tau_m`` is the exposure of the medium over that of the short, one number or (B,).
        H and W are multiples of 4. Returns (B, 3, H, W) in float32, linear, in [0, 1].
        """
        if H_m.shape[-2] % self.multiple_of or H_m.shape[-1] % self.multiple_of:
            raise ValueError(f"sides must be multiples of {self.multiple_of}: {H_m.shape}")
        level = self.epsilon / torch.as_tensor(tau_m).to(H_m).view(-1, 1, 1, 1)
        F_s, F_m, F_l = self.F_ex(torch.cat([H_s, H_m, H_l]), "relu").chunk(3)
        A_mt_s = attention(self.F_mt_s, F_s, F_m)
        A_mt_l = attention(self.F_mt_l, F_l, F_m)
        F_mef = torch.cat([F_m, F_s * A_mt_s, F_l * A_mt_l], dim=1)  # (4)

        M_sat_m = H_m >= level
        A_sat_m = attention(self.F_sat, M_sat_m.to(F_m.dtype))
        F_swp = self.transferred(F_s, F_m, A_mt_s, (H_s, H_m), level, M_sat_m)
        del F_s, F_m, F_l, A_mt_s, A_mt_l  # memory is what limits tiles
        F_all = torch.cat([*self.blend(F_swp, A_sat_m), F_mef], dim=1)
        del F_swp, F_mef
        H_mef = self.output(self.N_mef(F_all))  # (13)
        w = self.F_wgt(A_sat_m, "sigmoid")
        H_out: Tensor = torch.sigmoid(torch.logit(H_m.float(), DARKEST) * (1 - w) + H_mef)  # (14)
        return H_out

    def transferred(
        self,
        F_s: Tensor,
        F_m: Tensor,
        A_mt_s: Tensor,
        H: tuple[Tensor, Tensor],
        level: Tensor,
        M_sat_m: Tensor,
    ) -> list[Tensor]:
        """Section III-B: Φ_l(F_m), its saturated places filled from Φ_l(F_nft)."""
        Phi_m: list[Tensor] = self.F_enc(F_m, MEDIUM)
        saturated = M_sat_m.any(dim=1)
        if not self.transfer or not (saturated.any() or recording(self)):
            return Phi_m
        A_sat_s = attention(self.F_sat, (H[0] >= level).to(F_s.dtype))
        F_nft = F_s * torch.sigmoid(A_mt_s + A_sat_s)  # (9)
        Phi_nft = self.F_enc(F_nft, SHORT)
        with torch.no_grad():
            masked = masks(saturated)
            Psi_s, Psi_m = self.matching_features(H, level, Phi_m)
            moved = match(Psi_m, Psi_s, masked, self.windows, self.normalize)
        return [
            swap(target, source, places, by)
            for target, source, places, by in zip(Phi_m, Phi_nft, masked, moved, strict=True)
        ]

    def matching_features(
        self, H: tuple[Tensor, Tensor], level: Tensor, Phi_m: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Ψ_l(Ĥ_s) and Ψ_l(H_m), fine to coarse, or what replaces them."""
        hat_H_s, hat_H_m = (masked_saturated(h, level) if self.ms_hdr else h for h in H)
        if self.Psi is None:
            F_hat_s = self.F_ex(hat_H_s, "relu")
            return self.F_enc(F_hat_s, MASKED_SHORT)[: self.levels], Phi_m[: self.levels]
        seen = [displayed(h, level) for h in (hat_H_s, hat_H_m)]
        features = [f.chunk(2) for f in self.Psi(torch.cat(seen), self.levels)]
        return [s for s, _ in features], [m for _, m in features]

    def blend(self, F_swp: list[Tensor], A_sat_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Progressive texture blending (section III-C): the first three inputs of N_mef."""
        dec_0, dec_1, dec_2 = self.F_dec(F_swp)
        dec_1, dec_2 = self.up_1(dec_1), self.up_2(dec_2)
        A_sc_1 = attention(self.F_sc_1, dec_2, dec_1)  # (10)
        scaled_2 = A_sat_m * dec_2  # (12)
        del dec_2
        A_sc_0 = attention(self.F_sc_0, dec_1, dec_0)  # (11)
        return scaled_2, A_sc_1 * dec_1, A_sc_0 * dec_0


def masked_saturated(H: Tensor, level: Tensor) -> Tensor:
    """The MS-HDR domain: H as the medium would have clipped it, at ``level`` = ε / τ_m.

    With τ_s = 1 the printed threshold and the printed value are this one level.
    """
    return torch.minimum(H, level)


def displayed(H: Tensor, level: Tensor) -> Tensor:
    """What a trunk that was trained on photographs expects: the medium photograph, whitened."""
    return whitened((H.clamp(min=0) / level) ** (1 / GAMMA))


def whitened(photograph: Tensor) -> Tensor:
    """RGB (B, 3, H, W) in [0, 1] less ImageNet's mean, over its standard deviation."""
    mean, std = photograph.new_tensor([IMAGENET_MEAN, IMAGENET_STD]).view(2, 3, 1, 1)
    centred: Tensor = (photograph - mean) / std
    return centred


def masks(saturated: Tensor) -> list[Tensor]:
    """Saturated cells at scales 0, 1, 2: a cell is, if one of its pixels is. (B, H, W) bool."""
    coarser = [saturated]
    for _ in range(1, SCALES):
        pooled = functional.max_pool2d(coarser[-1].float()[:, None], 2)
        coarser.append(pooled[:, 0] > 0)
    return coarser


def attention(module: nn.Module | None, *features: Tensor) -> Tensor:
    """Map features to factors in (0, 1); without a module, to 1, as the ablations do."""
    if module is None:
        return features[0].new_ones(())
    factors: Tensor = module(
        torch.cat(features, dim=1) if len(features) > 1 else features[0], "sigmoid"
    )
    return factors


class CAB(nn.Module):
    """Channel attention block of RCAN [28], Figure 1, on (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.body = convolutions(channels, channels, channels)
        self.pool = GlobalPool()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, slot: int = 0) -> Tensor:
        """Add a residual whose channels are weighed by their means."""
        y = self.body(x)
        z = torch.relu(self.squeeze(self.pool(y, slot)))
        return torch.addcmul(x, y, torch.sigmoid(self.excite(z)))


class CABs(nn.ModuleList):
    """Some CABs, one after the other, with one slot for all."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__(CAB(channels, reduction) for _ in range(blocks))

    def forward(self, x: Tensor, slot: int = 0) -> Tensor:
        """Run the blocks on (B, C, H, W)."""
        for block in self:
            x = block(x, slot)
        return x


class Encoder(nn.Module):
    """F_enc (Figure 4): Φ_0, Φ_1, Φ_2 at full, half and quarter size."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(CABs(channels, blocks, reduction) for _ in range(SCALES))

    def forward(self, F: Tensor, slot: int) -> list[Tensor]:
        """Encode (B, C, H, W). Bilinear halving is the mean of two by two."""
        Phi = [self.scales[0](F, slot)]
        for scale in self.scales[1:]:
            Phi.append(scale(functional.avg_pool2d(Phi[-1], 2), slot))
        return Phi


class Decoder(nn.Module):
    """F_dec (Figure 4): F_enc mirrored, with a skip from the swapped feature of each scale."""

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(CABs(channels, blocks, reduction) for _ in range(SCALES))
        self.skips = nn.ModuleList(
            nn.Conv2d(2 * channels, channels, 3, padding=1) for _ in range(SCALES - 1)
        )

    def forward(self, F_swp: list[Tensor]) -> list[Tensor]:
        """Give F_dec at scales 0, 1, 2."""
        F_dec = [self.scales[-1](F_swp[-1])]
        for scale in reversed(range(SCALES - 1)):
            up = functional.interpolate(F_dec[0], scale_factor=2.0, mode="bilinear")
            joined = self.skips[scale](torch.cat([up, F_swp[scale]], dim=1))
            F_dec.insert(0, self.scales[scale](joined))
        return F_dec


class MatchingTrunk(nn.Module):
    """Ψ: VGG19 up to relu3_1, with torchvision's names ``features.N``.

    Takes torchvision's weights, or is trained by ``train.loss.matching_loss``; as it is made it is
    a random projection, which already tells patches apart.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        a, b, c = widths
        plan = [(3, a), (a, a), None, (a, b), (b, b), None, (b, c)]
        self.features = nn.Sequential(*(layer for step in plan for layer in trunk_layers(step)))
        self.taps = (1, 6, 11)  # relu1_1, relu2_1, relu3_1
        self.apply(he)

    def forward(self, x: Tensor, levels: int = SCALES) -> list[Tensor]:
        """Features at full, half and quarter size of whitened RGB (B, 3, H, W)."""
        found = []
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.Conv2d):
                x = convolve(layer, x, "relu")
            elif isinstance(layer, nn.MaxPool2d):
                x = layer(x)
            if index in self.taps:
                found.append(x)
            if len(found) == levels:
                break
        return found


def trunk_layers(step: tuple[int, int] | None) -> list[nn.Module]:
    """One step of VGG: a convolution and ReLU, or a halving."""
    if step is None:
        return [nn.MaxPool2d(2)]
    return [nn.Conv2d(*step, 3, padding=1), nn.ReLU()]


def convolutions(*widths: int) -> Chain:
    """Several 3×3 convolutions with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return Chain(*layers[:-1])


def xavier(module: nn.Module) -> None:
    """Section III-E: Xavier initialisation."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def he(module: nn.Module) -> None:
    """Keep the energy through the ReLUs of an untrained trunk."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=math.sqrt(2 / (9 * module.in_channels)))
        assert module.bias is not None
        nn.init.zeros_(module.bias)
