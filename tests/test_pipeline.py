"""Photographs in, files out: what is written, where, and what it says of itself."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest

from hdrcli import color, formats
from hdrcli.bracket import read_bracket, resolve
from hdrcli.errors import InputError
from hdrcli.exif import write_exif
from hdrcli.formats import WriteOptions
from hdrcli.frames import LINEAR, Metadata, Radiance
from hdrcli.pipeline import MergeOptions, merge_files
from hdrcli.pipeline import merge as merge_bracket
from hdrcli.provenance import offset_seconds
from tests.scenes import (
    NOISY,
    disc_bracket,
    flat,
    gradient,
    handheld_bracket,
    photograph,
    save,
    texture,
    with_disc,
)

SIZE = (96, 128)
AVERAGE = MergeOptions(backend="average")


@pytest.fixture
def photos(tmp_path):
    return save(photograph(texture(*SIZE), sensor=NOISY), tmp_path)


@pytest.fixture
def exif_photos(tmp_path):
    """Photographs that say all a camera says."""
    bracket = photograph(texture(*SIZE), sensor=NOISY)
    paths = []
    for i, frame in enumerate(bracket.frames):
        meta = Metadata(
            exposure_time=2.0 ** (2 * i) / 100,
            f_number=5.6,
            iso=200.0,
            taken=f"2024:05:01 12:00:0{i}",
            utc_offset="+02:00",
            make="Maker",
            model="Model 1",
            lens="Lens 50",
        )
        paths.append(tmp_path / f"IMG_{i}.jpg")
        formats.write_display_codes(paths[-1], frame.codes, exif=write_exif(meta))
    return paths


def header(path):
    with OpenEXR.File(str(path), header_only=True) as file:
        return dict(file.header())


def merge(paths, *outputs, **options):
    return merge_files(paths, list(outputs), replace(AVERAGE, **options))


def light_of(path):
    return formats.read(path).codes


# ---- every kind of input and output ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["jpg", "png", "png16", "tif", "tif16", "tiff32"])
def test_every_kind_of_photograph_gives_its_light(tmp_path, kind):
    scene = texture(*SIZE)
    bracket = photograph(scene, bits=16 if kind.endswith("16") else 8, sensor=NOISY)
    paths = []
    for i, frame in enumerate(bracket.frames):
        exif = write_exif(Metadata(exposure_time=frame.exposure, f_number=1.0, iso=100.0))
        paths.append(tmp_path / f"{i}.{kind[:3]}")
        if kind == "tiff32":
            formats.write(paths[-1], Radiance(np.clip(frame.linear(), 0, 1)))
        else:
            formats.write_display_codes(paths[-1], frame.codes, exif=exif)
    evs = None if kind[:3] in ("jpg", "png") else (-2.0, 0.0, 2.0)
    merge(paths, tmp_path / "o.exr", evs=evs)
    got = light_of(tmp_path / "o.exr")
    # a JPEG thins its colours out: its brightness is what it keeps
    near = np.abs(got.mean(axis=2) / scene.mean(axis=2) - 1)
    assert np.median(near) < (0.03 if kind == "jpg" else 0.02)


@pytest.mark.parametrize("name", ["o.exr", "o.hdr", "o.tif"])
def test_every_kind_of_light_is_the_same_light(photos, tmp_path, name):
    merge(photos, tmp_path / "ref.exr", exr_type="float", preview=False)
    merge(photos, tmp_path / name, preview=False)
    ours, truth = light_of(tmp_path / name), light_of(tmp_path / "ref.exr")
    top = truth.max(axis=2, keepdims=True)
    tolerance = {"o.exr": 2**-10, "o.hdr": 2**-7, "o.tif": 1e-6}[name]
    assert (np.abs(ours - truth) <= tolerance * top + 1e-6).all()


def test_all_outputs_in_one_go(photos, tmp_path):
    names = ["a.exr", "b.hdr", "c.tif", "d.jpg", "e.png"]
    outcome = merge(photos, *(tmp_path / name for name in names))
    assert [path.name for path in outcome.outputs] == names  # a picture is among them: no preview
    assert all(formats.read(path).size == SIZE for path in outcome.outputs)
    shown, again = (formats.read(tmp_path / name).codes for name in ("d.jpg", "e.png"))
    assert np.abs(shown.astype(int) - again).mean() < 4


@pytest.mark.parametrize(
    ("outputs", "preview"),
    [
        (["o.exr"], "o_preview.jpg"),
        (["first.hdr", "second.exr"], "first_preview.jpg"),
        (["o.tif"], "o_preview.jpg"),
        (["o.exr", "o.png"], None),
        (["o.jpg"], None),
    ],
)
def test_a_preview_stands_beside_the_first_light(photos, tmp_path, outputs, preview):
    folder = tmp_path / "out"
    folder.mkdir()
    outcome = merge(photos, *(folder / name for name in outputs))
    expected = outputs + ([preview] if preview else [])
    assert [path.name for path in outcome.outputs] == expected
    assert {path.name for path in folder.iterdir()} == set(expected)


def test_a_preview_of_a_size(photos, tmp_path):
    merge(photos, tmp_path / "o.exr", preview_size=64)
    assert formats.read(tmp_path / "o_preview.jpg").size == (48, 64)
    assert formats.read(tmp_path / "o.exr").size == SIZE


def test_mertens_is_written_for_the_screen_only(photos, tmp_path):
    outcome = merge(photos, tmp_path / "o.png", backend="mertens")
    assert outcome.backend == "mertens"
    assert formats.read(tmp_path / "o.png").codes.dtype == np.uint8
    with pytest.raises(InputError, match="picture for the screen"):
        merge(photos, tmp_path / "o.exr", backend="mertens")
    assert not (tmp_path / "o.exr").exists()


def test_a_fused_picture_keeps_its_colours(tmp_path):
    """Exposure fusion of Adobe RGB files is Adobe RGB, and says so."""
    bracket = photograph(texture(*SIZE))
    paths = []
    for i, frame in enumerate(bracket.frames):
        paths.append(tmp_path / f"{i}.png")
        exif = write_exif(Metadata(exposure_time=frame.exposure, f_number=1.0, iso=100.0))
        formats.write_display_codes(paths[-1], frame.codes, primaries=color.ADOBE_RGB, exif=exif)
    merge(paths, tmp_path / "o.png", backend="mertens")
    assert formats.read(tmp_path / "o.png").primaries.name == color.ADOBE_RGB.name


# ---- what is never touched -------------------------------------------------------------------


def test_photographs_are_never_written(photos, tmp_path):
    before = [path.read_bytes() for path in photos]
    (tmp_path / "link.png").symlink_to(photos[0])
    for output in (photos[1], tmp_path / "link.png"):
        with pytest.raises(InputError, match="one of the photographs"):
            merge(photos, output, overwrite=True)
    assert [path.read_bytes() for path in photos] == before


def test_one_name_for_two_outputs_is_refused(photos, tmp_path):
    with pytest.raises(InputError, match="twice"):
        merge(photos, tmp_path / "o.exr", tmp_path / "o.exr")
    assert not (tmp_path / "o.exr").exists()


def test_an_old_preview_is_not_overwritten_either(photos, tmp_path):
    (tmp_path / "o_preview.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="exists"):
        merge(photos, tmp_path / "o.exr")
    assert not (tmp_path / "o.exr").exists()
    assert (tmp_path / "o_preview.jpg").read_bytes() == b"precious"
    merge(photos, tmp_path / "o.exr", overwrite=True)
    assert formats.read(tmp_path / "o_preview.jpg").size == SIZE


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"deghost": "much"}, "--deghost"),
        ({"weight": "heavy"}, "--weight"),
        ({"primaries": "rec1"}, "--primaries"),
        ({"anchor": "sea"}, "--anchor"),
        ({"backend": "magic"}, "--backend"),
        ({"tmo": "magic"}, "magic"),
        ({"tmo_params": {"x": 1.0}}, "x"),
        ({"exr_type": "double"}, "double"),
        ({"compression": "gzip"}, "gzip"),
    ],
)
def test_options_are_checked_before_a_photograph_is_read(tmp_path, monkeypatch, wrong, said):
    monkeypatch.setattr("hdrcli.pipeline.read_bracket", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InputError, match=said):
        merge([tmp_path / "absent.jpg"] * 2, tmp_path / "o.exr", **wrong)


def test_a_folder_for_maps_that_is_a_file_is_refused_early(photos, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "maps"):
        with pytest.raises(InputError, match="file"):
            merge(photos, tmp_path / "o.exr", debug_dir=folder)
        (tmp_path / "o.exr").unlink(missing_ok=True)
        (tmp_path / "o_preview.jpg").unlink(missing_ok=True)


# ---- scale and colour ------------------------------------------------------------------------


def test_anchors_differ_by_the_scale_that_is_written(photos, tmp_path):
    merge(photos, tmp_path / "r.exr", exr_type="float")
    merge(photos, tmp_path / "a.exr", exr_type="float", anchor="absolute")
    scale = header(tmp_path / "r.exr")["hdrcli:scale"]
    assert scale == pytest.approx(1.0)  # f/1, ISO 100, 1 s
    assert header(tmp_path / "a.exr")["hdrcli:scale"] == 1.0
    np.testing.assert_allclose(
        light_of(tmp_path / "r.exr") / scale, light_of(tmp_path / "a.exr"), rtol=1e-5
    )


def test_absolute_brackets_of_one_scene_agree(tmp_path):
    scene = texture(*SIZE)
    found = []
    for name, evs in (("a", (-2.0, 0.0, 2.0)), ("b", (-3.0, -1.0, 1.0))):
        folder = tmp_path / name
        folder.mkdir()
        paths = save(photograph(scene, evs, reference=1), folder)
        merge(paths, folder / "o.exr", anchor="absolute", exr_type="float")
        found.append(light_of(folder / "o.exr"))
    assert np.median(np.abs(found[0] / found[1] - 1)) < 0.01
    assert np.median(np.abs(found[0] / scene - 1)) < 0.02


@pytest.mark.parametrize(
    "name", ["rec2020", *(pytest.param(n, marks=pytest.mark.slow) for n in ("p3", "acescg"))]
)
def test_primaries_change_the_numbers_and_not_the_colours(photos, tmp_path, name):
    merge(photos, tmp_path / "s.exr", exr_type="float")
    merge(photos, tmp_path / "o.exr", exr_type="float", primaries=name)
    target = color.PRIMARIES[name]
    said = np.asarray(header(tmp_path / "o.exr")["chromaticities"]).ravel()
    np.testing.assert_allclose(said, target.chromaticities, rtol=1e-5)
    expected = color.convert(light_of(tmp_path / "s.exr"), color.REC709, target)
    np.testing.assert_allclose(light_of(tmp_path / "o.exr"), expected, atol=1e-4)


# ---- crop ------------------------------------------------------------------------------------


@pytest.fixture
def shaken(tmp_path):
    bracket, _ = handheld_bracket(pixels=8.0)
    return save(bracket, tmp_path)


def test_a_crop_is_what_every_frame_shows(shaken, tmp_path):
    merge(shaken, tmp_path / "whole.exr", exr_type="float")
    merge(shaken, tmp_path / "part.exr", exr_type="float", crop=True)
    whole, part = light_of(tmp_path / "whole.exr"), light_of(tmp_path / "part.exr")
    assert whole.shape == (256, 320, 3)
    assert 0.7 * whole.size < part.size < 0.97 * whole.size
    h, w = part.shape[:2]
    _, _, (left, top), _ = cv2.minMaxLoc(cv2.matchTemplate(whole, part, cv2.TM_SQDIFF_NORMED))
    assert (whole[top : top + h, left : left + w] == part).all()  # nothing is resampled for it
    assert formats.read(tmp_path / "part_preview.jpg").size == (h, w)


def test_a_still_bracket_is_not_cropped(photos, tmp_path):
    merge(photos, tmp_path / "o.exr", crop=True)
    assert formats.read(tmp_path / "o.exr").size == SIZE


# ---- maps ------------------------------------------------------------------------------------


def test_maps_show_what_was_done(tmp_path):
    bracket, _ = disc_bracket()
    paths = save(bracket, tmp_path)
    outcome = merge(paths, tmp_path / "o.exr", debug_dir=tmp_path / "deep" / "maps")
    found = {path.name for path in (tmp_path / "deep" / "maps").iterdir()}
    assert found >= {"ghost.png", "clip.png", "weight_01.png", "aligned_03.png"}
    assert {path.name for path in outcome.outputs} >= found
    ghost = formats.read(tmp_path / "deep" / "maps" / "ghost.png").codes
    assert ghost.shape == (*SIZE, 3)
    assert ghost.max() > 128
    assert np.median(ghost) < 16
    weights = [
        formats.read(tmp_path / "deep" / "maps" / f"weight_{i:02d}.png").codes for i in (1, 2, 3)
    ]
    total = np.sum(weights, axis=0, dtype=int)
    assert (np.abs(total - 255) <= 2).all()
    again = merge(paths, tmp_path / "p.exr", debug_dir=tmp_path / "deep" / "maps")
    assert len(again.outputs) == len(outcome.outputs)


def test_maps_and_layers_show_the_motion_that_was_used(tmp_path):
    """The network's, where it corrected it."""
    paths = save(disc_bracket()[0], tmp_path)
    maps = tmp_path / "maps"
    merge(paths, tmp_path / "o.exr", backend="flowmerge", debug_dir=maps, layers=True)
    with OpenEXR.File(str(tmp_path / "o.exr"), separate_channels=True) as file:
        ghost = np.array(file.channels()["ghost.Y"].pixels)
    resolved = read_bracket(paths)
    merged = merge_bracket(resolved, replace(AVERAGE, backend="flowmerge"))
    classical = merge_bracket(resolved, AVERAGE)
    believed = [
        np.min([c for c in one.motion.confidence if c is not None], axis=0)
        for one in (merged, classical)
    ]
    assert np.abs(1 - believed[0] - ghost).max() < 0.001
    assert np.abs(believed[0] - believed[1]).max() > 0.1
    shown = formats.read(maps / "ghost.png").codes[..., 0]
    assert np.abs(shown / 255 - ghost).max() < 0.003


