"""Training of FlowMerge: it learns from a pool, resumes, and asks nothing of what clips."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hdrcli.errors import InputError
from hdrcli.nets.flowmerge import FlowMerge
from hdrcli.train import checkpoint, pooled, session
from hdrcli.train.flowmerge import TASK, loss_of
from hdrcli.train.loop import BEST
from hdrcli.train.pooled import Judge, Plan, Run


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


PLAN = Plan(TASK, minutes=1.0, batch=2, crop=16)


def test_steps_are_finite_and_move_the_average(pool):
    run = Run(pool, PLAN)
    before = {name: value.clone() for name, value in run.averaged.state_dict().items()}
    errors = [run.step() for _ in range(3)]
    assert np.isfinite(errors).all()
    assert any((value != before[name]).any() for name, value in run.averaged.state_dict().items())


def test_a_resumed_training_goes_on_bit_for_bit(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(pooled.Run, "rate", lambda self: 1e-3)  # time is not the same twice
    whole = Run(pool, PLAN)
    for _ in range(2):
        whole.step()
    again = Run(pool, PLAN)
    checkpoint.save(tmp_path / "training.safetensors", *whole.state())
    again.restore(*checkpoint.load(tmp_path / "training.safetensors"))
    assert again.steps == 2
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


def test_before_the_first_step_it_is_the_classical_merge(pool):
    judge = Judge(TASK, pool)
    scores = judge.scores(judge.results(Run(pool, PLAN).net))
    assert scores.psnr_mu == pytest.approx(scores.merge_mu, abs=1e-3)
    assert scores.psnr_l == pytest.approx(scores.merge_l, abs=1e-3)
    assert scores.merge_mu != pytest.approx(scores.reference_mu, abs=1e-3)


def test_an_order_is_carried_out_and_resumed(tiny_order):
    order = tiny_order(TASK)
    assert session.train(order) == order.out / BEST
    weights, about = checkpoint.load(order.out / BEST)
    FlowMerge().load_state_dict(weights)
    assert about["backend"] == "flowmerge"
    made = sorted((order.out / "pool").iterdir())
    with pytest.raises(InputError, match="holds a training already"):
        session.train(order)
    session.train(replace(order, resume=True, steps=3))
    log = (order.out / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 3
    assert sorted((order.out / "pool").iterdir()) == made, "the pool is made once"


def test_recorded_data_is_refused(tiny_order, tmp_path):
    order = tiny_order(TASK)
    with pytest.raises(InputError, match="brackets it makes up itself"):
        session.train(replace(order, data=str(tmp_path)))


def test_training_and_judging_share_no_example(tiny_order):
    order = tiny_order(TASK)
    session.train(order)
    names = [{p.name for p in (order.out / d).iterdir()} for d in ("pool", "pool-held-out")]
    assert len(names[0]) == len(names[1]) == 4
    assert not names[0] & names[1]
