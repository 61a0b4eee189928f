"""Tone mapping: the laws every operator obeys, then what the default owes a photographer."""

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli.color import ACES_AP0, REC709, REC2020, convert, srgb_decode
from hdrcli.errors import InputError
from hdrcli.frames import Radiance
from hdrcli.tonemap import (
    OPERATORS,
    analyse,
    apply,
    blend,
    described,
    tonemap,
    tonemap_codes,
)
from hdrcli.tonemap.curves import REC709_LUMINANCE
from hdrcli.tonemap.local import bilateral, gain_map, local_laplacian
from hdrcli.tonemap.render import into_gamut
from hdrcli.tonemap.scene import cleaned, measured

ALL = tuple(OPERATORS)
GLOBAL = tuple(name for name, op in OPERATORS.items() if op.adapt is None)
LOCAL = tuple(name for name, op in OPERATORS.items() if op.adapt is not None)
EXPOSING = tuple(name for name, op in OPERATORS.items() if op.exposes)
SHARED = Path(__file__).parents[1].parent / "shared"


def room(height=200, width=300):
    """A wall with texture and a bright window behind a dark frame, 10 stops, in colour."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width] / height
    light = 0.08 * (1 + 0.5 * y) * np.exp(0.15 * rng.standard_normal((height, width)))
    a, b = slice(height // 5, 3 * height // 5), slice(width // 2, 4 * width // 5)
    light[a, b] = 0.004
    inner = slice(a.start + 8, a.stop - 8), slice(b.start + 8, b.stop - 8)
    light[inner] = 6 * (1 + 0.3 * np.sin(40 * x[inner]))
    tint = np.stack([1 + 0.2 * np.sin(9 * x), np.ones_like(x), 1 + 0.2 * np.cos(7 * y)], axis=-1)
    return (light[..., None] * tint).astype(np.float32)


@pytest.fixture(scope="module")
def scene():
    return Radiance(room())


def codes(radiance, operator, threads=1, **params):
    plan = analyse(radiance, operator, params, threads=threads)
    return tonemap_codes(radiance, plan, threads)


def largest_change(a, b):
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# --- laws of every operator -------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_result_is_finite_and_between_0_and_1(scene, name):
    shown = tonemap(scene, name, threads=1)
    assert np.isfinite(shown.pixels).all()
    assert 0 <= shown.pixels.min() < shown.pixels.max() <= 1
    assert shown.primaries == REC709
    assert shown.info["operator"] == name


@pytest.mark.parametrize("name", GLOBAL)
def test_global_operators_are_monotone(name):
    ramp = np.geomspace(1e-4, 64, 3000, dtype=np.float32)
    grey = Radiance(np.repeat(ramp[None, :, None], 3, axis=2))
    shown = codes(grey, name)[0, :, 1].astype(int)
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] > 200 > 50 > shown[0]


@pytest.mark.parametrize("name", EXPOSING)
@pytest.mark.parametrize("factor", [1 / 256, 3.7, 1000.0])
def test_every_multiple_of_the_radiance_gives_the_same_picture(scene, name, factor):
    scaled = Radiance(scene.pixels * np.float32(factor))
    assert largest_change(codes(scene, name), codes(scaled, name)) <= 1


@pytest.mark.parametrize("name", sorted(set(ALL) - set(EXPOSING)))
def test_operators_that_do_not_expose_show_white_at_1(name):
    white = Radiance(np.full((4, 4, 3), 1.0, np.float32))
    assert (codes(white, name) == 255).all()
    assert (codes(Radiance(white.pixels / 4), name) < 255).all()
    assert (codes(Radiance(white.pixels / 4), name, exposure=2.0) == 255).all()


@pytest.mark.parametrize("name", ALL)
def test_strips_equal_the_whole_bit_for_bit(scene, name):
    plan = analyse(scene, name, threads=1)
    whole = tonemap_codes(scene, plan, 1)
    size = whole.shape[:2]
    for step in (1, 7, 64):
        parts = [
            apply(plan, scene.pixels[y : y + step], slice(y, min(y + step, size[0])), size)
            for y in range(0, size[0], step)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(tonemap_codes(scene, plan, 3), whole)


@pytest.mark.parametrize("name", ALL)
def test_strips_of_an_odd_width_equal_the_whole_in_every_bit_of_a_float(name):
    """The ends of vectorised loops round differently: in 16 bits and floats it would show."""
    odd = Radiance(room(37, 301))
    plan = analyse(odd, name, threads=1)
    whole = tonemap_codes(odd, plan, 1, dtype="float32")
    for step in (1, 3, 5):
        parts = [
            apply(
                plan,
                odd.pixels[y : y + step],
                slice(y, min(y + step, 37)),
                (37, 301),
                dtype="float32",
            )
            for y in range(0, 37, step)
        ]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_strips_of_half_floats_equal_the_whole(dtype):
    half = Radiance(room(31, 1301).astype(np.float16))
    plan, size = analyse(half, threads=1), (31, 1301)
    whole = tonemap_codes(half, plan, 2, dtype=dtype)
    for step in (1, 5):
        cuts = [slice(y, min(y + step, 31)) for y in range(0, 31, step)]
        parts = [apply(plan, half.pixels[cut], cut, size, dtype=dtype) for cut in cuts]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("width", [1, 2, 63, 65, 301])
def test_odd_widths_show_each_pixel_alike(width):
    pixels = np.full((5, width, 3), [0.3, 0.2, 0.1], np.float32)
    shown = codes(Radiance(pixels), "photo")
    assert (shown == shown[0, 0]).all()


@pytest.mark.parametrize("name", ALL)
def test_half_the_size_gives_half_the_picture(name):
    big = Radiance(cv2.GaussianBlur(room(640, 960), (0, 0), 3))
    half = Radiance(cv2.resize(big.pixels, (480, 320), interpolation=cv2.INTER_AREA))
    small = cv2.resize(codes(big, name), (480, 320), interpolation=cv2.INTER_AREA)
    change = np.abs(small.astype(int) - codes(half, name).astype(int))
    assert change.mean() < 0.8
    assert np.percentile(change, 99) <= 4


@pytest.mark.parametrize("name", ALL)
def test_black_stays_black(scene, name):
    pixels = scene.pixels.copy()
    pixels[:20] = 0
    assert codes(Radiance(pixels), name)[:18].max() == 0
    assert codes(Radiance(np.zeros((9, 9, 3), np.float32)), name).max() == 0


@pytest.mark.parametrize("name", ALL)
def test_neutral_stays_neutral(scene, name):
    grey = np.repeat(scene.pixels[..., 1:2], 3, axis=2)
    shown = codes(Radiance(grey), name).astype(int)
    assert np.ptp(shown, axis=2).max() <= 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -5.0])
def test_a_bad_pixel_does_not_spread(scene, name, bad, caplog):
    broken = scene.pixels.copy()
    broken[100, 40] = bad
    with caplog.at_level(logging.WARNING):
        shown = codes(Radiance(broken), name)
    assert "3 numbers of the radiance were NaN, infinite or negative" in caplog.text
    change = np.abs(shown.astype(int) - codes(scene, name).astype(int)).max(axis=2)
    change[92:109, 32:49] = 0
    assert change.max() <= 2
    assert (shown[100, 40] == (255 if bad == np.inf else 0)).all()


@pytest.mark.parametrize("name", EXPOSING)
def test_one_lamp_does_not_darken_the_room(scene, name):
    lit = scene.pixels.copy()
    lit[100, 40] = 1e5
    change = np.abs(codes(Radiance(lit), name).astype(int) - codes(scene, name).astype(int))
    change[90:111, 30:51] = 0
    assert change.max() <= 3


@pytest.mark.parametrize("name", ALL)
def test_half_floats_show_the_same(scene, name):
    half = Radiance(scene.pixels.astype(np.float16))
    assert largest_change(codes(scene, name), codes(half, name)) <= 1


@pytest.mark.parametrize("name", ALL)
def test_finer_codes_agree_with_8_bits(scene, name):
    plan = analyse(scene, name, threads=1)
    eight, sixteen, real = (
        tonemap_codes(scene, plan, 1, dtype=kind).astype(np.float64)
        for kind in ("uint8", "uint16", "float32")
    )
    assert np.abs(sixteen / 257 - eight).max() <= 0.51
    assert np.abs(real * 255 - eight).max() <= 0.51


@pytest.mark.parametrize("name", ALL)
def test_exposure_brightens(scene, name):
    dark, plain, bright = (codes(scene, name, exposure=e).mean() for e in (-1.0, 0.0, 1.0))
    assert dark < plain < bright


@pytest.mark.parametrize("name", ALL)
def test_without_saturation_all_is_grey(scene, name):
    assert np.ptp(codes(scene, name, saturation=0.0).astype(int), axis=2).max() <= 1


@settings(max_examples=30)
@given(ev=st.floats(-30, 30), spread=st.floats(0, 12))
def test_any_brightness_and_range_can_be_shown(ev, spread):
    stops = ev + np.linspace(-spread, spread, 48, dtype=np.float32)
    pixels = np.repeat(np.exp2(stops).reshape(6, 8, 1), 3, axis=2)
    shown = tonemap(Radiance(pixels), threads=1).pixels
    assert np.isfinite(shown).all()
    assert (np.diff(shown[:, :, 1].ravel()) >= -0.05).all()


# --- plans ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_blend_goes_from_one_plan_to_the_other(scene, name):
    first = analyse(scene, name, threads=1)
    other = analyse(Radiance(scene.pixels[:, ::-1] * np.float32(3)), name, threads=1)
    assert np.array_equal(tonemap_codes(scene, blend(first, other, 0.0), 1), codes(scene, name))
    middle = blend(first, other, 0.5)
    for key, value in middle.numbers.items():
        assert value == pytest.approx((first.numbers[key] + other.numbers[key]) / 2)
    assert blend(first, other, 1.0).numbers == other.numbers


def test_a_plan_of_the_reduced_picture_serves_the_full_one():
    big = Radiance(cv2.GaussianBlur(room(800, 1200), (0, 0), 2))
    small = Radiance(cv2.resize(big.pixels, (300, 200), interpolation=cv2.INTER_AREA))
    plan = analyse(small, threads=1)
    change = np.abs(tonemap_codes(big, plan, 1).astype(int) - codes(big, "photo").astype(int))
    assert change.mean() < 4


def test_size_reduces_the_longer_side(scene):
    assert tonemap(scene, size=150, threads=1).pixels.shape == (100, 150, 3)
    assert tonemap(scene, size=3000, threads=1).pixels.shape == (200, 300, 3)


# --- colour -----------------------------------------------------------------------------------


@pytest.mark.parametrize("primaries", [REC2020, ACES_AP0], ids=lambda p: p.name)
def test_other_primaries_show_the_same_colours(scene, primaries):
    wide = Radiance(convert(scene.pixels, REC709, primaries), primaries)
    assert largest_change(codes(scene, "photo"), codes(wide, "photo")) <= 1


def test_colours_out_of_gamut_keep_light_and_order():
    reds = np.stack([np.full(9, 0.5), np.linspace(0.02, 0.2, 9), np.full(9, 0.02)], axis=-1)
    light = convert(reds.astype(np.float32)[None], REC2020, REC709)
    assert light.min() < 0
    inside = into_gamut(light.copy())
    assert inside.min() >= 0
    assert inside @ REC709_LUMINANCE == pytest.approx(light @ REC709_LUMINANCE, rel=1e-5)
    assert (np.diff(inside[0, :, 1]) > 0).all()


def test_bright_lights_become_white_not_magenta():
    """A lamp clipped in green, as raw files have it, must not stay magenta."""
    pixels = room()
    pixels[5:30, 5:30] = [400.0, 300.0, 400.0]
    lamp = codes(Radiance(pixels), "photo")[17, 17].astype(int)
    assert np.ptp(lamp) <= 3
    assert lamp.min() >= 250


# --- what the default owes a photographer -----------------------------------------------------


def test_a_window_has_no_halo():
    """On both sides of a frame 10 stops deep, light varies no more than far from it."""
    pixels = np.full((400, 600, 3), 0.05, np.float32)
    pixels[:, 300:] = 40.0
    shown = codes(Radiance(pixels), "photo")[200, :, 1].astype(int)
    assert np.ptp(shown[60:298]) <= 8
    assert np.ptp(shown[303:540]) <= 8
    assert shown[450] > shown[150] + 40


def test_room_and_window_are_both_readable(scene):
    shown = codes(scene, "photo")
    wall, window = shown[150:, :100], shown[60:100, 170:220]
    assert 80 < wall.mean() < 190
    assert 190 < window.mean() < 252
    assert window.std() > 2
    assert shown[44, 160:220].mean() < 25


def test_a_night_stays_night():
    """A dark sky over a lit street: the sky must not become a grey day."""
    rng = np.random.default_rng(3)
    light = np.full((200, 300), 0.0005)
    light[120:] = 0.02 * np.exp(0.3 * rng.standard_normal((80, 300)))
    for x in range(10, 290, 40):
        light[100:150, x : x + 16] = 0.15
        light[90:94, x : x + 4] = 5.0
    pixels = np.repeat(light[..., None], 3, axis=2).astype(np.float32)
    shown = codes(Radiance(pixels), "photo")
    assert shown[:80].mean() < 50
    assert shown[125:145, 12:22].mean() > 140


def test_a_sky_after_sunset_over_lights_is_no_day():
    """Most of the picture is a smooth dark sky, without anything darker to compare it with."""
    sky = np.exp2(np.linspace(-2, 1.5, 200))[:, None] * np.ones((200, 300)) * 0.01
    lit = sky.copy()
    for x in range(10, 290, 20):
        lit[150:190, x : x + 6] = 0.2
        lit[140:143, x : x + 3] = 3.0
    shown, day = (
        codes(Radiance(np.repeat(light[..., None], 3, axis=2).astype(np.float32)), "photo")
        for light in (lit, sky)
    )
    assert shown[:100].mean() < 55
    assert day[:100].mean() > shown[:100].mean() + 20
    assert shown[150:190, 10:16].mean() > 120


def test_local_laplacian_that_changes_nothing_is_the_identity(scene):
    stops = measured(scene.pixels[..., 1]).stops
    same = local_laplacian(stops, threshold=1.5, detail=1.0, compression=1.0)
    assert same == pytest.approx(stops, abs=1e-4)


def test_local_laplacian_compresses_edges_and_keeps_texture():
    rng = np.random.default_rng(0)
    texture = 0.1 * rng.standard_normal((128, 128)).astype(np.float32)
    stops = texture + np.where(np.arange(128) < 64, 0, 8).astype(np.float32)
    after = local_laplacian(stops, threshold=1.0, detail=1.0, compression=0.5)
    step = after[:, 96:].mean() - after[:, :32].mean()
    assert 3.5 < step < 5.5
    assert after[:, 100:].std() == pytest.approx(texture[:, 100:].std(), rel=0.1)


def test_bilateral_filter_is_opencvs():
    stops = measured(room(96, 128)[..., 1]).stops
    theirs = cv2.bilateralFilter(stops, 31, 1.33, 0.02 * 128, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(bilateral(stops, space=0.02, tone=1.33) - theirs).mean() < 0.05


def test_the_gain_map_carries_an_affine_change_exactly():
    stops = measured(room(96, 128)[..., 1]).stops
    gain = gain_map(stops, stops + np.float32(1.25))
    assert gain[0] == pytest.approx(np.zeros_like(stops), abs=1e-4)
    assert gain[1] == pytest.approx(np.full_like(stops, 1.25), abs=1e-4)


# --- single operators, by hand ----------------------------------------------------------------


def test_mulaw_is_the_formula():
    light = np.array([0.0, 0.001, 0.1, 0.5, 1.0], np.float32)
    shown = codes(Radiance(np.repeat(light[None, :, None], 3, axis=2)), "mulaw", mu=5000.0)
    expected = 255 * np.log1p(5000 * light) / np.log1p(5000)
    assert shown[0, :, 0] == pytest.approx(expected, abs=0.6)


def test_gamma_is_the_formula():
    light = np.linspace(0, 1, 11, dtype=np.float32)
    shown = codes(Radiance(np.repeat(light[None, :, None], 3, axis=2)), "gamma", gamma=2.2)
    assert shown[0, :, 0] == pytest.approx(255 * light ** (1 / 2.2), abs=0.6)


def test_linear_is_srgb():
    every = np.arange(256)
    pixels = np.repeat(srgb_decode(every / 255)[None, :, None], 3, axis=2)
    assert np.array_equal(codes(Radiance(pixels), "linear")[0, :, 0], every)


def test_reinhard_is_equation_4():
    """The mean becomes 0.18, white burns out at the peak: computed without the tables."""
    ramp = np.geomspace(0.01, 10, 400)
    pixels = np.repeat(ramp.astype(np.float32).reshape(20, 20, 1), 3, axis=2)
    plan = analyse(Radiance(pixels), "reinhard02", {"key": 0.18}, threads=1)
    scaled = 0.18 / np.exp(np.log(ramp).mean()) * ramp
    white = scaled[-1]
    expected = scaled * (1 + scaled / white**2) / (1 + scaled)
    shown = srgb_decode(tonemap_codes(Radiance(pixels), plan, 1, dtype="float32"))
    assert shown[..., 0].ravel() == pytest.approx(expected, rel=0.02, abs=0.002)


@pytest.mark.parametrize("name", ["reinhard02", "drago"])
def test_opencv_ranks_a_scene_alike(scene, name):
    """OpenCV normalises otherwise; its curves must still correlate with ours in every code."""
    theirs = {
        "reinhard02": cv2.createTonemapReinhard(1.0, 0.0, 0.0, 0.0),
        "drago": cv2.createTonemapDrago(1.0, 1.0, 0.85),
    }[name].process(scene.pixels)
    a = codes(scene, name)[..., 1].ravel().astype(float)
    b = np.clip(np.nan_to_num(theirs[..., 1]), 0, 1).ravel() ** (1 / 2.2)
    assert np.corrcoef(a, b)[0, 1] > 0.95


# --- the table, and what users do wrong -------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_table_describes_itself(name):
    operator = OPERATORS[name]
    text = described(operator)
    for param in operator.params:
        assert param.low <= param.default <= param.high
        assert f"{param.name}={param.default:g}" in text
        assert param.meaning in text


def test_an_unknown_operator_lists_the_known_ones(scene):
    with pytest.raises(InputError, match="'fattal'") as caught:
        tonemap(scene, "fattal")
    assert all(name in str(caught.value.hint) for name in ALL)


def test_an_unknown_parameter_lists_the_known_ones(scene):
    with pytest.raises(InputError, match="drago has no parameter 'biass'") as caught:
        tonemap(scene, "drago", {"biass": 0.8})
    assert "bias" in str(caught.value.hint)


@pytest.mark.parametrize("value", [-9.0, 9.0, float("nan")])
def test_a_parameter_out_of_range_names_the_range(scene, value):
    with pytest.raises(InputError, match=r"exposure is .*, outside -8 to 8"):
        tonemap(scene, "photo", {"exposure": value})


def test_cleaning_counts_and_replaces():
    light, bad = cleaned(np.array([[[np.nan, -1.0, np.inf], [0.0, -0.0, 5.0]]], np.float32))
    assert bad == 3
    assert light.tolist() == [[[0, 0, np.float32(1e18)], [0, 0, 5]]]
    half, bad_halves = cleaned(np.array([[[np.nan, -1.0, np.inf], [0.0, -0.0, 5.0]]], np.float16))
    assert bad_halves == 3
    assert np.array_equal(half, light)


@pytest.mark.parametrize("name", LOCAL)
def test_brighter_never_becomes_darker_locally(scene, name):
    plan = analyse(scene, name, threads=1)
    assert plan.gain is not None
    assert (1 + plan.gain[0] >= 0).all()
    brighter = replace(scene, pixels=scene.pixels * np.float32(1.1))
    size = scene.pixels.shape[:2]
    before, after = (apply(plan, r.pixels, slice(0, size[0]), size) for r in (scene, brighter))
    assert (after.astype(int) >= before.astype(int) - 1).all()


@pytest.mark.slow
def test_real_panoramas_are_shown_with_black_and_white():
    folder = SHARED / "hdri"
    if not folder.is_dir():
        pytest.skip("the shared panoramas are absent")
    openexr = pytest.importorskip("OpenEXR")
    for path in sorted(folder.glob("*.exr"))[:6]:
        with openexr.File(str(path)) as file:
            pixels = np.asarray(file.channels()["RGB"].pixels, np.float32)
        shown = codes(Radiance(np.ascontiguousarray(np.maximum(pixels, 0))), "photo")
        low, mid, high = np.percentile(shown, (1, 50, 99.5))
        assert low < 60, path.name
        assert 50 < mid < 190, path.name
        assert high > 200, path.name