def test_a_photograph_of_another_scene_is_left_out(tmp_path):
    scene = texture(256, 320, seed=1)
    bracket = photograph([scene, texture(256, 320, seed=5), scene, scene], (-3.0, -1.5, 0.0, 2.0))
    paths = save(bracket, tmp_path)
    outcome = merge(paths, tmp_path / "o.exr", exr_type="float", preview=False)
    assert outcome.facts["left_out"] == [str(paths[1])]
    assert outcome.facts["frames"] == [str(path) for path in (paths[0], *paths[2:])]
    assert len(outcome.facts["evs"]) == len(outcome.facts["pixel_evs"]) == 3
    assert any(str(paths[1]) in said and "left out" in said for said in outcome.warnings)
    kept = [paths[0], *paths[2:]]
    merge(kept, tmp_path / "p.exr", exr_type="float", preview=False, reference="2")
    ours, alone = light_of(tmp_path / "o.exr"), light_of(tmp_path / "p.exr")
    assert np.median(np.abs(ours / alone - 1)) < 0.01


def test_layers_stand_beside_the_light(tmp_path):
    scene = texture(*SIZE)
    scene[:20, :30] = 100.0
    paths = save(photograph(scene), tmp_path)
    merge(paths, tmp_path / "o.exr", layers=True)
    with OpenEXR.File(str(tmp_path / "o.exr"), separate_channels=True) as file:
        planes = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    assert {"R", "G", "B", "ghost.Y", "clip.Y", "source.index", "weight.00"} <= set(planes)
    assert (planes["clip.Y"][:18, :28] == 1).all()
    assert planes["clip.Y"][24:].max() == 0
    shares = sum(planes[f"weight.{i:02d}"] for i in range(3))
    np.testing.assert_allclose(shares, 1, atol=1e-3)
    best = np.argmax([planes[f"weight.{i:02d}"] for i in range(3)], axis=0)
    assert (planes["source.index"] == best).all()
    assert light_of(tmp_path / "o.exr").shape == scene.shape  # still read as one picture


