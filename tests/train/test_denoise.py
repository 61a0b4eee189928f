"""Training of the denoiser: its pool is what FlowMerge merges, its loss one of decibels."""

import json

import numpy as np
import pytest
import torch

from hdrcli.nets.denoise import KNEE, Denoiser, noise_of
from hdrcli.train import checkpoint, session
from hdrcli.train.denoise import SCALES, TASK, dyed, grained, loss_of, told_by
from hdrcli.train.loop import BEST


def test_an_order_is_carried_out(tiny_order):
    order = tiny_order(TASK)
    assert session.train(order) == order.out / BEST
    weights, about = checkpoint.load(order.out / BEST)
    Denoiser().load_state_dict(weights)
    assert about["backend"] == "denoise"
    log = [json.loads(line) for line in (order.out / "log.jsonl").read_text().splitlines()]
    assert log[0]["psnr_mu"] == pytest.approx(log[0]["merge_mu"], abs=1e-3), "it starts as nothing"
    assert log[-1]["step"] == 2
    assert (order.out / "sheet.png").is_file()


def test_every_bracket_counts_by_its_own_error():
    """Halving the error of a dark scene is worth what halving that of a bright one is."""
    truth = torch.stack([torch.full((3, 8, 8), level) for level in (0.02, 0.5)])
    deviation, ratio = torch.full((2, 1, 8, 8), 0.01), torch.tensor([1.0, 1.0])

    def loss(dark, bright):
        off = torch.tensor([dark, bright])[:, None, None, None]
        return float(loss_of(truth * (1 + off), truth, 1e3 * deviation, ratio)[0])

    start = loss(0.4, 0.4)
    assert start - loss(0.2, 0.4) == pytest.approx(start - loss(0.4, 0.2), rel=0.35)


def test_what_clips_everywhere_is_not_asked_for():
    truth, ours = torch.full((1, 3, 4, 4), 9.0), torch.full((1, 3, 4, 4), 8.5)
    deviation = torch.full((1, 1, 4, 4), 0.1)
    _, squared = loss_of(ours, truth, deviation, torch.tensor([0.25]))
    assert squared == 0


def test_deviations_are_scaled_to_the_noise_there_is(rng):
    truth = np.full((128, 128), 0.2, np.float32)
    deviation = np.full_like(truth, 0.01)
    light = truth + rng.normal(0, 0.006, truth.shape).astype(np.float32)
    assert told_by(truth, light, deviation) == pytest.approx(0.6, rel=0.1)
    assert told_by(truth, truth, deviation) == np.float32(SCALES[0])
    assert told_by(5 * truth, light, deviation) == 1, "white tells nothing"


@pytest.fixture
def noisy():
    torch.manual_seed(1)
    truth = torch.full((12, 3, 48, 48), 0.1)
    deviation = torch.full((12, 1, 48, 48), 0.01)
    return truth + 0.01 * torch.randn_like(truth), truth, deviation


def test_texture_is_the_same_in_the_merge_and_in_its_truth(noisy):
    radiance, truth, deviation = noisy
    textured, true = grained(radiance, truth, deviation)
    torch.testing.assert_close(textured / radiance, true / truth)
    sizes = (true / truth).log().std(dim=(1, 2, 3))
    assert 0 < (sizes == 0).float().mean() < 1
    some = sizes[sizes > 0]
    assert some.min() > 0.2 * 0.1
    assert some.max() < 4 * 0.1


def test_what_is_dyed_has_the_noise_of_dark_light(noisy):
    radiance, truth, deviation = noisy
    dark, true, told = dyed(radiance, truth, deviation)
    expected = noise_of(true, told) * (KNEE + true)
    found = (dark - true).std(dim=(2, 3))
    torch.testing.assert_close(found, expected.mean((2, 3)), rtol=0.25, atol=0)
    assert ((true < truth).flatten(1).any(1)).float().mean() < 1
