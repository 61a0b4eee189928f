import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hdrcli import weights
from hdrcli.backends import BACKENDS, imported
from hdrcli.errors import WeightsError
from hdrcli.nets.adnet import ADNet
from hdrcli.nets.build import build

ARCH = {"channels": 8, "blocks": 1, "dual_blocks": 1}
FACTS = {"backend": "psfnet", "licence": "MIT", "arch": ARCH}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No weights of this machine's user are seen, and none are written there."""
    user = tmp_path / "user"
    monkeypatch.setattr(weights, "user_folder", lambda: user)
    monkeypatch.delenv(weights.FOLDER, raising=False)
    return user


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "given"
    weights.add(path, "psfnet", psfnet().state_dict(), FACTS)
    monkeypatch.setenv(weights.FOLDER, str(path))
    return path


def psfnet(seed=0):
    torch.manual_seed(seed)
    return build("psfnet", ARCH)


# ---- reading and writing ---------------------------------------------------------------------


def test_what_is_added_is_what_is_loaded(folder):
    state, arch = weights.load("psfnet")
    assert arch == ARCH
    expected = psfnet().state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_half_becomes_float32(tmp_path, monkeypatch):
    half = {name: tensor.half() for name, tensor in psfnet().state_dict().items()}
    weights.add(tmp_path, "psfnet", half, FACTS)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    state, _ = weights.load("psfnet")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    torch.testing.assert_close(state["extract.weight"], half["extract.weight"].float())


def test_every_fact_survives_the_manifest(tmp_path):
    told = {
        **FACTS,
        "source": 'a "quoted" name, ünïcode \\ and more',
        "trained_on": "hdri",
        "minutes": 12.5,
        "device": "cpu",
        "seed": 3,
        "revision": "abc1234",
        "scores": {"psnr-mu": 38.25, "3 frames, srgb": {"psnr-l": 29.5}},
        "arch": {"channels": 8, "windows": [1, 1, 4], "attention": True, "align": "pcd"},
    }
    entry = weights.add(tmp_path, "psf-net.2", psfnet().state_dict(), told)
    assert entry.name == "psf-net.2"
    for key, value in told.items():
        assert getattr(entry, key) == value, key


def test_a_second_import_replaces_the_first_and_nothing_else(folder):
    first = weights.find("psfnet")
    other = weights.add(folder, "other", psfnet(5).state_dict(), FACTS)
    second = weights.add(folder, "psfnet", psfnet(6).state_dict(), FACTS)
    assert not first.path.exists()
    assert second.path.exists()
    assert other.path.exists()
    assert [entry.name for entry in weights.entries() if entry.origin == "set"] == [
        "other",
        "psfnet",
    ]


def test_adding_the_same_twice_keeps_the_file(folder):
    first = weights.find("psfnet")
    second = weights.add(folder, "psfnet", psfnet().state_dict(), FACTS)
    assert first.path == second.path
    assert second.path.exists()


# ---- which one counts ------------------------------------------------------------------------


def test_set_before_imported_before_shipped(home, folder):
    weights.add(home, "psfnet", psfnet(1).state_dict(), FACTS)
    weights.add(home, "mine", psfnet(2).state_dict(), FACTS)
    origins = {entry.name: entry.origin for entry in weights.entries()}
    assert origins["psfnet"] == "set"
    assert origins["mine"] == "imported"
    assert weights.find("psfnet").path.parent == folder


def test_the_environment_must_name_a_folder_of_weights(tmp_path, monkeypatch):
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(WeightsError, match=r"manifest\.toml") as caught:
        weights.entries()
    assert caught.value.exit_code == 4


def test_a_name_that_is_not_there_says_what_is(folder):
    with pytest.raises(WeightsError, match="psfnet") as caught:
        weights.find("nothing")
    assert "weights import" in str(caught.value.hint)


# ---- what is refused -------------------------------------------------------------------------


def test_one_changed_byte_is_noticed(folder):
    path = weights.find("psfnet").path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        weights.load("psfnet")


def test_a_missing_file_is_named(folder):
    path = weights.find("psfnet").path
    path.unlink()
    with pytest.raises(WeightsError, match=path.name):
        weights.load("psfnet")