# ---- what a file says of itself --------------------------------------------------------------


def test_the_attributes_that_are_expected_are_there(exif_photos, tmp_path):
    outcome = merge(exif_photos, tmp_path / "o.exr")
    said = header(tmp_path / "o.exr")
    reference = formats.read(Path(outcome.facts["reference"])).metadata
    assert reference.exposure_time is not None
    assert said["expTime"] == pytest.approx(reference.exposure_time, rel=1e-5)
    assert said["aperture"] == pytest.approx(5.6, rel=1e-5)
    assert said["isoSpeed"] == 200
    assert said["capDate"] == reference.taken
    assert said["utcOffset"] == -7200  # what is added to local time to make it UTC
    assert said["cameraModel"] == "Model 1"
    assert said["lensModel"] == "Lens 50"
    np.testing.assert_allclose(np.asarray(said["adoptedNeutral"]), color.D65, rtol=1e-5)
    np.testing.assert_allclose(
        np.asarray(said["chromaticities"]).ravel(), color.REC709.chromaticities, rtol=1e-5
    )
    assert said["hdrcli:version"]
    assert said["hdrcli:command"].startswith("hdrcli")
    assert said["hdrcli:backend"] == "average"
    assert json.loads(said["hdrcli:sources"]) == [str(path) for path in exif_photos]
    assert json.loads(said["hdrcli:evs"]) == pytest.approx([-2, 0, 2], abs=0.01)
    exposure = reference.exposure_time * 2 / 5.6**2
    assert said["hdrcli:scale"] == pytest.approx(exposure, rel=1e-4)
    assert said["hdrcli:clipped_percent"] == outcome.facts["clipped_percent"]


