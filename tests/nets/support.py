"""What a network's output depends on, found by its gradient."""

import torch
from torch import nn


def seen(output, picture):
    """Farthest pixel, along a side, that the centre's output depends on."""
    height = output.shape[-2]
    centre = height // 2
    (gradient,) = torch.autograd.grad(output[..., centre, centre].sum(), picture)
    rows = gradient.flatten(0, -3).abs().sum((0, 2)).nonzero()
    return max(centre - int(rows.min()), int(rows.max()) - centre)


def point_a_little(net):
    """Deformable offsets that are not zero, but less than a pixel."""
    for name, parameter in net.named_parameters():
        if name.endswith("conv_offset_mask.weight"):
            nn.init.normal_(parameter, std=1e-3)
