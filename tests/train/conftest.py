"""What the tests of several trainings share."""

import numpy as np
import pytest
import torch

from hdrcli.formats import write
from hdrcli.frames import Radiance
from hdrcli.train import pooled, session
from hdrcli.train.pooled import Plan


@pytest.fixture
def tiny_order(tmp_path, rng, monkeypatch):
    """Make an order to train a pooled task for two steps on one made-up picture."""
    torch.set_num_threads(1)
    hdri = tmp_path / "hdri"
    hdri.mkdir()
    light = np.exp(rng.normal(size=(96, 128, 3))).astype(np.float32)
    write(hdri / "one.exr", Radiance(light))
    monkeypatch.setattr(pooled, "SIDE", 48)

    def make(task):
        plan = Plan(task, batch=1, crop=16, examples=4, held_out=4)
        monkeypatch.setattr(session, "POOLED", {(task.backend, "tiny"): plan})
        data, out = f"scenes:{hdri}", tmp_path / "out"
        return session.Order(task.backend, "tiny", data, out, steps=2, device="cpu", threads=1)

    return make
