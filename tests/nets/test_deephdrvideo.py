from typing import Any

import pytest
import torch

from hdrcli.importers import import_files
from hdrcli.nets.deephdrvideo import (
    LOW,
    STOPS,
    DeepHDRVideo,
    exposure_used,
    linear,
    shares,
    warp,
    well_exposed,
)
from tests.nets.golden import arrays, assert_close, weights
from tests.nets.support import point_a_little

torch.set_num_threads(1)
SMALL: dict[str, Any] = {
    "flow_channels": 8,
    "levels": 2,
    "weight_channels": 8,
    "weight_tail": 4,
    "channels": 4,
    "groups": 2,
    "extract_blocks": 1,
    "trunk_blocks": 1,
}
PERIODS = {2: [1, 8], 3: [1, 4, 16]}
ABLATIONS: dict[str, dict[str, Any]] = {
    "CNet": {"refine": False},
    "RefineNet†": {"coarse": False},
    "without DA": {"deformable": False},
    "without TAF": {"attention": False},
    "soft masks": {"soft_masks": True},
    "aligned before": {"flow": False, "weight_tail": 2},
    "ours": {},
}


def video(exposures=2, count=5, size=16, batch=1):
    torch.manual_seed(0)
    period = PERIODS[exposures]
    t = torch.tensor([[period[(i + b) % exposures] for i in range(count)] for b in range(batch)])
    return torch.rand(batch, count, 3, size, size), t.float()


@pytest.fixture(scope="module", params=[2, 3])
def authors(request, tmp_path_factory):
    """The network with the golden weights, from three checkpoints, and the golden arrays."""
    name = f"deephdrvideo_{request.param}e"
    folder = tmp_path_factory.mktemp(name)
    paths = []
    for file, state in weights(name).items():
        torch.save({"epoch": 1, "state_dict": state}, folder / file)
        paths.append(folder / file)
    tensors, arch = import_files("deephdrvideo", paths[::-1])
    net = DeepHDRVideo(**arch).eval()
    net.load_state_dict(tensors)
    return net, arrays(name)


def clip(golden, case):
    return golden[f"{case}_ldr"][None], golden[f"{case}_exposures"][None]


@pytest.mark.parametrize(
    ("exposures", "parts"),
    [
        (2, {"flow_net": 907_145, "weight_net": 2_525_071, "refine_net": 3_010_019}),
        (3, {"flow_net": 1_032_165, "weight_net": 2_549_659, "refine_net": 3_008_291}),
    ],
)
def test_the_published_sizes(exposures, parts):
    with torch.device("meta"):
        net = DeepHDRVideo(exposures=exposures)
    found = {n: sum(p.numel() for p in getattr(net, n).parameters()) for n in parts}
    assert found == parts
    assert sum(p.numel() for p in net.parameters()) == sum(parts.values())


@pytest.mark.slow
def test_golden_of_a_size_that_has_to_be_padded_and_stretched(authors):
    net, golden = authors
    L, t = clip(golden, "B")  # 51 × 58
    with torch.no_grad():
        assert_close(net.coarse(L[:, 1:-1], t[:, 1:-1]), golden["B_coarse_1"])
        assert_close(net(L, t), golden["B_hdr"])


def test_golden_of_a_size_that_is_padded_too_much(authors):
    net, golden = authors
    L, t = clip(golden, "C")  # 40 × 52: 40 becomes 48 because 52 becomes 56
    with torch.no_grad():
        H_c = torch.stack(
            [net.coarse(L[:, s:][:, : net.window], t[:, s:][:, : net.window]) for s in range(3)], 1
        )
        assert_close(H_c[:, 1], golden["C_coarse_1"])
        middle = slice(net.frames // 2 - 1, net.frames // 2 + 2)
        assert_close(net.refined(H_c, L[:, middle], t[:, middle]), golden["C_refined_raw"])
        assert_close(net.refine(H_c, L[:, middle], t[:, middle]), golden["C_hdr"])


def test_golden_flow(authors):
    net, golden = authors
    L, t = clip(golden, "C")
    flows = []
    net.flow_net.register_forward_hook(lambda *call: flows.append(call[-1]))
    with torch.no_grad():
        net.blend(L[:, 1:-1], t[:, 1:-1])
    assert_close(flows[0], golden["C_flows_1"])


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("deephdrvideo_2e", "C"),  # low in the middle
        ("deephdrvideo_3e", "C"),  # low
        ("deephdrvideo_3e", "A"),  # middle
    ],
)
def test_golden_masks(name, case):
    golden = arrays(name)
    L, t = clip(golden, case)
    i = L.shape[1] // 2
    assert torch.equal(well_exposed(L[:, i], t[:, i], t, LOW), golden[f"{case}_final_mask"])


