"""APNT-Fusion keeps the laws of its paper."""

import pytest
import torch
from torch.nn import functional

from hdrcli.nets.apntfusion import (
    MEDIUM,
    SHORT,
    APNTFusion,
    MatchingTrunk,
    attention,
    displayed,
    masked_saturated,
    masks,
)
from hdrcli.nets.matching import match
from hdrcli.nets.pooling import frozen, measure

TAU = 4.0  # exposure of the medium over the short
SMALL = {
    "channels": 8,
    "mef_blocks": 1,
    "blocks": 1,
    "trunk": (4, 8, 8),
    "windows": (1, 1, 2),
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def small(**changes):
    return APNTFusion(**{**SMALL, **changes}).eval()


def attentive(net):
    """Make the pooled statistics count, as training does."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "squeeze" in name or "excite" in name:
                p.mul_(10)
        net.output.weight.mul_(10)
    return net


def texture(height, width, batch=1):
    coarse = functional.interpolate(
        torch.rand(batch, 3, height // 8, width // 8), size=(height, width), mode="bilinear"
    )
    return 0.7 * coarse + 0.3 * torch.rand(batch, 3, height, width)


def exposures(radiance, short=None):
    """H_s, H_m, H_l of equation 3; the short may see another scene."""
    seen = (radiance if short is None else short, radiance, radiance)
    return [(R * tau).clamp(max=1) / tau for R, tau in zip(seen, (1, TAU, TAU**2), strict=True)]


def scene(height=32, width=48, batch=1):
    """A dim texture with a bright one in the middle, which clips the medium but not the short."""
    radiance = 0.2 * texture(height, width, batch)
    bright = (
        slice(None),
        slice(None),
        slice(height // 3, height // 2),
        slice(width // 3, width // 2),
    )
    radiance[bright] = 0.4 + 3 * radiance[bright]
    return radiance


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_the_default_has_the_documented_size():
    net = APNTFusion()
    assert parameters(net) == 3_301_398
    assert parameters(net.Psi) == 555_328
    assert (net.reach, net.search) == (189, 89)


def test_the_trunk_has_the_names_and_shapes_of_torchvisions_vgg19():
    shapes = {name: tuple(p.shape) for name, p in MatchingTrunk().named_parameters()}
    widths = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128)}
    assert shapes == {
        f"features.{n}.{kind}": (o, i, 3, 3) if kind == "weight" else (o,)
        for n, (o, i) in widths.items()
        for kind in ("weight", "bias")
    }


def test_the_result_is_a_picture_between_0_and_1():
    y = small()(*exposures(scene(batch=2)), TAU)
    assert y.shape == (2, 3, 32, 48)
    assert y.min() >= 0
    assert y.max() <= 1


def test_every_picture_of_a_batch_has_its_own_exposure():
    net, H = small(), [torch.cat([h, h / 2]) for h in exposures(scene())]
    together = net(*H, torch.tensor([TAU, 2 * TAU]))
    torch.testing.assert_close(together[:1], net(*(h[:1] for h in H), TAU))
    torch.testing.assert_close(together[1:], net(*(h[1:] for h in H), 2 * TAU))


def test_a_side_that_cannot_be_halved_twice_is_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        small()(*exposures(texture(32, 50)), TAU)


@pytest.mark.parametrize(
    "changes",
    [
        {"ms_hdr": False},
        {"transfer": False},
        {"levels": 1},
        {"levels": 2},
        {"matching": "encoder"},
        {"normalize": "target"},
        {"motion_attention": False},
        {"scale_attention": False},
    ],
    ids=str,
)
def test_every_ablation_runs_and_makes_a_difference(changes):
    wide = {"windows": (2, 2, 4)}
    H = exposures(0.6 * texture(32, 48), short=0.6 * texture(32, 48))
    whole, ablated = small(**wide), small(**wide, **changes)
    with torch.no_grad():
        whole.F_wgt[-1].bias.fill_(0)
        whole.output.weight.mul_(10)
    ablated.load_state_dict(whole.state_dict(), strict=False)
    y = ablated(*H, TAU)
    assert y.shape == (1, 3, 32, 48)
    assert not torch.equal(y, whole(*H, TAU))


def test_the_masked_domain_is_what_the_medium_would_have_kept():
    """With τ_s = 1, Ĥ_s is ε_m / τ_m where H_s is above it and H_s elsewhere."""
    H_s, level = torch.tensor([0.1, 0.2, 0.3, 1.0]), torch.tensor(0.25)
    assert masked_saturated(H_s, level).tolist() == pytest.approx([0.1, 0.2, 0.25, 0.25])
    R = scene()
    H_s, H_m, _ = exposures(R)
    level = torch.tensor(0.95 / TAU)
    torch.testing.assert_close(masked_saturated(H_s, level), masked_saturated(H_m, level))
    assert not torch.allclose(H_s, H_m)


def test_the_trunk_sees_the_medium_photograph():
    photograph = torch.rand(1, 3, 4, 4)
    H_m, level = photograph**2.2 / TAU, torch.tensor(1 / TAU)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(displayed(H_m, level), (photograph - mean) / std)


def test_a_cell_is_saturated_if_one_of_its_pixels_is():
    pixel = torch.zeros(1, 8, 8, dtype=torch.bool)
    pixel[0, 5, 2] = True
    fine, half, quarter = masks(pixel)
    assert fine.nonzero().tolist() == [[0, 5, 2]]
    assert half.nonzero().tolist() == [[0, 2, 1]]
    assert quarter.nonzero().tolist() == [[0, 1, 0]]


def planted(dy, dx):
    """A scene with a clipped spot, and the same scene as the short frame sees it, moved."""
    radiance = 0.2 * texture(96, 96)
    radiance[..., 44:52, 40:48] += 0.4 + 0.2 * torch.rand(1, 3, 8, 8)
    return exposures(radiance, short=radiance.roll((dy, dx), (2, 3)))


def moves_of(net, H):
    level = torch.tensor([0.95 / TAU]).view(1, 1, 1, 1)
    places = masks((H[1] >= level).any(1))
    target_of = net.matching_features((H[0], H[1]), level, net.F_enc(net.F_ex(H[1]).relu(), MEDIUM))
    source, target = target_of
    return places, match(target, source, places, net.windows, net.normalize)


@pytest.mark.parametrize("move", [(0, 0), (8, -12), (-16, 20), (24, 0)])
def test_a_texture_moved_by_whole_cells_is_found_everywhere(move):
    net = small(trunk=(8, 16, 16), windows=(2, 2, 6))
    with torch.no_grad():
        places, moves = moves_of(net, planted(*move))
    for scale, (place, found) in enumerate(zip(places, moves, strict=True)):
        assert place.any()
        at = found.permute(0, 2, 3, 1)[place]
        assert (at == torch.tensor(move) // 2**scale).all()


@pytest.mark.parametrize("move", [(5, -7), (-3, 2), (13, 10)])
def test_a_texture_moved_by_any_number_of_pixels_is_found(move):
    """But for the pixels amid the spot, whose 3×3 patch is flat at full size."""
    net = small(trunk=(16, 32, 32), windows=(2, 2, 6))
    with torch.no_grad():
        places, moves = moves_of(net, planted(*move))
    off = (moves[0].permute(0, 2, 3, 1)[places[0]] - torch.tensor(move)).abs().amax(dim=1)
    assert (off == 0).float().mean() > 0.75
    assert off.max() <= 4


def test_the_features_of_the_moved_texture_come_back_to_their_place():
    net, (dy, dx) = small(trunk=(8, 16, 16), windows=(2, 2, 6)), (8, -12)
    H_s, H_m, _ = planted(dy, dx)
    level = torch.tensor([0.95 / TAU]).view(1, 1, 1, 1)
    with torch.no_grad():
        F_s, F_m = net.F_ex(H_s).relu(), net.F_ex(H_m).relu()
        A_mt_s = attention(net.F_mt_s, F_s, F_m)
        swapped = net.transferred(F_s, F_m, A_mt_s, (H_s, H_m), level, H_m >= level)
        A_sat_s = attention(net.F_sat, (H_s >= level).float())
        Phi_nft = net.F_enc(F_s * torch.sigmoid(A_mt_s + A_sat_s), SHORT)  # (9)
        Phi_m = net.F_enc(F_m, MEDIUM)
    places = masks((H_m >= level).any(1))
    for scale, place in enumerate(places):
        back = Phi_nft[scale].roll((-dy // 2**scale, -dx // 2**scale), (2, 3))
        expected = torch.where(place[:, None], back, Phi_m[scale])
        torch.testing.assert_close(swapped[scale], expected)


def test_only_saturated_pixels_look_at_the_moved_texture():
    """Where the medium is not clipped, the features are the medium's own, exactly."""
    net = small(windows=(2, 2, 6))
    dim = exposures(0.2 * texture(32, 32), short=0.2 * texture(32, 32))
    level = torch.tensor([0.95 / TAU]).view(1, 1, 1, 1)
    with torch.no_grad():
        F_s, F_m = net.F_ex(dim[0]).relu(), net.F_ex(dim[1]).relu()
        kept = net.transferred(F_s, F_m, F_m.new_ones(()), (dim[0], dim[1]), level, dim[1] >= level)
        Phi_m = net.F_enc(F_m, MEDIUM)
    assert all(torch.equal(k, p) for k, p in zip(kept, Phi_m, strict=True))


def test_untrained_it_returns_nearly_the_medium_frame():
    net, H = small(channels=16), exposures(0.2 * texture(32, 48))
    with torch.no_grad():
        y = net(*H, TAU)
    assert (torch.log(y) - torch.log(H[1])).abs().mean() < 1


def test_equation_14_without_residual_and_weight_is_the_medium():
    net, H = small(), exposures(scene())
    with torch.no_grad():
        net.output.weight.zero_()
        net.F_wgt[-1].bias.fill_(-40)
        torch.testing.assert_close(net(*H, TAU), H[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"matching": "encoder"}, {"levels": 1}], ids=str)
