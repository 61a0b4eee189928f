import gc
import json
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hdrcli.color import REC709, REC2020, pq_decode
from hdrcli.errors import BracketError, InputError
from hdrcli.frames import Radiance
from hdrcli.sights import Noise
from hdrcli.video import Target, VideoOptions, open_clip, video_file
from hdrcli.video import look as looks
from hdrcli.video.clip import BT709
from hdrcli.video.encode import EncodeOptions
from hdrcli.video.exposures import detect, find_cycle
from hdrcli.video.given import Given, in_phase, pattern_of, said
from hdrcli.video.look import Grade, HdrLook, Shape, rolled_off
from hdrcli.video.merge import load_merger
from hdrcli.video.motion import split
from hdrcli.video.phase import Phase
from hdrcli.video.planes import Levels, into_rgb
from hdrcli.video.probe import Probe
from hdrcli.video.quality import Scores, flicker, psnr_mu
from hdrcli.video.run import Clock, merging
from hdrcli.video.stages import Worker, ahead
from hdrcli.video.windows import windows
from tests.films import codes_of, film, light_at, timed, write_pictures

av = pytest.importorskip("av")
SHARED = Path(__file__).parents[1].parent / "shared"
SETTINGS = VideoOptions().given


def probes(pictures):
    return [Probe.of(timed(codes, i)) for i, (codes, _) in enumerate(pictures)]


def frames(pictures):
    return [timed(codes, i) for i, (codes, _) in enumerate(pictures)]


def pattern(count=12, evs=(0.0, 3.0), **more):
    return detect(probes(film(count, evs, **more)), timed(next(film(1))[0], 0).frame.response)


# ---- stages ----------------------------------------------------------------------------------


def test_running_ahead_changes_nothing_but_the_time():
    assert list(ahead(iter(range(100)), 3)) == list(range(100))


def test_an_error_of_the_source_comes_out_after_what_was_made_before():
    def source():
        yield 1
        raise InputError("gone")

    taken = ahead(source())
    assert next(taken) == 1
    with pytest.raises(InputError, match="gone"):
        next(taken)


def test_leaving_early_closes_the_source():
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    taken = ahead(source(), 2)
    next(taken)
    taken.close()
    assert closed == [True]


def test_a_worker_works_in_order_and_hands_back_its_error():
    done: list[int] = []
    worker = Worker(done.append)
    for i in range(20):
        worker.put(i)
    worker.finish()
    assert done == list(range(20))

    def fail(_item):
        raise InputError("no")

    broken = Worker(fail)
    with pytest.raises(InputError, match="no"):
        fill(broken)


def fill(worker):
    for i in range(20):
        worker.put(i)


# ---- planes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10])
def test_grey_has_no_chroma_and_white_is_235(bits):
    from hdrcli.video.example import planes_of

    codes = np.full((8, 8, 3), 255, np.uint8)
    luma, blue, red = planes_of(codes, Levels(bits))
    assert (luma == 235 * 2 ** (bits - 8)).all()
    assert (blue == 2 ** (bits - 1)).all()
    assert (red == 2 ** (bits - 1)).all()


@pytest.mark.parametrize("topleft", [False, True])
def test_planes_come_back_as_they_went(topleft):
    import cv2

    from hdrcli.video.example import planes_of

    rng = np.random.default_rng(1)
    small = rng.uniform(60, 200, (4, 5, 3)).astype(np.float32)
    codes = np.rint(cv2.resize(small, (120, 96), interpolation=cv2.INTER_CUBIC).clip(0, 255))
    planes = planes_of(codes.astype(np.uint8), Levels(10), topleft=topleft)
    right, wrong = (
        np.abs(into_rgb(planes, 1, Levels(10), topleft=t) / 257 - codes)[4:-4, 4:-4].mean()
        for t in (topleft, not topleft)
    )
    assert right < 0.45
    assert wrong > 1.5 * right


