"""Video in chunks on a cluster: the same frames as on one machine."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from hdrcli import formats
from hdrcli.batch import chunks
from hdrcli.batch.chunks import video_on_cluster
from hdrcli.errors import FormatError, SetupError
from hdrcli.video import EncodeOptions, Target, VideoOptions, encode, open_clip, video_file
from tests.films import film, write_pictures


def exr_options(**more):
    return VideoOptions(encode=EncodeOptions(**more), threads=1)


class Here:
    """A cluster of one thread."""

    def __init__(self, address):
        assert address == "tcp://here:8786"
        self.pool = ThreadPoolExecutor(1)

    def close(self):
        self.pool.shutdown(cancel_futures=True)


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "Cluster", Here)
    monkeypatch.setattr(chunks, "LENGTH", 3)


def spread(source, *targets, **more):
    return video_on_cluster(source, targets, "tcp://here:8786", exr_options(**more))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Of three exposures, with a frame dropped in the middle."""
    shown = [codes for codes, _ in film(14, (-2.0, 1.0, 4.0), speed=2.0)]
    return write_pictures(tmp_path_factory.mktemp("pictures") / "in", shown[:7] + shown[8:])


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    shown = [codes for codes, _ in film(6, speed=2.0)]
    return write_pictures(tmp_path_factory.mktemp("short") / "in", shown)


def test_frames_are_those_of_one_machine(pictures, tmp_path):
    one = video_file(pictures, [Target(tmp_path / "one", "exr")], exr_options())
    many = spread(pictures, Target(tmp_path / "many", "exr"))
    assert many.facts == one.facts
    assert len(many.facts["breaks"]) == 1
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "many").iterdir())
    for name in names:
        same = [formats.read(tmp_path / kind / name).codes for kind in ("one", "many")]
        assert (same[0] == same[1]).all(), name


def test_what_is_encoded_is_that_of_one_machine(short, tmp_path, monkeypatch):
    """Encoders with threads do not repeat themselves, so what they are given is compared."""
    given, plain = [], encode.video_frame

    def kept(planes, pixels):
        given.append([plane.copy() for plane in planes])
        return plain(planes, pixels)

    monkeypatch.setattr(encode, "video_frame", kept)
    video_file(short, [Target(tmp_path / "one.mp4", "sdr")], exr_options())
    one, given = given, []
    spread(short, Target(tmp_path / "many.mp4", "sdr"))
    assert len(one) == len(given) == 6
    assert all(
        np.array_equal(a, b) for mine, theirs in zip(one, given, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.mp4", "one.mp4"]
    assert len(list(open_clip(tmp_path / "many.mp4").frames())) == 6


def test_resuming_makes_only_what_is_missing(short, tmp_path):
    target = Target(tmp_path / "out", "exr")
    spread(short, target)
    (tmp_path / "out" / "frame_000004.exr").unlink()
    assert spread(short, target, resume=True).facts["exr_frames"] == 1


def test_time_stamps_that_are_not_found_again_are_named(short, tmp_path, monkeypatch):
    found = chunks._places

    def shifted(ready):
        yield from (replace(place, pts=place.pts + 100) for place in found(ready))

    monkeypatch.setattr(chunks, "_places", shifted)
    with pytest.raises(FormatError, match="not found by its time stamp"):
        spread(short, Target(tmp_path / "out", "exr"))


def test_a_scheduler_that_does_not_answer_is_named(short, tmp_path, monkeypatch):
    def nobody(address):
        raise SetupError(f"--scheduler {address}: no scheduler answers")

    monkeypatch.setattr(chunks, "Cluster", nobody)
    with pytest.raises(SetupError, match="no scheduler answers"):
        spread(short, Target(tmp_path / "out", "exr"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_on_two_workers_of_dask(pictures, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    from hdrcli.batch.executors import Cluster
    from tests.test_batch import cluster

    monkeypatch.setattr(chunks, "Cluster", Cluster)
    with cluster(tmp_path, 2) as (_, address):
        target = Target(tmp_path / "many", "exr")
        video_on_cluster(pictures, [target], address, exr_options())
    video_file(pictures, [Target(tmp_path / "one", "exr")], exr_options())
    for path in sorted((tmp_path / "one").iterdir()):
        whole = formats.read(tmp_path / "many" / path.name).codes
        assert (whole == formats.read(path).codes).all()