def test_only_the_lowest_may_be_dark_and_only_the_highest_bright():
    around = torch.tensor([[1.0, 4, 16]] * 3)
    L = torch.tensor([0.1, 0.5, 0.95]).repeat(3, 3, 1, 1)  # dark, middle, bright
    M = well_exposed(L, torch.tensor([1.0, 4, 16]), around, 0.15)
    assert M[:, 0, 0].tolist() == [[0, 1, 1], [0, 1, 0], [1, 1, 0]]


def test_one_bright_channel_is_too_bright_but_one_dark_is_not_too_dark():
    around = torch.tensor([[1.0, 8]] * 2)
    L = torch.tensor([0.05, 0.5, 0.95]).view(1, 3, 1, 1).repeat(2, 1, 1, 1)
    assert well_exposed(L, torch.tensor([1.0, 8]), around, 0.15).flatten().tolist() == [1, 0]


def test_soft_masks_fall_with_the_square():
    around = torch.tensor([[1.0, 8]])
    L = torch.tensor([0.0, 0.075, 0.15, 0.5]).expand(1, 3, 1, 4)
    M = well_exposed(L, torch.tensor([1.0]), around, 0.15, soft=True)
    torch.testing.assert_close(M.flatten(), torch.tensor([0, 0.25, 1, 1]))
    L = torch.tensor([0.5, 0.9, 0.95, 1.0]).expand(1, 3, 1, 4)
    M = well_exposed(L, torch.tensor([8.0]), around, 0.15, soft=True)
    torch.testing.assert_close(M.flatten(), torch.tensor([1, 1, 0.25, 0]))


