"""PSFNet keeps the laws of its paper."""

import pytest
import torch
from torch.nn import functional

from hdrcli.nets.pooling import frozen, measure
from hdrcli.nets.psfnet import PSFB, SFFB, DualAttentionBlock, PSFNet


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(3)
    torch.set_num_threads(1)


def small(**changes):
    return PSFNet(**{"channels": 8, "blocks": 2, "dual_blocks": 1, **changes}).eval()


def exposures(batch=1, height=24, width=20, evs=(0, 2, 4)):
    """X_i = [L_i, H_i] of one still scene, equation 1."""
    radiance = torch.rand(batch, 3, height, width) ** 3
    L = [(radiance * 2.0**ev).clamp(max=1) ** (1 / 2.2) for ev in evs]
    return [torch.cat([L_i, L_i**2.2 / 2.0**ev], dim=1) for L_i, ev in zip(L, evs, strict=True)]


def attentive(net):
    """Make the pooled statistics count, as training does."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.mul_(50 if "squeeze" in name or "excite" in name else 2)
    return net


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_default_has_the_size_of_the_paper():
    net = PSFNet()
    assert parameters(net) == 1_235_509
    assert parameters(net.psfbs) == 6 * 112_769
    assert net.reach == 33


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (24, 20)])
def test_any_size_comes_back_between_0_and_1(size):
    y = small()(*exposures(2, *size))
    assert y.shape == (2, 3, *size)
    assert y.min() > 0
    assert y.max() < 1


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "sum"},
        {"fusion": "concat"},
        {"blocks": 0},
        {"dual_blocks": 0},
        {"local_skip": False},
        {"global_skip": False},
    ],
    ids=str,
)
def test_every_ablation_runs_and_makes_a_difference(changes):
    X = exposures()
    torch.manual_seed(1)
    whole = small()
    ablated = small(**changes)
    ablated.load_state_dict(whole.state_dict(), strict=False)
    assert ablated(*X).shape == (1, 3, 24, 20)
    assert not torch.allclose(ablated(*X), whole(*X))


def test_skips_cost_no_parameters_and_blocks_do():
    assert parameters(small(local_skip=False, global_skip=False)) == parameters(small())
    assert parameters(small(blocks=3)) > parameters(small()) > parameters(small(fusion="sum"))


def test_a_block_is_equations_2_to_4():
    block = PSFB(8, SFFB(8, 8))
    F_0 = torch.randn(3 * 2, 8, 6, 5)
    F_1 = block.conv1(F_0).relu()
    F_2 = block.fuse(F_1.chunk(3))
    O_i = [block.conv2(torch.cat([F_2, F_1_i], dim=1)) for F_1_i in F_1.chunk(3)]
    torch.testing.assert_close(block(F_0), torch.cat(O_i) + F_0)


def test_the_shares_of_the_frames_sum_to_one():
    fuse, F = SFFB(8, 8), torch.rand(1, 8, 6, 5)
    torch.testing.assert_close(fuse((F, F, F)), F)


def test_the_fused_feature_lies_between_the_frames():
    F_1 = tuple(torch.randn(2, 8, 6, 5) for _ in range(3))
    F_2, stacked = SFFB(8, 8)(F_1), torch.stack(F_1)
    assert (stacked.amax(0) + 1e-6 >= F_2).all()
    assert (stacked.amin(0) - 1e-6 <= F_2).all()


def test_the_blocks_treat_the_frames_alike_when_they_are_summed():
    """Both convolutions are shared: exchanged frames come out exchanged."""
    net = small(fusion="sum")
    short, medium, long = net.psfbs(net.features(*(X := exposures()))).chunk(3)
    swapped = net.psfbs(net.features(*X[::-1])).chunk(3)
    torch.testing.assert_close(torch.cat(swapped), torch.cat([long, medium, short]))


def test_exchanged_frames_need_only_their_shares_and_places_exchanged():
    net, mirrored, X = small(), small(), exposures()
    state = {k: mirror(k, v, 8) for k, v in net.state_dict().items()}
    mirrored.load_state_dict({mirrored_name(k): v for k, v in state.items()})
    torch.testing.assert_close(mirrored(*X[::-1]), net(*X))
    assert not torch.allclose(net(*X[::-1]), net(*X))


def mirror(name, weight, channels):
    if name != "reduce.weight":
        return weight
    O_1, O_2, O_3, F_2 = weight.split(channels, dim=1)
    return torch.cat([O_3, O_2, O_1, F_2], dim=1)


def mirrored_name(name):
    other = {"excite.0.weight": "excite.2.weight", "excite.2.weight": "excite.0.weight"}
    head, _, tail = name.partition("fuse.")
    return head + "fuse." + other.get(tail, tail) if tail else name


def test_the_dual_attention_block_is_residual():
    block, Z = DualAttentionBlock(8, 8), torch.randn(1, 8, 6, 5)
    torch.nn.init.zeros_(block.merge.weight)
    torch.testing.assert_close(block(Z), Z)


def test_tiles_with_a_halo_of_reach_are_the_whole_once_the_pools_are_frozen():
    net, X = attentive(small()), exposures(height=48, width=70)
    half = [functional.avg_pool2d(x, 2) for x in X]
    with torch.no_grad(), frozen(net, measure(net, *half)):
        whole = net(*X)
        left = net(*(x[..., : 35 + net.reach] for x in X))[..., :35]
        right = net(*(x[..., 35 - net.reach :] for x in X))[..., net.reach :]
    torch.testing.assert_close(torch.cat([left, right], dim=-1), whole, atol=1e-6, rtol=1e-5)


def test_reach_is_exact():
    net, X = small().train(), exposures(height=1, width=81)
    statistics = measure(net, *X)
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()  # so that no path is cut by a ReLU or cancelled,
        for sigmoid in (net.output, net.dual[0].spatial):
            sigmoid.weight.mul_(1e-6)  # nor a sigmoid driven flat
    X[1].requires_grad_()
    with frozen(net, statistics):
        net(*X)[..., 40].sum().backward()
    felt = X[1].grad.ne(0).any(dim=1).squeeze().nonzero().squeeze()
    assert (felt.min().item(), felt.max().item()) == (40 - net.reach, 40 + net.reach)


def test_without_freezing_tiles_differ():
    net, X = attentive(small()), exposures(height=16, width=64)
    X = [x * torch.linspace(0, 1, 64) for x in X]
    with torch.no_grad():
        part = net(*(x[..., :48] for x in X))[..., : 48 - net.reach]
    assert not torch.allclose(part, net(*X)[..., : 48 - net.reach], atol=1e-6, rtol=1e-5)


def test_frozen_at_its_own_statistics_a_picture_is_unchanged():
    net, X = small(), exposures(batch=2)
    with torch.no_grad(), frozen(net, measure(net, *X)):
        again = net(*X)
    torch.testing.assert_close(again, net(*X).detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_does_not_change_the_result(layout):
    net, X = small(), exposures(batch=2)
    expected = net(*X).detach()
    net = net.to(memory_format=layout)
    torch.testing.assert_close(net(*(x.to(memory_format=layout) for x in X)), expected)


def test_half_precision_is_finite_and_near_and_ends_in_float32():
    net, X = small(), exposures()
    with torch.no_grad():
        expected = net(*X)
        with torch.autocast("cpu", torch.bfloat16):
            auto = net(*X)
        whole = net.bfloat16()(*(x.bfloat16() for x in X))
    assert auto.dtype == whole.dtype == torch.float32
    torch.testing.assert_close(auto, expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(whole, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("fusion", ["sffb", "sum", "concat"])
def test_a_gradient_reaches_every_parameter(fusion):
    net = small(fusion=fusion).train()
    net(*exposures()).square().mean().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.slow
def test_it_learns_one_picture():
    net, X = (
        small().train(),
        [functional.interpolate(x, scale_factor=4) for x in exposures(1, 4, 4)],
    )
    target = mu_law(X[0][:, 3:])
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = functional.l1_loss(mu_law(net(*X)), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.65 * losses[0]


def mu_law(H):
    """Equation 5."""
    return torch.log1p(5000 * H) / torch.log1p(torch.tensor(5000.0))
