from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hdrcli.importers import import_files
from hdrcli.nets.fused import reflected
from hdrcli.nets.hdrgan import (
    HDRGAN,
    Discriminator,
    discriminator_loss,
    fold,
    generator_loss,
    sphere_moments,
)
from tests.importers.bundle import around, write_bundle
from tests.nets.golden import arrays, assert_close, weights
from tests.nets.support import seen

torch.set_num_threads(1)
MU = 5000
ABLATIONS: dict[str, dict[str, Any]] = {
    "two-scale": {"scales": 2},
    "four-scale": {"scales": 4},
    "without merging": {"merging": False},
    "ours": {},
}


def frames(size=16):
    torch.manual_seed(0)
    return [2 * torch.rand(2, 6, size, size) - 1 for _ in range(3)]


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """The network with the golden weights, from a bundle as the authors' trainer leaves it."""
    prefix = tmp_path_factory.mktemp("hdrgan") / "model"
    variables = {name: value.numpy() for name, value in weights("hdrgan")["hdrgan"].items()}
    tensors, arch = import_files("hdrgan", [write_bundle(prefix, around(variables))])
    net = HDRGAN(**arch).eval()
    net.load_state_dict(tensors)
    return net


def golden_frames(golden):
    """[L_i, T(H_i)], both in [-1, 1]."""
    for i in range(3):
        ldr = golden[f"ldr{i + 1}"].permute(0, 3, 1, 2)
        h = ldr.double() ** 2.2 / golden["exposures"][i].double()
        tonemapped = torch.log(1 + MU * h) / np.log(1 + MU)
        yield torch.cat((ldr, tonemapped.float()), 1) * 2 - 1


def test_the_published_sizes():
    assert sum(p.numel() for p in HDRGAN().parameters()) == 2_557_382
    assert sum(p.numel() for p in HDRGAN(spectral=True).parameters()) == 2_557_382
    assert sum(p.numel() for p in Discriminator().parameters()) == 660_929


def test_golden(authors):
    golden = arrays("hdrgan")
    with torch.no_grad():
        first, second = authors(*golden_frames(golden))
    assert_close(first, golden["out1"].permute(0, 3, 1, 2))
    assert_close(second, golden["out2"].permute(0, 3, 1, 2))


def test_golden_channels_last(authors):
    golden = arrays("hdrgan")
    x = [f.contiguous(memory_format=torch.channels_last) for f in golden_frames(golden)]
    with torch.no_grad():
        _, second = authors.to(memory_format=torch.channels_last)(*x)
    assert_close(second, golden["out2"].permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_are_networks_that_learn(name):
    net = HDRGAN(channels=4, **ABLATIONS[name])
    outputs = net(*frames(32))
    assert len(outputs) == net.scales - 1
    assert all(y.shape == (2, 3, 32, 32) and y.abs().max() < 1 for y in outputs)
    sum(y.sum() for y in outputs).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", ["two-scale", "without merging", "ours"])
def test_reach(name):
    torch.manual_seed(0)
    net = HDRGAN(channels=4, **ABLATIONS[name])
    x = [f.requires_grad_() for f in frames(2 * net.reach + 6)]
    found = max(seen(net(*x)[-1], picture) for picture in x)
    assert net.reach - net.multiple_of <= found <= net.reach


def test_brackets_of_a_batch_do_not_meet():
    net = HDRGAN(channels=4)
    with torch.no_grad():
        both, alone = net(*frames())[-1], net(*(f[1:] for f in frames()))[-1]
    assert_close(alone, both[1:])


def test_the_wide_merge_has_a_bottleneck():
    with torch.device("meta"):
        kernels = HDRGAN(scales=4).state_dict()
    assert kernels["merge.3.convs.0.weight"].shape == (256, 510, 3, 3)  # 768 is more than 512
    assert kernels["merge.2.convs.0.weight"].shape == (128, 384, 3, 3)


def test_folding_changes_names_but_not_the_function():
    torch.manual_seed(0)
    net = HDRGAN(channels=4, spectral=True)
    net(*frames())  # moves the estimate
    net.eval()
    with torch.no_grad():
        before = net(*frames())[-1]
        fold(net)
        assert torch.equal(net(*frames())[-1], before)
    assert net.state_dict().keys() == HDRGAN(channels=4).state_dict().keys()


def test_normalised_weights_stretch_nothing():
    torch.manual_seed(0)
    net = HDRGAN(channels=4, spectral=True)
    for _ in range(12):
        net(*frames(12))
    fold(net)
    kernel = net.state_dict()["encoders.0.blocks.0.conv1.weight"]
    assert float(torch.linalg.matrix_norm(kernel.flatten(1), 2)) == pytest.approx(1, abs=0.02)


def test_upsampling_is_not_normalised():
    names = HDRGAN(channels=4, spectral=True).state_dict().keys()
    assert {name.split(".")[0] for name in names if name.endswith("conv.weight")} == {"up"}


def test_the_discriminator_sees_patches():
    D = Discriminator(channels=4)
    q = D(torch.rand(2, 3, 64, 96) * 2 - 1)
    assert q.shape == (2, 1, 2, 6)
    q.sum().backward()
    assert all(p.grad is not None for p in D.parameters())


def distance(q, other):
    """Equation 8, from the coordinates of both points before they are projected."""
    a, b = float(q @ q), float(other @ other)
    cosine = (a * b - a - b + 4 * float(q @ other) + 1) / ((a + 1) * (b + 1))
    return float(np.arccos(np.clip(cosine, -1, 1)))


def test_distances_are_those_of_the_paper():
    torch.manual_seed(0)
    q = torch.randn(4, 7).double()
    north = 1e7 * torch.eye(7)[0].double()  # the pole is what infinity is projected to
    first = torch.eye(7)[0].double()  # e_1 lies on the sphere and is projected to itself
    for pole, point in ((True, north), (False, first)):
        d = [distance(row, point) for row in q]
        expected = [x + x**2 + x**3 for x in d]
        found = sphere_moments(q.float(), pole=pole)
        assert found.tolist() == pytest.approx(expected, rel=1e-4)
        assert sphere_moments(q.float(), moments=1, pole=pole).tolist() == pytest.approx(
            d, rel=1e-4
        )


def test_distances_stay_finite_with_finite_slopes():
    q = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [1e4, 0, 0]], requires_grad=True)
    for pole in (True, False):
        found = sphere_moments(q, pole=pole)
        (slope,) = torch.autograd.grad(found.sum(), q)
        assert torch.isfinite(found).all()
        assert torch.isfinite(slope).all()


def test_the_players_want_opposite_things():
    near, far = torch.full((2, 1, 3, 3), 0.5), torch.full((2, 1, 3, 3), -0.5)
    assert discriminator_loss(far, [near]) < discriminator_loss(near, [far])
    assert generator_loss([far, far]) < generator_loss([near, near])
    assert float(discriminator_loss(near, [far, near]) + generator_loss([far, near])) == (
        pytest.approx(-float(sphere_moments(near).mean()))
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n", [1, 2])
def test_reflected_is_what_torch_calls_reflect(layout, n):
    x = torch.randn(2, 3, 5, 7).contiguous(memory_format=layout)
    wide = reflected(x, n)
    assert torch.equal(wide, functional.pad(x, (n, n, n, n), mode="reflect"))
    assert wide.is_contiguous(memory_format=layout)