def test_a_merged_file_can_be_a_photograph_again(exif_photos, tmp_path):
    outcome = merge(exif_photos, tmp_path / "o.exr")
    again = formats.read(tmp_path / "o.exr")
    assert again.response is LINEAR
    reference = formats.read(Path(outcome.facts["reference"]))
    assert again.metadata.exposure_time == pytest.approx(reference.metadata.exposure_time)
    preview = formats.read(tmp_path / "o_preview.jpg").metadata
    assert preview.exposure_time == pytest.approx(reference.metadata.exposure_time)
    assert preview.model == "Model 1"
    assert preview.taken == reference.metadata.taken


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("+02:00", -7200), ("-05:30", 19800), ("+00:00", 0), ("Z", None), ("", None), (None, None)],
)
def test_offsets_are_what_makes_local_time_utc(text, seconds):
    assert offset_seconds(text) == seconds


def test_what_was_found_is_plain_data(photos, tmp_path):
    outcome = merge(photos, tmp_path / "o.exr")
    said = json.loads(json.dumps(outcome.as_dict()))
    assert said["outputs"] == [str(tmp_path / "o.exr"), str(tmp_path / "o_preview.jpg")]
    assert said["backend"] == "average"
    assert said["size"] == [128, 96]
    assert said["frames"] == [str(path) for path in photos]
    assert said["reference"] == str(photos[1])
    assert {"read", "response", "align", "motion", "merge", "write"} <= set(said["seconds"])


