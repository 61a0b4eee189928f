"""Training of FlowMerge: it learns from a pool, resumes, and asks nothing of what clips."""

import numpy as np
import pytest
import torch

from hdrcli.errors import InputError
from hdrcli.train import checkpoint, flowmerge
from hdrcli.train.flowmerge import Plan, Run, loss_of


def example(rng, frames=3, side=32):
    shape = (frames, side, side)
    light = rng.random((frames, 3, side, side)).astype(np.float16)
    return {
        "light": light,
        "clipped": light.max(axis=1) > 0.95,
        "valid": np.ones(shape, bool),
        "belief": np.full(shape, 0.5, np.float16),
        "disagreement": rng.random(shape).astype(np.float16),
        "ratio": np.array([0.25, 1.0, 4.0], np.float32)[:frames],
        "reference": np.array(1),
        "fade": np.array(0.83, np.float32),
        "bound": np.array(0.95, np.float32),
        "dark": np.array(0.0024, np.float32),
        "radiance": (2 * rng.random((3, side, side))).astype(np.float16),
    }


@pytest.fixture
def pool(tmp_path, rng):
    torch.set_num_threads(1)
    for i in range(3):
        np.savez(tmp_path / f"n3-{i:08d}-0.npz", **example(rng))
    return tmp_path


PLAN = Plan(minutes=1.0, batch=2, crop=16)


def test_steps_are_finite_and_move_the_average(pool):
    run = Run(pool, PLAN)
    before = {name: value.clone() for name, value in run.averaged.state_dict().items()}
    errors = [run.step() for _ in range(3)]
    assert np.isfinite(errors).all()
    assert any((value != before[name]).any() for name, value in run.averaged.state_dict().items())


def test_a_resumed_training_goes_on_bit_for_bit(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(flowmerge.Run, "rate", lambda self: 1e-3)  # time is not the same twice
    whole = Run(pool, PLAN)
    for _ in range(2):
        whole.step()
    again = Run(pool, PLAN)
    checkpoint.save(tmp_path / "training.safetensors", *whole.state())
    again.restore(*checkpoint.load(tmp_path / "training.safetensors"))
    assert whole.step() == again.step()
    for ours, theirs in zip(whole.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_empty_pool_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="too few examples"):
        Run(tmp_path, PLAN).step()


def test_what_clips_everywhere_is_not_asked_for():
    ratio = torch.tensor([[0.25, 1.0]])
    truth = torch.full((1, 3, 4, 4), 9.0)
    loss, squared = loss_of(torch.full((1, 3, 4, 4), 5.0), truth, ratio)
    assert (float(loss), squared) == (0.0, 0.0)
    worse, _ = loss_of(torch.full((1, 3, 4, 4), 2.0), truth, ratio)
    assert worse > 0
