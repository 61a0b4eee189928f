"""What every classical backend owes: known radiance back, bounds where it clips, no ghosts."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hdrcli import backends, maps, motion, sights
from hdrcli.backends import BACKENDS, choice
from hdrcli.backends.average import Average, told_of
from hdrcli.backends.registry import WEIGHT_NAMES, Settings
from hdrcli.errors import SetupError
from hdrcli.frames import CLIP, LINEAR, Bracket, DisplayImage, Frame, Radiance
from hdrcli.motion import Motion
from tests.scenes import (
    FILM_CURVE,
    GAMMA_CURVE,
    LINEAR_CURVE,
    NOISY,
    SRGB_CURVE,
    Sensor,
    checker,
    disc_bracket,
    flat,
    gradient,
    handheld_bracket,
    photograph,
    texture,
)

RADIANCE = [name for name, spec in BACKENDS.items() if spec.kind == "classical"]
CLASSICAL = [*RADIANCE, "mertens"]
SIZE = (96, 128)
MEDIAN = 0.02  # of the light, where it is exposed


@pytest.mark.parametrize(("installed", "chosen"), [(True, "flowmerge"), (False, "average")])
def test_auto_needs_no_pytorch(monkeypatch, caplog, installed, chosen):
    monkeypatch.setattr("hdrcli.device.has_torch", lambda: installed)
    bracket = photograph(gradient())
    found = replace(Motion.none(3), moved=0.1)
    name, why = choice.choose("auto", bracket, found)
    assert name == chosen
    assert ("PyTorch" in why) == ("PyTorch" in caplog.text) == (not installed)


@pytest.mark.parametrize("asked", [("flowmerge", "auto"), ("psfnet", "auto"), ("average", "cuda")])
def test_what_needs_pytorch_says_so_before_the_work(monkeypatch, asked):
    monkeypatch.setattr("hdrcli.device.has_torch", lambda: False)
    with pytest.raises(SetupError, match="needs PyTorch") as caught:
        backends.check_backend(*asked)
    assert "--backend average" in str(caught.value.hint)
    backends.check_backend("auto", "auto")
    backends.check_backend("average", "auto")


def merged(name, bracket, deghost="none", **settings):
    found = motion.analyse(bracket, deghost)
    return backends.load_backend(name, Settings(threads=1, **settings)).merge(bracket, found)


def exposed(bracket, low=12, high=240):
    """Where some frame shows every channel well."""
    seen = [
        (f.codes.min(axis=2) / (f.levels - 1) > low / 255)
        & (f.codes.max(axis=2) / (f.levels - 1) < high / 255)
        for f in bracket.frames
    ]
    return np.any(seen, axis=0)


def error(image, truth, where):
    """Median relative error of the light."""
    return float(np.median(np.abs(image.pixels / truth - 1)[where]))


def linear_frames(radiance, evs=(-2.0, 0.0, 2.0)):
    """What a raw developer writes: linear floats that end at 1."""
    frames = [
        Frame(
            np.clip(radiance * np.float32(2.0**ev), 0, 1),
            response=LINEAR,
            exposure=2.0**ev,
            name=f"{ev:+.0f}",
            bits=32,
        )
        for ev in evs
    ]
    return Bracket.of(frames, frames[len(frames) // 2])


# ---- the contract ----------------------------------------------------------------------------


def test_the_classical_backends_are_those_of_the_table():
    assert RADIANCE == ["average", "debevec", "robertson"]


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("scene", [texture(*SIZE), checker(7, 5), flat(1, 1), gradient(3, 301)])
def test_every_size_gives_a_finite_picture_of_that_size(name, scene):
    image = merged(name, photograph(scene), "medium")
    assert image.pixels.shape == scene.shape
    assert image.pixels.dtype == np.float32
    assert np.isfinite(image.pixels).all()
    assert image.pixels.min() >= 0
    assert isinstance(image, DisplayImage if name == "mertens" else Radiance)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("count", range(2, 10))
def test_any_number_of_frames(name, count):
    evs = np.linspace(-4, 4, count)
    scene = texture(32, 48)
    image = merged(name, photograph(scene, tuple(evs)), "medium")
    assert np.isfinite(image.pixels).all()
    if name in RADIANCE:
        assert error(image, scene / np.float32(1 / image.exposure), np.s_[:]) < 0.05


@pytest.mark.parametrize("name", CLASSICAL)
def test_threads_and_half_floats_change_nothing(name):
    bracket, _ = disc_bracket()
    found = motion.analyse(bracket)
    one, many = (
        backends.load_backend(name, Settings(threads=threads)).merge(bracket, found)
        for threads in (1, 5)
    )
    assert (one.pixels == many.pixels).all()
    if name in RADIANCE:
        half = backends.load_backend(name, Settings(half=True)).merge(bracket, found)
        assert half.pixels.dtype == np.float16
        assert (half.pixels == one.pixels.astype(np.float16)).all()


def test_mertens_is_a_picture_for_the_screen():
    image = merged("mertens", disc_bracket()[0], "medium")
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1
    assert np.ptp(image.pixels) > 0.5


def test_mertens_shows_more_than_any_frame():
    """Both ends of a scene that no frame holds whole."""
    scene = gradient(32, 256, 0.002, 30.0)
    bracket = photograph(scene, (-4.0, 0.0, 4.0))
    shown = merged("mertens", bracket).pixels.mean(axis=(0, 2))
    assert shown[:40].mean() > 0.05
    assert shown[-40:].mean() < 0.97
    frames = [f.codes.mean(axis=(0, 2)) / 255 for f in bracket.frames]
    assert all(f[:40].mean() < 0.05 or f[-40:].mean() > 0.97 for f in frames)


def test_the_deviation_is_what_noise_makes_of_light():
    """Asked for, it changes nothing; it is measured on a scene that was photographed again."""
    scene, camera = gradient(24, 256, 0.01, 0.9), Sensor(2000.0)
    shots = [photograph(scene, sensor=camera, seed=9 * i) for i in range(8)]
    nothing = Motion.none(3, sights.Noise(1 / 2000, (camera.read / 2000) ** 2))
    average = Average(Settings(threads=2))
    deviation = np.zeros(scene.shape[:2], np.float16)
    found = [average.merge(bracket, nothing).pixels for bracket in shots]
    assert (average.merge(shots[0], nothing, deviation=deviation).pixels == found[0]).all()
    spread = np.sqrt(np.var(found, axis=0, ddof=1).mean(axis=(0, 2))) / deviation.mean(axis=0)
    assert np.allclose(np.quantile(spread, (0.1, 0.5, 0.9)), 1, atol=0.2)


# ---- known radiance --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RADIANCE)
@pytest.mark.parametrize("curve", [SRGB_CURVE, GAMMA_CURVE, LINEAR_CURVE, FILM_CURVE])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scene", [gradient(24, 256), texture(*SIZE)])
def test_radiance_is_recovered(name, curve, bits, scene):
    bracket = photograph(scene, curve=curve, bits=bits, sensor=NOISY)
    image = merged(name, bracket)
    where = exposed(bracket)
    assert where.mean() > 0.4
    assert error(image, scene, where) < MEDIAN


@pytest.mark.parametrize("name", RADIANCE)
def test_radiance_is_recovered_from_linear_floats(name):
    scene = texture(*SIZE)
    image = merged(name, linear_frames(scene))
    assert error(image, scene, scene.max(axis=2) < 3) < 0.001


def test_radiance_is_recovered_under_a_moving_thing_and_a_hand():
    bracket, scenes = disc_bracket()
    image = merged("average", bracket, "medium")
    assert error(image, scenes[1], exposed(bracket)) < MEDIAN
    shaken, matrices = handheld_bracket()
    placed = [
        replace(frame, warp=None if i == shaken.reference else matrix)
        for i, (frame, matrix) in enumerate(zip(shaken.frames, matrices, strict=True))
    ]
    image = merged("average", shaken.with_frames(placed), "medium")
    assert error(image, texture(256, 320), np.s_[16:-16, 16:-16]) < MEDIAN


@pytest.mark.parametrize("weight", WEIGHT_NAMES)
@pytest.mark.parametrize("name", RADIANCE)
def test_every_weight_recovers_radiance(name, weight):
    scene = texture(*SIZE)
    bracket = photograph(scene, sensor=NOISY)
    image = merged(name, bracket, options={"weight": weight})
    assert error(image, scene, exposed(bracket)) < MEDIAN


@pytest.mark.parametrize("name", RADIANCE)
@pytest.mark.parametrize("stops", [-7.0, 1.0, 5.0])
def test_twice_the_exposure_is_half_the_radiance(name, stops):
    """Only ratios matter to the pixels; the scale they share is written beside them."""
    bracket = photograph(texture(*SIZE))
    brighter = bracket.with_frames(
        replace(f, exposure=f.exposure * 2.0**stops) for f in bracket.frames
    )
    one, other = (merged(name, b) for b in (bracket, brighter))
    assert other.exposure == one.exposure * 2.0**stops
    np.testing.assert_allclose(one.pixels, other.pixels, rtol=1e-5)
    np.testing.assert_allclose(
        one.absolute().pixels, other.absolute().pixels * 2.0**stops, rtol=1e-5
    )


@pytest.mark.parametrize("name", RADIANCE)
def test_one_is_the_references_white_whichever_it_is(name):
    scene = texture(*SIZE)
    bracket = photograph(scene)
    for frame in bracket.frames:
        image = merged(name, Bracket.of(bracket.frames, frame))
        truth = scene * np.float32(frame.exposure)
        assert image.exposure == frame.exposure
        assert error(image, truth, exposed(bracket)) < MEDIAN


@pytest.mark.parametrize("name", CLASSICAL)
def test_the_order_of_the_frames_changes_nothing(name):
    bracket, _ = disc_bracket()
    first = merged(name, bracket, "medium").pixels
    for order in ((2, 0, 1), (1, 2, 0)):
        shuffled = Bracket.of([bracket.frames[i] for i in order], bracket.ref)
        assert (merged(name, shuffled, "medium").pixels == first).all()


@pytest.mark.parametrize("name", RADIANCE)
def test_more_frames_of_one_exposure_are_less_noise(name):
    truth = flat(48, 48, 0.2)
    noise = []
    for count in (2, 4, 8):
        image = merged(name, photograph(truth, (0.0,) * count, sensor=NOISY))
        assert abs(image.pixels.mean() / 0.2 - 1) < 0.01
        noise.append(float(image.pixels.std()))
    assert all(0.6 < later / earlier < 0.82 for earlier, later in pairwise(noise))


def test_the_noise_of_average_is_the_least():
    scene = texture(*SIZE)
    bracket = photograph(scene, sensor=NOISY)
    where = exposed(bracket, low=2)

    def spread(name, **options):
        off = merged(name, bracket, options=options).pixels / scene - 1
        return float(np.sqrt(np.mean(off[where] ** 2)))

    least = spread("average")
    for name, weight in (("average", "flat"), ("debevec", "noise"), ("robertson", "noise")):
        assert least < 1.02 * spread(name, weight=weight)


# ---- where nothing is known ------------------------------------------------------------------


@pytest.mark.parametrize("name", RADIANCE)
@pytest.mark.parametrize("bits", [8, 16])
def test_what_clips_everywhere_is_neutral_at_the_shortest_frames_level(name, bits):
    bracket = photograph(flat(8, 8, 1000.0) * (1.0, 0.7, 0.4), bits=bits)
    image = merged(name, bracket, "medium")
    assert image.clipped == 1.0
    np.testing.assert_allclose(image.pixels, 4.0, rtol=1e-3)


@pytest.mark.parametrize("name", RADIANCE)
def test_only_what_clips_everywhere_is_counted(name):
    scene = flat(16, 16, 0.2)
    scene[:4, :8] = 50.0  # in every frame
    scene[8:, :] = 2.0  # not in the shortest
    image = merged(name, photograph(scene), "medium")
    assert image.clipped == 32 / 256
    np.testing.assert_allclose(image.pixels[8:], 2.0, rtol=0.02)
    assert image.pixels[:4, :8].min() > image.pixels[8:].max()


@pytest.mark.parametrize("name", CLASSICAL)
def test_black_everywhere_is_black_and_finite(name):
    image = merged(name, photograph(flat(8, 8, 0.0)), "medium")
    assert np.isfinite(image.pixels).all()
    assert image.pixels.max() < 1e-3
    if name in RADIANCE:
        assert image.clipped == 0


@pytest.mark.parametrize("name", RADIANCE)
def test_where_it_is_dark_the_longest_frame_decides(name):
    scene = flat(64, 64, 0.001)
    image = merged(name, photograph(scene, (-4.0, 0.0, 4.0), sensor=NOISY))
    assert abs(float(image.pixels.mean()) / 0.001 - 1) < 0.1
    assert float(image.pixels.std()) < 0.0005


@pytest.mark.parametrize("name", RADIANCE)
def test_nan_and_infinity_in_floats_do_not_spread(name):
    bracket = linear_frames(texture(*SIZE))
    spoilt = [replace(f, codes=f.codes.copy()) for f in bracket.frames]
    spoilt[0].codes[3, 3] = np.nan
    spoilt[2].codes[5, 5] = np.inf
    image = merged(name, bracket.with_frames(spoilt))
    plain = merged(name, bracket)
    assert np.isfinite(image.pixels).all()
    same = (image.pixels == plain.pixels).all(axis=2)
    assert same.sum() >= same.size - 2


@pytest.mark.parametrize("name", RADIANCE)
def test_light_above_white_of_a_float_frame_is_kept(name):
    scene = texture(*SIZE) * 100
    frames = [
        Frame(scene * np.float32(e), response=LINEAR, exposure=e, name=str(e), bits=32)
        for e in (0.5, 1.0)
    ]
    image = merged(name, Bracket.of(frames, frames[1]))
    np.testing.assert_allclose(image.pixels, scene, rtol=1e-4)


@pytest.mark.parametrize("name", RADIANCE)
def test_float_and_integer_frames_merge_together(name):
    scene = texture(*SIZE)
    mixed = [photograph(scene).frames[1], *linear_frames(scene, (-2.0,) * 2).frames[:1]]
    image = merged(name, Bracket.of(mixed, mixed[0]))
    assert error(image, scene, np.s_[:]) < MEDIAN


@pytest.mark.parametrize("shortest", [True, False])
def test_a_doubted_float_frame_says_of_highlights_what_its_codes_would(rng, shortest):
    codes = rng.integers(20, 200, (*SIZE, 3)).astype(np.uint8)
    codes[::7, :, 1] = 255
    bright = Frame(np.full_like(codes, 255), response=LINEAR, exposure=8.0, name="bright")
    coded = Frame(codes, response=LINEAR, exposure=1.0, name="codes")
    light = Frame(coded.linear(), response=LINEAR, exposure=1.0, name="light", bits=32)
    belief = rng.uniform(0, 0.9, SIZE).astype(np.float32)

    def told(darker):
        bracket = Bracket.of((darker, bright), bright)
        doubted = replace(Motion.none(2), confidence=(belief, None))
        seen = Average(Settings(threads=1)).sources(bracket, doubted)[0].seen(slice(0, SIZE[0]))
        found = np.zeros((*SIZE, 8), np.float32)
        told_of(seen, np.ones(SIZE, np.bool_), found, shortest=shortest)
        return found

    measured = (codes < 255).all(axis=2)
    np.testing.assert_allclose(told(light)[measured], told(coded)[measured], rtol=1e-6)
    np.testing.assert_allclose(told(light)[..., 1:], told(coded)[..., 1:], rtol=1e-6)
    assert (told(light)[~measured][:, 2] > 0).all(), "what clips is a bound"


# ---- ghosts ----------------------------------------------------------------------------------


def moving_square(evs=(-0.5, 0.0, 0.5), light=(0.02, 0.4, 0.55)):
    """A square jumps across a textured wall, too far for flow; the truth is the middle moment."""
    wall = np.clip(0.5 * texture(*SIZE, stops=3.0), 0.03, 0.4)
    scenes = []
    for i in range(len(evs)):
        scene = wall.copy()
        left = 10 + 40 * i
        scene[36:60, left : left + 22] = light
        scenes.append(scene)
    return photograph(scenes, evs, sensor=NOISY), scenes


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_thing_that_moves_leaves_no_trace(name):
    bracket, scenes = moving_square()
    image, alone = merged(name, bracket, "medium"), merged(name, bracket, "none")
    truth = scenes[bracket.reference]
    if name == "mertens":
        static = photograph([truth] * 3, (-0.5, 0.0, 0.5), sensor=NOISY)
        truth = merged(name, static).pixels + 1e-2
    for i in (0, 2):  # where the square was in the others
        where = np.s_[40:56, 14 + 40 * i : 28 + 40 * i]
        ghost = np.abs(alone.pixels[where] / truth[where] - 1)
        left = np.abs(image.pixels[where] / truth[where] - 1)
        assert np.median(ghost) > 0.1
        # exposure fusion also loses the other frame's brightening there
        assert np.median(left) < (0.6 * np.median(ghost) if name == "mertens" else 0.05)
        assert np.percentile(left, 95) < 0.3
    here = np.s_[40:56, 54:68]
    assert np.median(np.abs(image.pixels[here] / truth[here] - 1)) < 0.1


def test_where_nothing_agrees_the_reference_is_the_result():
    bracket, _ = moving_square()
    count = len(bracket.frames)
    nothing = np.zeros(SIZE, np.float32)
    beliefs = tuple(None if i == bracket.reference else nothing for i in range(count))
    distrust = replace(Motion.none(count), confidence=beliefs)
    image = backends.load_backend("average").merge(bracket, distrust)
    own = bracket.ref.linear()
    unclipped = bracket.ref.codes.max(axis=2) < 230
    np.testing.assert_allclose(image.pixels[unclipped], own[unclipped], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RADIANCE)
def test_where_the_reference_clips_the_short_frame_takes_over(name):
    scene = texture(*SIZE)
    scene[30:60, 40:80] = (3.0, 2.4, 1.8)
    bracket = photograph(scene)
    assert (bracket.ref.codes[32:58, 42:78] == 255).all()
    image = merged(name, bracket, "medium")
    np.testing.assert_allclose(
        image.pixels[32:58, 42:78],
        np.broadcast_to((3.0, 2.4, 1.8), (26, 36, 3)),
        rtol=0.03,
    )
    assert image.clipped == 0


@pytest.mark.parametrize("name", RADIANCE)
@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0])
def test_what_clips_in_the_reference_is_never_darker_than_white(name, trust):
    """A lamp in the reference, and in the short frame somebody who stands before it."""
    scene = texture(*SIZE)
    lit, hidden = scene.copy(), scene.copy()
    lit[30:60, 40:80] = 3.0
    hidden[30:60, 40:80] = (0.3, 0.1, 0.05)
    bracket = photograph([hidden, lit, lit])
    belief = np.full(SIZE, trust, np.float32)
    found = replace(Motion.none(3), confidence=(belief, None, None))
    for seen in (found, motion.analyse(bracket)):
        image = backends.load_backend(name).merge(bracket, seen)
        least = float(bracket.ref.response.at(CLIP))
        assert image.pixels[32:58, 42:78].min() >= 0.99 * least


@pytest.mark.parametrize("red", [200, 238, 244, 248])
def test_a_channel_beside_one_that_clips_is_the_references(red):
    """Whatever stands there in the short frame, which is not believed, lends no colour."""
    scene = flat(32, 32, 0.5)
    bracket = photograph(scene)
    lit = np.full((32, 32, 3), (red, red, 255), np.uint8)
    dark = np.full((32, 32, 3), 9, np.uint8)
    frames = [replace(bracket.frames[0], codes=dark), replace(bracket.frames[1], codes=lit)]
    found = replace(Motion.none(2), confidence=(np.zeros((32, 32), np.float32), None))
    image = backends.load_backend("average").merge(Bracket.of(frames, frames[1]), found)
    own = float(frames[1].table[red, 0])
    np.testing.assert_allclose(image.pixels[..., :2], own, rtol=0.01)
    assert image.pixels[..., 2].min() >= 0.99 * frames[1].response.at(CLIP)


@pytest.mark.parametrize("name", RADIANCE)
def test_a_frame_that_clips_too_still_says_how_bright_it_is_at_least(name):
    """A window; somebody before it in the shortest frame alone must leave no shadow in it."""
    scene = flat(*SIZE, 0.2)
    lit, hidden = scene.copy(), scene.copy()
    lit[30:60, 40:80] = 6.0
    hidden[30:60, 40:80] = (0.3, 0.1, 0.05)
    bracket = photograph([hidden, lit, lit, lit], (-4.0, -2.0, 0.0, 2.0))
    bracket = replace(bracket, reference=2)
    doubt = np.zeros(SIZE, np.float32)
    found = replace(Motion.none(4), confidence=(doubt, None, None, None))
    for seen in (found, motion.analyse(bracket)):
        image = backends.load_backend(name).merge(bracket, seen)
        assert image.pixels[32:58, 42:78].min() >= 0.99 * 4 * bracket.ref.response.at(CLIP)


def test_light_of_another_moment_is_no_measure_of_a_channel_that_clips():
    """A blue coat in the reference; in the short frame, not believed, a lamp stands there."""
    bracket = photograph(flat(32, 32, 0.5), (-3.0, 0.0))
    coat = np.full((32, 32, 3), (164, 190, 255), np.uint8)
    lamp = np.full((32, 32, 3), 255, np.uint8)
    frames = [replace(bracket.frames[0], codes=lamp), replace(bracket.frames[1], codes=coat)]
    found = replace(Motion.none(2), confidence=(np.zeros((32, 32), np.float32), None))
    image = backends.load_backend("average").merge(Bracket.of(frames, frames[1]), found)
    blue = image.pixels[..., 2]
    assert blue.min() >= 0.99 * frames[1].response.at(CLIP)
    assert blue.max() <= 3.01 * frames[1].table[190, 1]  # of 8 that the lamp has, and more


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", RADIANCE)
def test_a_grey_where_a_frame_has_to_be_white_is_not_heard(name, bits):
    truth = np.full((*SIZE, 3), (0.5, 0.06, 0.04), np.float32)
    truth[:, ::2] = 0.01
    bracket = photograph(truth, (0, 2, 5), bits=bits, reference=0)
    longest, red = bracket.frames[2], truth[..., :1] == np.float32(0.5)
    grey = longest.codes.dtype.type(0.93 * (longest.levels - 1))
    rendered = replace(longest, codes=np.where(red, grey, longest.codes))
    spoilt = replace(bracket, frames=(*bracket.frames[:2], rendered))
    expected, found = merged(name, bracket).pixels, merged(name, spoilt).pixels
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found, truth, rtol=0.1)
    shares = maps.weights(spoilt, Motion.none(3))
    assert (shares[2][:, 1::2] == 0).all()
    assert (shares[2][:, ::2] > 0.5).all()


@pytest.mark.parametrize(("place", "hidden"), [(0, 77), (0, 255), (1, 77), (1, 255), (2, 255)])
@pytest.mark.parametrize("name", CLASSICAL)
def test_what_is_transparent_in_a_frame_comes_from_the_others(name, place, hidden):
    scene = flat(32, 32, 0.3)
    bracket = photograph(scene)
    known = np.ones((32, 32), bool)
    known[:, :16] = False
    frames = list(bracket.frames)
    wrong = frames[place].codes.copy()
    wrong[:, :16] = hidden
    frames[place] = replace(frames[place], codes=wrong, valid=known)
    image = merged(name, bracket.with_frames(frames), "medium")
    left, right = image.pixels[:, :8], image.pixels[:, 24:]
    if name == "mertens":
        assert abs(left.mean() - right.mean()) < 0.25
    else:
        np.testing.assert_allclose(left, 0.3, rtol=MEDIAN)
        np.testing.assert_allclose(right, 0.3, rtol=MEDIAN)