def test_a_pickle_is_not_opened(folder):
    """Whatever the manifest says: the bytes of a .pth are no safetensors."""
    entry = weights.find("psfnet")
    torch.save(psfnet().state_dict(), entry.path)
    table = tomllib.loads((folder / weights.MANIFEST).read_text())
    table["psfnet"]["sha256"] = weights.digest(entry.path)
    weights._write_manifest(folder, table)
    with pytest.raises(WeightsError, match="safetensors") as caught:
        weights.load("psfnet")
    assert str(entry.path) in str(caught.value)


def test_infinities_are_refused(folder):
    state = psfnet().state_dict()
    state["extract.bias"][0] = float("inf")
    weights.add(folder, "psfnet", state, FACTS)
    with pytest.raises(WeightsError, match="finite"):
        weights.load("psfnet")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "psfnet = 3",
        '[psfnet]\nfile = "a.safetensors"',
        '[psfnet]\nfile = "a.pth"\nsha256 = ""\nbackend = "psfnet"\nlicence = "MIT"',
        '[psfnet]\nfile = "../a.safetensors"\nsha256 = ""\nbackend = "psfnet"\nlicence = "MIT"',
        '[psfnet]\nfile = "a.safetensors"\nsha256 = 4\nbackend = "psfnet"\nlicence = "MIT"',
        '[psfnet]\nfile = "a.safetensors"\nsha256 = ""\nbackend = "x"\nlicence = "MIT"\nother = 1',
    ],
)
def test_a_manifest_that_is_wrong_is_named(tmp_path, monkeypatch, text):
    (tmp_path / weights.MANIFEST).write_text(text)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    with pytest.raises(WeightsError, match=r"manifest\.toml"):
        weights.entries()


# ---- the command -----------------------------------------------------------------------------


def test_list_show_path_verify(hdrcli, folder):
    listed = hdrcli("weights", "list")
    assert listed.code == 0
    assert "psfnet" in listed.out
    entry = weights.find("psfnet")
    assert hdrcli("weights", "path", "psfnet").out.strip() == str(entry.path)
    entry.path.with_name("psfnet.md").write_text("# PSFNet\nGood at nothing yet.\n")
    shown = hdrcli("weights", "show", "psfnet")
    assert entry.sha256 in shown.out
    assert "Good at nothing yet." in shown.out
    assert "fits psfnet" in hdrcli("weights", "verify", "psfnet").out


def test_verify_fails_for_weights_of_another_network(hdrcli, folder):
    weights.add(folder, "wrong", psfnet().state_dict(), {**FACTS, "backend": "adnet"})
    result = hdrcli("weights", "verify", "wrong")
    assert result.code == 4
    assert "not weights of adnet" in result.err


