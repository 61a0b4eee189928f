import errno
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hdrcli import formats
from hdrcli.batch import content, grouping, names, plan, shots
from hdrcli.batch.grouping import Rules
from hdrcli.batch.shots import Shot
from hdrcli.errors import InputError
from hdrcli.exif import write_exif
from tests.cards import BASE, make_card, stamped, write_set
from tests.scenes import gradient, photograph, texture

BRACKETS = Path(__file__).parents[1].parent / "shared" / "brackets"


def card_shots(card):
    return [Shot(Path("card") / name, Path("card"), m, (8, 6)) for name, m in card.files.items()]


def found_in(shots_, rules=None):
    found = grouping.group(shots_, rules)
    return {frozenset(s.path.name for s in part.shots) for part in found.sets}


def shot(number, start, exposure, *, name="IMG_{:04d}.jpg", folder="card", **tags):
    taken, subsecond = stamped(start)
    metadata = replace(BASE, exposure_time=exposure, taken=taken, subsecond=subsecond, **tags)
    return Shot(Path(folder) / name.format(number), Path(folder), metadata, (60, 40))


def bracket(first, start, evs=(0, -2, 2), base=1 / 60, **tags):
    out, now = [], start
    for i, ev in enumerate(evs):
        out.append(shot(first + i, now, base * 2.0**ev, **tags))
        now += base * 2.0**ev + 0.3
    return out


def numbers(parts):
    return sorted(tuple(s.number for s in part.shots) for part in parts)


# ---- whole cards -----------------------------------------------------------------------------


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_a_card_of_300_files_has_no_wrong_set(seed, tags):
    card = make_card(seed, tags=tags)
    assert found_in(card_shots(card)) == card.sets


@pytest.mark.slow
@pytest.mark.parametrize("tags", [True, False])
def test_forty_cards_have_no_wrong_set(tags):
    for seed in range(2, 42):
        card = make_card(seed, tags=tags)
        assert found_in(card_shots(card)) == card.sets, seed


@hypothesis_settings(max_examples=3)
@given(st.integers(0, 1000))
def test_the_order_of_the_files_changes_nothing(seed):
    card = make_card(1, 40)
    mixed = card_shots(card)
    random.Random(seed).shuffle(mixed)
    assert grouping.group(mixed) == grouping.group(card_shots(card))


def test_a_card_of_real_files_is_found_on_disk(tmp_path):
    card = make_card(5, 60)
    card.write(tmp_path)
    read = shots.read(shots.find([tmp_path]))
    assert len(read) == len(card.files)
    found = content.group(read)
    assert {frozenset(s.path.name for s in part.shots) for part in found.sets} == card.sets


def test_every_photograph_is_in_one_set_or_single():
    card = make_card(2, 120)
    found = grouping.group(card_shots(card))
    seen = [s for part in found.sets for s in part.shots] + list(found.singles)
    assert sorted(s.path.name for s in seen) == sorted(card.files)


# ---- one thing at a time ---------------------------------------------------------------------


def test_sets_without_a_pause_between_them_are_told_apart():
    many = [s for i in range(4) for s in bracket(1 + 3 * i, 1.1 * i)]
    assert len(grouping.group(many).sets) == 4


def test_long_exposures_are_one_set_although_their_times_are_far_apart():
    long = bracket(1, 0, (-2, 0, 2), base=8.0)
    assert numbers(grouping.group(long).sets) == [(1, 2, 3)]


def test_a_camera_that_stamps_the_end_of_the_exposure():
    now, out = 0.0, []
    for i, ev in enumerate((2, 0, -2, 2, 0, -2)):
        now += 4.0 * 2.0**ev + 0.3
        out.append(shot(i + 1, now, 4.0 * 2.0**ev))
    assert grouping.clock_of(out).ends
    assert numbers(grouping.group(out).sets) == [(1, 2, 3), (4, 5, 6)]


def test_dark_frames_after_long_exposures_are_no_pause():
    now, out = 0.0, []
    for i, ev in enumerate((0, -1, 1, 0, -1, 1)):
        out.append(shot(i + 1, now, 8.0 * 2.0**ev))
        now += 2 * 8.0 * 2.0**ev + 0.4
    assert grouping.clock_of(out).dark
    assert numbers(grouping.group(out).sets) == [(1, 2, 3), (4, 5, 6)]


