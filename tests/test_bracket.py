"""From files to a bracket: the ladder of exposures, what contradicts it, and the reference."""

import logging
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrcli import formats
from hdrcli.bracket import (
    choose_reference,
    estimate_exposures,
    exposure_of,
    read_bracket,
    resolve,
    sidecar,
)
from hdrcli.bracket.exif_exposure import exposures_of
from hdrcli.bracket.exposures import Given
from hdrcli.bracket.sidecar import Misfit, Sidecar
from hdrcli.errors import BracketError, InputError
from hdrcli.exif import write_exif
from hdrcli.frames import LINEAR, SRGB, Bracket, Frame, Metadata
from tests.scenes import (
    FILM_CURVE,
    NOISY,
    SRGB_CURVE,
    STOPS,
    moved,
    photograph,
    save,
    shake,
    texture,
    unknown,
    with_disc,
)

BRACKETS = Path(__file__).parents[1].parent / "shared" / "brackets"
SIZE = (160, 240)


@cache
def scene(seed: int = 0, stops: float = 8.0):
    return texture(*SIZE, seed=seed, stops=stops)


@cache
def bracket(evs=STOPS, curve=SRGB_CURVE) -> Bracket:
    return photograph(scene(), evs, sensor=NOISY, curve=curve)


def said(report) -> str:
    return " | ".join(report.warnings)


def with_times(frames, times) -> list[Frame]:
    """Frames whose EXIF gives these times, or none, at f/4 and ISO 200."""
    return [
        replace(f, exposure=None, metadata=Metadata(exposure_time=t, f_number=4.0, iso=200.0))
        for f, t in zip(frames, times, strict=True)
    ]


def folder_of(tmp_path, frames, names, text=None, sidecar_name="ev.txt") -> list[Path]:
    for frame, name in zip(frames, names, strict=True):
        formats.write_display_codes(tmp_path / name, frame.codes)
    if text is not None:
        (tmp_path / sidecar_name).write_text(text)
    return [tmp_path / name for name in names]


# ---- EXIF ------------------------------------------------------------------------------------


def test_exposure_is_time_iso_and_aperture():
    assert exposure_of(Metadata(0.5, 2.0, 400.0)) == pytest.approx(0.5 * 4 / 4)
    assert exposure_of(Metadata(0.5)) == pytest.approx(0.5)
    assert exposure_of(Metadata(0.5, 0.0, 200.0)) == pytest.approx(1.0)  # a manual lens
    assert exposure_of(Metadata(f_number=2.0, iso=100.0)) is None


@pytest.mark.parametrize("time", [0.0, -1.0, float("inf"), float("nan"), 3601.0])
def test_impossible_times_are_no_exposure(time, caplog):
    assert exposure_of(Metadata(time, 2.0, 100.0)) is None
    found = exposures_of([("a.jpg", Metadata(time)), ("b.jpg", Metadata(1.0))])
    assert found == [None, 1.0]
    assert "a.jpg" in caplog.text


@given(time=st.floats(1e-5, 3000), stops=st.floats(0.5, 22), iso=st.floats(25, 1e5))
def test_a_stop_is_a_stop_by_any_dial(time, stops, iso):
    base = exposure_of(Metadata(time, stops, iso))
    assert base is not None
    assert exposure_of(Metadata(time, stops, 2 * iso)) == pytest.approx(2 * base)
    assert exposure_of(Metadata(time, stops * 2**0.5, iso)) == pytest.approx(base / 2)


def test_what_only_some_frames_record_is_taken_for_the_others(caplog):
    files = [
        ("a.jpg", Metadata(1.0, 8.0, 100.0)),
        ("b.jpg", Metadata(2.0, 8.0, None)),
        ("c.jpg", Metadata(4.0, None, 100.0)),
    ]
    found = exposures_of(files)
    assert found == pytest.approx([1 / 64, 2 / 64, 4 / 64])
    assert "b.jpg: no ISO" in caplog.text
    assert "c.jpg: no aperture" in caplog.text


