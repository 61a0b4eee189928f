from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hdrcli.nets import fused
from hdrcli.nets.build import build
from hdrcli.nets.fused import Chain, ReflectConv2d, conv2d, convolve

torch.set_num_threads(1)
AFTER = {
    "none": lambda y: y,
    "relu": torch.relu,
    "leaky_relu": lambda y: F.leaky_relu(y, 0.2),
    "sigmoid": torch.sigmoid,
}
LAYERS = {
    "3x3": lambda: nn.Conv2d(6, 20, 3, padding=1),
    "halving": lambda: nn.Conv2d(6, 20, 3, 2, 1),
    "dilated": lambda: nn.Conv2d(6, 20, 3, padding=2, dilation=2),
    "1x1": lambda: nn.Conv2d(6, 20, 1, bias=False),
    "groups": lambda: nn.Conv2d(6, 20, 3, padding=1, groups=2),
    "reflected": lambda: ReflectConv2d(6, 20, 3, 1, 2, 2, padding_mode="reflect"),
}


def last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch):
    """How often torch's operator was asked: a check that the fast way is the one that is tested."""
    seen = []
    whether = fused.fusible

    def noted(x):
        seen.append(whether(x))
        return seen[-1]

    monkeypatch.setattr(fused, "fusible", noted)
    return seen


@pytest.mark.parametrize("then", AFTER)
@pytest.mark.parametrize("layer", LAYERS)
def test_at_once_is_one_after_the_other(layer, then, calls):
    layer, x = LAYERS[layer](), last(2, 6, 16, 23)
    with torch.inference_mode():
        y = layer(x)
        plus = last(*y.shape)
        alone = convolve(layer, x, then, slope=0.2)
        added = convolve(layer, x, then, plus=plus, slope=0.2)
    assert all(calls)
    torch.testing.assert_close(alone, AFTER[then](y), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(added, AFTER[then](y + plus), rtol=1e-5, atol=1e-5)


def test_adding_onto_takes_the_memory_of_what_is_added():
    x, weight, plus = last(1, 16, 9, 9), torch.randn(16, 16, 3, 3), last(1, 16, 9, 9)
    with torch.inference_mode():
        expected = F.conv2d(x, weight, padding=1) + plus
        found = conv2d(x, weight, None, plus=plus, onto=True)
    assert found.data_ptr() == plus.data_ptr()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_chain_is_its_layers():
    layers = [
        nn.Conv2d(6, 8, 3, padding=1),
        nn.LeakyReLU(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 1),
        nn.PReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.PReLU(8),
        nn.Conv2d(8, 5, 3, padding=1),
    ]
    chain, x = Chain(*layers), last(1, 6, 12, 14)
    plus = last(1, 5, 6, 7)
    with torch.inference_mode():
        expected = torch.relu(nn.Sequential(*layers)(x) + plus)
        torch.testing.assert_close(chain(x, "relu", plus=plus), expected, rtol=1e-5, atol=1e-5)


def test_gradients_flow_where_they_are_kept():
    chain, x = Chain(*(LAYERS["3x3"](), nn.PReLU(), nn.Conv2d(20, 3, 1))), last(1, 6, 8, 8)
    plus = last(1, 3, 8, 8).requires_grad_()
    chain(x, "sigmoid", plus=plus).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in chain.parameters())
    assert plus.grad is not None


@pytest.mark.parametrize("name", ["adnet", "psfnet", "hdrgan"])
def test_layouts_agree_in_a_whole_network(name, calls):
    small = {"psfnet": {"channels": 16, "blocks": 2, "dual_blocks": 1}}
    net = build(name, small.get(name, {"channels": 16})).eval()
    X = [torch.rand(1, 6, 32, 44) for _ in range(3)]
    with torch.inference_mode():
        plain = net(*X)
        assert not any(calls)
        layout: Any = {"memory_format": torch.channels_last}
        quick = net.to(**layout)(*(x.contiguous(**layout) for x in X))
    assert any(calls)
    plain, quick = (y[-1] if isinstance(y, tuple) else y for y in (plain, quick))
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4)
