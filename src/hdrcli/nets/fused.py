"""Convolutions that end with what comes after them: an addition, an activation, or both.

The processor's library (oneDNN) does these while a result is still in a register; one after the
other they read and write the whole feature map again, which costs a fifth of a network's time.
The operator that torch has for it is made for float32 without gradients. Everywhere else, and on
contiguous tensors, the same steps run one by one.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Then = Literal["none", "relu", "leaky_relu", "sigmoid"]
LAST = torch.channels_last


def convolve(
    layer: nn.Module,
    x: Tensor,
    then: Then = "none",
    *,
    plus: Tensor | None = None,
    slope: float = 0.1,
) -> Tensor:
    """``then(layer(x) + plus)``: (B, cin, H, W) to (B, cout, H', W').

    ``layer`` is a convolution, ``plus`` has the size of its result, ``slope`` is the leaky ReLU's.
    """
    if not (isinstance(layer, nn.Conv2d) and fusible(x)):
        y = layer(x)
        return _then(y if plus is None else y + plus, then, slope)
    padding = cast("tuple[int, int]", layer.padding)
    if layer.padding_mode == "reflect":
        x, padding = reflected(x, padding[0]), (0, 0)
    return conv2d(
        x, layer.weight, layer.bias, layer.stride, padding, layer.dilation, then, plus, slope
    )


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (1, 1),
    dilation: tuple[int, ...] = (1, 1),
    then: Then = "none",
    plus: Tensor | None = None,
    slope: float = 0.1,
    *,
    onto: bool = False,
) -> Tensor:
    """The same of weights (cout, cin, kh, kw), with zeros around the picture.

    ``onto``: the memory of ``plus`` may become that of the result.
    """
    if not fusible(x):
        y = F.conv2d(x, weight, bias, stride, padding, dilation)
        return _then(y if plus is None else y + plus, then, slope)
    operator = torch.ops.mkldnn._convolution_pointwise
    how = (weight, bias, list(padding), list(stride), list(dilation), x.shape[1] // weight.shape[1])
    slopes = [slope] if then == "leaky_relu" else []
    if plus is None:
        return cast("Tensor", operator(x, *how, then, slopes, None))
    other = plus.contiguous(memory_format=LAST)
    if onto and then == "none":
        into = torch.ops.mkldnn._convolution_pointwise_.binary
        return cast("Tensor", into(other, x, *how, "add", 1.0, None, [], None))
    after = "relu" if then == "relu" else None  # the only one that goes with an addition
    y = cast("Tensor", operator.binary(x, other, *how, "add", 1.0, after, [], None))
    return y if after else _then(y, then, slope)


def fusible(x: Tensor) -> bool:
    """Whether torch's operator takes ``x`` here, and gains from it: float32, channels last."""
    return (
        _operator_is_there()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=LAST)
        and not x.is_contiguous()
    )


def _operator_is_there() -> bool:
    return hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _then(y: Tensor, then: Then, slope: float) -> Tensor:
    """The activation by itself; in place, because nobody else knows y."""
    if then == "relu":
        return torch.relu_(y)
    if then == "leaky_relu":
        return F.leaky_relu(y, slope, inplace=True)
    return torch.sigmoid(y) if then == "sigmoid" else y


class Chain(nn.Sequential):
    """Layers one after the other; convolutions take the activations that follow them along."""

    def forward(self, x: Tensor, then: Then = "none", *, plus: Tensor | None = None) -> Tensor:
        """Run the layers, the last of which is a convolution where ``then`` or ``plus`` is given.

        (B, C, H, W) to what the last layer returns.
        """
        if not fusible(x):
            y = super().forward(x)  # type: ignore[no-untyped-call]
            return _then(y if plus is None else y + plus, then, 0.1)
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, nn.Conv2d):
                x = layer(x)
            elif not layers:
                x = convolve(layer, x, then, plus=plus)
            else:
                after, slope = _activation(layers[0])
                x = convolve(layer, x, after, slope=slope)
                if after != "none":
                    layers.pop(0)
        return x


def _activation(layer: nn.Module) -> tuple[Then, float]:
    """What a convolution can take along of the layer after it, and its slope below zero."""
    if isinstance(layer, nn.ReLU):
        return "relu", 0.0
    if isinstance(layer, nn.LeakyReLU):
        return "leaky_relu", layer.negative_slope
    if isinstance(layer, nn.PReLU) and layer.weight.numel() == 1:
        return "leaky_relu", float(layer.weight)
    return "none", 0.0


class ReflectConv2d(nn.Conv2d):
    """A convolution over a picture that is reflected at its border."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W), H and W above the dilation."""
        n = self.dilation[0]
        learning = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        wide = F.pad(x, (n, n, n, n), mode="reflect") if learning else reflected(x, n)
        return F.conv2d(wide, self.weight, self.bias, self.stride, 0, self.dilation)


def reflected(x: Tensor, n: int) -> Tensor:
    """``F.pad`` by n at each side, mode "reflect", in any layout: a copy and eight strips."""
    b, c, h, w = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    size = (b, c, h + 2 * n, w + 2 * n)
    wide = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout)
    wide[..., n:-n, n:-n] = x
    for i in range(1, n + 1):
        wide[..., n - i, n:-n] = x[..., i, :]
        wide[..., h + n - 1 + i, n:-n] = x[..., h - 1 - i, :]
    for i in range(1, n + 1):
        wide[..., n - i] = wide[..., n + i]
        wide[..., w + n - 1 + i] = wide[..., w + n - 1 - i]
    return wide
