"""Training of the denoiser: its pool is what FlowMerge merges, its loss one of decibels."""

import json

import pytest
import torch

from hdrcli.nets.denoise import Denoiser
from hdrcli.train import checkpoint, session
from hdrcli.train.denoise import TASK, loss_of
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