def test_the_siting_of_chroma_matters():
    from hdrcli.video.example import planes_of

    ramp = np.zeros((16, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(64) * 3
    left, corner = (planes_of(ramp, Levels(10), topleft=t)[2] for t in (False, True))
    assert (left == corner)[:, 1:-1].all()  # both lie on even columns
    down = ramp.transpose(1, 0, 2).copy()
    left, corner = (
        planes_of(down, Levels(10), topleft=t)[2].astype(int)[2:-2] for t in (False, True)
    )
    step = np.median(np.diff(left[:, 4]))
    assert np.median(left - corner) == pytest.approx(step / 4, abs=1)


# ---- finding the exposures -------------------------------------------------------------------


@pytest.mark.parametrize("evs", [(0.0, 3.0), (2.0, -2.0), (0.0, 2.0, 4.0), (4.0, 0.0, 2.0)])
def test_period_phase_and_ratio_come_from_the_pixels(evs):
    found = pattern(14, evs, speed=1.0)
    assert found.period == len(evs)
    assert found.first == 0 or found.period > 1
    rotated = [found.evs[(found.first + i) % len(evs)] for i in range(len(evs))]
    assert rotated == pytest.approx([ev - min(evs) for ev in evs], abs=0.1)


def test_a_curve_that_the_file_does_not_claim_is_noticed():
    shown = film(12, (0.0, 3.0), curve="bt709")
    found = detect(probes(shown), BT709)
    assert found.response.name == "BT.709"
    assert max(found.evs) == pytest.approx(3, abs=0.1)


def test_steady_clips_are_refused_with_what_was_found():
    with pytest.raises(BracketError, match=r"do not alternate.*0\.\d of 255"):
        pattern(12, (1.0,), speed=1.0)


def test_a_period_of_four_is_refused_by_its_number():
    with pytest.raises(BracketError, match="repeat after 4 frames"):
        pattern(24, (0.0, 2.0, 4.0, 1.0))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_say_so(count):
    with pytest.raises(BracketError, match=f"only {count} frame"):
        pattern(count)


def test_a_dropped_frame_in_the_first_seconds_does_not_confuse():
    shown = list(film(20))
    del shown[9]
    assert detect(probes(shown), frames(shown)[0].frame.response).period == 2


def test_given_exposures_near_the_pixels_are_refined_by_them():
    shown = probes(film(12, (0.0, 3.0)))
    response = frames(film(1))[0].frame.response
    near = said((1 / 500, 1 / 60), "given", shown, response, fixed=False)
    assert np.log2(near.exposures[1] / near.exposures[0]) == pytest.approx(3, abs=0.05)
    far = said((1.0, 2.0), "given", shown, response, fixed=False)
    assert far.exposures == (1.0, 2.0)


def test_exposures_given_in_another_phase_follow_the_pixels(caplog):
    cycle = find_cycle([0.1, 0.5] * 6, 2)
    assert in_phase((1.0, 8.0), cycle) == (1.0, 8.0)
    assert in_phase((8.0, 1.0), cycle) == (1.0, 8.0)
    assert "1 frame earlier" in caplog.text


def test_a_pattern_numbers_the_exposures():
    assert Given(evs=(0.0, 3.0), pattern=(1, 0)).values() == (8.0, 1.0)
    with pytest.raises(InputError, match="numbered 0 to 1"):
        Given(evs=(0.0, 3.0), pattern=(0, 2)).values()


# ---- following the pattern -------------------------------------------------------------------


def followed(shown, evs=(0.0, 3.0)):
    phase = Phase(pattern(12, evs))
    return [t.key for t in phase.follow(frames(shown))], phase.breaks


def test_an_unbroken_clip_has_no_breaks():
    keys, breaks = followed(film(13))
    assert keys == [i % 2 for i in range(13)]
    assert breaks == []


def test_nothing_is_missing_before_the_first_frame():
    """The pattern may be right for most of a clip and, after a dropped frame, not for its start."""
    phase = Phase(replace(pattern(12, (0.0, 3.0)), first=1))
    assert [t.key for t in phase.follow(frames(film(13)))] == [i % 2 for i in range(13)]
    assert phase.breaks == []


def test_a_dropped_frame_is_reported_and_overcome():
    shown = list(film(20))
    del shown[7]
    keys, breaks = followed(shown)
    assert keys == [key for _, key in shown]
    assert [(b.frame, b.what, b.frames) for b in breaks] == [(7, "dropped", 1)]


def test_a_doubled_frame_is_reported_and_overcome():
    shown = list(film(20))
    shown.insert(9, shown[8])
    keys, breaks = followed(shown)
    assert keys == [key for _, key in shown]
    assert [(b.frame, b.what) for b in breaks] == [(9, "doubled")]


def test_two_of_three_dropped_are_counted():
    evs = (0.0, 2.0, 4.0)
    shown = list(film(24, evs))
    del shown[10:12]
    keys, breaks = followed(shown, evs)
    assert keys == [key for _, key in shown]
    assert [(b.frame, b.what, b.frames) for b in breaks] == [(10, "dropped", 2)]


def test_a_cut_to_a_darker_scene_is_followed():
    dark = [
        (codes_of(light_at(i) / 24, ev), k) for i in range(8) for k, ev in [(i % 2, 3.0 * (i % 2))]
    ]
    shown = [*film(11), *dark[1:]]  # the phase breaks at the cut, too
    shown = [*film(10), *dark]
    keys, _ = followed(shown)
    assert keys == [key for _, key in shown]


# ---- windows ---------------------------------------------------------------------------------


def keyed(count, period, scenes=None):
    codes = np.zeros((4, 4, 3), np.uint8)
    return [
        timed(codes, i, key=i % period, scene=0 if scenes is None else scenes[i])
        for i in range(count)
    ]


@pytest.mark.parametrize(("period", "size"), [(2, 3), (3, 5)])
def test_every_frame_has_one_window_of_three_or_five(period, size):
    same = {k: k for k in range(period)}
    found = list(windows(iter(keyed(20, period)), period, same))
    assert [w.now.index for w in found] == list(range(20))
    assert all(len(w.frames) == size for w in found[3:-3])
    for w in found[3:-3]:
        assert [t.index - w.now.index for t in w.frames] == list(range(-(size // 2), size // 2 + 1))


def test_windows_do_not_look_across_a_cut():
    found = list(windows(iter(keyed(12, 2, [0] * 6 + [1] * 6)), 2, {0: 0, 1: 1}))
    assert [t.index for t in found[5].frames] == [4, 5]
    assert [t.index for t in found[6].frames] == [6, 7]


def test_memory_does_not_depend_on_the_length():
    alive: set[int] = set()
    most = []

    def source():
        for i in range(200):
            made = timed(np.zeros((4, 4, 3), np.uint8), i, key=i % 2)
            alive.add(i)
            weakref.finalize(made, alive.discard, i)
            most.append(len(alive))
            yield made

    for window in windows(ahead(source()), 2, {0: 0, 1: 1}):
        del window
    gc.collect()
    assert max(most) < 24


# ---- merging ---------------------------------------------------------------------------------


def merged_film(count=8, evs=(0.0, 3.0), speed=0.0, **more):
    """Radiance of each frame, on the scale of 0 EV, and the truth."""
    from hdrcli.backends.registry import Settings

    found = pattern(12, evs, speed=speed)
    merger = load_merger("average", Settings(threads=1), found.exposures[found.anchor])
    shown = []
    for t in Phase(found).follow(frames(film(count, evs, speed=speed, **more))):
        frame = replace(t.frame, exposure=found.exposures[t.key], response=found.response)
        shown.append(replace(t, frame=frame))
    same = {k: k for k in range(found.period)}
    gain = np.float32(2.0 ** -evs[(found.anchor + (0 - found.first)) % len(evs)])
    return [merger.merge(w, "medium").pixels * gain for w in windows(shown, found.period, same)]


@pytest.mark.parametrize("evs", [(0.0, 3.0), (-2.0, 1.0, 4.0)])
def test_all_frames_have_the_light_of_the_scene_on_one_scale(evs):
    true = light_at(0)
    measurable = (true * 2.0 ** min(evs) < 0.9).all(axis=2) & (true * 2.0 ** max(evs) > 0.01).all(
        axis=2
    )
    for light in merged_film(8, evs):
        ratio = (light / true)[measurable]
        assert np.median(ratio) == pytest.approx(1, abs=0.02)
        assert np.percentile(np.abs(ratio - 1), 90) < 0.12


def test_a_still_wall_does_not_flicker():
    clip = [light.mean(axis=2) for light in merged_film(9)]
    blurred = [c.reshape(12, 8, 18, 8).mean(axis=(1, 3)) for c in clip]
    assert flicker(blurred) < 1.0


def test_what_moves_is_no_ghost_and_gains_over_the_frame_alone():
    evs = (0.0, 3.0)
    own, both = Scores(), Scores()
    for i, light in enumerate(merged_film(9, evs, speed=3.0)):
        true = light_at(i, speed=3.0)
        alone = np.asarray(timed(codes_of(true, evs[i % 2]), 0).frame.linear()) / 2.0 ** evs[i % 2]
        own.add(i % 2, psnr_mu(alone, true))
        both.add(i % 2, psnr_mu(light, true))
    assert both.table(evs)["all"] > own.table(evs)["all"] + 2
    assert both.table(evs)["high"] > own.table(evs)["high"] + 4


def test_an_even_motion_is_split_where_the_moment_lies():
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = 6
    back, forth = split(flow, 1 / 3)
    assert back[10, 15] == pytest.approx([-2, 0], abs=1e-4)
    assert forth[10, 15] == pytest.approx([4, 0], abs=1e-4)


def test_noise_alone_does_not_resample():
    from hdrcli.video import motion

    shown = frames(film(3, (0.0, 3.0)))
    assert motion.between(shown[0], shown[2]) is None
    moving = frames(film(3, (0.0, 3.0), speed=4.0))
    assert motion.between(moving[0], moving[2]) is not None


# ---- looks -----------------------------------------------------------------------------------


def nits(planes):
    rgb = into_rgb(planes, 9, Levels(10), topleft=True)
    return pq_decode(rgb.astype(np.float32) / 65535)


def test_white_is_203_and_the_peak_is_not_passed():
    look = HdrLook(Grade(ev=1.0, source_peak=20_000), Shape(Levels(10), REC2020, topleft=True))
    light = np.full((16, 32, 3), 0.5, np.float32)
    light[:, 16:] = 400
    shown = nits(look.planes(Radiance(light), 0.0, 0))
    assert shown[8, 8] == pytest.approx([203] * 3, rel=0.01)
    assert shown[8, 24] == pytest.approx([1000] * 3, rel=0.01)
    assert look.light.content == pytest.approx(1000, rel=0.001)
    assert look.light.average == pytest.approx((203 + 1000) / 2, rel=0.01)


def test_the_roll_off_rises_and_leaves_what_is_below_white():
    light = np.geomspace(0.01, 20_000, 500)
    shown = rolled_off(light, 20_000, 1000)
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] <= 1000
    assert shown[light < 100] == pytest.approx(light[light < 100], rel=1e-3)


def test_hlg_puts_reference_white_at_three_quarters():
    look = HdrLook(Grade(source_peak=1000), Shape(Levels(10), REC2020, topleft=True), hlg=True)
    luma, _, _ = look.planes(Radiance(np.ones((8, 8, 3), np.float32)), 0.0, 0)
    assert (luma[4, 4] - 64) / 876 == pytest.approx(0.75, abs=0.003)


def test_plans_follow_slowly_and_start_anew_at_a_cut():
    steady = looks.Steady("reinhard02", {})
    dim, bright = (Radiance(np.full((32, 32, 3), v, np.float32)) for v in (0.1, 1.0))
    first = steady.next(dim, 0.0, 0).numbers["ev"]
    second = steady.next(bright, 0.04, 0).numbers["ev"]
    assert 0 < first - second < 0.3
    assert first - steady.next(bright, 0.08, 1).numbers["ev"] == pytest.approx(
        np.log2(10), abs=0.01
    )


def test_one_level_of_grey_is_one_code_everywhere():
    look = looks.SdrLook(Shape(Levels(8), REC709), "gamma", {"gamma": 2.2})
    luma, blue, red = look.planes(Radiance(np.full((17, 31, 3), 0.2, np.float32)), 0.0, 0)
    assert luma.shape == (18, 32)
    assert blue.shape == (9, 16)
    assert len(np.unique(luma)) == 1
    assert set(np.unique(blue)) == set(np.unique(red)) == {128}


# ---- the whole chain, without a video file ---------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "in"
    return write_pictures(folder, [codes for codes, _ in film(9, (0.0, 3.0), speed=2.0)])


def exr_options(**more):
    return VideoOptions(encode=EncodeOptions(**more), threads=1)


def test_a_folder_becomes_a_folder(pictures, tmp_path):
    outcome = video_file(pictures, [Target(tmp_path / "out", "exr")], exr_options())
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == [
        f"frame_{i:06d}.exr" for i in range(9)
    ]
    assert outcome.facts["frames"] == 9
    assert outcome.facts["period"] == 2
    assert json.dumps(outcome.as_dict())


def test_resuming_makes_only_what_is_missing(pictures, tmp_path):
    target = Target(tmp_path / "out", "exr")
    video_file(pictures, [target], exr_options())
    with pytest.raises(InputError, match="holds frames already"):
        video_file(pictures, [target], exr_options())
    names = sorted(target.path.iterdir())
    whole = {p: p.read_bytes() for p in names}
    names[3].unlink()
    names[8].unlink()
    before = {p: p.stat().st_mtime_ns for p in target.path.iterdir()}
    outcome = video_file(pictures, [target], exr_options(resume=True))
    assert outcome.facts["exr_frames"] == 2
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert set(target.path.iterdir()) == set(whole)
    from hdrcli import formats

    again = formats.read(names[3]).codes
    names[3].write_bytes(whole[names[3]])
    assert (again == formats.read(names[3]).codes).all()


def test_a_part_is_the_same_frames_as_in_the_whole(pictures, tmp_path):
    from hdrcli import formats

    for name, options in (("all", {}), ("part", {"start": 0.08, "duration": 0.2})):
        chosen = replace(exr_options(), given=Given(evs=(0.0, 3.0)), **options)
        video_file(pictures, [Target(tmp_path / name, "exr")], chosen)
    part = sorted((tmp_path / "part").iterdir())
    assert len(part) == 5
    whole = formats.read(tmp_path / "all" / "frame_000004.exr").codes
    same = formats.read(part[2]).codes
    gain = np.median(whole[whole > 0.01] / same[whole > 0.01])
    assert np.abs(np.log2(gain)) == pytest.approx(round(abs(np.log2(gain)) / 3) * 3, abs=0.1)
    assert np.median(np.abs(same * gain - whole) / (whole + 0.01)) < 0.01


def test_patterns_name_pictures(pictures):
    assert open_clip(f"{pictures}/%04d.png").count == 9
    assert open_clip(f"{pictures}/000[0-3].png").count == 4
    with pytest.raises(InputError, match="no pictures"):
        open_clip(f"{pictures}/%04d.jpg")


def test_frames_of_another_size_are_refused(tmp_path):
    shown = [codes for codes, _ in film(6)]
    shown[4] = shown[4][:-8]
    folder = write_pictures(tmp_path / "in", shown)
    with pytest.raises(InputError, match=r"0004.png is 144x88, the first frame 144x96"):
        video_file(folder, [Target(tmp_path / "out", "exr")], exr_options())


def test_a_sidecar_says_the_exposures(pictures, tmp_path):
    folder = write_pictures(tmp_path / "in", [codes for codes, _ in film(6)])
    (folder / "exposures.txt").write_text("1/480 1/60  # seconds\n")
    clip = open_clip(folder)
    found = pattern_of(clip, probes(film(6)), clip.response, SETTINGS, fixed=False)
    assert found.source == "sidecar"
    assert max(found.evs) == pytest.approx(3, abs=0.05)


def test_merging_stops_when_nobody_wants_more(pictures):
    options = exr_options()
    from hdrcli.backends.registry import Settings
    from hdrcli.video.run import surveyed

    clip, found, _ = surveyed(open_clip(pictures), options)
    merger = load_merger("average", Settings(), found.exposures[found.anchor])
    chain = merging(clip.frames(), Phase(found), merger, options, Clock())
    assert next(chain).now.index == 0
    chain.close()


@pytest.mark.slow
def test_the_bride_alternates_by_six_to_seven_stops():
    folder = SHARED / "video" / "bride-alternating"
    if not folder.is_dir():
        pytest.skip("the shared clip is not here")
    from hdrcli.video.run import surveyed

    _, found, _ = surveyed(open_clip(folder), VideoOptions(duration=0.4))
    assert found.period == 2
    assert found.exposures[found.first] < found.exposures[1 - found.first]
    assert max(found.evs) == pytest.approx(6.5, abs=0.5)


def test_rates_are_fractions():
    from hdrcli.cli.video import parse_rate

    assert parse_rate("23.976") == Fraction(24000, 1001)
    assert parse_rate("25") == 25


def test_noise_is_the_stills_model():
    from hdrcli.video.merge import NOISE

    assert Noise() == NOISE
