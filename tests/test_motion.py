"""Laws of motion: what cameras do to light is no motion, what moves is, and only there."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hdrcli import motion, motion_kernels, sights
from hdrcli.backends import Settings
from hdrcli.backends.average import Average
from hdrcli.frames import Bracket, Frame
from tests.scenes import (
    FILM_CURVE,
    LINEAR_CURVE,
    NOISELESS,
    NOISY,
    SRGB_CURVE,
    Sensor,
    checker,
    disc_bracket,
    flat,
    gradient,
    photograph,
    texture,
    whitened,
    with_disc,
)

ISO_6400 = Sensor(1_500.0, read=6.0)  # electrons: what a full frame has left of its full well
MEDIUM = motion.STRENGTHS["medium"] or pytest.fail("there is no such strength")
SIZE = (96, 128)
CENTRE = (48, 64)


def belief(found, i, size=SIZE):
    confidence = found.confidence[i]
    return np.ones(size, np.float32) if confidence is None else confidence


def with_square(radiance, top, left, light, side=24):
    square = radiance.copy()
    square[top : top + side, left : left + side] = light
    return square


def still(found):
    """Nothing has moved anywhere."""
    return all(belief(found, i).min() > 0.5 for i in range(len(found.confidence)))


# ---- what a camera does is not motion --------------------------------------------------------


@pytest.mark.parametrize("scene", [gradient(*SIZE), checker(*SIZE), texture(*SIZE)])
@pytest.mark.parametrize("curve", [SRGB_CURVE, LINEAR_CURVE, FILM_CURVE])
def test_a_static_bracket_needs_no_maps(scene, curve):
    found = motion.analyse(photograph(scene, curve=curve))
    assert found.flows == (None, None, None)
    assert found.confidence == (None, None, None)
    assert found.moved == 0


@pytest.mark.parametrize(
    ("sensor", "strength"),
    [
        (NOISY, "low"),
        (NOISY, "medium"),
        (NOISY, "high"),
        (ISO_6400, "low"),
        (ISO_6400, "medium"),
        (ISO_6400, "high"),
    ],
)
def test_noise_alone_is_not_motion(sensor, strength):
    for seed in range(2):
        bracket = photograph(texture(*SIZE, seed=seed), sensor=sensor, seed=10 * seed)
        found = motion.analyse(bracket, strength)
        assert found.moved < {"low": 0.001, "medium": 0.005, "high": 0.05}[strength]
        for i in range(3):
            assert belief(found, i).mean() > {"low": 0.99, "medium": 0.97, "high": 0.9}[strength]


@pytest.mark.parametrize("error", [-0.2, 0.2])
@pytest.mark.parametrize("which", [0, 2])
def test_a_wrong_exposure_is_not_motion(error, which):
    bracket = photograph(texture(*SIZE))
    lying = list(bracket.frames)
    lying[which] = replace(lying[which], exposure=lying[which].exposure * 2**error)
    assert still(motion.analyse(bracket.with_frames(lying)))


def test_a_tone_curve_nobody_knows_of_is_not_motion():
    bracket = photograph(texture(*SIZE, stops=4.0), (-1.0, 0.0, 1.0), curve=FILM_CURVE)
    claimed = [replace(frame, response=SRGB_CURVE.response) for frame in bracket.frames]
    found = motion.analyse(bracket.with_frames(claimed))
    assert min(belief(found, i).mean() for i in range(3)) > 0.95


def test_clipped_light_contradicts_nothing():
    """The reference is white where the scene is brighter, whatever the short frame shows there."""
    bright = with_disc(texture(*SIZE), CENTRE, 20, 40.0)
    bracket = photograph(bright, (-4.0, 0.0, 2.0))
    assert (bracket.frames[1].codes[CENTRE] == 255).all()
    assert still(motion.analyse(bracket))


def test_crushed_blacks_contradict_nothing():
    dark = with_disc(texture(*SIZE), CENTRE, 20, 2e-4)
    bracket = photograph(dark, (-4.0, 0.0, 4.0))
    assert bracket.frames[0].codes[CENTRE].max() <= 2
    assert still(motion.analyse(bracket))


@pytest.mark.parametrize("level", [0.0, 1e-4, 100.0])
def test_frames_that_say_nothing_move_nothing(level):
    """All black, or all white, in every frame."""
    found = motion.analyse(photograph(flat(*SIZE, level=level)))
    assert still(found)


# ---- what moves is found, and only there -----------------------------------------------------


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("strength", ["low", "medium", "high"])
@pytest.mark.parametrize("sensor", [NOISELESS, NOISY])
def test_a_visitor_in_one_frame_is_not_believed(which, strength, sensor):
    scene = texture(*SIZE)
    visited = with_square(scene, 30, 50, (0.3, 0.15, 0.04))  # clips in no frame
    scenes = [scene] * 3
    scenes[which] = visited
    found = motion.analyse(photograph(scenes, (-1.5, 0.0, 1.5), sensor=sensor), strength)
    seen = np.abs(np.log2(visited[34:50, 54:70] / scene[34:50, 54:70])).max(axis=2) > 1
    there = belief(found, which)[34:50, 54:70]
    assert seen.mean() > 0.5
    assert there[seen].mean() < 0.25
    far = np.ones(SIZE, bool)
    far[15:70, 35:90] = False
    assert belief(found, which)[far].min() > 0.5
    assert belief(found, 2 - which).mean() > 0.98  # the other frame is not to blame


def test_a_visitor_in_the_reference_is_what_counts():
    """The reference decides: where it differs from both others, both are left out."""
    scene = texture(*SIZE)
    scenes = [scene, with_square(scene, 30, 50, (0.02, 0.3, 0.6)), scene]
    found = motion.analyse(photograph(scenes, (-1.5, 0.0, 1.5)))
    for i in (0, 2):
        assert belief(found, i)[36:48, 56:68].mean() < 0.4


def test_flow_follows_a_thing_that_moves():
    """Where a disc has gone, either the flow brings it back or it is not believed."""
    bracket, scenes = disc_bracket((-1.0, 0.0, 1.0), step=6.0)
    found = motion.analyse(bracket)
    truth = scenes[1]
    for i in (0, 2):
        light = bracket.frames[i].linear() / np.float32(bracket.ratios[i])
        flow = found.flows[i]
        assert flow is not None
        assert flow.shape == (*SIZE, 2)
        assert flow.dtype == np.float32
        assert np.isfinite(flow).all()
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        at_y = np.clip(np.rint(y + flow[..., 1]).astype(int), 0, SIZE[0] - 1)
        at_x = np.clip(np.rint(x + flow[..., 0]).astype(int), 0, SIZE[1] - 1)
        there = light[at_y, at_x]
        unclipped = bracket.frames[i].codes[at_y, at_x].max(axis=2) < 240
        wrong = np.abs(there - truth).max(axis=2) > 0.3 * truth.max(axis=2)
        believed = belief(found, i) > 0.5
        assert np.mean(wrong & believed & unclipped) < 0.01


def expected_of(shift):
    return np.full((*SIZE, 2), shift, np.float32)


@pytest.mark.parametrize("which", [0, 2])
def test_a_flow_that_is_expected_and_fits_is_kept(which):
    scene = texture(*SIZE)
    bracket = photograph([np.roll(scene, 3, axis=1) if i == which else scene for i in range(3)])
    expected = [expected_of((3.0, 0.0)) if i == which else None for i in range(3)]
    found = motion.analyse(bracket, expected=expected)
    assert (found.flows[which] == expected[which]).all()
    assert belief(found, which)[8:-8, 8:-8].mean() > 0.98


@pytest.mark.parametrize("which", [0, 2])
def test_a_flow_that_is_expected_and_does_not_fit_is_corrected(which):
    scene = texture(*SIZE)
    bracket = photograph([np.roll(scene, 3, axis=1) if i == which else scene for i in range(3)])
    wrong = [expected_of((-2.0, 1.0)) if i == which else None for i in range(3)]
    found = motion.analyse(bracket, expected=wrong)
    flow = found.flows[which]
    assert flow is not None
    inner = flow[16:-16, 16:-16]
    assert np.median(np.abs(inner - [3.0, 0.0])) < 0.3
    assert belief(found, which)[16:-16, 16:-16].mean() > 0.8


def test_confidence_is_a_share():
    found = motion.analyse(disc_bracket()[0])
    for confidence in found.confidence:
        if confidence is not None:
            assert confidence.dtype == np.float32
            assert confidence.min() >= 0
            assert confidence.max() <= 1
    assert 0 < found.moved < 0.5


def test_a_stronger_deghosting_believes_less():
    bracket, _ = disc_bracket()
    doubt = []
    for strength in ("none", "low", "medium", "high"):
        found = motion.analyse(bracket, strength)
        doubt.append(sum(float((1 - belief(found, i)).sum()) for i in range(3)))
    assert doubt[0] == 0
    assert doubt == sorted(doubt)
    assert doubt[1] > 0


def test_none_compares_nothing():
    bracket, _ = disc_bracket()
    found = motion.analyse(bracket, "none")
    assert found.flows == found.confidence == (None, None, None)
    assert len(found.noise) == 3


def test_the_reference_is_always_believed():
    bracket, _ = disc_bracket()
    for i, frame in enumerate(bracket.frames):
        found = motion.analyse(Bracket.of(bracket.frames, frame))
        assert found.flows[i] is None
        assert found.confidence[i] is None


def test_the_order_of_the_files_changes_nothing():
    bracket, _ = disc_bracket()
    first = motion.analyse(bracket)
    second = motion.analyse(Bracket.of(bracket.frames[::-1], bracket.ref))
    for one, other in zip(
        (*first.flows, *first.confidence), (*second.flows, *second.confidence), strict=True
    ):
        assert (one is None) == (other is None)
        assert one is None or (one == other).all()


def test_analysing_twice_gives_the_same():
    bracket, _ = disc_bracket()
    for one, other in zip(
        motion.analyse(bracket).confidence, motion.analyse(bracket).confidence, strict=True
    ):
        assert (one is None) == (other is None)
        assert one is None or (one == other).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_motion_is_seen_in_any_depth(bits):
    bracket, _ = disc_bracket(bits=bits)
    assert 0.01 < motion.analyse(bracket).moved < 0.4


def test_big_pictures_are_analysed_small():
    small, scale = sights.reduced_size((4000, 6000))
    assert sights.MAX_PIXELS / 4 < small[0] * small[1] <= sights.MAX_PIXELS
    assert scale == (small[1] / 6000, small[0] / 4000)
    assert sights.reduced_size(SIZE) == (SIZE, (1.0, 1.0))


def test_what_is_transparent_is_not_believed():
    bracket = photograph(texture(*SIZE))
    known = np.ones(SIZE, bool)
    known[20:60, 30:70] = False
    holed = replace(bracket.frames[0], valid=known)
    found = motion.analyse(bracket.with_frames([holed, *bracket.frames[1:]]))
    assert belief(found, 0)[25:55, 35:65].max() < 0.1
    assert belief(found, 0)[:, 90:].min() > 0.9


def test_a_reference_that_is_black_noise_leaves_the_brighter_frames_alone():
    """Flow in noise leads anywhere: where it leads out of the picture it explains nothing."""
    scene = 0.004 * texture(*SIZE, stops=3.0)
    bracket = photograph(scene, (0.0, 2.0, 4.0), sensor=Sensor(1_500.0, read=8.0), reference=0)
    found = motion.analyse(bracket)
    for i in (1, 2):
        assert belief(found, i).mean() > 0.95
        assert belief(found, i)[:, -20:].mean() > 0.95


def test_edges_of_a_big_static_picture_are_not_motion(monkeypatch):
    """Reduced pixels mix black and white, and lamps that clip with what does not."""
    monkeypatch.setattr(sights, "MAX_PIXELS", SIZE[0] * SIZE[1])
    scene = 0.05 * texture(330, 440) + 0.4 * checker(330, 440, cell=5, low=0.0)
    scene[100:200, 100:200][checker(100, 100, cell=3)[..., 0] > 1] = 30.0
    found = motion.analyse(photograph(scene, sensor=NOISY))
    assert found.scale[0] < 0.35
    assert found.moved < 0.0005


def big(scene):
    """The same scene in pixels four times as wide."""
    return np.repeat(np.repeat(scene, 4, axis=0), 4, axis=1)


def test_a_quick_look_finds_what_moves_in_a_big_picture(monkeypatch):
    monkeypatch.setattr(sights, "MAX_PIXELS", SIZE[0] * SIZE[1])
    scene = texture(*SIZE)
    scenes = [scene, scene, with_square(scene, 30, 50, (0.3, 0.15, 0.04))]
    small = motion.analyse(photograph(scenes, (-1.5, 0.0, 1.5)))
    found = motion.analyse(photograph([big(s) for s in scenes], (-1.5, 0.0, 1.5)))
    assert found.scale == (0.25, 0.25)
    assert found.confidence[0] is None
    assert belief(found, 2)[36:48, 56:68].mean() < belief(small, 2)[36:48, 56:68].mean() + 0.1
    assert (belief(found, 2)[:, -8:] == 1).all()


def test_a_big_picture_with_a_transparent_border_is_believed_elsewhere(monkeypatch):
    monkeypatch.setattr(sights, "MAX_PIXELS", SIZE[0] * SIZE[1])
    bracket = photograph(big(texture(*SIZE)))
    known = np.ones(bracket.size, bool)
    known[:40] = False
    holed = replace(bracket.frames[0], valid=known)
    found = motion.analyse(bracket.with_frames([holed, *bracket.frames[1:]]))
    assert belief(found, 0)[:8].max() < 0.1
    assert belief(found, 0)[20:].min() == 1
    assert found.confidence[2] is None


@pytest.mark.parametrize("washed", [True, False])
def test_what_a_camera_made_white_is_taken_from_darker_frames(washed):
    """Leaves of a bright green, white in the reference: motion, if cameras were as they seem."""
    light = np.full((96, 128, 3), 0.2)
    light[24:72, 32:96] = 0.5, 1.3, 0.35
    light *= np.random.default_rng(3).uniform(0.95, 1.05, (96, 128, 1))
    frames = [
        Frame(whitened(light * 2.0**ev), exposure=2.0**ev, name=f"{ev}", washed=washed)
        for ev in (-2, -1, 0)
    ]
    bracket = Bracket.of(frames, frames[2])
    assert frames[2].codes[30:60, 40:80].min() > 180
    found = motion.analyse(bracket)
    believed = [belief(found, i)[30:60, 40:80].mean() for i in (0, 1)]
    assert (min(believed) > 0.95) if washed else (max(believed) < 0.5)
    merged = Average(Settings()).merge(bracket, found).pixels[30:60, 40:80].mean(axis=(0, 1))
    truth = light[30:60, 40:80].mean(axis=(0, 1))
    assert (np.abs(merged / truth - 1).max() < 0.05) == washed


# ---- machine code ----------------------------------------------------------------------------


def some_view(rng, size, ratio):
    light = rng.random((*size, 3), np.float32)
    clipped, dark, invalid = (rng.random(size) < 0.1 for _ in range(3))
    return sights.View(light, clipped, dark, ~invalid, ratio, 0.02)


def tolerated(guide, view, strength, noise):
    """One over the squared tolerance of each scale, by OpenCV, as motion.disagreement says."""
    level = np.maximum(cv2.GaussianBlur(guide.radiance, (0, 0), 1.0), 0)
    read, quantum = noise.read / view.ratio**2, sights.QUANTUM / view.ratio
    floored = np.maximum(level, sights.LEAST_QUANTISED / view.ratio)
    variance = noise.shot / view.ratio * level + read + quantum * floored + guide.variance
    dx, dy = (cv2.Scharr(guide.radiance, cv2.CV_32F, *o, scale=1 / 32) for o in ((1, 0), (0, 1)))
    edges = cv2.GaussianBlur(dx * dx + dy * dy, (0, 0), 1.0)
    steady = (strength.relative * level + strength.floor) ** 2
    steady += motion.MISREGISTRATION**2 * edges
    return [1 / (steady + 9 * motion.averaged(s) * variance) for s in motion.SCALES]


def one_sided(guide, view):
    radiance = view.light / view.ratio
    found = radiance - guide.radiance
    largest = radiance.max(axis=2, keepdims=True)
    white = np.maximum(guide.radiance.max(axis=2, keepdims=True), motion_kernels.LEAST)
    reached = np.clip(4 * largest / white - 3, 0, 1)
    bounded = radiance - (1 - reached * (1 - guide.least)) * guide.radiance
    found = np.where(guide.clipped[..., None], np.minimum(bounded, 0), found)
    found = np.where(view.clipped[..., None], np.maximum(found, 0), found)
    found = np.where(guide.dark[..., None], np.maximum(radiance - guide.floor, 0), found)
    low = np.minimum(view.floor / view.ratio - guide.radiance, 0)
    found = np.where(view.dark[..., None], low, found)
    found[(guide.dark & view.dark) | ~view.valid] = 0
    return found.astype(np.float32)


@pytest.mark.parametrize("size", [(40, 57), (9, 33), (3, 2), (1, 1)])
@pytest.mark.parametrize(("ratio", "least"), [(0.25, 1.0), (4.0, 1.0), (0.5, 0.3)])
def test_disagreement_is_what_it_says(rng, size, ratio, least):
    noise, strength = sights.Noise(), MEDIUM
    guide = motion.Guide.of(replace(some_view(rng, size, 1.0), least=least), noise)
    view = some_view(rng, size, ratio)
    worst = np.zeros(size)
    for sigma, inverse in zip(motion.SCALES, tolerated(guide, view, strength, noise), strict=True):
        smooth = cv2.GaussianBlur(one_sided(guide, view), (0, 0), sigma).reshape(*size, 3)
        worst = np.maximum(worst, (smooth**2 * inverse.reshape(*size, 3)).sum(axis=2))
    found = motion.disagreement(guide, view, strength, noise)
    assert found == pytest.approx(np.sqrt(worst), rel=2e-3, abs=1e-4)


def test_disagreement_does_not_depend_on_how_a_picture_is_cut(rng, monkeypatch):
    noise, strength = sights.Noise(), MEDIUM
    guide = motion.Guide.of(some_view(rng, (70, 40), 1.0), noise)
    view = some_view(rng, (70, 40), 0.5)
    whole = motion.disagreement(guide, view, strength, noise)
    monkeypatch.setattr(motion, "FEW_PIXELS", 0)
    for rows in (1, 3, 64, 69):
        monkeypatch.setattr(motion, "BAND_ROWS", rows)
        assert (motion.disagreement(guide, view, strength, noise) == whole).all()


@pytest.mark.parametrize("size", [(64, 96), (71, 103)])
def test_means_of_tiles_are_those_of_their_area(rng, size):
    fine, light = rng.normal(0.4, 0.1, (2, *size)).astype(np.float32)
    clipped = (rng.random(size) > 0.99).astype(np.uint8)
    means, room = np.empty((8, 12, 3), np.float32), np.empty((3, size[1]), np.float32)
    motion_kernels.means_of_tiles(fine, light, clipped, room, means, size[0], size[1], 8, 12)
    for mean, plane in zip(np.moveaxis(means, 2, 0), (fine**2, light, clipped), strict=True):
        area = cv2.resize(plane.astype(np.float32), (12, 8), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(mean, area, atol=1e-6)
        assert ((mean == 0) == (area == 0)).all()


@pytest.mark.parametrize("side", [4, 6, 8])
def test_a_glimpse_is_half_of_a_look(rng, side):
    large = rng.normal(128, 100, (*SIZE, 1)).repeat(side, axis=0).repeat(side, axis=1)
    codes = large + rng.normal(0, 20, (*large.shape[:2], 3))
    sight = sights.Sight(Frame(np.clip(codes, 0, 255).astype(np.uint8)), 2.0, SIZE)
    small, box = sight.small, np.s_[10:60, 30:200]
    part = sight.part(box)
    assert "full" not in sight.__dict__
    for one, other in ((small, sight.full.halved()), (part, sight.full.part(box))):
        assert one.light == pytest.approx(other.light, abs=1e-6)
        assert all((getattr(one, m) == getattr(other, m)).all() for m in ("clipped", "dark"))
    assert 0 < small.clipped.mean() < 1
    assert 0 < small.dark.mean() < 1


def test_light_is_a_guess_where_only_flow_carries_it_and_the_guide_clips(rng):
    guide = motion.Guide.of(some_view(rng, SIZE, 1.0), sights.Noise())
    everywhere = np.ones(SIZE, np.bool_)
    flow, still = np.full((*SIZE, 2), 3.0, np.float32), np.full(SIZE, 9.0, np.float32)

    def carried(clipped, flow, still):
        return motion.carried(replace(guide, clipped=clipped), flow, still, MEDIUM)

    np.testing.assert_allclose(carried(everywhere, flow, still), 1, rtol=1e-6)
    for other in (
        carried(~everywhere, flow, still),
        carried(everywhere, flow / 3, still),
        carried(everywhere, flow, 0 * still),
    ):
        assert not other.any()
    half = everywhere.copy()
    half[:, :64] = False
    found = carried(half, flow, still)
    assert not found[:, :64].any()
    assert found[:, 68:].min() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("hidden", [0, 77, 255])
def test_what_is_transparent_in_the_reference_is_merged_from_the_others(hidden):
    truth = texture(*SIZE, seed=3)
    bracket = photograph(truth, (-2, 0, 2))
    codes, known = bracket.ref.codes.copy(), np.ones(SIZE, bool)
    known[:, : SIZE[1] // 2] = False
    codes[~known] = hidden
    frames = list(bracket.frames)
    frames[bracket.reference] = replace(bracket.ref, codes=codes, valid=known)
    holed = bracket.with_frames(frames)
    found = motion.analyse(holed, "medium")
    assert found.moved < 0.001
    image = Average(Settings()).merge(holed, found)
    np.testing.assert_allclose(image.pixels, truth, rtol=0.1)
