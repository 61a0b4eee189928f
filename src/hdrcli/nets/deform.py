"""Modulated deformable convolution without compiled code (DCNv2: Zhu et al., CVPR 2019).

    y(p) = b + Σ_k w_k · m_k(p) · x(p + p_k + Δp_k(p))                              (DCNv2, eq. 1)

x is read bilinearly and is zero outside the picture. The K taps p_k run row by row. Each of the G
deformable groups has its own Δp and m. Channels of the offset: group, tap, (dy, dx) in pixels;
channels of the mask: group, tap. That is the order of the DCNv2 extension and of torchvision.

Three ways compute the same sum; `deform_conv2d` takes the fastest that fits:
- CPU without gradients: bilinear reads as weighted sums of table rows (`embedding_bag`, which is
  vectorised), a few picture rows at a time, so that the intermediates stay in the cache;
- other devices: torchvision's operator, where it is installed and works;
- otherwise: one `grid_sample` per tap, recomputed in the backward pass instead of kept.
"""

import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_STRIP_READS = (
    1 << 17
)  # bilinear reads per strip: their columns take about 4 MB, as much as a cache


_Operator = Callable[..., Tensor]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
) -> Tensor:
    """DCNv2 eq. 1. Positions are computed in float32 whatever the dtype of the features.

    x (B, C, H, W); offset (B, 2·G·K, Ho, Wo) pixels; mask (B, G·K, Ho, Wo), already through the
    sigmoid; weight (O, C, kh, kw), K = kh·kw; bias (O,). Returns (B, O, Ho, Wo) in the dtype of x.
    """
    geometry = (stride, padding, dilation)
    tensors = (x, offset, mask, weight, bias)
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        if x.device.type == "cpu":
            return _by_rows(x, offset, mask, weight, bias, geometry)
    elif x.device.type == "cpu":
        return _by_grid(x, offset, mask, weight, bias, geometry)
    operator = _torchvision_operator(x.device.type)
    if operator is None:
        return _by_grid(x, offset, mask, weight, bias, geometry)
    with torch.autocast(x.device.type, enabled=False):
        wide = (t.float() for t in (x, offset, weight, bias))
        return operator(*wide, stride, padding, dilation, mask.float()).to(x.dtype)


@functools.cache
def _torchvision_operator(device: str) -> _Operator | None:
    """torchvision's operator if it can be imported and runs on this kind of device."""
    try:
        from torchvision.ops import deform_conv2d as operator  # type: ignore[import-not-found,import-untyped,unused-ignore]

        one = torch.ones(1, 1, 1, 1, device=device)
        operator(one, one.expand(1, 2, 1, 1), one, None, 1, 0, 1, one)
    except (ImportError, OSError, RuntimeError, NotImplementedError):
        return None  # a wheel built for another torch fails in any of these ways
    return cast("_Operator", operator)


# -- weighted sums of table rows --------------------------------------------------------------