def test_a_photograph_taken_twice_stays_in_its_set():
    sets = bracket(1, 0) + bracket(4, 60) + bracket(7, 120, (0, -2, -2, 2))
    assert numbers(grouping.group(sets).sets) == [(1, 2, 3), (4, 5, 6), (7, 8, 9, 10)]


def test_sets_of_differing_length():
    sets = bracket(1, 0) + bracket(4, 20, (-4, -2, 0, 2, 4)) + bracket(9, 50, (0, -1, 1, -2, 2))
    found = numbers(grouping.group(sets).sets)
    assert found == [(1, 2, 3), (4, 5, 6, 7, 8), (9, 10, 11, 12, 13)]


def test_singles_and_bursts_of_one_exposure_are_left():
    singles = [shot(1, 0, 1 / 60), shot(2, 40, 1 / 250), shot(3, 90, 1 / 30)]
    burst = [shot(10 + i, 200 + 0.2 * i, 1 / 500) for i in range(5)]
    found = grouping.group([*singles, *burst])
    assert found.sets == ()
    assert len(found.singles) == 8


def test_two_cameras_in_one_folder_are_two_streams():
    mine = bracket(1, 0)
    other = bracket(1, 0.1, name="DSC{:05d}.jpg", model="Z6", make="NIKON")
    assert len(grouping.group([*mine, *other]).sets) == 2


def test_a_clock_set_back_breaks_no_set():
    cards = [s for i in range(8) for s in bracket(1 + 3 * i, 60 * i - (3600 if i > 3 else 0))]
    assert numbers(grouping.group(cards).sets) == [(i, i + 1, i + 2) for i in range(1, 25, 3)]


def test_numbers_that_start_again_break_no_set():
    first = bracket(9995, 0) + bracket(9998, 60, (0, -2))
    rest = [shot(1, 60 + 0.7, 4 / 60), *bracket(2, 120)]
    found = numbers(grouping.group([*first, *rest]).sets)
    assert (9998, 9999, 1) in found


def test_folders_that_the_camera_numbers_are_one_stream():
    many = bracket(9997, 0, folder="DCIM/100CANON")
    last = shot(1, 100.7, 4 / 60, folder="DCIM/101CANON")
    split = [*bracket(9998, 100, (0, -2), folder="DCIM/100CANON")]
    root = Path("DCIM")
    all_ = [replace(s, root=root) for s in (*many[:1], *split, last)]
    assert numbers(grouping.group(all_).sets) == [(9998, 9999, 1)]


def test_portrait_and_landscape_are_two_sets():
    a, b = bracket(1, 0, (-2, 0, 2)), bracket(4, 3, (-4, -6, 4))
    turned = [replace(s, size=(40, 60)) for s in b]
    assert numbers(grouping.group([*a, *turned]).sets)[0] == (1, 2, 3)


def test_so_many_photographs_as_asked():
    same = [shot(i + 1, i, 1 / 60) for i in range(7)]
    found = grouping.group(same, Rules(brackets=3))
    assert numbers(found.sets) == [(1, 2, 3), (4, 5, 6)]
    assert [s.number for s in found.singles] == [7]


def test_the_count_starts_again_after_a_pause():
    runs = [shot(i + 1, i, 1 / 60) for i in range(4)] + [shot(5 + i, 500 + i, 1) for i in range(3)]
    assert numbers(grouping.group(runs, Rules(brackets=3)).sets) == [(1, 2, 3), (5, 6, 7)]


def test_by_folder_and_by_time():
    two = bracket(1, 0, folder="a") + bracket(4, 9, folder="b")
    two = [replace(s, root=Path()) for s in two]
    assert len(grouping.group(two, Rules("folder")).sets) == 2
    near = [*bracket(1, 0), *bracket(4, 5)]
    assert len(grouping.group(near, Rules("time", pause=2)).sets) == 2
    assert len(grouping.group(near, Rules("time", pause=9)).sets) == 1


