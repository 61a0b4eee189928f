"""Measuring merges: data sets, pairs, shifts, tables."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from hdrcli import formats
from hdrcli.cli import main
from hdrcli.errors import InputError
from hdrcli.evaluate import (
    PUBLISHED,
    Request,
    Row,
    Table,
    bracket_of,
    compare,
    evaluate,
    shifted,
)
from hdrcli.frames import Radiance
from hdrcli.metrics import DEFAULT, METRICS
from hdrcli.pipeline import MergeOptions
from hdrcli.train.data import items

SIZE = (64, 96)
EVS = (0.0, 2.0, 4.0)
PLAIN = Request(("psnr-mu", "psnr-l"), ("average",), MergeOptions(align="none", threads=1))


def light(seed=0):
    """Smooth H in [0, 1] relative to the shortest frame."""
    dice = np.random.default_rng(seed)
    coarse = np.exp(dice.normal(-2.0, 1.2, (8, 12, 3)))
    smooth = np.kron(coarse, np.ones((8, 8, 1)))
    return np.clip(smooth, 0.001, 1.0).astype(np.float32)


def kalantari(root, seed=0, truth=None):
    import tifffile

    root.mkdir(parents=True)
    for n, ev in enumerate(EVS):
        codes = np.clip(light(seed) * 2.0**ev, 0, 1) ** (1 / 2.2)
        tifffile.imwrite(
            root / f"{n}.tif", np.round(codes * 65535).astype(np.uint16), photometric="rgb"
        )
    (root / "exposure.txt").write_text("0\n2\n4\n")
    formats.write(root / "HDRImg.hdr", Radiance(light(seed) if truth is None else truth))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("Test")
    for seed in (0, 1):
        kalantari(root / f"{seed:03d}", seed)
    return root


def test_a_static_data_set_is_merged_almost_exactly(data):
    table = evaluate([data], PLAIN)
    assert [row.name for row in table.rows] == ["000", "001"]
    assert all(row.backend == "average" for row in table.rows)
    for row in table.rows:
        assert row.values["psnr-mu"] > 40  # 8 bits of RGBE in the truth, deghosting
        assert row.values["psnr-l"] > 40


def test_a_wrong_truth_is_seen(tmp_path):
    kalantari(tmp_path / "001", truth=light() * 0.5)
    (row,) = evaluate([tmp_path], PLAIN).rows
    assert row.values["psnr-l"] < 30
    (scaled,) = evaluate([tmp_path], replace(PLAIN, scale="median")).rows
    assert scaled.values["psnr-mu"] > row.values["psnr-mu"] + 5


def test_papers_stand_beside_their_own_data_only(data, tmp_path):
    names = {paper.method for paper in evaluate([data], replace(PLAIN, limit=1)).published}
    assert {"ADNet", "PSFNet", "HDR-GAN", "APNT-Fusion"} <= names
    assert not any("DeepHDRVideo" in name for name in names)
    assert {paper.backend for paper in PUBLISHED} >= {
        "adnet",
        "psfnet",
        "hdrgan",
        "apntfusion",
        "deephdrvideo",
    }
    assert set(PUBLISHED[0].values()) <= set(METRICS)


def test_several_backends_and_a_limit(data):
    both = replace(PLAIN, backends=("average", "debevec"), limit=1)
    assert [row.backend for row in evaluate([data], both).rows] == ["average", "debevec"]


def test_shifted_frames_are_measured_against_the_same_truth(data):
    table = evaluate([data], replace(PLAIN, limit=1, shifts=(0, 10)))
    unshifted, moved = table.rows
    assert (unshifted.shift, moved.shift) == (0, 10)
    assert moved.values["psnr-mu"] < unshifted.values["psnr-mu"]
    assert [row.shift for row in table.means()] == [0, 10]


def test_shifting_leaves_the_reference_and_moves_the_others(data):
    resolved = bracket_of(items(data)[0], PLAIN.options)
    moved = shifted(resolved, 5).bracket
    before = resolved.bracket
    assert moved.ref is before.ref
    for place in (0, 2):
        frame = moved.frames[place].codes
        np.testing.assert_array_equal(frame[:, 5:], before.frames[place].codes[:, :-5])
        np.testing.assert_array_equal(frame[:, :5], np.repeat(frame[:, 5:6], 5, axis=1))
    assert shifted(resolved, 0) is resolved
    with pytest.raises(InputError, match="cannot shift"):
        shifted(resolved, 96)


def test_a_bracket_that_fails_leaves_the_others(data, tmp_path):
    kalantari(tmp_path / "001")
    kalantari(tmp_path / "002")
    (tmp_path / "002" / "1.tif").write_bytes(b"II*\0 nothing")
    table = evaluate([tmp_path], PLAIN)
    assert [row.name for row in table.rows] == ["001"]
    assert list(table.failed) == ["002"]


@pytest.mark.filterwarnings("ignore")
def test_nothing_to_measure_is_an_error(tmp_path):
    kalantari(tmp_path / "002")
    (tmp_path / "002" / "1.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(InputError, match="nothing could be measured"):
        evaluate([tmp_path], PLAIN)


def test_a_display_picture_cannot_be_measured(data):
    with pytest.raises(InputError, match="nothing could be measured") as error:
        evaluate([data], replace(PLAIN, backends=("mertens",)))
    assert "radiance" in str(error.value.hint)


@pytest.mark.parametrize(
    "change", [{"metrics": ("psnr-x",)}, {"backends": ("nonsense",)}], ids=["metric", "backend"]
)
def test_unknown_names_are_refused_before_the_work(data, change):
    with pytest.raises(InputError):
        evaluate([data], replace(PLAIN, **change))


def test_pairs_of_files(tmp_path):
    formats.write(tmp_path / "a.exr", Radiance(light()))
    formats.write(tmp_path / "b.exr", Radiance(light() * 1.1))
    same = compare([(tmp_path / "a.exr", tmp_path / "a.exr")], PLAIN)
    other = compare([(tmp_path / "b.exr", tmp_path / "a.exr")], PLAIN)
    assert same.rows[0].values == {"psnr-mu": 100.0, "psnr-l": 100.0}
    assert other.rows[0].values["psnr-l"] < 60
    formats.write(tmp_path / "c.exr", Radiance(light()[:32]))
    with pytest.raises(InputError, match="cannot compare"):
        compare([(tmp_path / "c.exr", tmp_path / "a.exr")], PLAIN)


def test_means_are_by_backend():
    rows = tuple(
        Row(name, backend, {"psnr-l": value})
        for name, backend, value in [("a", "x", 10.0), ("a", "y", 1.0), ("b", "x", 20.0)]
    )
    means = Table(rows, ("psnr-l",)).means()
    assert [(row.backend, row.values["psnr-l"]) for row in means] == [("x", 15.0), ("y", 1.0)]


def test_a_table_as_csv_and_as_plain_data():
    table = Table((Row("a", "x", {"psnr-l": 12.3456789}),), ("psnr-l",), {"b": "broken"})
    lines = list(csv.reader(io.StringIO(table.as_csv())))
    assert lines[0] == ["bracket", "backend", "shift", "psnr-l"]
    assert lines[1] == ["a", "x", "0", "12.3457"]
    assert lines[2][:2] == ["mean", "x"]
    plain = json.loads(json.dumps(table.as_dict()))
    assert plain["failed"] == {"b": "broken"}


# -- the command ------------------------------------------------------------------------------


def call(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def test_the_command_prints_a_table_and_writes_csv(data, tmp_path, capsys):
    target = tmp_path / "scores.csv"
    words = ["eval", data, "--backend", "average", "--align", "none", "--limit", "1"]
    assert call(*words, "--csv", target, "--threads", "1") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DEFAULT)
    assert "SAFNet" in shown
    assert target.read_text().startswith("bracket,backend,shift,psnr-mu")
    assert call(*words, "--csv", target) == 3  # it exists


def test_the_command_measures_two_files_as_json(tmp_path, capsys):
    formats.write(tmp_path / "a.exr", Radiance(light()))
    code = call("eval", tmp_path / "a.exr", tmp_path / "a.exr", "--metric", "psnr-l", "--json")
    assert code == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["values"] == {"psnr-l": 100.0}


def test_the_command_lists_metrics_and_refuses_nonsense(tmp_path, capsys):
    assert call("eval", "--list") == 0
    assert "pu21-psnr" in capsys.readouterr().out
    assert call("eval", tmp_path, "--scale", "wild") == 2
    assert call("eval", tmp_path) == 3