def _by_rows(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    geometry: tuple[int, int, int],
) -> Tensor:
    b, c, h, w = x.shape
    o, _, kh, kw = weight.shape
    ho, wo = offset.shape[2:]
    groups = mask.shape[1] // (kh * kw)
    offset = offset.permute(0, 2, 3, 1).float().contiguous().view(b, ho, wo, groups * kh * kw, 2)
    mask = mask.permute(0, 2, 3, 1).float().contiguous()  # (B, Ho, Wo, G·K)
    # Zeros around the picture: one row above, two below, so that no read needs a test.
    # In float32 even for bfloat16 features: the sum over rows is vectorised for float32 only.
    table = F.pad(x.permute(0, 2, 3, 1).float(), (0, 0, 1, 2, 1, 2)).view(b, -1, c // groups)
    # (O, G, C/G, K) becomes (G, K, C/G, O), the order in which the reads arrive.
    kernel = weight.view(o, groups, c // groups, kh * kw).permute(1, 3, 2, 0).reshape(-1, o)
    kernel, bias = kernel.to(x.dtype), bias.to(x.dtype)
    taps = _taps(kh, kw, groups, geometry, x.device)
    rows = max(1, _STRIP_READS // (wo * groups * kh * kw))
    y = x.new_empty(b, ho, wo, o)
    for i in range(b):
        for top in range(0, ho, rows):
            strip = slice(top, min(top + rows, ho))
            at, share = _corners(
                offset[i, strip], mask[i, strip], taps, (top, h, w, groups), geometry[0]
            )
            read = F.embedding_bag(at, table[i], mode="sum", per_sample_weights=share)
            flat = y[i, strip].view(-1, o)
            torch.addmm(bias, read.view(flat.shape[0], -1).to(x.dtype), kernel, out=flat)
    found = y.permute(0, 3, 1, 2)
    return found.contiguous() if x.is_contiguous() else found  # what comes after keeps its layout


def _taps(
    kh: int, kw: int, groups: int, geometry: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """p_k as (dy, dx), each (G·K,), from the corner of the stride grid."""
    _, padding, dilation = geometry
    dy = torch.arange(kh, device=device, dtype=torch.float32) * dilation - padding
    dx = torch.arange(kw, device=device, dtype=torch.float32) * dilation - padding
    return dy.repeat_interleave(kw).repeat(groups), dx.repeat(kh).repeat(groups)


def _corners(
    offset: Tensor,
    mask: Tensor,
    taps: tuple[Tensor, Tensor],
    place: tuple[int, int, int, int],
    stride: int,
) -> tuple[Tensor, Tensor]:
    """Rows of the table at the four corners of every read, and the corners' shares times the mask.

    offset (n, Wo, G·K, 2), mask (n, Wo, G·K). Returns int32 and float32, both (n·Wo·G·K, 4).
    """
    top, h, w, groups = place
    n, wo, samples = mask.shape
    row = torch.arange(top, top + n, dtype=torch.float32) * stride
    column = torch.arange(wo, dtype=torch.float32) * stride
    # Clamped to the zeros around the picture; +1 because the table starts one row above it.
    fy = (offset[..., 0] + (row.view(n, 1, 1) + taps[0])).clamp_(-1, h).add_(1)
    fx = (offset[..., 1] + (column.view(wo, 1) + taps[1])).clamp_(-1, w).add_(1)
    y0, x0 = fy.floor(), fx.floor()
    fy -= y0
    fx -= x0
    pitch = (w + 3) * groups
    at = torch.empty(n, wo, samples, 4, dtype=torch.int32)
    share = torch.empty(n, wo, samples, 4)
    group = torch.arange(groups, dtype=torch.int32).repeat_interleave(samples // groups)
    first = y0.int().mul_(pitch).add_(x0.int(), alpha=groups).add_(group)
    for corner, step in enumerate((0, groups, pitch, pitch + groups)):
        torch.add(first, step, out=at[..., corner])
    fx *= mask
    left = mask - fx
    torch.mul(fy, fx, out=share[..., 3])
    torch.mul(fy, left, out=share[..., 2])
    torch.sub(fx, share[..., 3], out=share[..., 1])
    torch.sub(left, share[..., 2], out=share[..., 0])
    return at.view(-1, 4), share.view(-1, 4)


# -- one grid_sample per tap ------------------------------------------------------------------


def _by_grid(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor,
    geometry: tuple[int, int, int],
) -> Tensor:
    b, c, _, _ = x.shape
    o, _, kh, kw = weight.shape
    ho, wo = offset.shape[2:]
    groups = mask.shape[1] // (kh * kw)
    offset = offset.reshape(b * groups, kh * kw, 2, ho, wo)
    mask = mask.reshape(b * groups, kh * kw, 1, ho, wo)
    source = x.reshape(b * groups, c // groups, *x.shape[2:])
    y = bias.to(x.dtype).view(1, o, 1).expand(b, o, ho * wo)
    for k, (dy, dx) in enumerate(zip(*_taps(kh, kw, 1, geometry, x.device), strict=True)):
        corner = torch.stack((dx, dy))
        read = checkpoint(
            _read, source, offset[:, k], mask[:, k], corner, geometry[0], use_reentrant=False
        )
        y = y + weight[:, :, k // kw, k % kw].to(x.dtype) @ read.view(b, c, ho * wo)
    return y.view(b, o, ho, wo)


def _read(source: Tensor, offset: Tensor, mask: Tensor, corner: Tensor, stride: int) -> Tensor:
    """x(p + p_k + Δp_k) · m_k of one tap: (B·G, C/G, Ho, Wo). `corner` is (dx, dy)."""
    (h, w), (ho, wo) = source.shape[2:], offset.shape[2:]
    rows = torch.arange(ho, device=source.device, dtype=torch.float32) * stride
    columns = torch.arange(wo, device=source.device, dtype=torch.float32) * stride
    at = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1) + corner  # (Ho, Wo, 2)
    at = at + offset.float().flip(1).permute(0, 2, 3, 1)
    # With align_corners=False pixel p has its centre at (2p + 1) / n - 1, also for n = 1.
    at = (2 * at + 1) / at.new_tensor((w, h)) - 1
    with torch.autocast(source.device.type, enabled=False):
        read = F.grid_sample(source.float(), at, align_corners=False)
    return (read * mask).to(source.dtype)


class DeformConv(nn.Module):
    """DCNv2 layer that predicts Δp and m from a second feature map (EDVR's `DCN_sep`)."""

    def __init__(self, channels: int, *, groups: int, kernel: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels))
        bound = (channels * kernel * kernel) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        # Zero at the start of training: a plain convolution with m = 1/2.
        self.conv_offset_mask = nn.Conv2d(
            channels, 3 * groups * kernel * kernel, kernel, padding=kernel // 2
        )
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(cast("Tensor", self.conv_offset_mask.bias))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """x and guide (B, C, H, W): x is read where the guide says. Returns (B, C, H, W)."""
        prediction = self.conv_offset_mask(guide)
        samples = prediction.shape[1] // 3
        offset, mask = prediction.split((2 * samples, samples), 1)
        padding = self.weight.shape[-1] // 2
        # Of its own memory: the sigmoid of a slice of channels is five times slower.
        mask = mask.contiguous(memory_format=torch.channels_last).sigmoid()
        return deform_conv2d(x, offset, mask, self.weight, self.bias, padding=padding)
