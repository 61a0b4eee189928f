import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from hdrcli import bench, weights
from hdrcli.bench import merging, networks
from tests.scenes import photograph, save, texture


def grow(megabytes):
    return int(np.ones(megabytes << 17).sum())


def test_the_median_of_the_runs():
    waits = iter((0.0, 0.05, 0.0))
    timing = bench.timed(lambda: time.sleep(next(waits)), 3)
    assert len(timing.runs) == len(timing.processor) == 3
    assert timing.cpu_median < 0.04
    assert timing.median < 0.04 < timing.runs[1]


@pytest.mark.slow
def test_a_fresh_process_tells_its_own_peak():
    small, large = (bench.fresh(grow, size) for size in (1, 200))
    assert small[0] == 1 << 17
    assert large[1] - small[1] == pytest.approx(200 << 20, rel=0.1)


def test_peak_memory_is_at_least_what_is_held():
    before = bench.peak_memory()
    held = np.ones(50 << 17)
    assert bench.peak_memory() >= before
    assert bench.peak_memory() > held.nbytes


@pytest.mark.slow
def test_made_photographs_have_the_size_and_exposures(tmp_path):
    from hdrcli.bracket import read_bracket

    paths = merging.made(tmp_path, merging.Made(0.6, 3))
    bracket = read_bracket(paths).bracket
    assert bracket.size[0] * bracket.size[1] == pytest.approx(6e5, rel=0.01)
    np.testing.assert_allclose(bracket.evs, (-3, 0, 3), atol=0.05)


@pytest.mark.slow
def test_made_photographs_are_as_large_as_those_of_cameras_and_move_as_the_hand_does(tmp_path):
    """From two bits a pixel on; and detail as fine as a pixel lies on itself once aligned."""
    from hdrcli.align import align_bracket
    from hdrcli.bracket import read_bracket

    paths = merging.made(tmp_path, merging.Made(1.0, moving=True))
    assert 2.0 < 8 * paths[1].stat().st_size / 1e6 < 6.0
    _, report = align_bracket(read_bracket(paths).bracket)
    moved = [frame for frame in report.frames if frame.model != "identity"]
    assert len(moved) == 2
    for frame in moved:
        assert (frame.residual_before or 0) > 2
        assert (frame.residual_after or 9) < 0.5


@pytest.mark.slow
def test_nine_made_photographs_span_no_more_than_a_camera_does(tmp_path):
    from hdrcli.bracket import read_bracket

    bracket = read_bracket(merging.made(tmp_path, merging.Made(0.3, 9))).bracket
    np.testing.assert_allclose(bracket.evs, np.arange(-4, 5), atol=0.05)


def test_a_run_is_compared_to_the_floor_of_its_turn():
    """On a machine that gets slower all the time a merge of two floors stays one."""
    floors = np.array([[1.0, 2.0], [2.0, 4.0], [5.0, 10.0]])
    found = merging.row("a merge", [(2.0, 3.0), (4.0, 6.0), (10.0, 15.0)], floors)
    assert (found["times_floor"], found["cpu_times_floor"]) == (2, 1.5)
    assert (found["seconds"], found["cpu_seconds"]) == (4, 6)
    alone = merging.row("in a new process", [(6.0, float("nan"))], floors)
    assert (alone["seconds"], alone["times_floor"]) == (6, 3)
    assert alone["cpu_seconds"] is alone["cpu_times_floor"] is None


@pytest.mark.slow
def test_bench_merge_says_what_a_merge_costs(hdrcli, tmp_path):
    paths = save(photograph(texture(200, 300)), tmp_path)
    result = hdrcli("bench", "merge", *paths, "--runs", 1, "--threads", 1, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    rows = {row["what"]: row for row in found["rows"]}
    assert found["size"] == [300, 200]
    assert found["peak_memory_gb"] > 0.01
    floor = rows["decode the inputs"]["seconds"] + rows["encode the outputs"]["seconds"]
    assert found["floor_seconds"] == pytest.approx(floor, abs=2e-3)
    warm = rows["merge, warm"]
    assert warm["times_floor"] == pytest.approx(warm["seconds"] / floor, rel=0.05, abs=0.02)
    assert warm["cpu_seconds"] > 0
    assert warm["cpu_times_floor"] > 0
    assert any(what.startswith("OpenCV") for what in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.fixture
def small_psfnet(tmp_path, monkeypatch):
    from hdrcli.nets.build import build

    arch = {"channels": 8, "blocks": 1, "dual_blocks": 1}
    facts = {"backend": "psfnet", "licence": "MIT", "arch": arch}
    weights.add(tmp_path, "psfnet", build("psfnet", arch).state_dict(), facts)
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))


@pytest.mark.slow
def test_bench_nets_measures_both_ways(hdrcli, small_psfnet):
    words = ("bench", "nets", "psfnet", "--size", 0.05, "--threads", 1, "--device", "cpu")
    result = hdrcli(*words, "--json")
    assert result.code == 0, result.err
    (row,) = json.loads(result.out)
    assert row["name"] == "psfnet"
    assert row["device"] == "cpu"
    faster = row["plain_seconds"] / row["seconds"]
    assert row["times_faster"] == pytest.approx(faster, rel=0.1, abs=0.02)
    assert row["memory_gb"] > 0.1
    assert row["cpu_seconds"] > 0
    assert row["plain_cpu_seconds"] > 0


@pytest.mark.slow
def test_bench_nets_measures_whole_merges_beside_the_default(hdrcli, small_psfnet):
    words = ("bench", "nets", "psfnet", "--merges", "--size", 0.05, "--threads", 1, "--json")
    result = hdrcli(*words)
    assert result.code == 0, result.err
    rows = {row["name"]: row for row in json.loads(result.out)}
    assert list(rows) == ["psfnet", "flowmerge", "average"]
    assert all(row["cpu_seconds"] > 0 for row in rows.values())


def test_a_merge_is_timed_without_its_first_one(tmp_path):
    paths = save(photograph(texture(96, 128)), tmp_path)
    timing = networks.run_merge("average", None, paths, tmp_path / "out.exr", 2, 1)
    assert len(timing.runs) == len(timing.processor) == 2
    assert (tmp_path / "out.exr").exists()


def test_both_ways_use_the_same_weights_and_say_the_tile(small_psfnet):
    job = ("psfnet", None, 0.01, 2, 1, "cpu", "fp32")
    assert len(networks.run_plain(*job).runs) == 2
    timing, facts = networks.run_tiled(*job)
    assert len(timing.runs) == 2
    assert facts["precision"] == "fp32"


def test_random_weights_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "folders", list)
    with networks.weights_of("psfnet", paper=False) as folder:
        assert folder is not None
        (entry,) = weights.read_manifest(Path(folder), "set")
        assert entry.backend == "psfnet"
        assert not entry.arch
    assert not os.path.exists(folder)  # noqa: PTH110


def test_an_unknown_network_is_a_wrong_command(hdrcli):
    assert hdrcli("bench", "nets", "resnet").code == 2
