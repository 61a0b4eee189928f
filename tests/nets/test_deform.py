import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hdrcli.nets import deform
from hdrcli.nets.deform import DeformConv, deform_conv2d
from tests.nets.golden import arrays, assert_close

torch.set_num_threads(1)
CASES: dict[str, Any] = {
    "a": {"stride": 1, "padding": 1, "dilation": 1},
    "b": {"stride": 1, "padding": 1, "dilation": 1},
    "c": {"stride": 2, "padding": 2, "dilation": 2},
}
INPUTS = ("x", "offset", "mask", "weight", "bias")


def random_case(batch=2, channels=6, groups=3, height=9, width=7, out=5, spread=3.0):
    torch.manual_seed(0)
    samples = 9 * groups
    return (
        torch.randn(batch, channels, height, width),
        spread * torch.randn(batch, 2 * samples, height, width),
        torch.rand(batch, samples, height, width),
        torch.randn(out, channels, 3, 3),
        torch.randn(out),
    )


def test_without_offsets_it_is_a_convolution():
    x, offset, mask, weight, bias = random_case()
    still = deform_conv2d(x, torch.zeros_like(offset), torch.ones_like(mask), weight, bias)
    assert_close(still, F.conv2d(x, weight, bias, padding=1))


def test_offsets_of_whole_pixels_move_the_picture():
    x, offset, mask, weight, bias = random_case(height=20, width=16)
    dy, dx = 2, -3
    samples = offset.shape[1] // 2
    offset = torch.tensor([dy, dx]).float().repeat(samples).view(1, -1, 1, 1).expand_as(offset)
    moved = deform_conv2d(x, offset, torch.ones_like(mask), weight, bias)
    plain = F.conv2d(x.roll((-dy, -dx), (2, 3)), weight, bias, padding=1)
    inside = (..., slice(4, -4), slice(4, -4))
    assert_close(moved[inside], plain[inside])


def test_outside_the_picture_is_zero():
    x, offset, mask, weight, bias = random_case()
    gone = deform_conv2d(x, torch.full_like(offset, 1e6), mask, weight, bias)
    assert_close(gone, bias.view(1, -1, 1, 1).expand_as(gone))


def test_the_mask_is_a_factor():
    x, offset, mask, weight, bias = random_case()
    zero = torch.zeros_like(bias)
    half = deform_conv2d(x, offset, 0.5 * mask, weight, zero)
    assert_close(2 * half, deform_conv2d(x, offset, mask, weight, zero))


def naive(x, offset, mask, weight, bias):
    """DCNv2 eq. 1, word by word."""
    batch, channels, height, width = x.shape
    groups = mask.shape[1] // 9
    y = bias.double().view(1, -1, 1, 1).repeat(batch, 1, height, width)
    for b, p, q in torch.cartesian_prod(*(torch.arange(n) for n in (batch, height, width))):
        for c in range(channels):
            g = c // (channels // groups)
            for k in range(9):
                row = p + k // 3 - 1 + offset[b, 18 * g + 2 * k, p, q].double()
                column = q + k % 3 - 1 + offset[b, 18 * g + 2 * k + 1, p, q].double()
                read = 0.0
                for i in (int(row.floor()), int(row.floor()) + 1):
                    for j in (int(column.floor()), int(column.floor()) + 1):
                        if 0 <= i < height and 0 <= j < width:
                            share = (1 - abs(row - i)) * (1 - abs(column - j))
                            read += float(share * x[b, c, i, j])
                m = float(mask[b, 9 * g + k, p, q])
                y[b, :, p, q] += weight[:, c, k // 3, k % 3].double() * read * m
    return y.float()


def test_it_is_the_sum_of_the_paper():
    case = random_case(batch=1, channels=4, groups=2, height=4, width=5, out=2)
    assert_close(deform_conv2d(*case), naive(*case))


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    case = {key[2:]: value for key, value in arrays("dcn_op").items() if key.startswith(name)}
    y = deform_conv2d(*(case[key] for key in INPUTS), **CASES[name])
    assert_close(y, case["y"])


@pytest.mark.parametrize("name", CASES)
def test_with_gradients_the_result_is_the_same(name):
    case = {key[2:]: value for key, value in arrays("dcn_op").items() if key.startswith(name)}
    y = deform_conv2d(*(case[key].requires_grad_() for key in INPUTS), **CASES[name])
    assert y.requires_grad
    assert_close(y.detach(), case["y"])


def test_strips_do_not_show(monkeypatch):
    case = random_case()
    whole = deform_conv2d(*case)
    monkeypatch.setattr(deform, "_STRIP_READS", 1)
    assert_close(deform_conv2d(*case), whole)


def test_gradients_are_slopes():
    case = [t.requires_grad_() for t in random_case(batch=1, spread=0.4)]
    y = deform_conv2d(*case)
    torch.manual_seed(1)
    weights = torch.randn_like(y)
    slopes = torch.autograd.grad((y * weights).sum(), case)
    for i, (tensor, slope) in enumerate(zip(case, slopes, strict=True)):
        step = 1e-3 * torch.randn_like(tensor)
        with torch.no_grad():
            ends = [[t + s * step if j == i else t for j, t in enumerate(case)] for s in (1, -1)]
            up, down = ((deform_conv2d(*end) * weights).double().sum() for end in ends)
        expected = float((slope * step).double().sum())
        assert float(up - down) / 2 == pytest.approx(expected, rel=0.1, abs=2e-3)


def test_a_picture_of_one_pixel():
    x, offset, mask, weight, bias = random_case(height=1, width=1)
    assert_close(
        deform_conv2d(x, offset, mask, weight, bias),
        deform_conv2d(x, offset, mask, weight.requires_grad_(), bias).detach(),
    )


def test_half_precision_features_are_read_at_float32_places():
    x, offset, mask, weight, bias = random_case(height=8, width=600, spread=0.0)
    offset = offset + 0.25  # bfloat16 knows no 599.25
    full = deform_conv2d(x, offset, mask, weight, bias)
    half = deform_conv2d(x.bfloat16(), offset, mask, weight, bias)
    assert half.dtype == torch.bfloat16
    assert float((half - full).abs().max()) < 0.02 * float(full.abs().max())


def test_a_new_layer_is_half_a_convolution():
    layer = DeformConv(8, groups=2)
    torch.manual_seed(0)
    x, guide = torch.randn(2, 1, 8, 6, 6).unbind(0)
    with torch.no_grad():
        expected = F.conv2d(0.5 * x, layer.weight, layer.bias, padding=1)
        assert_close(layer(x, guide), expected)


def test_a_layer_learns_where_to_look():
    layer = DeformConv(4, groups=2)
    x = torch.randn(1, 4, 6, 6)
    layer(x, x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def broken(*_):
    raise RuntimeError("operator torchvision::deform_conv2d does not exist")


@pytest.mark.parametrize(("operator", "works"), [(lambda x, *_: x, True), (broken, False)])
def test_torchvision_is_taken_where_it_works(monkeypatch, operator, works):
    ops = SimpleNamespace(deform_conv2d=operator)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "torchvision.ops", ops)
    assert deform._torchvision_operator.__wrapped__("cpu") is (operator if works else None)
