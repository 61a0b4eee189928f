"""The losses of the papers."""

import math

import pytest
import torch

from hdrcli.nets.apntfusion import MatchingTrunk
from hdrcli.nets.hdrgan import Discriminator
from hdrcli.train.loss import (
    LOSSES,
    MU,
    Aids,
    adversary,
    hybrid,
    masked_l1,
    matching_loss,
    mu_law,
    mu_law_l1,
    percentile,
    perceptual,
    tanh_mu_law_l1,
    tone_mapped,
)

NO_AIDS = Aids()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def picture(batch=2, side=16):
    return torch.rand(batch, 3, side, side)


@pytest.fixture
def trunk():
    return MatchingTrunk((4, 4, 4))


@pytest.mark.parametrize("name", LOSSES)
def test_the_truth_costs_nothing_and_anything_else_does(name):
    y = picture()
    assert LOSSES[name]((y,), y, NO_AIDS).item() == 0
    assert LOSSES[name]((y.roll(1, 2),), y, NO_AIDS).item() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_reaches_every_output_and_is_finite_also_at_black(name):
    outputs = [torch.zeros(1, 3, 8, 8, requires_grad=True), picture(1, 8).requires_grad_()]
    loss = LOSSES[name](outputs, picture(1, 8), NO_AIDS)
    loss.backward()
    assert loss.dtype == torch.float32
    for y in outputs:
        assert y.grad.isfinite().all()
    assert outputs[1].grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_outputs_are_compared_in_float32(name):
    y, truth = picture(), picture()
    exact = LOSSES[name]((y,), truth, NO_AIDS)
    assert LOSSES[name]((y.bfloat16(),), truth, NO_AIDS).item() == pytest.approx(
        exact.item(), rel=0.01
    )


def test_mu_law_is_the_formula_of_the_papers():
    H = torch.tensor([0.0, 1 / MU, 0.5, 1.0, -0.3])
    expected = [0.0, math.log(2) / math.log(1 + MU), math.log(2501) / math.log(5001), 1.0, 0.0]
    torch.testing.assert_close(mu_law(H), torch.tensor(expected))
    torch.testing.assert_close(tone_mapped(H), 2 * torch.tensor(expected) - 1)


def test_light_above_one_still_counts():
    assert mu_law_l1((torch.full((1, 3, 2, 2), 3.0),), torch.ones(1, 3, 2, 2), NO_AIDS) > 0.1


def test_the_hybrid_adds_the_outputs_in_their_own_domain():
    truth = tone_mapped(picture())
    outputs = (truth + 0.25, truth - 0.5)
    assert hybrid(outputs, truth, NO_AIDS).item() == pytest.approx(0.75)


def test_the_adversary_term_has_its_weight_and_looks_at_every_output():
    D = Discriminator(channels=8).eval()
    truth = tone_mapped(picture(1, 64))
    outputs = (truth + 0.1 * torch.randn_like(truth), -truth)
    without = hybrid(outputs, truth, NO_AIDS)
    once, twice = (hybrid(outputs, truth, Aids(discriminator=D, adversarial=w)) for w in (1.0, 2.0))
    assert (twice - without).item() == pytest.approx(2 * (once - without).item(), rel=1e-4)
    other = hybrid((outputs[0], outputs[0]), truth, Aids(discriminator=D))
    assert (other - hybrid((outputs[0], outputs[0]), truth, NO_AIDS)).item() != pytest.approx(
        (once - without).item(), rel=1e-6
    )


def test_the_adversary_learns_without_moving_the_generator():
    D = Discriminator(channels=8)
    y = tone_mapped(picture(1, 64)).requires_grad_()
    adversary((y, -y), tone_mapped(picture(1, 64)), D).backward()
    assert y.grad is None
    assert all(p.grad is not None for p in D.parameters())


