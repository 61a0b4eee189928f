"""Input that people really give: each case through the program, with its exit code and words.

The cases are the rows of the project's table of bad input that concern photographs; what
readers do with damaged bytes is in test_formats.py.
"""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hdrcli import color, formats
from hdrcli.exif import write_exif
from hdrcli.frames import Metadata, Radiance
from tests.scenes import NOISY, flat, photograph, texture

SIZE = (96, 128)
EVS = (-2.0, 0.0, 2.0)


@pytest.fixture
def merge(hdrcli, tmp_path, monkeypatch):
    """Merge into o.exr and give the result; every failure leaves no file behind."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(paths, *words):
        result = hdrcli(
            "merge", *paths, "-o", tmp_path / "o.exr", "--backend", "average", "--json", *words
        )
        assert "Traceback" not in result.err
        assert (tmp_path / "o.exr").exists() == (result.code == 0)
        return result

    return run


def frames(evs=EVS, **camera):
    return photograph(texture(*SIZE), evs, sensor=NOISY, **camera).frames


def written(tmp_path, shots, metas, suffix=".jpg", **given):
    """One file per shot, with its own metadata (None for none)."""
    paths = []
    for i, (frame, meta) in enumerate(zip(shots, metas, strict=True)):
        paths.append(tmp_path / f"IMG_{i}{suffix}")
        exif = None if meta is None else write_exif(meta)
        formats.write_display_codes(paths[-1], frame.codes, exif=exif, **given)
    return paths


def times(values=(0.25, 1.0, 4.0), **more):
    return [Metadata(exposure_time=value, **{"iso": 100.0, **more}) for value in values]


def evs_of(result):
    assert result.code == 0, result.err
    return json.loads(result.out)["evs"]


def light(tmp_path):
    return formats.read(tmp_path / "o.exr").codes


# ---- exposures -------------------------------------------------------------------------------


def test_without_exif_the_pixels_tell_and_it_is_said(merge, tmp_path):
    result = merge(written(tmp_path, frames(), [None] * 3))
    assert evs_of(result) == pytest.approx(EVS, abs=0.4)
    assert "warning: exposures estimated" in result.err
    assert "confidence" in result.err


def test_exposures_that_nothing_tells_are_refused(merge, tmp_path, rng):
    noise = [replace(f, codes=rng.integers(0, 256, f.codes.shape, np.uint8)) for f in frames()]
    result = merge(written(tmp_path, noise, [None] * 3, ".png"))
    assert result.code == 3
    assert "--ev" in result.err


def test_a_lens_without_contacts_is_constant(merge, tmp_path):
    result = merge(written(tmp_path, frames(), times(f_number=None)))
    assert evs_of(result) == pytest.approx(EVS, abs=0.01)


def test_a_missing_iso_is_that_of_the_others_and_is_said(merge, tmp_path):
    metas = times(f_number=4.0, iso=200.0)
    metas[1] = replace(metas[1], iso=None)
    result = merge(written(tmp_path, frames(), metas))
    assert evs_of(result) == pytest.approx(EVS, abs=0.01)
    assert "ISO" in result.err


@pytest.mark.parametrize("rational", [(0, 1), (1, 0), (0, 0), (4_000_000_000, 1)])
def test_times_that_cannot_be_are_no_times(merge, tmp_path, rational):
    """0, 1/0, 0/0 and a century in EXIF; the pixels are asked instead."""
    paths = written(tmp_path, frames(), times((0.25, 1 / 97, 4.0)))
    data = paths[1].read_bytes()
    order = next(o for o in "<>" if struct.pack(o + "II", 1, 97) in data)
    wrong = data.replace(struct.pack(order + "II", 1, 97), struct.pack(order + "II", *rational))
    paths[1].write_bytes(wrong)
    result = merge(paths)
    assert evs_of(result) == pytest.approx(EVS, abs=0.4)
    assert "IMG_1.jpg" in result.err


def test_exif_that_the_pixels_contradict_is_said(merge, tmp_path):
    result = merge(written(tmp_path, frames(), times((1.0, 1.0, 1.0))))
    assert "not believed" in result.err
    assert evs_of(result) == pytest.approx(EVS, abs=0.4)


def test_what_the_user_says_wins_over_exif(merge, tmp_path):
    paths = written(tmp_path, frames(), times((1.0, 1.0, 1.0)))
    assert evs_of(merge(paths, "--ev", "-2,0,2")) == pytest.approx(EVS)


def test_equal_exposures_are_merged_together(merge, tmp_path):
    shots = [*frames(), frames((0.0, 0.0), seed=9)[0]]
    result = merge(written(tmp_path, shots, times((0.25, 1.0, 4.0, 1.0))))
    assert evs_of(result) == pytest.approx([-2, 0, 0, 2], abs=0.01)


def test_one_exposure_only_gains_no_range(merge, tmp_path):
    result = merge(written(tmp_path, frames((0.0,) * 3), times((1.0, 1.0, 1.0))))
    assert result.code == 0
    assert "no dynamic range" in result.err


def test_an_aperture_bracket_counts_light_and_warns_of_depth(merge, tmp_path):
    metas = [Metadata(exposure_time=1.0, f_number=n, iso=100.0) for n in (8.0, 4.0, 2.0)]
    result = merge(written(tmp_path, frames(), metas))
    assert evs_of(result) == pytest.approx(EVS, abs=0.01)
    assert "depth of field" in result.err


def test_auto_iso_counts_too(merge, tmp_path):
    metas = [Metadata(exposure_time=1.0, f_number=4.0, iso=iso) for iso in (100.0, 400.0, 1600.0)]
    assert evs_of(merge(written(tmp_path, frames(), metas))) == pytest.approx(EVS, abs=0.01)


# ---- which files -----------------------------------------------------------------------------


def test_the_same_photograph_twice_is_left_out(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(paths[0].read_bytes())
    result = merge([*paths, copy, paths[1]])
    assert len(evs_of(result)) == 3
    assert result.err.count("left out") == 2


@pytest.mark.parametrize("twice", [False, True])
def test_one_photograph_is_shown_the_way_to_tonemap(merge, tmp_path, twice):
    paths = written(tmp_path, frames()[:1], times()[:1])
    result = merge(paths * 2 if twice else paths)
    assert result.code == 3
    assert "hdrcli tonemap" in result.err


@pytest.mark.parametrize("count", [2, 9])
def test_two_or_nine_photographs_are_a_bracket(merge, tmp_path, count):
    evs = tuple(np.linspace(-4, 4, count))
    result = merge(written(tmp_path, frames(evs), times([2.0**ev for ev in evs])))
    assert evs_of(result)[0] - evs_of(result)[-1] == pytest.approx(-8, abs=0.05)


def test_sizes_that_differ_are_listed(merge, tmp_path):
    shots = list(frames())
    shots[1] = replace(shots[1], codes=shots[1].codes[:90])
    result = merge(written(tmp_path, shots, times()))
    assert result.code == 3
    assert "128x96" in result.err
    assert "128x90" in result.err


def test_other_cameras_and_zooms_are_said(merge, tmp_path):
    metas = times(model="One", focal_length=35.0)
    metas[2] = replace(metas[2], model="Two", focal_length=50.0)
    result = merge(written(tmp_path, frames(), metas))
    assert result.code == 0
    assert "One, Two" in result.err
    assert "focal length" in result.err


def test_orientations_that_differ_are_turned_each_once(merge, tmp_path):
    paths = written(tmp_path, frames(), times(f_number=1.0), ".jpg")
    turned = Image.open(paths[1])
    exif = turned.getexif()
    exif[0x0112] = 6  # "turn me clockwise", so the pixels lie anticlockwise
    turned.rotate(90, expand=True).save(paths[1], quality=95, exif=exif)
    result = merge(paths)
    assert len(evs_of(result)) == 3
    assert light(tmp_path).shape == (*SIZE, 3)


# ---- damaged and disguised -------------------------------------------------------------------


def test_a_file_cut_short_is_named(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    paths[1].write_bytes(paths[1].read_bytes()[:-400])
    result = merge(paths)
    assert result.code == 3
    assert "IMG_1.jpg" in result.err
    assert "cut short" in result.err


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"hello, this is text\n" * 9, "text"), (bytes(range(256)) * 4, "IMG_1")],
)
def test_what_is_no_photograph_is_named(merge, tmp_path, content, said):
    paths = written(tmp_path, frames(), times())
    paths[1].write_bytes(content)
    result = merge(paths)
    assert result.code == 3
    assert "IMG_1.jpg" in result.err
    assert said in result.err


def test_a_wrong_suffix_does_not_matter(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    renamed = [path.rename(path.with_suffix(".png")) for path in paths]
    assert evs_of(merge(renamed)) == pytest.approx(EVS, abs=0.01)


def test_names_with_spaces_accents_and_percents(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    names = ["a b.jpg", "ü é 100%d.jpg", "[red]x.jpg"]
    odd = [path.rename(tmp_path / name) for path, name in zip(paths, names, strict=True)]
    assert json.loads(merge(odd).out)["frames"] == [str(path) for path in odd]


# ---- pixels of every kind --------------------------------------------------------------------


def test_sixteen_bits_stay_sixteen(merge, tmp_path):
    scene = flat(64, 64, 0.001) + np.linspace(0, 4e-4, 64, dtype=np.float32)[None, :, None]
    paths = written(tmp_path, photograph(scene, EVS, bits=16).frames, [None] * 3, ".png")
    assert merge(paths, "--ev", "-2,0,2", "--response", "srgb", "--exr-type", "float").code == 0
    np.testing.assert_allclose(light(tmp_path), scene, rtol=0.01)
    assert len(np.unique(light(tmp_path)[0, :, 0])) > 40


def test_float_frames_with_nan_and_infinity(merge, tmp_path):
    paths = []
    for i, frame in enumerate(frames()):
        codes = np.clip(frame.linear(), 0, 1)
        codes[i, 0], codes[i, 1] = np.nan, np.inf
        paths.append(tmp_path / f"{i}.tif")
        formats.write(paths[-1], Radiance(codes))
    assert merge(paths, "--ev", "-2,0,2").code == 0
    got = light(tmp_path)
    assert np.isfinite(got).all()
    assert np.median(np.abs(got / texture(*SIZE) - 1)) < 0.02


def test_alpha_is_a_mask_and_no_colour(merge, tmp_path):
    paths = []
    for i, frame in enumerate(frames()):
        alpha = np.full(SIZE, 255, np.uint8)
        codes = frame.codes.copy()
        if i == 0:
            alpha[:40], codes[:40] = 0, 255
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.dstack([codes, alpha])).save(paths[-1])
    assert merge(paths, "--ev", "-2,0,2", "--response", "srgb").code == 0
    dim = texture(*SIZE)[:40].max(axis=2) < 0.8  # the other frames show it well
    off = np.abs(light(tmp_path)[:40] / texture(*SIZE)[:40] - 1)
    assert np.median(off[dim]) < 0.02


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_palette_and_bilevel_become_colour(merge, tmp_path, mode):
    paths = []
    for i, frame in enumerate(frames()):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(frame.codes).convert(mode).save(paths[-1])
    assert merge(paths, "--ev", "-2,0,2", "--align", "none").code == 0
    assert light(tmp_path).shape == (*SIZE, 3)


def test_cmyk_without_a_profile_is_refused(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    Image.fromarray(frames()[1].codes).convert("CMYK").save(paths[1])
    result = merge(paths)
    assert result.code == 3
    assert "CMYK" in result.err
    assert "IMG_1.jpg" in result.err


def test_profiles_are_honoured_and_named_in_the_file(merge, tmp_path):
    paths = written(tmp_path, frames(), times(), primaries=color.ADOBE_RGB)
    result = merge(paths)
    assert result.code == 0
    assert json.loads(result.out)["primaries"] == "Adobe RGB"


def test_mixed_profiles_are_said(merge, tmp_path):
    paths = written(tmp_path, frames(), times())
    paths[1:2] = [path.rename(path.with_name("wide.jpg")) for path in paths[1:2]]
    exif = write_exif(times()[1])
    formats.write_display_codes(
        paths[1], frames()[1].codes, primaries=color.DISPLAY_P3, exif=exif, overwrite=True
    )
    result = merge(paths)
    assert result.code == 0
    assert "differ in colour profile" in result.err


# ---- scenes without an answer ----------------------------------------------------------------


def test_white_in_every_frame_is_neutral_counted_and_said(merge, tmp_path):
    scene = texture(*SIZE)
    scene[:30] = (1000.0, 700.0, 400.0)
    paths = written(tmp_path, photograph(scene, EVS).frames, times(f_number=1.0))
    result = merge(paths)
    said = json.loads(result.out)
    assert said["clipped_percent"] == pytest.approx(100 * 30 / 96, abs=1)
    assert "lower bound" in result.err
    white = light(tmp_path)[:26].reshape(-1, 3)
    assert np.ptp(white, axis=1).max() < 0.01 * white.max()
    assert white.min() > 3.5


@pytest.mark.parametrize("level", [0.0, 1e6])
def test_black_or_white_everywhere_merges_when_the_exposures_are_known(merge, tmp_path, level):
    paths = written(tmp_path, photograph(flat(*SIZE, level=level), EVS).frames, times())
    assert merge(paths).code == 0
    assert np.isfinite(light(tmp_path)).all()
    preview = formats.read(tmp_path / "o_preview.jpg").codes
    assert preview.shape == (*SIZE, 3)


def test_a_scene_without_features_is_not_moved(merge, tmp_path):
    sky = flat(*SIZE, level=0.2) * np.linspace(0.8, 1.2, SIZE[0], dtype=np.float32)[:, None, None]
    paths = written(tmp_path, photograph(sky, EVS, sensor=NOISY).frames, times())
    result = merge(paths)
    assert result.code == 0
    alignment = json.loads(result.out)["alignment"]
    assert not any("shift" in line for line in alignment)


def test_light_beyond_half_floats_is_not_lost(merge, tmp_path):
    paths = []
    for i, ev in enumerate((0.0, 1.0)):
        paths.append(tmp_path / f"{i}.exr")
        light_there = Radiance(flat(16, 16, 4e5) * np.float32(2.0**ev))
        formats.write(paths[-1], light_there, options=formats.WriteOptions(exr_type="float"))
    assert merge(paths, "--ev", "0,1", "--reference", "1").code == 0
    np.testing.assert_allclose(light(tmp_path), 4e5, rtol=1e-3)


# ---- outputs ---------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_said_before_the_work(hdrcli, tmp_path, monkeypatch):
    monkeypatch.setattr("hdrcli.pipeline.read_bracket", lambda *_, **__: pytest.fail("read"))
    result = hdrcli("merge", "a.jpg", "b.jpg", "-o", tmp_path / "none" / "o.exr")
    assert result.code == 3
    assert "there is no folder" in result.err
    assert "mkdir" in result.err


def test_a_typo_in_a_flag_is_a_usage_error(hdrcli, tmp_path):
    result = hdrcli("merge", "a.jpg", "b.jpg", "-o", tmp_path / "o.exr", "--overwite")
    assert result.code == 2
    assert "--overwrite" in result.err


@pytest.mark.parametrize(
    ("name", "said"), [("folder", "this is a folder"), ("x" * 300, "name too long")]
)
def test_what_is_no_file_is_named(hdrcli, tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    result = hdrcli("merge", tmp_path / name, tmp_path / "other.jpg", "-o", tmp_path / "out.exr")
    assert result.code == 3
    assert said in result.err.lower().replace("\n", " ")
    assert "traceback" not in result.err.lower()
