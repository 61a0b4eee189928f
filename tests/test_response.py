"""Response curves: recovered ones against cameras whose curve is known, files, and choices."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli.color import srgb_encode
from hdrcli.errors import BracketError, FormatError, InputError
from hdrcli.frames import LINEAR, SRGB, Bracket, Frame, Response, sampled
from hdrcli.response import (
    METHODS,
    apply_response,
    classic,
    highlights,
    known,
    load,
    recover_response,
    save,
)
from hdrcli.response.samples import Sampling, take
from tests.scenes import (
    FILM_CURVE,
    GAMMA_CURVE,
    LINEAR_CURVE,
    NOISELESS,
    NOISY,
    SRGB_CURVE,
    Curve,
    moved,
    photograph,
    shake,
    texture,
    whitened,
    with_disc,
)

SIZE = (192, 256)
EXPOSED = slice(20, 248)  # codes at which two frames of the test bracket see the same points
CURVES = {"sRGB": SRGB_CURVE, "gamma": GAMMA_CURVE, "film": FILM_CURVE, "linear": LINEAR_CURVE}


@cache
def scene(seed: int = 0, stops: float = 9.0):
    return texture(*SIZE, seed=seed, stops=stops)


def claiming(bracket: Bracket, response: Response = SRGB) -> Bracket:
    """The same codes, said to be sRGB."""
    return bracket.with_frames(replace(f, response=response) for f in bracket.frames)


def error_ev(response: Response, curve: Curve) -> np.ndarray:
    """How far a curve lies from the true one in EV, up to one factor, over exposed codes."""
    found, true = (r.table(256).mean(axis=1)[EXPOSED] for r in (response, curve.response))
    error = np.log2(found / true)
    return np.asarray(error - np.median(error))


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


# ---- recovery --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gamma", "film", "linear"])
def test_an_unknown_curve_is_recovered(name):
    curve = CURVES[name]
    bracket = claiming(photograph(scene(), curve=curve, sensor=NOISY))
    fit = recover_response(bracket.frames)
    assert fit.method == "recovered"
    assert rms(error_ev(fit.response, curve)) < 0.03
    assert rms(error_ev(SRGB, curve)) > 3 * rms(error_ev(fit.response, curve))
    assert fit.residual < 0.4 * fit.before


@pytest.mark.parametrize("seed", range(3))
def test_a_true_claim_is_kept_exactly(seed):
    bracket = photograph(scene(seed), sensor=NOISY, seed=seed)
    changed, fit = apply_response(bracket)
    assert fit.response is SRGB
    assert fit.method == "prior"
    assert all(a is b for a, b in zip(changed.frames, bracket.frames, strict=True))


@pytest.mark.parametrize(("evs", "bits"), [((0.0, 2.0), 8), ((-2, -1, 0, 1, 2), 8), ((-2, 1), 16)])
def test_any_number_of_frames_and_both_depths(evs, bits):
    bracket = claiming(photograph(scene(), evs, curve=FILM_CURVE, sensor=NOISY, bits=bits))
    fit = recover_response(bracket.frames)
    assert fit.method == "recovered"
    assert rms(error_ev(fit.response, FILM_CURVE)) < 0.04


def test_people_who_walk_do_not_bend_the_curve():
    scenes = [
        with_disc(scene(), (120, 70 + 90 * i), 55, (0.5 + 0.1 * i, 0.2, 0.1)) for i in range(3)
    ]
    bracket = claiming(photograph(scenes, curve=FILM_CURVE, sensor=NOISY))
    fit = recover_response(bracket.frames)
    assert rms(error_ev(fit.response, FILM_CURVE)) < 0.05


def test_a_hand_that_shakes_does_not_bend_the_curve():
    big = scene()
    scenes = [moved(big, shake(9.0 * i, -7.0 * i, 0.2 * i, SIZE)) for i in range(3)]
    bracket = claiming(photograph(scenes, curve=FILM_CURVE, sensor=NOISY))
    assert rms(error_ev(recover_response(bracket.frames).response, FILM_CURVE)) < 0.05
    honest = photograph(scenes, sensor=NOISY)
    assert recover_response(honest.frames).response is SRGB


def test_frames_that_are_aligned_are_sampled_through_their_warp():
    hand = shake(11.0, -6.0, 0.0, SIZE)
    bracket = photograph([scene(), moved(scene(), hand)], (0.0, 1.0))
    warp = np.linalg.inv(hand)
    warped = [replace(bracket.frames[0], warp=np.eye(3)), replace(bracket.frames[1], warp=warp)]
    samples = take(warped)
    both = np.all([frame.usable for frame in samples.frames], axis=0)
    steps = np.log2(np.maximum(SRGB.table(256)[:, 0], 1e-9))
    codes = np.rint(samples.codes * 255).astype(int)
    step = (steps[codes[1]] - steps[codes[0]])[both & (samples.codes[0] > 0.2)]
    assert np.median(np.abs(step - 1)) < 0.05


def test_the_order_of_the_frames_changes_nothing():
    bracket = claiming(photograph(scene(), curve=FILM_CURVE, sensor=NOISY))
    there = recover_response(bracket.frames).response.samples
    back = recover_response(bracket.frames[::-1]).response.samples
    assert np.abs(there - back).max() < 0.01


def test_the_same_frames_give_the_same_curve_bit_for_bit():
    bracket = claiming(photograph(scene(), curve=FILM_CURVE, sensor=NOISY))
    first, second = (recover_response(bracket.frames).response.samples for _ in range(2))
    assert (first == second).all()


@settings(max_examples=8)
@given(
    seed=st.integers(0, 50),
    strength=st.floats(-0.5, 0.9),
    step=st.floats(0.7, 3.0),
    noise=st.booleans(),
)
def test_every_recovered_curve_rises_from_black_to_white(seed, strength, step, noise):
    def encode(light):
        code = SRGB_CURVE.encode(light)
        return code + strength * (3 * code**2 - 2 * code**3 - code)

    curve = Curve(encode, SRGB)
    sensor = NOISY if noise else NOISELESS
    bracket = photograph(texture(96, 128, seed), (-step, 0.0, step), curve=curve, sensor=sensor)
    samples = recover_response(bracket.frames, method="auto").response.samples
    assert (np.diff(samples, axis=0) >= 0).all()
    assert (samples[0] == 0).all()
    assert (samples[-1] == 1).all()
    assert (samples[:, 0] == samples[:, 2]).all()  # grey stays grey


# ---- where the bracket does not support a recovery -------------------------------------------


def test_one_exposure_keeps_the_claim():
    bracket = photograph(scene(), (0.0, 0.0, 0.0), curve=FILM_CURVE, sensor=NOISY)
    fit = recover_response(claiming(bracket).frames)
    assert (fit.method, fit.response) == ("prior", SRGB)
    assert "one exposure" in fit.why


def test_frames_of_different_scenes_keep_the_claim():
    frames = [photograph(scene(i), (0.0, 2.0)).frames[i] for i in range(2)]
    fit = recover_response(frames)
    assert fit.response is SRGB
    assert fit.confidence < 0.5


def test_one_frame_of_another_scene_does_not_spoil_the_curve():
    frames = [*photograph(scene(), (-1.0, 1.0), curve=FILM_CURVE, sensor=NOISY).frames]
    frames += photograph(scene(5), (0.0, 4.0), curve=FILM_CURVE, sensor=NOISY).frames[:1]
    fit = recover_response([replace(frame, response=SRGB) for frame in frames])
    assert fit.method == "recovered"
    assert rms(error_ev(fit.response, FILM_CURVE)) < 0.05


def test_frames_without_a_common_exposed_point_keep_the_claim():
    grey = np.full((64, 64, 3), 0.2, np.float32)
    fit = recover_response(photograph(grey, (-5.0, 5.0), curve=FILM_CURVE).frames)
    assert fit.response is FILM_CURVE.response
    assert fit.confidence == 0


def test_float_frames_are_linear():
    light = scene()
    frames = [Frame(light * np.float32(e), LINEAR, exposure=e, bits=32) for e in (1.0, 4.0)]
    bracket, fit = apply_response(Bracket.of(frames), "srgb")
    assert fit.method == "linear"
    assert all(frame.response is LINEAR for frame in bracket.frames)


def test_frames_of_different_profiles_keep_theirs():
    bracket = photograph(scene(), curve=FILM_CURVE)
    mixed = [bracket.frames[0], *(replace(f, response=SRGB) for f in bracket.frames[1:])]
    changed, fit = apply_response(bracket.with_frames(mixed))
    assert fit.method == "prior"
    assert changed.frames[0].response is FILM_CURVE.response


def test_a_method_named_outright_says_why_it_cannot():
    bracket = photograph(scene(), (0.0, 0.0))
    with pytest.raises(BracketError, match="debevec: all frames have one exposure") as caught:
        apply_response(bracket, "debevec")
    assert "--response" in str(caught.value.hint)


# ---- the classical methods -------------------------------------------------------------------


SLOW = pytest.param("robertson", marks=pytest.mark.slow)


@pytest.mark.parametrize("method", ["spline", "debevec", SLOW, "mitsunaga"])
@pytest.mark.parametrize("name", ["film", "sRGB"])
def test_the_methods_agree_with_the_truth(method, name):
    evs = (-2.0, -1.0, 0.0, 1.0, 2.0)
    scenes = [with_disc(scene(), (90, 40 + 40 * i), 35, 0.6) for i in range(5)]
    bracket = claiming(photograph(scenes, evs, curve=CURVES[name], sensor=NOISY))
    changed, fit = apply_response(bracket, method)
    assert fit.method == method
    assert changed.frames[0].response is fit.response
    assert rms(error_ev(fit.response, CURVES[name])) < 0.07


def test_every_method_is_named():
    assert set(METHODS) == {"auto", "spline", "debevec", "robertson", "mitsunaga"}


@settings(max_examples=30)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_pooling_gives_the_nearest_rising_sequence(values):
    found = classic.rising(np.array(values))
    assert (np.diff(found) >= -1e-9).all()
    assert found.sum() == pytest.approx(sum(values), abs=1e-6)
    assert classic.rising(np.sort(values)) == pytest.approx(np.sort(values))


# ---- known curves and files ------------------------------------------------------------------


def test_known_names():
    assert known("sRGB") is SRGB
    assert known("linear") is LINEAR
    assert known("nonsense") is None
    assert known("gammaray") is None
    for name in ("gamma", "gamma2.2", "gamma:2.2", "gamma=2.2"):
        response = known(name)
        assert response is not None
        assert response.table(256)[128, 0] == pytest.approx((128 / 255) ** 2.2, abs=1e-4)
    with pytest.raises(InputError, match="between"):
        known("gamma99")


def test_a_named_curve_is_given_to_every_frame():
    bracket, fit = apply_response(photograph(scene()), "gamma1.8")
    assert fit.method == "gamma 1.8"
    assert all(frame.response is fit.response for frame in bracket.frames)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match="nonsense") as caught:
        apply_response(photograph(scene()), "nonsense")
    assert "srgb" in str(caught.value.hint)


def test_a_saved_curve_reads_back(tmp_path):
    curve = FILM_CURVE.response
    save(tmp_path / "film.csv", curve, codes=256)
    back = load(tmp_path / "film.csv")
    assert np.abs(back.samples - curve.table(256)).max() < 1e-6
    bracket, fit = apply_response(photograph(scene()), str(tmp_path / "film.csv"))
    assert fit.response.name == "film.csv"
    assert bracket.frames[0].linear()[0, 0] == pytest.approx(
        back.table(256)[bracket.frames[0].codes[0, 0], [0, 1, 2]]
    )
    with pytest.raises(InputError, match=r"\.csv"):
        save(tmp_path / "film.m", curve)


GREY = np.linspace(0, 1, 256) ** 2.2


def _pfstools() -> str:
    head = "# Camera response curve, channel {0}\n# data layout: log10(response) | camera output "
    head += "| response\n# name: {0}\n# type: matrix\n# rows: 256\n# columns: 3\n"
    logs = np.log10(np.maximum(GREY, 1e-6))
    lines = zip(logs, range(256), GREY, strict=True)
    rows = "".join(f" {log:.9f} {code} {light:.9f}\n" for log, code, light in lines)
    return "\n".join(head.format(name) + rows for name in ("IR", "IG", "IB"))


def test_pfstools_curves(tmp_path):
    (tmp_path / "camera.m").write_text(_pfstools())
    assert load(tmp_path / "camera.m").samples[:, 1] == pytest.approx(GREY, abs=1e-6)


def test_hdrgen_polynomials(tmp_path):
    (tmp_path / "camera.rsp").write_text("3 0.5 0.3 0.2 0.0\n" * 3)
    x = np.linspace(0, 1, 11)
    table = load(tmp_path / "camera.rsp").table(11)
    assert table[:, 2] == pytest.approx(0.5 * x**3 + 0.3 * x**2 + 0.2 * x, abs=1e-3)


def test_opencv_arrays_are_blue_first(tmp_path):
    curve = np.stack([GREY, GREY**1.1, GREY**1.2], axis=1)[:, None, :].astype(np.float32)
    np.save(tmp_path / "cv.npy", curve * 7)
    np.save(tmp_path / "plain.npy", curve[:, 0])
    assert load(tmp_path / "cv.npy").samples[:, 2] == pytest.approx(GREY, abs=1e-5)
    assert load(tmp_path / "plain.npy").samples[:, 0] == pytest.approx(GREY, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.csv", "a name\nno, numbers, at, all\n"),
        ("empty.csv", ""),
        ("two.csv", "name\n0,0,0\n1,1,1\n"),
        ("falls.csv", "name\n0,0,0,0\n0.5,1,1,1\n1,0.4,0.4,0.4\n"),
        ("nan.csv", "name\n0,0,0,0\n1,nan,1,1\n"),
        ("black.csv", "name\n0,0,0,0\n1,0,0,0\n"),
        ("short.m", "# name: IR\n 1 2\n"),
        ("headless.m", " 1 2 3\n"),
        ("one.rsp", "3 0.5 0.3 0.2 0.0\n"),
        ("bad.rsp", "9 1 2\n9 1 2\n9 1 2\n"),
        ("text.npy", "this is not an array"),
    ],
)
def test_a_file_that_holds_no_curve_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(FormatError, match=name):
        load(tmp_path / name)


def test_a_pickle_is_not_loaded(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"evil\.npy"):
        load(tmp_path / "evil.npy")


def test_missing_files_and_unknown_kinds(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="not a kind") as caught:
        load(tmp_path / "curve.xyz")
    assert ".rsp" in str(caught.value.hint)


# ---- sampling --------------------------------------------------------------------------------


@pytest.mark.parametrize("whitens", [True, False])
def test_a_camera_is_known_by_the_white_it_makes_of_colours(rng, whitens):
    light = np.repeat(np.repeat(rng.uniform(0.02, 1.5, (60, 80, 3)), 8, axis=0), 8, axis=1)
    frames = [
        Frame(whitened(light * 2.0**ev) if whitens else plain(light * 2.0**ev), exposure=2.0**ev)
        for ev in (-2, -1, 0)
    ]
    bracket = Bracket.of(frames)
    samples = take(bracket.frames)
    assert highlights.washes(samples, bracket.evs, SRGB) == whitens
    told, fit = apply_response(bracket, "srgb", samples=samples)
    assert [frame.washed for frame in told.frames] == [whitens] * 3
    assert ("whiter" in fit.why) == whitens
    assert not highlights.washes(samples.of([0]), bracket.evs[:1], SRGB)


def plain(light):
    """Codes of what clips alone, (h, w, 3) uint8."""
    return np.rint(255 * srgb_encode(np.clip(light, 0, 1))).astype(np.uint8)


def test_shifts_are_found_across_exposures():
    big = texture(320, 480, stops=7)
    scenes = [moved(big, shake(14.0 * i, -8.0 * i, 0.0, big.shape[:2])) for i in range(3)]
    found = take(photograph(scenes, sensor=NOISY).frames).shifts
    assert found[0] == pytest.approx([0, 0])
    assert np.abs(found[1:]) == pytest.approx(np.array([[14, 8], [28, 16]]), abs=3)


@pytest.mark.parametrize("size", [(217, 326), (225, 375), (240, 360)])
def test_shifts_are_no_larger_on_odd_sizes(rng, size):
    picture = cv2.GaussianBlur(rng.random((300, 450)), (0, 0), 2)
    codes = np.rint(255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)
    codes = np.repeat(codes[..., None], 3, axis=2)
    cuts = [(0, 0), (0, 0), (3, -2), (-4, 5)]
    frames = [
        Frame(np.ascontiguousarray(codes[20 + y :, 20 + x :][: size[0], : size[1]]))
        for x, y in cuts
    ]
    found = take(frames).shifts
    assert (found[1] == 0).all(), "what is the same lies still"
    assert np.abs(found + cuts).max() < 0.3


def test_frames_that_share_nothing_are_not_shifted():
    frames = [photograph(scene(i), (0.0, 2.0)).frames[i] for i in range(2)]
    assert (take(frames).shifts == 0).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_frames_still_being_read_are_sampled_as_those_that_are_there(kind):
    scenes = [moved(scene(), shake(5.0 * i, -3.0 * i, 0.0, SIZE)) for i in range(4)]
    shots = photograph(scenes, (-2.0, 0.0, 1.0, 2.0), sensor=NOISY).frames
    frames = [replace(frame, codes=frame.codes.astype(kind)) for frame in shots]
    there = take(frames)
    for threads in (1, 2, 5):
        with ThreadPoolExecutor(threads) as pool:
            reading = [pool.submit(slowly, frame) for frame in frames]
            samples = Sampling(pool, reading).samples()
        assert (samples.shifts == there.shifts).all()
        for own, other in zip(samples.frames, there.frames, strict=True):
            assert (own.codes == other.codes).all()
            assert (own.usable == other.usable).all()


def slowly(frame: Frame) -> Frame:
    time.sleep(0.002)
    return frame


def ending_at(white: int, bracket: Bracket) -> Bracket:
    """The same developed with whites turned down: nothing has a code above ``white``."""
    frames = [replace(f, codes=np.minimum(f.codes, white)) for f in bracket.frames]
    return bracket.with_frames(frames)


@pytest.mark.parametrize("white", [215, 240, 251])
@pytest.mark.parametrize("noise", [NOISELESS, NOISY])
def test_the_code_of_white_is_found(white, noise):
    bright = with_disc(scene(), (96, 128), 60, 30.0)
    bracket = ending_at(white, photograph(bright, (-4, -2, 0, 1), sensor=noise))
    samples = take(bracket.frames[::-1])
    assert abs(255 * samples.white - white) < 1
    for blocks in samples.frames:
        assert blocks.codes[blocks.usable].max() < (white - 4) / 255
        assert blocks.usable.mean() > 0.1


def test_the_code_of_white_is_the_last_one_elsewhere():
    bright = with_disc(scene(), (96, 128), 60, 30.0)
    exposed = photograph(bright, (-4, -2, 0, 1))
    wall = photograph(np.minimum(bright, np.float32(0.8)), (0.0, 0.001, 0.002), sensor=NOISY)
    compressed = ending_at(254, exposed)
    lamp = photograph(with_disc(scene(), (96, 128), 60, 0.95), (-4, -2, 0))
    beside = np.arange(SIZE[1])[:, None] < 20
    bordered = lamp.with_frames(
        replace(f, codes=np.where(beside, np.uint8(230), f.codes)) for f in lamp.frames
    )
    for bracket in (exposed, wall, compressed, bordered, exposed.with_frames(exposed.frames[:1])):
        assert take(bracket.frames).white == 1
    floats = [replace(f, codes=f.linear() * np.float32(0.8), bits=32) for f in exposed.frames]
    assert take(floats).white == 1


def test_clipped_and_masked_points_are_not_usable():
    frame = photograph(scene(), (0.0, 2.0)).frames[1]
    samples = take([replace(frame, valid=np.zeros(frame.size, bool)), frame])
    hidden, shown = samples.frames
    assert not hidden.usable.any()
    assert shown.usable.any()
    assert (shown.codes[shown.usable] < 250 / 255).all()


def test_tiny_frames_are_sampled():
    curve = sampled("gamma 2.2", lambda code: code**2.2)
    for size in ((1, 1), (3, 5), (7, 40)):
        light = np.full((*size, 3), 0.2, np.float32)
        frames = photograph(light, (0.0, 1.0)).frames
        fit = recover_response([replace(f, response=curve) for f in frames])
        assert fit.response is curve