def test_flow_points_to_where_the_image_is_read():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    torch.testing.assert_close(warp(image, flow)[..., :-1], image[..., 1:])
    assert warp(image, flow)[..., -1].abs().max() == 0
    half = warp(image, torch.tensor([0.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 4, 5))
    torch.testing.assert_close(half[..., :-1, :], image[..., :-1, :] + 2.5)


def test_what_is_well_exposed_is_kept():
    net = DeepHDRVideo(**SMALL).eval()
    L, t = video(count=5)
    L[:, 2] = 0.5
    with torch.no_grad():
        torch.testing.assert_close(net(L, t), linear(L[:, 2], t[:, 2]))


@pytest.mark.parametrize("exposures", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_networks_that_learn(name, exposures):
    net = DeepHDRVideo(exposures=exposures, **SMALL | ABLATIONS[name])
    net.train()
    point_a_little(net)
    L, t = video(exposures, count=net.frames, batch=2)
    L *= 0.3  # or a low exposure would be kept as it is
    H = net(L, t)
    assert H.shape == (2, 3, 16, 16)
    assert H.min() >= 0
    assert H.max() <= 1 or net.corrects
    H.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_whole_is_made_of_its_stages():
    net = DeepHDRVideo(exposures=3, **SMALL).eval()
    L, t = video(3, count=7)
    with torch.no_grad():
        H_c = torch.stack([net.coarse(L[:, s : s + 5], t[:, s : s + 5]) for s in range(3)], 1)
        assert torch.equal(net.refine(H_c, L[:, 2:5], t[:, 2:5]), net(L, t))


def test_clips_of_a_batch_may_have_another_exposure_in_the_middle():
    net = DeepHDRVideo(**SMALL).eval()
    L, t = video(batch=2)
    with torch.no_grad():
        both = net(L, t)
        for i in range(2):
            assert_close(net(L[i : i + 1], t[i : i + 1]), both[i : i + 1])


def aligned(exposures, **options):
    torch.manual_seed(1)
    return DeepHDRVideo(exposures=exposures, **SMALL | ABLATIONS["aligned before"] | options).eval()


def filmed(exposures, count, size=16, batch=1):
    """A clip in which nothing moves, with its true light."""
    _, t = video(exposures, count, size, batch)
    light = 0.01 + 0.9 * torch.rand(batch, 3, size, size) ** 3
    L = (light[:, None] * t[..., None, None, None]).clamp(max=1) ** (1 / 2.2)
    return L, t, light


@pytest.mark.parametrize("exposures", [2, 3])
def test_shares_add_up_and_leave_out_what_is_not_believed(exposures):
    L, t = video(exposures, count=2 * exposures - 1, batch=2)
    belief = torch.rand(L.shape[:2]).gt(0.5).float()[..., None, None, None].expand_as(L[:, :, :1])
    P, clear = shares(L.flip(1), t.flip(1), belief)
    torch.testing.assert_close(P.sum(1), torch.ones_like(P[:, 0]))
    assert 0 <= P.min() <= P.max() <= 1
    assert 0 <= clear.min() <= clear.max() <= 1


def test_the_brightest_clear_exposure_has_the_share():
    t = torch.tensor([[1.0, 16.0, 16.0, 4.0, 4.0]])
    codes = torch.tensor([0.02, 0.3, 0.02, 0.2])  # light at exposure 1
    L = (codes * t[..., None]).clamp(max=1).view(1, 5, 1, 1, 4).expand(-1, -1, 3, -1, -1)
    P, _ = shares(L, t, torch.ones(1, 5, 1, 1, 4))
    expected = torch.tensor([[0.0, 1, 0, 0], [0.5, 0, 0.5, 0], [0.5, 0, 0.5, 0]])
    torch.testing.assert_close(P[0, :3, 0, 0, :3], expected[:, [0, 1, 2]])
    torch.testing.assert_close(P[0, 3, 0, 0], torch.tensor([0.0, 0, 0, P[0, 3, 0, 0, 3]]))
    assert P[0, 3, 0, 0, 3] > 0.1


def test_light_and_the_exposure_used_tell_the_code():
    """However far the exposures of a clip are apart: noise follows from the code."""
    for step in (1.5, 6.0):
        t = torch.tensor([[0.0, 1, 0]]).mul(step).exp2()
        light = torch.full((1, 1, 2, 2), 0.3) / t[:, 1, None, None, None]  # of the bright frame
        P = torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1, 1).expand(-1, -1, 1, 2, 2)
        code = torch.log2(light) + STOPS * exposure_used(P, t)
        torch.testing.assert_close(code, torch.full_like(code, 0.3).log2())


@pytest.mark.parametrize("exposures", [2, 3])
def test_whatever_the_weight_net_says_what_does_not_move_is_itself(exposures):
    net = aligned(exposures)
    L, t, light = filmed(exposures, net.window)
    with torch.no_grad():
        torch.testing.assert_close(net.coarse(L, t), light, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("exposures", [2, 3])
def test_what_is_not_believed_changes_nothing(exposures):
    net = aligned(exposures)
    L, t, _ = filmed(exposures, net.frames)
    middle = net.frames // 2
    L[:, middle] = L[:, middle].clamp(0.3, 0.7)  # well exposed, whichever exposure it has
    belief = torch.zeros_like(L[:, :, :1])
    belief[:, middle] = 1
    other = torch.rand_like(L)
    other[:, middle] = L[:, middle]
    with torch.no_grad():
        H = [net.coarse_frames(x, t, belief)[:, 1, :3] for x in (L, other)]
    torch.testing.assert_close(*H)
    torch.testing.assert_close(H[0], linear(L[:, middle], t[:, middle]))


def test_without_a_word_all_is_believed():
    net = aligned(2)
    L, t = video(2, count=5)
    with torch.no_grad():
        torch.testing.assert_close(net(L, t), net(L, t, torch.ones_like(L[:, :, :1])))


def test_skips_want_as_many_channels():
    with pytest.raises(ValueError, match="no skips of 2 channels to 4"):
        DeepHDRVideo(**SMALL, flow=False)


@pytest.mark.parametrize("wrong", [{"exposures": 4}, {"coarse": False, "refine": False}])
def test_no_such_network(wrong):
    with pytest.raises(ValueError, match="no such DeepHDRVideo"):
        DeepHDRVideo(**SMALL | wrong)
