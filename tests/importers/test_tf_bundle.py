import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli.errors import WeightsError
from hdrcli.importers import import_files
from hdrcli.importers.tf_bundle import crc32c, fold_spectral_norm, read_bundle
from hdrcli.nets.hdrgan import HDRGAN
from tests.importers.bundle import around, random_generator, write_bundle

FIRST = "UnetppGeneratorS/backbone_0/SR_0/cov_0"


def every(_):
    return True


def test_checksum_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4 and every catalogue of checksums
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_variables_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    variables = {
        "a": rng.random((2, 3, 4, 5), np.float32),
        "a/b": rng.random(7, np.float32),
        "a/b/c": np.array([3], np.float32),
        "long" * 60: rng.random((1, 200), np.float32),
    }
    for shards in (1, 3):
        found = read_bundle(write_bundle(tmp_path / "model", variables, shards), every)
        assert found.keys() == variables.keys()
        assert all(np.array_equal(found[name], variables[name]) for name in variables)


def test_only_what_is_wanted_is_read(tmp_path):
    path = write_bundle(
        tmp_path / "model", {"a": np.array([1], np.float32), "step": np.array([2], np.int64)}
    )
    assert read_bundle(path, "a".__eq__).keys() == {"a"}
    with pytest.raises(WeightsError, match="not float32"):
        read_bundle(path, every)


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001", "model"])
def test_any_file_of_a_checkpoint_leads_to_it(tmp_path, name):
    write_bundle(tmp_path / "model", {"a": np.array([1], np.float32)})
    assert read_bundle(tmp_path / name, every)["a"].tolist() == [1]


@pytest.mark.parametrize("step", ["-120", ".ckpt-7"])
def test_names_with_dots_and_dashes(tmp_path, step):
    path = write_bundle(tmp_path / f"model{step}.x", {"a": np.array([1], np.float32)})
    path.rename(tmp_path / f"model{step}.index")
    (tmp_path / f"model{step}.data-00000-of-00001").write_bytes(np.array([5], np.float32).tobytes())
    for name in (f"model{step}.index", f"model{step}.data-00000-of-00001"):
        assert read_bundle(tmp_path / name, every)["a"].tolist() == [5]


def test_folded_kernels_stretch_by_one():
    torch.manual_seed(0)
    kernel = torch.randn(3, 3, 4, 5)
    u = torch.linalg.svd(kernel.flatten(0, 2)).Vh[:1]
    folded = fold_spectral_norm(kernel, u)
    assert float(torch.linalg.matrix_norm(folded.flatten(0, 2), 2)) == pytest.approx(1, rel=1e-5)
    assert (folded / kernel).std() < 1e-6  # one factor for all


def test_the_generator(tmp_path):
    variables = random_generator(channels=2)
    state, arch = import_files("hdrgan", [write_bundle(tmp_path / "model", around(variables))])
    assert arch == {"channels": 2, "scales": 3, "merging": True}
    HDRGAN(**arch).load_state_dict(state)
    kernel, u = (torch.from_numpy(variables[f"{FIRST}/{name}"]) for name in ("kernel", "u"))
    expected = fold_spectral_norm(kernel, u).permute(3, 2, 0, 1)
    torch.testing.assert_close(state["encoders.0.blocks.0.conv1.weight"], expected)
    plain = torch.from_numpy(variables["UnetppGeneratorS/decoders/up_11/kernel"])
    assert torch.equal(state["up.20.conv.weight"], plain.permute(3, 2, 0, 1))


# -- wrong and hostile files ------------------------------------------------------------------


def refusal(path):
    """What is said, which names the file; and what to do is said too."""
    with pytest.raises(WeightsError) as caught:
        import_files("hdrgan", [path])
    assert path.stem in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.fixture
def checkpoint(tmp_path):
    return write_bundle(tmp_path / "model", random_generator(channels=1))


def test_absent_files(tmp_path, checkpoint):
    assert "no.index: No such file" in refusal(tmp_path / "no.index")
    checkpoint.with_suffix(".data-00000-of-00001").unlink()
    assert re.search("data-00000-of-00001: .*No such file", refusal(checkpoint))


def test_cut_short(checkpoint):
    data = checkpoint.with_suffix(".data-00000-of-00001")
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    assert "is cut short" in refusal(checkpoint)
    data.write_bytes(whole)
    whole = checkpoint.read_bytes()
    for length in range(0, len(whole), 501):
        checkpoint.write_bytes(whole[:length])
        assert "no LevelDB table" in refusal(checkpoint)
        checkpoint.write_bytes(whole[:length] + whole[-48:])
        assert "model" in refusal(checkpoint)


@settings(max_examples=12)
@given(data=st.data())
def test_damaged_bytes_give_an_error_of_ours_or_do_not_matter(tmp_path_factory, data):
    path = write_bundle(tmp_path_factory.mktemp("b") / "model", random_generator(channels=1))
    expected, _ = import_files("hdrgan", [path])
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        found, _ = import_files("hdrgan", [path])
    except WeightsError:
        return
    assert all(torch.equal(found[name], expected[name]) for name in expected)


SPOILED = {
    "a flat kernel": ({f"{FIRST}/kernel": np.zeros(4, np.float32)}, "impossible shape"),
    "another u": ({f"{FIRST}/u": np.zeros((1, 9), np.float32)}, "impossible shape"),
    "another width": (
        {
            f"{FIRST}/kernel": np.ones((3, 3, 6, 3), np.float32),
            f"{FIRST}/u": np.ones((1, 3), np.float32),
        },
        "has shape",
    ),
    "not a number": ({f"{FIRST}/bias": np.full(1, np.nan, np.float32)}, "finite"),
    "whole numbers": ({f"{FIRST}/bias": np.zeros(1, np.int64)}, "not float32"),
    "zeros": ({f"{FIRST}/kernel": np.zeros((3, 3, 6, 1), np.float32)}, "finite"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_the_generator_is_refused(tmp_path, name):
    change, match = SPOILED[name]
    assert re.search(
        match, refusal(write_bundle(tmp_path / "model", random_generator(channels=1) | change))
    )


def test_a_layer_is_missing(tmp_path):
    variables = random_generator(channels=1)
    del variables[f"{FIRST}/bias"]
    assert "missing encoders.0.blocks.0.conv1.bias" in refusal(
        write_bundle(tmp_path / "model", variables)
    )
    assert "no tensor for" in refusal(
        write_bundle(tmp_path / "other", {"a": np.array([1], np.float32)})
    )