def test_what_no_frame_records_is_constant_and_not_worth_a_word(caplog):
    found = exposures_of([("a", Metadata(1.0)), ("b", Metadata(4.0))])
    assert found == [1.0, 4.0]
    assert caplog.text == ""


# ---- the ladder ------------------------------------------------------------------------------


def test_exif_is_used_and_the_pixels_agree(tmp_path):
    paths = save(bracket(), tmp_path, ".jpg")
    resolved = read_bracket(paths)
    assert resolved.report.source == "EXIF"
    assert resolved.report.evs == pytest.approx([-2, 0, 2], abs=0.02)
    assert resolved.report.pixel_evs == pytest.approx([-2, 0, 2], abs=0.1)
    assert resolved.report.warnings == []
    assert min(resolved.report.confidence) > 0.5
    assert resolved.bracket.reference == 1


def test_the_order_of_the_files_changes_nothing(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    one, other = read_bracket(paths), read_bracket([paths[2], paths[0], paths[1]])
    assert [f.name for f in one.bracket.frames] == [f.name for f in other.bracket.frames]
    assert one.report.evs == pytest.approx(other.report.evs)
    assert one.report.pixel_evs == pytest.approx(other.report.pixel_evs, abs=0.02)
    assert one.bracket.reference == other.bracket.reference


def test_frames_of_one_exposure_and_name_are_ordered_by_what_they_show():
    dark, *_ = bracket().frames
    twins = [replace(dark, codes=np.full_like(dark.codes, level)) for level in (7, 5, 9)]
    there, back = Bracket.of(twins), Bracket.of(twins[::-1])
    assert [int(f.codes[0, 0, 0]) for f in there.frames] == [5, 7, 9]
    assert there.frames == back.frames


def test_a_camera_with_its_own_curve_raises_no_alarm():
    frames = [replace(f, response=SRGB) for f in bracket((-2, -1, 0, 1, 2), FILM_CURVE).frames]
    report = resolve(with_times(frames, [1, 2, 4, 8, 16])).report
    assert report.warnings == []
    assert report.source == "EXIF"


def test_the_flag_wins_over_exif_and_scales_to_it(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    report = read_bracket(paths[::-1], evs=[1.5, 0.0, -1.5]).report
    assert report.source == "--ev"
    assert report.evs == pytest.approx([-1.5, 0, 1.5])
    assert report.exif_evs == pytest.approx([-2, 0, 2])
    assert report.exposures[1] == pytest.approx(1.0, rel=0.01)
    assert "--ev says" in said(report)  # the pixels do not agree, but the flag is used


def test_times_given_outright(tmp_path):
    paths = save(bracket(), tmp_path, ".png", exif=False)
    report = read_bracket(paths, exposure_times=[1 / 60, 1 / 15, 1 / 4]).report
    assert report.source == "--exposure-times"
    assert report.exposures == pytest.approx([1 / 60, 1 / 15, 1 / 4])


def test_times_count_with_what_exif_says_of_the_rest():
    frames = with_times(bracket().frames, [1.0, 1.0, 1.0])
    given_times = Given(times=(0.25, 1.0, 4.0))
    assert resolve(frames, given=given_times).report.exposures == pytest.approx(
        [0.25 / 8, 1 / 8, 4 / 8]
    )
    with pytest.raises(BracketError, match="not a time"):
        resolve(frames, given=Given(times=(0.0, 1.0, 4.0)))
    for wrong in (float("nan"), float("inf"), 1000.0):
        with pytest.raises(BracketError, match="--ev: stops"):
            resolve(frames, given=Given(evs=(0.0, 1.0, wrong)))


def test_equal_exif_times_do_not_matter_when_exposures_are_given(tmp_path):
    frames = bracket().frames
    paths = []
    for i, frame in enumerate(frames):
        paths.append(tmp_path / f"{i}.png")
        exif = write_exif(Metadata(exposure_time=0.01))
        formats.write_display_codes(paths[-1], frame.codes, exif=exif)
    report = read_bracket(paths, evs=[-2, 0, 2]).report
    assert report.evs == pytest.approx([-2, 0, 2])
    assert report.warnings == []


def test_one_value_per_file(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    with pytest.raises(BracketError, match="--ev has 2 values for 3 files"):
        read_bracket(paths, evs=[1.0, 2.0])
    with pytest.raises(BracketError, match="--exposure-times has 4 values for 3 files"):
        read_bracket(paths, exposure_times=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(BracketError, match="one of them"):
        read_bracket(paths, evs=[0, 1, 2], exposure_times=[1, 2, 4])


def test_constant_exif_over_different_frames_is_not_believed():
    report = resolve(with_times(bracket().frames, [0.01] * 3)).report
    assert report.source == "pixels"
    assert report.evs == pytest.approx([-2, 0, 2], abs=0.1)
    assert "not believed" in said(report)


def test_constant_exif_is_obeyed_when_asked_for():
    report = resolve(with_times(bracket().frames, [0.01] * 3), exposures="exif").report
    assert report.source == "EXIF"
    assert report.evs == pytest.approx([0, 0, 0])
    assert "the pixels" in said(report)


def test_one_frame_that_lies_is_named():
    frames = with_times(bracket((-2, -1, 0, 1, 2)).frames, [1, 2, 4, 8 * 2**0.6, 16])
    report = resolve(frames).report
    assert report.source == "EXIF"  # warned of, not overridden
    liar = frames[3].name
    assert [w.split(":")[0] for w in report.warnings] == [liar]
    assert "+1.60" in said(report)


def test_steps_that_are_twice_too_long_are_noticed():
    report = resolve(with_times(bracket().frames, [1, 16, 256])).report
    assert len(report.warnings) == 2
    assert report.pixel_evs == pytest.approx([-2, 0, 2], abs=0.1)


def test_missing_exif_in_one_frame_is_said():
    frames = with_times(bracket().frames, [1.0, None, 16.0])
    report = resolve(frames).report
    assert report.source == "pixels"
    assert frames[1].name in said(report)
    with pytest.raises(BracketError, match="not recorded") as caught:
        resolve(frames, exposures="exif")
    assert "--ev" in str(caught.value.hint)


def test_linear_files_that_know_their_exposure():
    light = scene()
    frames = [
        Frame(light * np.float32(e), LINEAR, exposure=e, bits=32, name=f"{e}") for e in (4.0, 1.0)
    ]
    resolved = resolve(frames)
    assert resolved.report.source == "EXIF"
    assert resolved.report.exposures == [1.0, 4.0]
    assert resolved.report.pixel_evs == pytest.approx(resolved.report.evs, abs=0.05)


def test_one_exposure_gains_no_range_and_goes_on():
    frames = [
        replace(photograph(scene(), (0.0, 1.0), sensor=NOISY, seed=i).frames[0], exposure=None)
        for i in range(3)
    ]
    report = resolve(with_times(frames, [0.01] * 3)).report
    assert "no dynamic range" in said(report)
    assert report.evs == pytest.approx([0, 0, 0])


# ---- the pixels' own estimate ----------------------------------------------------------------


@pytest.mark.parametrize("evs", [(0, 3), (-2, 0, 2), (-3, -1.5, 0, 1.5, 3), (-1, -0.7, 0.5, 1)])
def test_exposures_are_estimated(evs):
    found, confidence = estimate_exposures(unknown(bracket(evs)))
    truth = np.array(evs) - np.mean(evs)
    assert found == pytest.approx(truth, abs=0.1)
    assert confidence > 0.5


def test_exposures_are_estimated_though_things_move_and_the_hand_shakes():
    scenes = [
        with_disc(
            moved(scene(), shake(5.0 * i, -3.0 * i, 0.2 * i, SIZE)), (80, 60 + 50 * i), 30, 0.9
        )
        for i in range(3)
    ]
    found, _ = estimate_exposures(unknown(photograph(scenes, sensor=NOISY)))
    assert found == pytest.approx([-2, 0, 2], abs=0.1)


def test_estimated_exposures_come_in_the_order_of_the_frames():
    frames = unknown(bracket((-2, -1, 0, 1, 2)))
    shuffled = [frames[i] for i in (3, 0, 4, 1, 2)]
    found, _ = estimate_exposures(shuffled)
    assert found == pytest.approx([1, -2, 2, -1, 0], abs=0.1)


def test_a_poor_estimate_is_refused():
    grey = np.full((64, 64, 3), 0.2, np.float32)
    with pytest.raises(BracketError, match="confidence") as caught:
        resolve(unknown(photograph(grey, (-6.0, 6.0))))
    assert "--ev" in str(caught.value.hint)


def test_a_frame_that_is_tied_to_no_other_gets_an_even_step():
    light = np.full((*SIZE, 3), 0.2, np.float32)
    light[:, 120:] = scene()[:, 120:] * 0.5
    frames = unknown(photograph(light, (-1.0, 1.0, 11.0), sensor=NOISY))
    report = resolve(frames).report
    assert report.source == "pixels and even spacing"
    assert np.diff(report.evs) == pytest.approx([2, 2], abs=0.1)
    assert "even steps" in said(report)


# ---- sidecars --------------------------------------------------------------------------------

NAMES = ("10.png", "2.png", "1.png")  # in the order of their names: 1, 2, 10


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ev.txt", "320,80,20\n-2,0,2"),
        ("ev.txt", "-2\n0\n2\n"),
        ("ev.txt", "1/320 1/80 1/20"),
        ("ev.txt", "320 80 20"),
        ("exposures.txt", "0.25 1 4"),
        ("ev.txt", "10.png +2 # the longest\n1.png, -2\n2.png 0\nother.png 5\n"),
        ("exposures.txt", "1.png 1/320\n2.png 1/80\n10.png 1/20\n"),
        ("list.txt", "1.png 0.01\n2.png 0.04 # the middle\n10.png 0.16\nother.png 3\n"),
        ("image_list.txt", "ALIGN=NONE # not now\n\n# names\n10.PNG 4\n2.png 1\n1.png 0.25\n"),
        ("camera.hdrgen", "1.png 320 8 100 0\n2.png 80 8 100 0\na/10.png 20 8 100 0\n"),
        ("camera.hdrgen", "1.png 80 8 100 0\n2.png 80 8 400 0\na/10.png 80 8 1600 0\n"),
    ],
)
def test_sidecars_are_read(tmp_path, name, text):
    paths = folder_of(tmp_path, bracket().frames[::-1], NAMES, text, name)
    report = read_bracket(paths).report
    assert report.source == name
    assert report.evs == pytest.approx([-2, 0, 2], abs=0.01)
    assert [Path(n).name for n in report.names] == ["1.png", "2.png", "10.png"]
    assert report.warnings == []


def test_a_sidecar_wins_over_exif(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    (tmp_path / "ev.txt").write_text("-2.1 0 2.1")
    report = read_bracket(paths).report
    assert report.source == "ev.txt"
    assert report.evs == pytest.approx([-2.1, 0, 2.1])
    assert report.exposures[1] == pytest.approx(1.0, rel=0.01)


def test_a_sidecar_of_the_whole_folder_serves_a_part_of_it(tmp_path):
    frames = bracket((-2, -1, 0, 1, 2)).frames
    paths = folder_of(tmp_path, frames, [f"{i}.png" for i in range(5)], "16 8 4 2 1")
    assert read_bracket([paths[4], paths[0], paths[2]]).report.evs == pytest.approx([-2, 0, 2])


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("ev.txt", "1 2 3 4", "4 values"),
        ("ev.txt", "", "empty"),
        ("ev.txt", "one two three", "one is not a number"),
        ("ev.txt", "-99 0 99", "neither seconds nor stops"),
        ("ev.txt", "0 1 inf", "not a number"),
        ("ev.txt", "1.png -2\n2.png 0\n", "does not name 10.png"),
        ("ev.txt", "1.png -2\n2.png zero\n10.png 2", "zero is not a number"),
        ("list.txt", "1.png 1\n2.png 2\n", "does not name 10.png"),
        ("list.txt", "1.png 1\n2.png 2\n10.png 0\n", "above 0"),
        ("x.hdrgen", "1.png 10 8 100 0\n", "does not name"),
        ("x.hdrgen", "1.png 0 8 100 0\n2.png 1 8 100 0\n10.png 2 8 100 0\n", "no exposures"),
        ("list.txt", "1.png 1e-300\n2.png 1\n10.png 4\n", "no exposures"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_named_and_passed_over(tmp_path, name, text, why):
    paths = folder_of(tmp_path, bracket().frames[::-1], NAMES, text, name)
    report = read_bracket(paths).report
    assert report.source == "pixels"
    assert name in said(report)
    assert why in said(report)


@given(st.text(max_size=200))
def test_any_text_is_readings_or_a_reason(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("sidecar")
    pictures = [folder / name for name in ("a.jpg", "b.jpg")]
    for picture in pictures:
        picture.touch()
    for name in ("ev.txt", "list.txt", "x.hdrgen"):
        (folder / name).write_bytes(text.encode("utf-8", "replace"))
    for found in sidecar.find(pictures):
        if isinstance(found, Sidecar):
            assert all(0 < value < 1e13 for reading in found.readings for value in reading)
        else:
            assert found.why


def test_pictures_of_several_folders_have_no_sidecar(tmp_path):
    (tmp_path / "ev.txt").write_text("1 2")
    assert sidecar.find([tmp_path / "a.jpg", tmp_path / "b" / "b.jpg"]) == []
    found = sidecar.find([tmp_path / "a.jpg"])
    assert isinstance(found[0], Misfit)


# ---- what cannot be a bracket ----------------------------------------------------------------


def test_one_photograph_is_refused_with_a_way_on(tmp_path):
    (path, *_) = save(bracket(), tmp_path, ".png")
    with pytest.raises(BracketError, match="at least two") as caught:
        read_bracket([path])
    assert "tonemap" in str(caught.value.hint)


def test_the_same_file_twice_counts_once(tmp_path, caplog):
    paths = save(bracket(), tmp_path, ".png")
    (tmp_path / "copy.png").write_bytes(paths[0].read_bytes())
    os.link(paths[1], tmp_path / "link.png")
    again = [*paths, paths[2], tmp_path / "copy.png", tmp_path / "link.png"]
    resolved = read_bracket(again, evs=[-2, 0, 2, 9, 9, 9])
    assert len(resolved.bracket.frames) == 3
    assert resolved.report.evs == pytest.approx([-2, 0, 2])
    assert caplog.text.count("same photograph") == 3
    with pytest.raises(BracketError, match="two different"):
        read_bracket([paths[0], paths[0]])


def test_sizes_that_differ_are_listed(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    small = tmp_path / "small.png"
    formats.write_display_codes(small, bracket().frames[0].codes[:50, :60].copy())
    with pytest.raises(BracketError, match=r"0\.png 240x160.*small\.png 60x50"):
        read_bracket([paths[0], small])


def test_a_missing_file_is_named(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    with pytest.raises(InputError, match=r"nothing\.png"):
        read_bracket([*paths, tmp_path / "nothing.png"])


def test_a_photograph_of_something_else_is_pointed_out():
    frames = with_times([*bracket((-1, 1)).frames, bracket().frames[1]], [1, 4, 2])
    other = photograph(scene(7), (0.0, 1.0), sensor=NOISY).frames[0].codes
    frames[2] = replace(frames[2], codes=other, name="stranger.jpg")
    resolved = resolve(frames)
    assert "stranger.jpg shows something else" in said(resolved.report)
    assert resolved.bracket.ref.name != "stranger.jpg"


def test_changes_of_aperture_camera_and_zoom_are_warned_of():
    metas = [
        Metadata(1.0, 4.0, 100.0, model="One", focal_length=35.0),
        Metadata(16.0, 8.0, 100.0, model="One", focal_length=35.0),
        Metadata(16.0, 4.0, 100.0, model="Two", focal_length=50.0),
    ]
    frames = [replace(f, metadata=m) for f, m in zip(bracket().frames, metas, strict=True)]
    report = resolve(frames).report
    assert report.evs == pytest.approx([-2, 0, 2])
    for word in ("camera (One, Two)", "depth of field", "focal length (35.0, 50.0)"):
        assert word in said(report)


def test_warnings_are_logged_once_and_kept(caplog):
    caplog.set_level(logging.WARNING, "hdrcli")
    report = resolve(with_times(bracket().frames, [0.01] * 3)).report
    assert [record.getMessage() for record in caplog.records] == report.warnings


# ---- the reference ---------------------------------------------------------------------------


def test_the_reference_is_the_best_exposed():
    assert resolve(unknown(bracket())).bracket.reference == 1
    assert resolve(with_times(bracket((-4, -2, 0)).frames, [1, 4, 16])).bracket.reference == 1
    two = resolve(with_times(bracket((0, 4)).frames, [1, 16])).bracket
    assert two.reference == 0
    bright = photograph(scene() * 20, (-6, 0, 2), sensor=NOISY)
    assert choose_reference(bright).reference == 0


def test_the_reference_asked_for():
    given_bracket = bracket()
    assert choose_reference(given_bracket, 3).reference == 2
    assert choose_reference(given_bracket, "1").reference == 0
    name = given_bracket.frames[2].name
    assert choose_reference(given_bracket, name).reference == 2
    for wrong in ("0", "4", "nothing.jpg"):
        with pytest.raises(BracketError, match=f"--reference {wrong}"):
            choose_reference(given_bracket, wrong)


def test_the_reference_by_file(tmp_path):
    paths = save(bracket(), tmp_path, ".png")
    for want in (str(paths[2]), "2.png"):
        assert read_bracket(paths, reference=want).bracket.reference == 2
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / "2.png"
    formats.write_display_codes(twin, bracket().frames[1].codes[:, ::-1].copy())
    with pytest.raises(BracketError, match="more than one"):
        read_bracket([*paths, twin], evs=[-2, 0, 2, 0], reference="2.png")


# ---- real photographs ------------------------------------------------------------------------

REAL = {
    "hall-people": ("EXIF", (-2.0, 0.0, 2.06)),
    "town-3": ("EXIF", (-1.0, 0.0, 1.0)),
    "canal-handheld": ("EXIF", (-2.0, 0.0, 2.0)),
    "garden-people": ("ev.txt", (-2.0, -1.0, 0.0, 1.0, 2.0)),
    "market-noexif": ("pixels", (-1.92, -0.95, 0.0, 0.95, 1.92)),
    "room-7": ("EXIF", (-7.06, -5.06, -2.06, 0.0, 1.91, 3.91, 5.91)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_brackets(name):
    folder = BRACKETS / name
    if not folder.is_dir():
        pytest.skip("../shared/brackets is not here")
    source, evs = REAL[name]
    paths = [p for p in folder.iterdir() if p.suffix.lower() in sidecar.SUFFIXES]
    report = read_bracket(paths).report
    assert report.source == source
    middle = np.median(report.evs)
    assert np.array(report.evs) - middle == pytest.approx(np.array(evs), abs=0.1)
    assert report.pixel_evs == pytest.approx(report.evs, abs=0.4)
    assert not [warning for warning in report.warnings if "the pixels" in warning]
