"""Training of the denoiser: its pool is what FlowMerge merges, its loss one of decibels."""

import json

import numpy as np
import pytest
import torch

from hdrcli.nets.denoise import Denoiser
from hdrcli.train import checkpoint, pooled, session
from hdrcli.train.denoise import TASK, loss_of
from hdrcli.train.loop import BEST
from hdrcli.train.pooled import Plan


@pytest.fixture
def order(tmp_path, rng, monkeypatch):
    from hdrcli.formats import write
    from hdrcli.frames import Radiance

    torch.set_num_threads(1)
    hdri = tmp_path / "hdri"
    hdri.mkdir()
    light = np.exp(rng.normal(size=(96, 128, 3))).astype(np.float32)
    write(hdri / "one.exr", Radiance(light))
    monkeypatch.setattr(pooled, "SIDE", 48)
    tiny = Plan(TASK, batch=1, crop=16, examples=4, held_out=4)
    monkeypatch.setattr(session, "POOLED", {("denoise", "tiny"): tiny})
    return session.Order(
        "denoise", "tiny", f"scenes:{hdri}", tmp_path / "out", steps=2, device="cpu", threads=1
    )


def test_an_order_is_carried_out(order):
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