def test_parts_of_seconds_order_what_names_do_not():
    mixed = [replace(s, path=Path("card") / f"IMG_{n}.jpg") for s, n in zip(
        bracket(1, 0), (2, 3, 1), strict=True)]  # fmt: skip
    (found,) = grouping.group(mixed).sets
    assert [s.number for s in found.shots] == [2, 3, 1]


def test_every_set_says_why():
    found = grouping.group([*bracket(1, 0), *bracket(4, 60)])
    assert all("steps of 2.0 EV" in part.why[0] for part in found.sets)
    assert any("2 sets have these steps" in text for text in found.sets[0].why)


# ---- what the pictures show ------------------------------------------------------------------


def test_one_scene_in_other_light_is_alike_and_another_scene_is_not(tmp_path):
    def look(name, light, ev):
        frame = photograph(light, (ev, ev + 8)).frames[0]
        formats.write_display_codes(tmp_path / f"{name}.png", frame.codes)
        return content.look(tmp_path / f"{name}.png")

    scene, other = texture(256, 256, seed=1), texture(256, 256, seed=2)
    a, b, c = look("a", scene, 0), look("b", scene, 2), look("c", other, 1)
    assert a.like(b)
    assert b.like(a)
    assert not a.like(c)
    assert a.brighter(b) == pytest.approx(2, abs=0.5)


def test_three_brackets_side_by_side_become_one_where_they_show_one_scene(tmp_path):
    scenes = [write_set(tmp_path, 1 + 3 * i, 45 * i, (0, -2, 2), shutter=2.0 ** (6 * i - 9), seed=4)
              for i in range(2)]  # fmt: skip
    # the pictures must follow the exposures: photograph one scene over all of them
    evs = [-9, -11, -7, -3, -5, -1]
    bracket_ = photograph(texture(96, 128, seed=4) * 20, sorted(ev + 4 for ev in evs))
    codes = dict(zip(sorted(evs), (f.codes for f in bracket_.frames), strict=True))
    for path, ev in zip([p for s in scenes for p in s], evs, strict=True):
        exif = shots.read([(path, tmp_path)])[0].metadata.exif
        formats.write_display_codes(path, codes[ev], exif=exif, overwrite=True)
    found = content.group(shots.read(shots.find([tmp_path])))
    assert [len(part.shots) for part in found.sets] == [6]
    assert "one scene" in found.sets[0].why[0]


def test_without_exif_scene_and_brightness_decide(tmp_path):
    for k, seed in enumerate((1, 2)):
        for i, frame in enumerate(photograph(texture(seed=seed), (-2, 0, 2)).frames):
            formats.write_display_codes(tmp_path / f"p{3 * k + i + 1}.png", frame.codes)
    found = content.group(shots.read(shots.find([tmp_path])))
    assert numbers(found.sets) == [(1, 2, 3), (4, 5, 6)]


def test_a_sidecar_makes_its_folder_a_set(tmp_path):
    write_set(tmp_path, 1, 0, (0, 0.01, 0.02))
    (tmp_path / "ev.txt").write_text("1/60 1/30 1/15\n")
    found = content.group(shots.read(shots.find([tmp_path])))
    assert [part.why for part in found.sets] == [("ev.txt lists them",)]
    assert plan.evs_of(found.sets[0].shots) == (-1, 0, 1)


def test_twins_are_left_out_and_said_so(tmp_path):
    paths = write_set(tmp_path, 1, 0)
    shutil.copyfile(paths[0], tmp_path / "IMG_0001 copy.jpg")
    formats.write_display_codes(
        tmp_path / "IMG_0002.tif", np.zeros((48, 64, 3), np.uint8), exif=None
    )
    exif = shots.read([(paths[1], tmp_path)])[0].metadata
    formats.write_display_codes(
        tmp_path / "IMG_0002.png", np.zeros((48, 64, 3), np.uint8), exif=write_exif(exif)
    )
    kept, left = shots.without_twins(shots.read(shots.find([tmp_path])))
    said = {s.path.name: why for s, why in left}
    assert said["IMG_0001 copy.jpg"] == "the same bytes as IMG_0001.jpg"
    assert said["IMG_0002.jpg"] == "IMG_0002.png is the same photograph"
    assert len(kept) == 4