def test_tiles_with_a_halo_of_reach_are_the_whole_once_the_pools_are_frozen(changes):
    net = attentive(small(**changes))
    R = scene(48, 216)
    R[..., 20:30, 90:130] += 0.5
    H = exposures(R, short=R.roll((4, 6), (2, 3)))
    half = [functional.avg_pool2d(h, 2) for h in H]
    cut, halo = 108, net.reach + -net.reach % 4
    with torch.no_grad(), frozen(net, measure(net, *(h[..., :104] for h in half), TAU)):
        whole = net(*H, TAU)
        left = net(*(h[..., : cut + halo] for h in H), TAU)[..., :cut]
        right = net(*(h[..., cut - halo :] for h in H), TAU)[..., halo:]
    torch.testing.assert_close(torch.cat([left, right], dim=-1), whole, atol=2e-6, rtol=1e-4)


def test_without_freezing_tiles_differ():
    net, H = attentive(small()), exposures(scene(32, 160) * torch.linspace(1, 0, 160))
    with torch.no_grad():
        part = net(*(h[..., :120] for h in H), TAU)[..., :16]
    assert not torch.allclose(part, net(*H, TAU)[..., :16], atol=2e-6, rtol=1e-4)


def test_statistics_of_a_picture_without_saturation_serve_a_tile_with_it():
    net, H = small(), exposures(scene())
    dim = exposures(0.1 * texture(32, 48))
    with torch.no_grad(), frozen(net, measure(net, *dim, TAU)):
        assert net(*H, TAU).isfinite().all()


