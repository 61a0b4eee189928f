"""What happens inside a window: which exposure a pixel is taken from, and what was moved where."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hdrcli import formats
from hdrcli.backends.registry import Settings
from hdrcli.exif import write_exif
from hdrcli.frames import Bracket, Frame, Metadata
from hdrcli.motion import Motion
from hdrcli.sights import Noise
from hdrcli.video import EncodeOptions, Target, VideoOptions, open_clip, video_file
from hdrcli.video.aligned import Neighbour, Tile, tiles
from hdrcli.video.cascade import exposures_of, merged_tile
from hdrcli.video.given import Given, recorded
from hdrcli.video.merge import SteadyAverage, needed
from hdrcli.video.run import few_if_large
from hdrcli.video.stabilise import similarity, steadied
from hdrcli.video.stages import side_by_side
from hdrcli.video.windows import Window
from tests.films import codes_of, film, light_at, timed, wall, write_pictures

SHARED = Path(__file__).parents[1].parent / "shared"
EVS = (-3.0, 0.0, 3.0)


def bracket(light, evs=EVS, reference=1):
    frames = [Frame(codes_of(light, ev), exposure=2.0**ev) for ev in evs]
    return Bracket(tuple(frames), reference)


def merged(found, motion=None, anchor=1.0, *, crushed=False):
    motion = motion or Motion.none(len(found.frames))
    return SteadyAverage(Settings(), anchor, crushed=crushed).mean_of(found, motion).pixels


# ---- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_the_light_does_not_depend_on_which_frame_is_the_present_one(reference):
    light = wall()
    found = merged(bracket(light, reference=reference))
    clear = light.max(axis=2) < 7  # beyond, the darkest clips
    assert np.median(np.abs(found - light)[clear] / light[clear]) < 0.01
    assert np.percentile(np.abs(found - light)[clear] / light[clear], 99) < 0.12


def test_twice_the_exposures_are_half_the_light():
    found = bracket(wall())
    brighter = found.with_frames(
        replace(frame, exposure=2 * frame.exposure) for frame in found.frames
    )
    assert np.allclose(2 * merged(brighter), merged(found), rtol=1e-6)


def test_tiles_cover_every_pixel_once():
    for size, factor in (((1080, 1920), 4), ((97, 1001), 3), ((5, 7), 1)):
        count = np.zeros(size, int)
        for tile in tiles(size, factor):
            count[tile.part] += 1
            assert tile.rows.start % factor == tile.cols.start % factor == 0
        assert (count == 1).all()


def test_a_tile_is_the_same_as_in_the_whole(monkeypatch):
    from hdrcli.video import aligned

    rng = np.random.default_rng(1)
    found = bracket(wall(120, 180))
    flow = rng.normal(0, 2, (30, 45, 2)).astype(np.float32)
    belief = rng.uniform(0, 1, (30, 45)).astype(np.float32)
    motion = Motion((flow, None, flow), (belief, None, belief), (Noise(),) * 3, scale=(0.25, 0.25))
    whole = merged(found, motion)
    monkeypatch.setattr(aligned, "TILE", (20, 44))
    assert np.abs(merged(found, motion) - whole).max() < 1e-5


def test_flow_of_whole_pixels_moves_whole_pixels():
    codes = np.random.default_rng(2).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    flow = np.full((16, 24, 2), [1.0, -0.5], np.float32)  # of the reduced picture: 4 and -2 px
    smooth = np.repeat(np.repeat(codes[::8, ::8], 8, axis=0), 8, axis=1)
    there = Neighbour(Frame(smooth), flow, None, 4).codes(Tile(slice(16, 48), slice(16, 64)))
    away = smooth[14:46, 20:68]
    inside = np.abs(there.astype(int) - away) <= 1
    assert inside.mean() > 0.5  # all but the sharpened edges of blocks
    assert np.median(np.abs(there.astype(int) - away)) <= 1


def test_what_did_not_move_is_not_resampled():
    codes = np.random.default_rng(3).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    flow = np.zeros((16, 24, 2), np.float32)
    flow[:4, :4] = 1
    there = Neighbour(Frame(codes), flow, None, 4).codes(Tile(slice(0, 64), slice(0, 96)))
    assert (there[32:, 32:] == codes[32:, 32:]).all()
    assert (there[:8, :8] != codes[:8, :8]).any()


def test_what_clips_in_the_present_frame_is_no_darker_than_that():
    """A dark thing that the darker frame alone shows is no ghost before a bright sky."""
    sky = np.full((48, 64, 3), 4.0, np.float32)
    there = sky.copy()
    there[16:32, 16:32] = 0.02
    frames = (Frame(codes_of(there, -3), exposure=0.125), Frame(codes_of(sky, 0), exposure=1.0))
    nobody = np.zeros((48, 64), np.float32)
    motion = Motion((None, None), (nobody, None), (Noise(), Noise()))
    assert merged(Bracket(frames, 1), motion).min() > 0.85


def test_crushed_codes_have_no_colour():
    codes = np.zeros((16, 16, 3), np.uint8)
    codes[:] = (9, 4, 6)
    frames = (Frame(codes, exposure=0.01), Frame(np.full_like(codes, 255), exposure=1.0))
    found = merged(Bracket(frames, 1), crushed=True)
    assert np.ptp(found, axis=2).max() < 0.02 * found.max()


def test_a_darker_exposure_is_left_out_where_nothing_clips():
    frames = [timed(codes_of(wall() * 0.005, ev), i) for i, ev in enumerate((-3.0, 3.0, -3.0))]
    frames = [replace(t, frame=replace(t.frame, exposure=2.0**ev))
              for t, ev in zip(frames, (-3.0, 3.0, -3.0), strict=True)]  # fmt: skip
    bright = Window(frames[1], ((frames[0], frames[2]),))
    dark = Window(frames[0], ((None, frames[1]),))
    assert needed(bright).others == ()
    assert needed(dark).others == dark.others


def test_only_what_is_counted_clips_everywhere():
    light = np.full((32, 32, 3), 0.5, np.float32)
    light[:8] = 100
    found = exposures_of(bracket(light), Motion.none(3), 1.0, crushed=False)
    out = np.empty((32, 32, 3), np.float32)
    assert merged_tile(found, Tile(slice(0, 32), slice(0, 32)), out) == 8 * 32
    assert np.isfinite(out).all()


# ---- several at once -------------------------------------------------------------------------


def test_side_by_side_keeps_the_order_and_the_limit():
    running, most, lock = [0], [0], threading.Lock()

    def work(item):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01 * (item % 3))
        with lock:
            running[0] -= 1
        return item

    assert list(side_by_side(work, range(20), 3)) == list(range(20))
    assert 1 < most[0] <= 3
    most[0] = 0
    assert list(side_by_side(work, range(9), 3, lambda _item: 1)) == list(range(9))
    assert most[0] == 1


def test_an_error_of_one_comes_out():
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda item: 1 // item, (2, 1, 0, 1, 1, 1), 2))


def test_large_frames_are_merged_one_at_a_time():
    huge = timed(np.broadcast_to(np.uint8(0), (4320, 7680, 3)), 0)
    assert few_if_large(Window(huge, ())) == 1
    assert few_if_large(Window(timed(np.broadcast_to(np.uint8(0), (1080, 1920, 3)), 0), ())) > 4


# ---- stabilising -----------------------------------------------------------------------------


def jerked(index, ev, shift, size=(180, 270)):
    """A frame of a camera that points elsewhere by so many pixels."""
    rng = np.random.default_rng(5)
    import cv2

    big = cv2.GaussianBlur(rng.uniform(0.01, 0.9, (300, 400, 3)).astype(np.float32), (0, 0), 2.5)
    top, left = 60 + shift[1], 60 + shift[0]
    light = np.ascontiguousarray(big[top : top + size[0], left : left + size[1]])
    light = (light - light.min()) * 1.5
    found = timed(codes_of(light, ev), index)
    return replace(found, frame=replace(found.frame, exposure=2.0**ev))


def test_a_jerk_is_found_between_exposures():
    matrix = similarity(jerked(0, 0, (0, 0)), jerked(1, -2, (31, -17)))
    assert matrix is not None
    assert matrix[:, 2] == pytest.approx((-31, 17), abs=0.7)
    assert similarity(jerked(0, 0, (0, 0)), jerked(1, -2, (0, 0))) is None


def test_stabilised_neighbours_lie_where_the_present_frame_has_them():
    now, other = jerked(0, 0, (0, 0)), jerked(1, 0, (31, -17))
    window = Window(now, ((None, other),), scene=(now, other))
    found = steadied(window)
    assert found.now is now
    assert found.scene[0] is now
    assert found.scene[1] is found.others[0][1]
    inside = (slice(30, -30), slice(45, -45))
    there = found.others[0][1].frame.codes[inside].astype(int)
    assert np.median(np.abs(there - now.frame.codes[inside])) <= 2
    assert np.median(np.abs(other.frame.codes[inside].astype(int) - now.frame.codes[inside])) > 5


# ---- exposures from EXIF ---------------------------------------------------------------------


def photographs(folder, times, evs=(0.0, 3.0), count=8):
    from PIL import Image

    folder.mkdir()
    for i, (codes, _) in enumerate(film(count, evs)):
        exif = b"Exif\0\0" + write_exif(Metadata(exposure_time=times[i % len(times)]))
        Image.fromarray(codes).save(folder / f"{i:03d}.jpg", exif=exif, quality=97)
    return folder


def exr(folder):
    return [Target(folder, "exr")], VideoOptions(threads=1)


def test_exposures_that_alternate_in_exif_are_used(tmp_path):
    folder = photographs(tmp_path / "in", (1 / 480, 1 / 60))
    assert recorded(open_clip(folder)) == pytest.approx((1 / 480, 1 / 60), rel=0.01)
    outcome = video_file(folder, *exr(tmp_path / "out"))
    assert outcome.facts["exposure_source"] == "EXIF"
    assert outcome.facts["evs"] == pytest.approx([0, 3], abs=0.1)


def test_exif_that_does_not_alternate_or_lies_gives_way_to_the_pixels(tmp_path):
    assert recorded(open_clip(photographs(tmp_path / "same", (1 / 60,), count=3))) is None
    folder = photographs(tmp_path / "wrong", (1 / 60, 1 / 30))
    outcome = video_file(folder, *exr(tmp_path / "out"))
    assert outcome.facts["exposure_source"] == "pixels"
    assert outcome.facts["evs"] == pytest.approx([0, 3], abs=0.1)


# ---- clips that end below the last code ----------------------------------------------------------


@pytest.mark.parametrize("said", [None, (0.0, 3.0)])
@pytest.mark.parametrize("white", [220, 245])
def test_a_clip_whose_white_is_below_the_last_code_is_merged_as_others_are(tmp_path, white, said):
    shown = [np.minimum(codes, white) for codes, _ in film(8, height=192, width=288)]
    folder = write_pictures(tmp_path / "in", shown)
    targets, options = exr(tmp_path / "out")
    outcome = video_file(folder, targets, replace(options, given=Given(evs=said)))
    assert f"white is at {white / 2.55:.1f}% of the codes" in outcome.facts["response_why"]
    assert outcome.facts["evs"] == pytest.approx([0, 3], abs=0.05)
    truth = light_at(0, height=192, width=288)
    known = truth.max(axis=2) < 0.6
    for path in sorted((tmp_path / "out").glob("*.exr"))[3:5]:
        ratio = formats.read(path).codes[known] / truth[known]
        assert np.ptp(np.log2(np.quantile(ratio, (0.01, 0.99)))) < 0.2


# ---- a real clip -----------------------------------------------------------------------------


@pytest.mark.slow
def test_static_patches_of_the_bride_vary_by_less_than_two_percent(tmp_path):
    """All but black patches, from frame to frame; those of the clip itself vary by more."""
    import cv2

    from hdrcli import formats

    folder = SHARED / "video" / "bride-alternating"
    if not folder.is_dir():
        pytest.skip("the shared clip is not here")
    encode = EncodeOptions(compression="none")
    options = VideoOptions(duration=0.4, encode=encode)
    video_file(folder, [Target(tmp_path / "out", "exr")], options)
    half = (960, 540)
    shown, codes_seen = [], []
    for i, path in enumerate(open_clip(folder).files[:10]):
        found = formats.read(tmp_path / "out" / f"frame_{i:06d}.exr").codes
        shown.append(cv2.resize(found, half, interpolation=cv2.INTER_AREA).mean(axis=2))
        codes = cv2.resize(formats.read(path).codes, half, interpolation=cv2.INTER_AREA)
        codes_seen.append(codes.mean(axis=2, dtype=np.float32))
    grey = np.stack(codes_seen)
    moves = np.percentile(patches(np.abs(grey[2:] - grey[:-2])), 95, axis=(2, 4)).max(axis=0)
    usable = (moves < 4) & (patches(grey[1::2]).mean(axis=(0, 2, 4)) >= 16)
    assert np.count_nonzero(usable) > 100
    level = patches(np.stack(shown)).mean(axis=(2, 4))[:, usable]
    varied = np.abs(level[1:] / level[:-1] - 1)
    assert np.median(varied) < 0.005
    assert np.percentile(varied, 95) < 0.02


def patches(frames, side=16):
    """(frames, rows, side, columns, side)."""
    count, height, width = frames.shape
    whole = frames[:, : height // side * side, : width // side * side]
    return whole.reshape(count, height // side, side, width // side, side)


# ---- sizes and sources -----------------------------------------------------------------------


def test_a_log_source_is_read_by_its_own_curve(tmp_path):
    pytest.importorskip("av")
    from tests.films import write_video

    clip = write_video(tmp_path / "log.mkv", [c for c, _ in film(4)], tags=(1, 9, 1))
    assert open_clip(clip).response.name == "log 100:1"


@pytest.mark.slow
def test_8k_is_merged_in_little_memory(tmp_path):
    import resource

    import cv2

    from hdrcli.formats import write_display_codes

    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        codes = codes_of(light_at(i, height=135, width=240), 3.0 * (i % 2))
        big = cv2.resize(codes, (7680, 4320), interpolation=cv2.INTER_LINEAR)
        write_display_codes(folder / f"{i}.png", big)
    encode = EncodeOptions(compression="none")
    options = VideoOptions(given=Given(evs=(0.0, 3.0)), encode=encode)
    outcome = video_file(folder, [Target(tmp_path / "out", "exr")], options)
    assert outcome.facts["frames"] == 3
    assert outcome.facts["size"] == [7680, 4320]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2.5 * 2**20  # KiB


def test_crushed_codes_show_nothing_and_have_no_colour():
    from hdrcli.frames import Bracket, Frame
    from hdrcli.video.neural import uncrushed

    codes = np.zeros((2, 4, 3), np.uint8)
    codes[0] = (3, 0, 1)  # crushed
    codes[1] = (60, 20, 20)  # dark, but its colour is partly known
    dark, bright = Frame(codes, exposure=1.0), Frame(codes, exposure=64.0)
    found = uncrushed(Bracket((dark, bright), 1))
    assert found.frames[1] is bright
    shown = found.frames[0]
    assert shown.valid is not None
    assert shown.valid.tolist() == [[False] * 4, [True] * 4]
    apart = [float(np.ptp(frame.linear()[1, 0])) for frame in (shown, dark)]
    assert 0 < apart[0] < apart[1]