def test_the_masked_loss_is_per_badly_exposed_pixel():
    """As many errors in half as many pixels cost twice as much."""
    truth, y = picture(1), picture(1)
    bad = torch.zeros(1, 1, 16, 16)
    bad[..., :4] = 1
    plain = masked_l1((y,), truth, NO_AIDS)
    quarter = masked_l1((y,), truth, Aids(badly_exposed=bad))
    assert quarter.item() == pytest.approx(4 * plain.item())
    assert masked_l1((y,), truth, Aids(badly_exposed=torch.ones_like(bad))) == plain


def test_a_batch_with_nothing_to_fill_in_is_finite():
    nothing = Aids(badly_exposed=torch.zeros(2, 1, 16, 16))
    assert masked_l1((picture(),), picture(), nothing).isfinite()


def test_the_perceptual_part_is_the_distance_of_features(trunk):
    truth, y = picture(), picture()
    plain, both = (masked_l1((y,), truth, aids) for aids in (NO_AIDS, Aids(trunk=trunk)))
    assert (both - plain).item() == pytest.approx(perceptual(y, truth, trunk).item(), rel=1e-5)
    assert perceptual(y, truth, trunk) > 0
    assert perceptual(truth, truth, trunk) == 0


def test_features_take_the_gradient_of_the_output_only(trunk):
    y, truth = picture().requires_grad_(), picture().requires_grad_()
    perceptual(y, truth, trunk).backward()
    assert y.grad.any()
    assert truth.grad is None


def test_the_percentile_is_of_each_picture():
    numbers = torch.stack([torch.arange(300.0), 2 * torch.arange(300.0)]).view(2, 3, 10, 10)
    assert percentile(numbers, 0.99).flatten().tolist() == [296, 592]
    assert percentile(torch.zeros(1, 3, 2, 2), 0.99).item() > 0


def test_ntires_form_does_not_care_for_the_exposure_of_both():
    """The percentile takes the scale out: twice the code on both sides costs the same."""
    y, truth = picture(), picture()
    once = tanh_mu_law_l1((y,), truth, NO_AIDS)
    assert tanh_mu_law_l1((2 * y,), 2 * truth, NO_AIDS).item() == pytest.approx(
        once.item(), rel=1e-4
    )
    assert tanh_mu_law_l1((2 * y,), truth, NO_AIDS).item() != pytest.approx(once.item(), rel=1e-2)


def test_ntires_form_forgives_errors_far_above_white():
    truth = torch.linspace(0, 1, 300).view(1, 3, 10, 10)
    above, below = truth.clone(), truth.clone()
    above[truth > 0.99] += 4
    below[truth < 0.02] += 0.1
    assert tanh_mu_law_l1((above,), truth, NO_AIDS) < tanh_mu_law_l1((below,), truth, NO_AIDS)


def test_ntires_form_is_its_formula():
    y, truth = picture(1), picture(1)
    white = truth.flatten().sort().values[math.ceil(0.99 * truth.numel()) - 1] ** 2.24
    T = [torch.log(1 + 5000 * torch.tanh(x**2.24 / white)) / math.log(5001) for x in (y, truth)]
    expected = (T[0] - T[1]).abs().mean().item()
    assert tanh_mu_law_l1((y,), truth, NO_AIDS).item() == pytest.approx(expected, rel=1e-5)


def test_the_trunk_learns_to_tell_places_apart():
    trunk = MatchingTrunk((4, 8, 8))
    H = 0.2 * picture(2, 48)
    optimizer = torch.optim.Adam(trunk.parameters(), lr=2e-3)
    losses = []
    for step in range(12):
        optimizer.zero_grad()
        dice = torch.Generator().manual_seed(step % 2)
        loss = matching_loss(trunk, H, 4.0, dice, places=64)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.any() for p in trunk.parameters())
    assert losses[-1] < losses[1]


def test_a_copy_without_noise_is_likest_to_itself():
    """Below the loss of guessing by far, whatever the trunk."""
    loss = matching_loss(MatchingTrunk((8, 16, 16)), 0.2 * picture(1, 48), 4.0, places=64, noise=0)
    assert loss.item() < 0.5 * math.log(64)
