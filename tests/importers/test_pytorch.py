import pickle
import re
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from hdrcli.errors import WeightsError
from hdrcli.importers import import_files, pytorch
from hdrcli.importers.names import ADNET, DEEPHDRVIDEO, rename
from hdrcli.importers.pytorch import read_checkpoint
from hdrcli.nets.adnet import ADNet
from hdrcli.nets.apntfusion import MatchingTrunk
from hdrcli.nets.deephdrvideo import DeepHDRVideo

ADNETS: dict[str, dict[str, Any]] = {
    "ours": {"channels": 8, "growth": 4, "dense_layers": 3, "blocks": 2, "groups": 2},
    "baseline": {"channels": 4, "growth": 2, "align": "none", "dual": False},
    "variant 1": {"channels": 4, "attention": False, "align": "single", "groups": 4, "dual": False},
    "deeper": {"channels": 2, "growth": 2, "dense_layers": 6, "blocks": 4, "groups": 1},
}
VIDEOS: dict[str, dict[str, Any]] = {
    "2": {"exposures": 2},
    "3": {"exposures": 3},
    "narrow tail": {"exposures": 2, "weight_tail": 2, "batch_norm": False},
    "shallow": {"exposures": 3, "levels": 3, "extract_blocks": 2, "trunk_blocks": 3},
    "ablated": {"deformable": False, "attention": False, "exposedness": False},
}
NARROW: dict[str, Any] = {
    "flow_channels": 8,
    "weight_channels": 8,
    "weight_tail": 4,
    "channels": 4,
    "groups": 2,
}


def published(state, table):
    """The state dict under the names of the authors: the first that ours could come from."""
    back = {}
    for ours, value in state.items():
        theirs = next(t for t, o in table.items() if ours.startswith(o))
        name = theirs + ours.removeprefix(table[theirs])
        assert rename(name, table) == ours
        back[name] = value
    return back


def save_adnet(path, arch, **wrapping):
    torch.manual_seed(0)
    net = ADNet(**arch)
    torch.save(wrapping.get("wrap", dict)(published(net.state_dict(), ADNET)), path)
    return net


def save_video(folder, arch):
    torch.manual_seed(0)
    net = DeepHDRVideo(**NARROW | arch)
    files: dict[str, dict[str, Any]] = {"flow_net": {}, "weight_net": {}, "refine_net": {}}
    for name, value in net.state_dict().items():
        files[name.partition(".")[0]][name] = value
    for file, state in files.items():
        torch.save({"state_dict": published(state, DEEPHDRVIDEO)}, folder / f"{file}.pth")
    return net, [folder / f"{file}.pth" for file in files]


def assert_same(found, net):
    expected = net.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ADNETS)
def test_adnet(tmp_path, name):
    net = save_adnet(tmp_path / "x.pth", ADNETS[name])
    state, arch = import_files("adnet", [tmp_path / "x.pth"])
    assert_same(state, net)
    ADNet(**arch).load_state_dict(state)


WRAPPINGS = {
    "bare": dict,
    "module.": lambda s: {f"module.{name}": value for name, value in s.items()},
    "state_dict": lambda s: {"state_dict": s},
    "with scores": lambda s: {
        "epoch": 7,
        "best": np.float64(44.3),
        "numbers": [np.int64(3), np.float32(1)],
        "state_dict": s,
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
    },
    "parameters": lambda s: {name: torch.nn.Parameter(value) for name, value in s.items()},
    "half precision": lambda s: {name: value.half().float().half() for name, value in s.items()},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrappings(tmp_path, name):
    net = save_adnet(tmp_path / "x.pth", ADNETS["ours"], wrap=WRAPPINGS[name])
    state, _ = import_files("adnet", [tmp_path / "x.pth"])
    expected = net.state_dict()
    for key, value in state.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4)


def test_the_old_format(tmp_path):
    net = ADNet(**ADNETS["ours"])
    path = tmp_path / "x.pth"
    torch.save(published(net.state_dict(), ADNET), path, _use_new_zipfile_serialization=False)
    assert_same(import_files("adnet", [path])[0], net)


@pytest.mark.parametrize("name", VIDEOS)
def test_deephdrvideo(tmp_path, name):
    net, files = save_video(tmp_path, VIDEOS[name])
    state, arch = import_files("deephdrvideo", files)
    assert_same(state, net)
    DeepHDRVideo(**arch).load_state_dict(state)


def test_the_order_of_the_files_does_not_matter(tmp_path):
    net, files = save_video(tmp_path, {})
    assert_same(import_files("deephdrvideo", files[::-1])[0], net)


def test_vgg19_gives_the_matching_trunk(tmp_path):
    trunk = MatchingTrunk([4, 8, 16])
    state = {
        **trunk.state_dict(),
        "features.12.weight": torch.zeros(16, 16, 3, 3),
        "classifier.0.weight": torch.zeros(2, 2),
    }
    torch.save(state, tmp_path / "vgg19.pth")
    found, arch = import_files("apntfusion", [tmp_path / "vgg19.pth"])
    assert arch == {"trunk": [4, 8, 16]}
    assert list(found) == [f"Psi.{name}" for name in trunk.state_dict()]
    trunk.load_state_dict({name.removeprefix("Psi."): value for name, value in found.items()})


def test_tensors_are_copies_of_their_own(tmp_path):
    save_adnet(tmp_path / "x.pth", ADNETS["ours"])
    state, _ = import_files("adnet", [tmp_path / "x.pth"])
    assert all(
        t.is_contiguous() and t.untyped_storage().nbytes() == 4 * t.numel() for t in state.values()
    )


