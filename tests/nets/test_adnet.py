from typing import Any

import pytest
import torch

from hdrcli.importers import import_files
from hdrcli.nets.adnet import ADNet
from tests.nets.golden import arrays, assert_close, weights
from tests.nets.support import point_a_little, seen

torch.set_num_threads(1)
SMALL: dict[str, Any] = {"channels": 8, "growth": 4, "dense_layers": 2, "blocks": 2, "groups": 2}
ABLATIONS: dict[str, dict[str, Any]] = {
    "baseline": {"align": "none", "dual": False},
    "variant 1": {"attention": False, "align": "single", "dual": False},
    "variant 2": {"attention": False, "align": "pcd", "dual": False},
    "ours": {},
}


def frames(size=16):
    torch.manual_seed(0)
    return [torch.rand(2, 6, size, size) for _ in range(3)]


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """The network with the golden weights, from a checkpoint as the authors' trainer writes it."""
    path = tmp_path_factory.mktemp("adnet") / "checkpoint.pth"
    state = {f"module.{name}": value for name, value in weights("adnet")["adnet"].items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"step": 1}}, path)
    tensors, arch = import_files("adnet", [path])
    net = ADNet(**arch).eval()
    net.load_state_dict(tensors)
    return net


def golden_frames(golden):
    """[I_i, Ĩ_i], Ĩ_i = (I_i^γ · t_r / t_i)^(1/γ)."""
    ev = golden["exposure_values"].double()
    for i in range(3):
        ldr = golden[f"ldr{i + 1}"]
        aligned = (ldr.double() ** 2.24 * 2 ** (ev[1] - ev[i])) ** (1 / 2.24)
        yield torch.cat((ldr, aligned.float()), 1)


def test_the_published_size():
    assert sum(p.numel() for p in ADNet().parameters()) == 2_956_483


def test_golden(authors):
    golden = arrays("adnet")
    with torch.no_grad():
        features, skip = authors.features(list(golden_frames(golden)))
        assert_close(features[:, 0:2], golden["aligned1_ch0_1"])
        assert_close(features[:, 256:258], golden["aligned3_ch0_1"])
        assert_close(authors.fuse(features, skip).relu(), golden["out"])


def test_golden_channels_last(authors):
    golden = arrays("adnet")
    x = [f.contiguous(memory_format=torch.channels_last) for f in golden_frames(golden)]
    with torch.no_grad():
        assert_close(authors.to(memory_format=torch.channels_last)(*x), golden["out"])


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_networks_that_learn(name):
    net = ADNet(**SMALL, **ABLATIONS[name])
    point_a_little(net)
    y = net(*frames())
    assert y.shape == (2, 3, 16, 16)
    net.fuse(*net.features(frames())).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_reach(name):
    torch.manual_seed(0)
    net = ADNet(channels=4, growth=2, dense_layers=1, blocks=1, groups=1, **ABLATIONS[name])
    point_a_little(net)
    x = [f.requires_grad_() for f in frames(92)]
    found = max(seen(net.fuse(*net.features(x)), picture) for picture in x)
    assert net.reach - 6 <= found <= net.reach


def test_outputs_end_as_asked():
    relu, sigmoid = (ADNet(**SMALL, output=output) for output in ("relu", "sigmoid"))
    sigmoid.load_state_dict(relu.state_dict())
    with torch.no_grad():
        before = relu.fuse(*relu.features(frames()))
        assert torch.equal(relu(*frames()), before.clamp(min=0))
        assert torch.equal(sigmoid(*frames()), before.sigmoid())


def test_brackets_of_a_batch_do_not_meet():
    net = ADNet(**SMALL)
    point_a_little(net)
    with torch.no_grad():
        both = net.fuse(*net.features(frames()))
        alone = net.fuse(*net.features([f[1:] for f in frames()]))
    assert_close(alone, both[1:])


def test_in_bfloat16_the_last_sum_is_float32():
    net = ADNet(**SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(*frames())
    with torch.no_grad():
        full = net(*frames())
    assert half.dtype == torch.float32
    assert float((half - full).abs().max()) < 0.05 * float(full.abs().max())


@pytest.mark.parametrize(
    "wrong", [{"align": "flow"}, {"output": "tanh"}, {"align": "none", "attention": False}]
)
def test_no_such_network(wrong):
    with pytest.raises(ValueError, match="no such ADNet"):
        ADNet(**SMALL, **wrong)
