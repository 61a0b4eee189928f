"""The last convolution of a network, in float32 whatever the rest runs in."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Float32Conv2d(nn.Conv2d):
    """A convolution that computes and answers in float32, also under autocast.

    The logit of a dark pixel is about -8. Rounded to bfloat16's eight bits it moves in steps
    of 3 % of the radiance, which is banding in the shadows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input`` of any floating type; the result is float32."""
        with torch.autocast(input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return functional.conv2d(
                input.float(),
                self.weight.float(),
                bias,
                self.stride,
                self.padding,
                self.dilation,
                self.groups,
            )