# -- wrong and hostile files ------------------------------------------------------------------


def refusal(backend, files):
    """The error, which names the file and says what to do."""
    with pytest.raises(WeightsError) as caught:
        import_files(backend, files)
    assert all(str(path) in str(caught.value) for path in files[:1])
    assert caught.value.hint
    return caught.value


class Command:
    def __reduce__(self):
        return print, ("this code must not run",)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_not_run(tmp_path, capsys, old):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": Command()}, path, _use_new_zipfile_serialization=not old)
    assert "not a checkpoint of tensors" in str(refusal("adnet", [path]))
    path.write_bytes(pickle.dumps(Command()))
    assert "not a checkpoint of tensors" in str(refusal("adnet", [path]))
    assert "must not run" not in capsys.readouterr().out


def test_absent_file(tmp_path):
    assert "cannot be read" in str(refusal("adnet", [tmp_path / "no.pth"]))


@pytest.mark.parametrize(
    "data", [b"", b"no", b"PK\x03\x04", b"\x80\x02.", b"\x89PNG\r\n\x1a\n" * 9]
)
def test_other_files(tmp_path, data):
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    assert "x.pth" in str(refusal("adnet", [path]))


@pytest.mark.parametrize("old", [False, True])
def test_cut_short(tmp_path, old):
    net, path = ADNet(**ADNETS["ours"]), tmp_path / "x.pth"
    torch.save(published(net.state_dict(), ADNET), path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 17):
        path.write_bytes(whole[:length])
        assert "x.pth" in str(refusal("adnet", [path]))


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_damaged_bytes_give_weights_or_an_error_of_ours(tmp_path, rng, old):
    net, path = ADNet(**ADNETS["ours"]), tmp_path / "x.pth"
    torch.save(published(net.state_dict(), ADNET), path, _use_new_zipfile_serialization=not old)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        where = rng.integers(0, min(len(whole), 30_000), 20)
        damaged[where] = rng.integers(0, 256, 20)
        path.write_bytes(damaged.tobytes())
        try:
            import_files("adnet", [path])
        except WeightsError:
            refused += 1
    assert refused > 30


def test_archive_that_unpacks_to_more_than_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(pytorch, "_LARGEST", 1 << 20)
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 21))
    assert path.stat().st_size < 1 << 14
    assert "more than any published network has" in str(refusal("adnet", [path]))


def change(name, value):
    return lambda state: state | {name: value}


SPOILED = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if k != "conv2.0.bias"},
        "missing conv2.0.bias",
    ),
    "unknown": (change("conv9.weight", torch.zeros(1)), "conv9.weight is unknown"),
    "one more": (change("conv1.extra", torch.zeros(1)), "unknown conv1.extra"),
    "shape": (change("conv2.0.bias", torch.zeros(9)), r"conv2.0.bias has shape \(9,\), not \(8,\)"),
    "not a number": (change("conv2.0.bias", torch.full((8,), torch.nan)), "finite"),
    "whole numbers": (change("conv2.0.bias", torch.zeros(8, dtype=torch.int64)), "finite"),
    "a scalar": (change("conv1.weight", torch.tensor(1.0)), "no tensor for conv1.weight"),
    "a huge view": (change("conv2.0.bias", torch.zeros(1).expand(1 << 50)), "has shape"),
    "a huge network": (
        change("conv1.weight", torch.zeros(1, 1, 1, 1).expand(1 << 40, 1, 3, 3)),
        "impossible shape",
    ),
    "no groups": (
        change("align_module.L1_dcnpack.conv_offset_mask.weight", torch.zeros(1, 1)),
        "deformable groups",
    ),
    "a list": (lambda s: list(s.values()), "holds list"),
    "no tensors": (lambda s: dict.fromkeys(s, 1), "holds no tensors"),
    "sparse": (lambda s: {k: v.to_sparse() for k, v in s.items()}, "holds no tensors"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_not_the_network_is_refused(tmp_path, name):
    spoil, match = SPOILED[name]
    save_adnet(tmp_path / "x.pth", ADNETS["ours"], wrap=spoil)
    error = refusal("adnet", [tmp_path / "x.pth"])
    assert re.search(match, str(error))
    assert (
        name
        in ("shape", "not a number", "whole numbers", "a huge view", "a huge network", "no groups")
        or error.hint
    )


def test_parts_are_asked_for(tmp_path):
    _, files = save_video(tmp_path, {})
    error = refusal("deephdrvideo", files[:2])
    assert "one of the three parts" in str(error)
    assert "refine_net.pth" in str(error.hint)
    assert "in another file already" in str(refusal("deephdrvideo", [files[0], *files]))


def test_weights_of_another_network(tmp_path):
    save_adnet(tmp_path / "x.pth", ADNETS["ours"])
    assert "not weights of deephdrvideo" in str(refusal("deephdrvideo", [tmp_path / "x.pth"]))
    _, files = save_video(tmp_path, {})
    assert "not weights of adnet" in str(refusal("adnet", files[:1]))


def test_nothing_to_import(tmp_path):
    with pytest.raises(WeightsError, match="no published weights are known for average"):
        import_files("average", [tmp_path])
    with pytest.raises(WeightsError, match="no file of weights"):
        import_files("adnet", [])


def test_names_of_a_checkpoint_lose_their_wrapping(tmp_path):
    torch.save({"model": {"module.a": torch.zeros(1), "epoch": 3}}, tmp_path / "x.pth")
    assert list(read_checkpoint(tmp_path / "x.pth")) == ["a"]