def test_what_is_no_photograph_is_passed_over(tmp_path, caplog):
    write_set(tmp_path, 1, 0)
    (tmp_path / "._IMG_0001.jpg").write_bytes(b"\0\x05\x16\x07")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    assert len(shots.read(shots.find([tmp_path]))) == 3
    assert "empty.jpg" in caplog.text


# ---- real brackets ---------------------------------------------------------------------------

WHOLE = ("arch-4", "canal-handheld", "hall-people", "library-gt", "room-7", "town-3", "window-12",
         "window-9")  # fmt: skip
# The third file, 6.JPG, was taken three minutes before the others, of another room, as the last
# of a bracket whose first two are not there: EXIF says so, and so it belongs to no set.
BASEMENT = "basement-24mp", {"8.JPG", "9.JPG"}


@pytest.mark.skipif(os.name == "nt", reason="links and rights are a matter of POSIX")
def test_links_to_themselves_and_folders_that_may_not_be_read_stop_nothing(
    tmp_path, caplog, monkeypatch
):
    (tmp_path / "IMG_1.jpg").write_bytes(b"")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def denied(folder):
        if Path(folder).name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("os.scandir", denied)
    assert [path.name for path, _ in shots.find([tmp_path])] == ["IMG_1.jpg"]
    assert "lost+found: Permission denied; it is left out" in caplog.text
    with pytest.raises(InputError, match="Permission denied"):
        shots.find([tmp_path / "lost+found"])


@pytest.mark.skipif(not BRACKETS.is_dir(), reason="the shared brackets are not here")
def test_real_brackets_shuffled_into_one_folder_are_found(tmp_path):
    """All of them together: every set with usable EXIF exactly, the lying and bare ones beside."""
    files = [p for p in sorted(BRACKETS.rglob("*")) if p.suffix.lower() in shots.SUFFIXES]
    random.Random(8).shuffle(files)
    home = {}
    for i, path in enumerate(files):
        name = f"{i:04d}{path.suffix}"
        (tmp_path / name).symlink_to(path)
        home[name] = path
    found = content.group(shots.read(shots.find([tmp_path])))
    sets = [{home[s.path.name] for s in part.shots} for part in found.sets]
    wanted = [{p for p in files if p.parent.name == name} for name in WHOLE]
    wanted.append({p for p in files if p.parent.name == BASEMENT[0] and p.name in BASEMENT[1]})
    assert [w for w in wanted if w not in sets] == []
    usable = {p.parent.name for w in wanted for p in w}
    assert all(len({p.parent.name for p in part}) == 1 for part in sets)
    assert sum(part.pop().parent.name in usable for part in sets) == len(wanted)


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (names.DEFAULT, "IMG_0001-0003_hdr"),
        ("{index:03d}_{count}", "007_3"),
        ("{date}/{time}_{camera}", "2025-06-21/090000_EOS_R5"),
        ("{parent}", "card"),
    ],
)
def test_names_follow_the_template(template, name):
    assert names.name(template, bracket(1, 0), 7) == name


def test_a_last_name_of_another_kind_is_written_whole():
    pair = [shot(1, 0, 1), shot(9, 1, 2, name="x{}.jpg")]
    assert names.name(names.DEFAULT, pair, 1) == "IMG_0001-x9_hdr"


@pytest.mark.parametrize("template", ["{who}", "../{first}", "/tmp/{first}", "{", "", "{first:d}"])
def test_a_template_that_cannot_be_is_refused_before_the_work(template):
    with pytest.raises(InputError, match="--name"):
        names.check(template)


def test_a_flat_picture_is_like_nothing(tmp_path):
    formats.write_display_codes(tmp_path / "a.png", np.full((64, 64, 3), 90, np.uint8))
    formats.write_display_codes(tmp_path / "b.png", photograph(gradient(64, 64)).frames[0].codes)
    a, b = content.look(tmp_path / "a.png"), content.look(tmp_path / "b.png")
    assert a is not None
    assert b is not None
    assert not a.like(b)
    assert not a.like(a)
