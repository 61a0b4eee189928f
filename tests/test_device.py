import os
import subprocess
import sys

import pytest
import torch

from hdrcli import device
from hdrcli.errors import DeviceError

NO_CUDA = not torch.cuda.is_available()


def test_auto_says_what_it_chose(caplog):
    with caplog.at_level("INFO", "hdrcli"):
        compute = device.settle()
    assert compute.device in ("cpu", "cuda:0", "mps")
    assert f"{compute.device} in {compute.precision}" in caplog.text
    assert compute.chosen


@pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_cuda_is_an_error_with_a_cure(name):
    with pytest.raises(DeviceError, match="no CUDA device") as caught:
        device.settle(name)
    assert "--device auto" in str(caught.value.hint)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "tpu:0", "cpu:one"])
def test_an_unknown_device_is_an_error(name):
    with pytest.raises(DeviceError, match="no such device"):
        device.checked(name)


def test_a_second_cuda_device_that_is_not_there():
    with pytest.raises(DeviceError, match="only 1 CUDA"):
        device._checked_cuda("cuda:1", 1, 1)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx512f", "avx2"}, "fp32"),
        ({"amx_bf16"}, "bf16"),
        ({"avx512_bf16"}, "bf16"),
        (set(), "fp32"),
    ],
)
def test_bf16_is_for_processors_that_have_it(monkeypatch, flags, precision):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    device.cpu_has_bf16.cache_clear()
    assert device.best_precision("cpu") == precision
    device.cpu_has_bf16.cache_clear()


def test_asking_for_bf16_without_it_warns(monkeypatch, caplog):
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    assert device.settle("cpu", "bf16").precision == "bf16"
    assert "slower" in caplog.text


def test_gpus_compute_in_fp16():
    assert device.best_precision("cuda:0") == "fp16"
    assert device.best_precision("mps") == "fp32"


def test_no_such_precision():
    with pytest.raises(DeviceError, match="no such precision"):
        device.settle("cpu", "fp8")


def test_memory_errors_of_torch_become_memory_errors():
    with pytest.raises(MemoryError), device.memory_errors():
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="size"), device.memory_errors():
        torch.ones(2) + torch.ones(3)


def test_free_memory_is_plausible_and_tiles_fit_it(monkeypatch):
    assert 1 << 20 < device.free_memory("cpu") < 1 << 50
    compute = device.Compute("cpu", "fp32")
    monkeypatch.setattr(device, "free_memory", lambda _: 100 << 20)
    side = device.tile_side(compute, 4096, largest=512, least=64, multiple=16)
    assert side % 16 == 0
    assert side * side * 4096 <= 60 << 20
    assert (side + 16) ** 2 * 4096 > 60 << 20
    assert device.tile_side(compute, 4096, largest=96, least=64, multiple=16) == 96
    monkeypatch.setattr(device, "free_memory", lambda _: 0)
    assert device.tile_side(compute, 4096, largest=512, least=64, multiple=16) == 64


def test_half_precision_fits_twice_the_pixels(monkeypatch):
    monkeypatch.setattr(device, "free_memory", lambda _: 100 << 20)
    sides = [
        device.tile_side(device.Compute("cpu", p), 8192, largest=10**6, least=1, multiple=1)
        for p in ("fp32", "bf16")
    ]
    assert sides[1] / sides[0] == pytest.approx(2**0.5, abs=0.02)


def test_running_is_without_gradients_and_in_the_precision():
    weight = torch.ones(4, 4, requires_grad=True)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with device.Compute("cpu", precision).running():
            product = weight @ weight
        assert not product.requires_grad
        assert product.dtype == dtype


@pytest.mark.slow
def test_settings_are_made_before_torch_is_imported():
    code = (
        "import os, sys; from hdrcli import device; device.prepare();"
        "assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    )
    for given, found in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        env |= {} if given is None else {"OMP_WAIT_POLICY": given}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == found


def test_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        assert device.threads(1) == 1
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(device, "cores", lambda: 2)
        assert device.threads(None) == 2
    finally:
        torch.set_num_threads(before)


def test_choose_gives_a_device_to_move_networks_to():
    assert torch.nn.Linear(1, 1).to(device.choose("cpu")).weight.device.type == "cpu"
