"""Outputs of the authors' networks, for weights that follow from their names."""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def arrays(name):
    """Arrays by name, as tensors; 8-bit codes become floats in [0, 1], numbers float32."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return {key: _tensor(stored[key]) for key in stored}


def _tensor(array):
    if array.dtype == np.uint8 and array.max() > 1:
        return torch.from_numpy((array / 255).astype(np.float32))
    return torch.from_numpy(np.asarray(array, np.float32))


def weights(name):
    """Weights by file and by the name the authors gave them."""
    files = json.loads((GOLDEN / f"{name}.json").read_text())
    return {file.get("file", name): _weights(file) for file in files}


def _weights(file):
    found, digest = {}, hashlib.sha256()
    for name, shape, rule in file["weights"]:
        gains = [gain for prefix, gain in file["gains"].items() if name.startswith(prefix)]
        value = _value(name, shape, rule, gains[0] if gains else file["gain"])
        if rule != "int0":
            digest.update(value.astype("<f4").tobytes())
        found[name] = torch.from_numpy(value)
    assert digest.hexdigest() == file["sha256"]
    return found


def _value(name, shape, rule, gain):
    if rule == "int0":
        return np.zeros(shape, np.int64)
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    fan_in = np.prod(shape[1:])
    value = {
        "w": lambda: noise * np.sqrt(1 / fan_in) * gain,
        "w_dcnmask": lambda: 0.3 * noise * np.sqrt(1 / fan_in) * gain,
        "bias": lambda: 0.05 * noise,
        "bias_dcnmask": lambda: 0.3 * 0.05 * noise,
        "norm_weight": lambda: 1 + 0.1 * noise,
        "running_mean": lambda: 0.1 * noise,
        "running_var": lambda: 1 + 0.1 * abs(noise),
    }[rule]()
    return value.astype(np.float32)


def assert_close(actual, expected):
    """Closer than float32 sums in another order make them: 2e-5 of the largest value."""
    assert actual.shape == expected.shape
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=2e-5 * float(expected.abs().max()) + 1e-6
    )