def test_progress_tells_every_stage_from_begin_to_end(photos, tmp_path):
    heard = []
    merge_files(photos, [tmp_path / "o.exr"], AVERAGE, lambda *said: heard.append(said))
    for stage in ("read", "align", "motion", "merge", "write"):
        parts = [done for name, done in heard if name == stage]
        assert (parts[0], parts[-1]) == (0.0, 1.0)
        assert parts == sorted(parts)


# ---- half floats -----------------------------------------------------------------------------


def test_light_beyond_half_floats_is_stored_in_float(tmp_path):
    scene = gradient(16, 64, 0.01, 100_000.0)
    evs = (-17.0, -12.0, -6.0, 0.0)
    paths = save(photograph(scene, evs, bits=16, reference=3), tmp_path)
    merge(paths, tmp_path / "o.exr", reference="4", preview=False)
    got = light_of(tmp_path / "o.exr")
    assert np.isfinite(got).all()
    assert got.max() > 65_504


def test_half_floats_are_half(photos, tmp_path):
    merge(photos, tmp_path / "o.exr", preview=False)
    merge(photos, tmp_path / "f.exr", exr_type="float", preview=False)
    with OpenEXR.File(str(tmp_path / "o.exr")) as file:
        half = np.array(file.channels()["RGB"].pixels)
    assert half.dtype == np.float16
    assert (half == light_of(tmp_path / "f.exr").astype(np.float16)).all()