def test_import_a_published_file(hdrcli, home, tmp_path):
    net = ADNet(channels=8, growth=8, dense_layers=2, blocks=1, groups=2)
    state = {"module." + published(name): tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.pth")
    result = hdrcli("weights", "import", "adnet", tmp_path / "best.pth", "--licence", "MIT")
    assert result.code == 0, result.err
    entry = weights.find("adnet")
    assert entry.origin == "imported"
    assert entry.path.parent == home
    assert entry.licence == "MIT"
    assert entry.source == "best.pth"
    assert result.out.strip() == str(entry.path)
    loaded, arch = weights.load("adnet")
    assert arch["channels"] == 8
    torch.testing.assert_close(loaded["conv1.weight"], net.conv1.weight.detach())
    assert hdrcli("weights", "verify", "adnet").code == 0


def published(name):
    """A name of ours as ADNet's authors wrote it."""
    name = name.replace("feat_extract.", "feat_exract.0.")
    for index in (0, 1):
        name = name.replace(f"downsample.{index}.", f"downsample{index + 1}.")
        name = name.replace(f"RDB.{index}.", f"RDB{index + 1}.")
    if ".dense_layers." in name:
        stem, _, kind = name.rpartition(".")
        name = f"{stem}.conv.{kind}"
    return name


def test_import_of_nonsense_leaves_nothing(hdrcli, home, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"nonsense")
    result = hdrcli("weights", "import", "adnet", tmp_path / "x.pth")
    assert result.code == 4
    assert "x.pth" in result.err
    assert not home.exists()


def test_a_trunk_joins_the_weights_there_are(folder):
    arch = {"channels": 8, "mef_blocks": 1, "blocks": 1, "trunk": [4, 4, 8], "windows": [1, 1, 2]}
    net = build("apntfusion", arch)
    facts = {"backend": "apntfusion", "licence": "MIT", "arch": arch}
    weights.add(folder, "apntfusion", net.state_dict(), facts)
    other = build("apntfusion", {**arch, "trunk": [8, 8, 16]})
    trunk = {k: v for k, v in other.state_dict().items() if k.startswith("Psi.")}
    tensors, whole = imported.with_trunk(trunk, {"trunk": [8, 8, 16]})
    assert whole == {**arch, "trunk": [8, 8, 16]}
    imported.check("apntfusion", tensors, whole)
    torch.testing.assert_close(tensors["F_ex.0.weight"], net.state_dict()["F_ex.0.weight"])


# ---- what is shipped -------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]  # tests run in a checkout, whose weights are in weights/
SHIPPED = list(weights.read_manifest(ROOT / "weights", "shipped"))
UNTRAINED = "not trained"  # what source and card of such weights say


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_shipped_weights_are_whole_small_free_and_described(entry):
    imported.check(entry.backend, *weights.load(entry))
    assert entry.path.stat().st_size < 16e6
    assert entry.licence in ("MIT", "CC0-1.0")
    assert entry.card is not None
    assert complaint(entry, entry.card.read_text(encoding="utf-8")) is None


def test_every_network_has_shipped_weights():
    wanted = {spec.weights for spec in BACKENDS.values() if spec.kind == "neural"}
    assert wanted <= {entry.name for entry in SHIPPED}
    folders = [path.resolve() for origin, path in weights.folders() if origin == "shipped"]
    assert folders == [ROOT / "weights"]


def complaint(entry, card):
    """What is wrong with what weights say of their training; None where it is honest.

    They are trained, for so many minutes, on something, with scores; or both the manifest and
    the card say that they are not, and claim no training.
    """
    told = UNTRAINED in entry.source, UNTRAINED in card
    if any(told):
        honest = all(told) and entry.minutes == 0 and entry.trained_on == "nothing yet"
        return None if honest else "untrained, but not said everywhere"
    if not entry.minutes or entry.minutes <= 0:
        return "trained for no time"
    if not entry.trained_on or entry.trained_on == "nothing yet":
        return "trained on nothing"
    return None if entry.scores else "no scores"


TRAINED = {"source": "us", "trained_on": "hdri", "minutes": 9.0, "scores": {"psnr-mu": 38.0}}
NOT = {"source": "a start, not trained", "trained_on": "nothing yet", "minutes": 0.0}


@pytest.mark.parametrize(
    ("facts", "card", "said"),
    [
        (TRAINED, "# Net", None),
        (NOT, "It is **not trained**.", None),
        (TRAINED | {"minutes": 0.0}, "# Net", "no time"),
        (TRAINED | {"minutes": None}, "# Net", "no time"),
        (TRAINED | {"trained_on": "nothing yet"}, "# Net", "on nothing"),
        (TRAINED | {"scores": {}}, "# Net", "no scores"),
        (TRAINED, "It is **not trained**.", "not said everywhere"),
        (NOT, "# Net", "not said everywhere"),
        (NOT | {"minutes": 3.0}, "It is **not trained**.", "not said everywhere"),
        (NOT | {"trained_on": "hdri"}, "It is **not trained**.", "not said everywhere"),
    ],
)
def test_weights_are_trained_or_said_not_to_be(facts, card, said):
    found = complaint(replace(SHIPPED[0], **facts), card)
    assert found is None if said is None else said in found


def test_every_network_names_weights_of_its_own():
    wanted = [spec.weights for spec in BACKENDS.values() if spec.kind == "neural"]
    assert len(wanted) == len(set(wanted))
    assert all(wanted)


def test_files_hold_numbers_alone(folder):
    """safetensors: a header of names, types and places, then numbers."""
    path = weights.find("psfnet").path
    assert {type(value) for value in load_file(path).values()} == {torch.Tensor}
    assert path.suffix == ".safetensors"
    save_file({"x": torch.from_numpy(np.zeros(1, np.float32))}, Path(path))
    with pytest.raises(WeightsError, match="sha256"):
        weights.verify(weights.find("psfnet"))


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    import hashlib

    read = []
    real = hashlib.file_digest

    def counted(*given):
        read.append(given)
        return real(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert weights.digest(path) == weights.digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    path.write_bytes(b"another")
    assert weights.digest(path) == hashlib.sha256(b"another").hexdigest()
