import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from hdrcli import formats
from hdrcli.cli import main
from hdrcli.color import hlg_encode, pq_decode, pq_encode
from hdrcli.errors import BracketError, FormatError, HdrcliError, InputError, ResourceError
from hdrcli.frames import Radiance
from hdrcli.video import (
    EncodeOptions,
    Target,
    VideoOptions,
    encode,
    light_level,
    open_clip,
    video_file,
)
from hdrcli.video.clip import Timed
from hdrcli.video.encode import VideoFile, check
from hdrcli.video.look import TRANSFERS, Grade, HdrLook, Shape
from hdrcli.video.planes import Levels
from tests.films import film, write_pictures, write_video

av = pytest.importorskip("av")
FAST = EncodeOptions(preset="ultrafast", crf=12)


def shown(count=9, **more):
    return [codes for codes, _ in film(count, (0.0, 3.0), **more)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    return write_video(folder / "in.mp4", shown(speed=2.0), audio=True)


def options(**more):
    return VideoOptions(encode=replace(FAST, **more), threads=1)


@pytest.fixture(scope="module")
def hdr10(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "out.mp4"
    folder = path.with_name("exr")
    outcome = video_file(clip, [Target(path), Target(folder, "exr")], options())
    return path, folder, outcome


def probe(path, *more):
    tool = shutil.which("ffprobe")
    if tool is None:
        pytest.skip("ffprobe is not installed")
    words = [tool, "-v", "error", "-of", "json", "-show_streams", *more, str(path)]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def stamps(path, kind="video"):
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)
        return [round(f.pts * f.time_base, 6) for f in container.decode(stream)]


def sound(path):
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


# ---- what is written -------------------------------------------------------------------------


def test_hdr10_is_tagged_in_the_stream_and_in_the_container(hdr10):
    path, _, outcome = hdr10
    found = probe(path, "-show_frames", "-read_intervals", "%+#1")
    video = next(s for s in found["streams"] if s["codec_type"] == "video")
    assert (video["codec_name"], video["codec_tag_string"]) == ("hevc", "hvc1")
    assert video["pix_fmt"] == "yuv420p10le"
    assert video["color_primaries"] == "bt2020"
    assert video["color_transfer"] == "smpte2084"
    assert video["color_space"] == "bt2020nc"
    assert video["color_range"] == "tv"
    assert video["nb_frames"] == "9"
    for side in (video["side_data_list"], found["frames"][0]["side_data_list"]):
        (level,) = [s for s in side if s["side_data_type"].startswith("Content light")]
        assert level["max_content"] == outcome.facts["max_cll"]
        assert level["max_average"] == outcome.facts["max_fall"]
        (master,) = [s for s in side if s["side_data_type"].startswith("Mastering")]
        assert eval_fraction(master["max_luminance"]) == 1000


def eval_fraction(text):
    return Fraction(text)


def test_mediainfo_sees_hdr10(hdr10):
    tool = shutil.which("mediainfo")
    if tool is None:
        pytest.skip("mediainfo is not installed")
    text = subprocess.run([tool, str(hdr10[0])], check=True, capture_output=True, text=True).stdout
    assert "HDR10" in text
    assert f"{hdr10[2].facts['max_cll']} cd/m2" in text
    assert "BT.2020" in text


def test_the_light_levels_are_those_of_the_decoded_frames(hdr10):
    path, _, outcome = hdr10
    most, mean = [], []
    for timed in open_clip(path).frames():
        light = pq_decode(timed.frame.codes.astype(np.float32) / 65535).max(axis=2)
        most.append(np.percentile(light, 99.9))
        mean.append(light.mean())
    assert outcome.facts["max_cll"] == pytest.approx(max(most), rel=0.1)
    assert outcome.facts["max_fall"] == pytest.approx(max(mean), rel=0.05)


def test_decoded_frames_are_the_exr_frames_within_quantisation(hdr10):
    path, folder, _ = hdr10
    for timed, exr in zip(open_clip(path).frames(), sorted(folder.iterdir()), strict=True):
        light = formats.read(exr).codes
        shown = pq_decode(timed.frame.codes.astype(np.float32) / 65535)
        dim = (light.max(axis=2) > 0.02) & (light.max(axis=2) < 0.2)
        gain = shown[dim].sum() / light[dim].sum()
        luminance = [x @ np.array([0.3, 0.6, 0.1]) for x in (shown[dim], light[dim] * gain)]
        off = np.abs(np.log2(luminance[0] / luminance[1]))
        assert np.median(off) < 0.03


def test_the_audio_is_copied_bit_by_bit(clip, hdr10):
    assert sound(hdr10[0]) == sound(clip)
    assert stamps(hdr10[0], "audio") == stamps(clip, "audio")


def test_time_stamps_of_a_variable_rate_are_kept(tmp_path):
    given = [0, 1001, 2002, 4500, 5501, 6502, 9000, 10001, 11002]
    path = write_video(
        tmp_path / "vfr.mp4", shown(), stamps=given, base=Fraction(1, 24000), rate=Fraction(24)
    )
    video_file(path, [Target(tmp_path / "out.mp4")], options())
    assert stamps(tmp_path / "out.mp4") == [round(Fraction(s, 24000), 6) for s in given]


def test_a_turned_camera_gives_an_upright_film(tmp_path):
    path = write_video(tmp_path / "turned.mp4", shown(), rotation=90)
    clip = open_clip(path)
    assert clip.size == (144, 96)
    upright = next(clip.frames()).frame.codes
    plain = next(open_clip(write_video(tmp_path / "plain.mp4", shown())).frames()).frame.codes
    turns = [np.abs(np.rot90(plain, k).astype(int) - upright).mean() for k in (1, 3)]
    assert min(turns) < 1 < max(turns)
    with av.open(str(path)) as container:
        said = next(container.decode(video=0)).rotation
    assert turns[0 if said % 360 == 90 else 1] == min(turns)


@pytest.mark.parametrize(
    ("name", "target", "codec", "trc"),
    [
        ("out.mkv", {"transfer": "hlg"}, "hevc", "arib-std-b67"),
        ("out.mp4", {"transfer": "sdr"}, "h264", "bt709"),
        ("out.mkv", {"codec": "av1"}, "av1", "smpte2084"),
        ("out.mov", {}, "prores", "smpte2084"),
    ],
)
def test_every_codec_is_tagged_and_complete(clip, tmp_path, name, target, codec, trc):
    chosen = options() if codec in ("hevc", "h264") else options(preset=None, crf=None)
    outcome = video_file(clip, [Target(tmp_path / name, **target)], chosen)
    assert len(stamps(tmp_path / name)) == 9
    video = next(s for s in probe(tmp_path / name)["streams"] if s["codec_type"] == "video")
    assert video["codec_name"] == codec
    assert video["color_transfer"] == trc
    if codec == "av1":
        data = (tmp_path / name).read_bytes()
        level = outcome.facts["max_cll"].to_bytes(2) + outcome.facts["max_fall"].to_bytes(2)
        assert b"\x06\x01" + level + b"\x80" in data


def test_ten_bit_clips_are_read_to_the_last_bit(tmp_path):
    path = write_video(
        tmp_path / "deep.mkv",
        shown(),
        codec="ffv1",
        pixels="yuv420p10le",
        options={"strict": "experimental"},
    )
    clip = open_clip(path)
    frame = next(clip.frames()).frame
    assert clip.bits == 10
    assert frame.codes.dtype == np.uint16
    assert np.abs(frame.codes / 257 - shown()[0]).mean() < 2.5
    outcome = video_file(path, [Target(tmp_path / "exr", "exr")], options())
    assert outcome.facts["evs"] == pytest.approx([0, 3], abs=0.1)


# ---- bad and odd input -----------------------------------------------------------------------


def test_odd_sizes_and_odd_counts_work(tmp_path):
    folder = write_pictures(tmp_path / "in", shown(7, height=75, width=121))
    video_file(folder, [Target(tmp_path / "out.mp4")], options())
    clip = open_clip(tmp_path / "out.mp4")
    assert clip.size == (76, 122)
    assert len(list(clip.frames())) == 7


def test_grey_video_works(tmp_path):
    path = write_video(tmp_path / "grey.mkv", shown(), codec="ffv1", pixels="gray")
    outcome = video_file(path, [Target(tmp_path / "exr", "exr")], options())
    light = formats.read(tmp_path / "exr" / "frame_000004.exr").codes
    assert np.ptp(light, axis=2).max() == 0
    assert outcome.facts["period"] == 2


def test_a_truncated_file_gives_what_is_whole_or_a_clear_error(clip, tmp_path):
    matroska = write_video(tmp_path / "in.mkv", shown(20, speed=1.0))
    data = matroska.read_bytes()
    (tmp_path / "half.mkv").write_bytes(data[: len(data) // 2])
    frames = list(open_clip(tmp_path / "half.mkv").frames())
    assert 4 < len(frames) < 20
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(FormatError, match=r"half\.mp4: not a video"):
        open_clip(tmp_path / "half.mp4")


@pytest.mark.parametrize("content", [b"", b"no video at all\n" * 50, b"\x00" * 4096])
def test_what_is_no_video_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.mp4"):
        open_clip(tmp_path / "x.mp4")


def test_a_title_need_not_be_text(tmp_path):
    path = tmp_path / "titled.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "Cafe"
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    assert b"Cafe" in data
    path.write_bytes(data.replace(b"Cafe", b"Caf\xe9"))
    assert open_clip(path).size == (48, 64)


def test_a_sound_file_is_no_video(tmp_path):
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        part = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        part.sample_rate = 8000
        out.mux(stream.encode(part))
    with pytest.raises(FormatError, match="no video in it"):
        open_clip(path)


def test_one_frame_says_so(tmp_path):
    path = write_video(tmp_path / "one.mp4", shown(1))
    with pytest.raises(BracketError, match="only 1 frame"):
        video_file(path, [Target(tmp_path / "out.mp4")], options())
    assert not (tmp_path / "out.mp4").exists()


def log_encode(light):
    """Light in [0, 1] as H.273 has it for log 100:1."""
    return np.where(light > 0.01, 1 + np.log10(np.maximum(light, 0.01)) / 2, 0)


@pytest.mark.parametrize(
    ("name", "tag", "encoded"),
    [
        ("PQ", 16, lambda light: pq_encode(np.clip(100 * light, 0, 10_000))),
        ("HLG", 18, lambda light: hlg_encode(light / 8)),
        ("log 100:1", 9, lambda light: log_encode(np.clip(light / 8, 0, 1))),
    ],
)
def test_hdr_and_log_sources_are_read_by_their_own_curves(tmp_path, name, tag, encoded):
    from hdrcli.video.encode import video_frame
    from tests.films import light_at

    path = tmp_path / "source.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 144, 96, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, tag, 9
        for i in range(10):
            luma = 64 + 876 * encoded((light_at(i) * 4.0 ** (i % 2)).mean(axis=2))
            chroma = np.full((48, 72), 512, np.uint16)
            frame = video_frame((np.rint(luma).astype(np.uint16), chroma, chroma), "yuv420p10le")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = open_clip(path)
    assert clip.response.name == name
    outcome = video_file(path, [Target(tmp_path / "exr", "exr")], options())
    assert outcome.facts["evs"] == pytest.approx([0, 2], abs=0.05)


def test_a_missing_encoder_is_named_before_the_work(clip, tmp_path, monkeypatch):
    without = replace(encode.CODECS["hevc"], encoder="libnone")
    monkeypatch.setattr(encode, "CODECS", {**encode.CODECS, "hevc": without})
    with pytest.raises(ResourceError, match="no encoder libnone"):
        check(Target(tmp_path / "out.mp4"), open_clip(clip), FAST)


@pytest.mark.parametrize(
    ("name", "target", "match"),
    [
        ("out.avi", {}, "not written to .avi"),
        ("out.mp4", {"codec": "prores"}, "not written to .mp4"),
        ("out.mp4", {"codec": "h264"}, "eight bits"),
        ("missing/out.mp4", {}, "no folder"),
    ],
)
def test_what_cannot_be_written_is_said_first(clip, tmp_path, name, target, match):
    with pytest.raises(HdrcliError, match=match):
        check(Target(tmp_path / name, **target), open_clip(clip), FAST)


def test_nothing_is_overwritten_unasked(clip, tmp_path):
    (tmp_path / "out.mp4").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        video_file(clip, [Target(tmp_path / "out.mp4")], options())
    assert (tmp_path / "out.mp4").read_text() == "mine"


# ---- interruption ----------------------------------------------------------------------------


class _Interrupted(HdrLook):
    """A look during which somebody presses Ctrl-C."""

    count = 0

    def planes(self, radiance, seconds, scene):
        self.count += 1
        if self.count == 5:
            raise KeyboardInterrupt
        return super().planes(radiance, seconds, scene)


@pytest.mark.parametrize("keep", [False, True])
def test_an_interruption_leaves_nothing_or_a_shorter_film(clip, tmp_path, monkeypatch, keep):
    shape = Shape(Levels(10), TRANSFERS["pq"].primaries, topleft=True)
    monkeypatch.setattr(encode, "look_for", lambda *_: _Interrupted(Grade(), shape))
    with pytest.raises(KeyboardInterrupt):
        video_file(clip, [Target(tmp_path / "out.mp4")], options(keep_partial=keep))
    left = [p.name for p in tmp_path.iterdir()]
    assert left == (["out.mp4"] if keep else [])
    if keep:
        assert len(stamps(tmp_path / "out.mp4")) == 4


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_no_half_file(tmp_path):
    path = write_video(tmp_path / "in.mp4", shown(60, speed=1.0))
    words = [sys.executable, "-m", "hdrcli", "video", str(path), "-o", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.mp4.*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


# ---- light levels in files -------------------------------------------------------------------


def test_no_level_has_two_zero_bytes_in_a_row():
    for content in (1, 255, 256, 512, 1000, 65280):
        for average in (1, 2, 3, 255, 256):
            cll, fall = light_level.numbers(content, average)
            data = b"\x04" + cll.to_bytes(2) + fall.to_bytes(2) + b"\x80"
            assert b"\x00\x00" not in data
            assert cll >= content
            assert fall <= cll


def test_boxes_are_not_added_to_what_is_no_mp4(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"\x00" * 64)
    assert not light_level.add_boxes(path, light_level.level_box(1000, 100))
    assert path.read_bytes() == b"\x00" * 64


def test_a_file_grown_by_boxes_still_plays(clip, tmp_path):
    path = tmp_path / "x.mp4"
    sink = VideoFile(
        Target(path, "hlg"),
        open_clip(clip),
        HdrLook(Grade(), Shape(Levels(10), TRANSFERS["hlg"].primaries, topleft=True), hlg=True),
        Grade(),
        FAST,
    )
    timed = next(open_clip(clip).frames())
    for i in range(3):
        light = Radiance(np.full((96, 144, 3), 0.2 * i, np.float32))
        sink.take(Timed(timed.frame, i, i * 512), light)
    sink.finish()
    before = stamps(path)
    assert light_level.add_boxes(path, light_level.mastering_box(600))
    assert stamps(path) == before
    video = next(s for s in probe(path)["streams"] if s["codec_type"] == "video")
    assert Fraction(video["side_data_list"][0]["max_luminance"]) == 600


# ---- the command line ------------------------------------------------------------------------


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    return end.value.code, *capsys.readouterr()


def test_the_command_prints_its_exposures_and_its_files(clip, tmp_path, capsys):
    code, out, err = run(
        capsys, "video", clip, "-o", tmp_path / "exr", "--exposures", "alternating"
    )
    assert code == 0
    assert out == f"{tmp_path / 'exr'}\n"
    assert "period 2, +0.00, +3.0" in err


def test_json_tells_what_was_done(clip, tmp_path, capsys):
    code, out, _ = run(
        capsys, "video", clip, "-o", tmp_path / "o.mp4", "--preset", "ultrafast", "--json",
        "--exposures", "1/480,1/60",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["exposure_source"] == "given"
    assert {"frames", "period", "evs", "breaks", "max_cll", "seconds"} <= found.keys()


def test_a_steady_clip_ends_with_3_and_what_was_found(tmp_path, capsys):
    path = write_video(tmp_path / "in.mp4", [codes for codes, _ in film(8, (1.0,), speed=1.0)])
    code, out, err = run(capsys, "video", path, "-o", tmp_path / "o.mp4")
    assert (code, out) == (3, "")
    assert "do not alternate" in err
    assert "--ev" in err


def test_a_clip_example_can_be_merged(tmp_path, capsys):
    code, _, _ = run(
        capsys, "example", tmp_path / "demo", "--video", "--frames", 6, "--size", "128x72", "-q"
    )
    assert code == 0
    truth = sorted((tmp_path / "demo" / "truth").iterdir())
    assert len(truth) == 6
    code, _, err = run(capsys, "video", tmp_path / "demo" / "clip.mp4", "-o", tmp_path / "exr")
    assert code == 0
    assert "period 2" in err