# ---- warnings, and the program around it -----------------------------------------------------


def test_lost_highlights_are_said(tmp_path):
    scene = texture(*SIZE)
    scene[:30] = 1000.0
    outcome = merge(save(photograph(scene), tmp_path), tmp_path / "o.exr")
    assert outcome.facts["clipped_percent"] == pytest.approx(100 * 30 / 96, abs=1)
    assert any("lower bound" in warning for warning in outcome.warnings)
    quiet = merge(
        save(photograph(0.5 * texture(*SIZE)), tmp_path, ".tif", exif=False),
        tmp_path / "q.exr",
        evs=(-2, 0, 2),
    )
    assert not any("lower bound" in warning for warning in quiet.warnings)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--backend", "mertens", "-o", "o.exr"], 3, "picture for the screen"),
        (["-o", "o.exr", "-o", "o.exr"], 3, "twice"),
        (["-o", "o.exr", "--debug-dir", "0.png"], 3, "is a file"),
        (["-o", "1.png", "--overwrite"], 3, "one of the photographs"),
        (["-o", "o.exr", "--debug-dir", "maps", "--layers", "--crop"], 0, ""),
        (["-o", "o.hdr", "-o", "o.tif", "--anchor", "absolute", "--primaries", "p3"], 0, ""),
        (["-o", "o.png", "--backend", "mertens", "--align", "none"], 0, ""),
        (["-o", "o.exr", "--backend", "debevec", "--response", "debevec"], 0, ""),
        (["-o", "o.exr", "--backend", "robertson", "--weight", "plateau", "--align", "mtb"], 0, ""),
        (["-o", "o.exr", "--exposures", "estimate", "--reference", "1.png"], 0, ""),
    ],
)
def test_options_through_the_command_line(hdrcli, photos, monkeypatch, tmp_path, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = hdrcli("merge", *photos, *words)
    assert result.code == code, result.err
    assert said in result.err
    assert "Traceback" not in result.err
    if code == 0:
        assert all(Path(line).is_file() for line in result.out.splitlines())


def test_average_needs_no_torch(photos, tmp_path):
    words = ["merge", *map(str, photos), "-o", str(tmp_path / "o.exr"), "--backend", "average"]
    code = (
        "import sys\nfrom hdrcli.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_float_bracket_that_is_bright_stays_finite(tmp_path):
    paths = []
    for i, ev in enumerate((-1.0, 1.0)):
        paths.append(tmp_path / f"{i}.exr")
        formats.write(
            paths[-1],
            Radiance(flat(16, 16, 3e4) * np.float32(2.0**ev)),
            options=WriteOptions(exr_type="float"),
        )
    merge(paths, tmp_path / "o.exr", evs=(-1, 1), preview=False)
    assert np.isfinite(light_of(tmp_path / "o.exr")).all()


@pytest.mark.parametrize("backend", ["average", "flowmerge", "adnet"])
@pytest.mark.parametrize("white", [215, 240])
def test_photographs_whose_whites_were_turned_down_merge_as_others_do(backend, white):
    truth = with_disc(texture(192, 256, stops=9.0), (96, 128), 60, 30.0)
    bracket = photograph(truth, (-6, -4, -2, 0, 2), sensor=NOISY)
    frames = [replace(f, codes=np.minimum(f.codes, white)) for f in bracket.frames]
    result = merge_bracket(resolve(frames), MergeOptions(backend=backend))
    ratio = result.image.pixels / truth
    assert np.ptp(np.log2(np.quantile(ratio, (0.01, 0.99)))) < 0.3
    assert np.ptp(np.log2(np.quantile(ratio, (0, 1)))) < 1.2
    assert f"white is at {white / 2.55:.1f}% of the codes" in result.response.why