def test_layout_does_not_change_the_result():
    net, H = small(), exposures(scene(batch=2))
    with torch.no_grad():
        expected = net(*H, TAU)
        net = net.to(memory_format=torch.channels_last)
        H = [h.to(memory_format=torch.channels_last) for h in H]
        torch.testing.assert_close(net(*H, TAU), expected)


@pytest.mark.parametrize("matching", ["trunk", "encoder"])
def test_half_precision_is_finite_and_near_and_ends_in_float32(matching):
    net, H = small(matching=matching), exposures(scene())
    with torch.no_grad():
        expected = net(*H, TAU)
        with torch.autocast("cpu", torch.bfloat16):
            auto = net(*H, TAU)
        whole = net.bfloat16()(*(h.bfloat16() for h in H), TAU)
    assert auto.dtype == whole.dtype == torch.float32
    for y in (auto, whole):
        assert y.isfinite().all()
        assert (y - expected).abs().mean() < 0.01 * expected.mean()


def test_a_gradient_reaches_every_parameter_but_those_behind_the_argmax():
    net = small().train()
    net(*exposures(scene()), TAU).square().mean().backward()
    still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert still == {f"Psi.{name}" for name, _ in net.Psi.named_parameters()}


@pytest.mark.slow
def test_it_learns_to_fill_in_what_the_medium_clips():
    net, R = small().train(), scene(16, 16)
    H = exposures(R)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(45):
        optimizer.zero_grad()
        loss = functional.l1_loss(net(*H, TAU), H[0])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * functional.l1_loss(H[1], H[0]).item()
