"""Alignment: recovers what the hand did, leaves alone what it should, never makes it worse."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli.align import (
    align_bracket,
    belonging,
    blocks,
    crop_to_overlap,
    kernels,
    warp_frame,
)
from hdrcli.align.features import from_bitmaps
from hdrcli.align.models import MODELS, apply, coverage, fit, implausible, lattice, parts
from hdrcli.color import srgb_decode, srgb_encode
from hdrcli.errors import BracketError
from hdrcli.frames import Bracket, Frame, sampled
from tests.scenes import photograph, texture

SIZE = (264, 360)
PAD = 90  # pixels of scene around the picture


def scene(seed=0, size=SIZE, level=0.06):
    """Radiance with detail at every scale, (H + 2 PAD, W + 2 PAD, 3), around ``level``."""
    rng = np.random.default_rng(seed)
    height, width = size[0] + 2 * PAD, size[1] + 2 * PAD
    log = np.zeros((height, width, 3), np.float32)
    for step in (2, 4, 8, 16, 32, 64):
        coarse = rng.normal(size=(height // step + 2, width // step + 2, 3)).astype(np.float32)
        log += 0.12 * step**0.5 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return level * np.exp(log)


def hand(dx=0.0, dy=0.0, degrees=0.0, tilt=(0.0, 0.0), size=SIZE):
    """The homography of a hand's movement about the picture's middle."""
    middle = np.array([[1, 0, -size[1] / 2], [0, 1, -size[0] / 2], [0, 0, 1]])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    moved = np.array([[c, -s, dx], [s, c, dy], [tilt[0] / size[1], tilt[1] / size[1], 1]])
    matrix = np.linalg.inv(middle) @ moved @ middle
    return matrix / matrix[2, 2]


def seen_by(radiance, moved=None, size=SIZE):
    """The light that falls on a camera moved so that reference pixel x lands on ``moved`` x."""
    to_scene = np.array([[1, 0, PAD], [0, 1, PAD], [0, 0, 1.0]])
    inverse = np.linalg.inv(np.eye(3) if moved is None else moved)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(radiance, to_scene @ inverse, size[::-1], flags=flags)
    return np.maximum(seen, 0)


def shoot(radiance, ev=0.0, moved=None, seed=0, size=SIZE, name=None, curve=srgb_encode):
    """Photograph the scene: warp, expose, photon and read noise, clip, curve, 8 bits."""
    light = seen_by(radiance, moved, size) * 2.0**ev
    noise = np.random.default_rng(seed).normal(size=light.shape)
    light = light + noise * np.sqrt(light / 8000 + (3 / 8000) ** 2)
    codes = np.rint(curve(np.clip(light, 0, 1)) * 255).astype(np.uint8)
    return Frame(codes, exposure=2.0**ev, name=name or f"{ev:+.1f}")


def pair(frame, other):
    """A bracket of two whose reference is the first."""
    return Bracket.of([frame, other], frame)


def aligned_to(frame, other, method="auto"):
    """The second frame as aligned to the first, and what is reported of it."""
    bracket = pair(frame, other)
    aligned, report = align_bracket(bracket, method)
    at = 1 - bracket.reference
    return aligned.frames[at], report.frames[at]


def error(frame, moved, size=SIZE, over=np.mean):
    """How far the warp found is from the true one, mean (or ``over``) the picture, in pixels."""
    at = lattice(size)
    found = at if frame.warp is None else apply(frame.warp, at)
    return float(over(np.linalg.norm(found - apply(moved, at), axis=1)))


@pytest.fixture(scope="module")
def radiance():
    return scene()


MOVES = {
    "shift": hand(41.3, -27.6),
    "rotation": hand(3.2, 5.1, degrees=2.0),
    "everything": hand(-58.0, 20.7, degrees=-1.4, tilt=(0.015, -0.02)),
    "a pixel": hand(0.9, -0.6),
}


# --- what the hand did -------------------------------------------------------------------------


@pytest.mark.parametrize("ev", [-4, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("move", MOVES)
def test_what_the_hand_did_is_recovered(radiance, move, ev):
    first = shoot(radiance, 0, seed=1)
    frame, found = aligned_to(first, shoot(radiance, ev, MOVES[move], seed=2), "homography")
    assert error(frame, MOVES[move]) < 0.25
    assert found.residual_after < 0.3
    assert found.residual_before > 0.7
    assert found.overlap == pytest.approx(coverage(MOVES[move], SIZE), abs=0.02)


@pytest.mark.slow
@settings(max_examples=3)
@given(
    st.floats(-40, 40), st.floats(-40, 40), st.floats(-2, 2),
    st.floats(-0.02, 0.02), st.floats(-4, 2), st.integers(0, 99),
)  # fmt: skip
def test_any_shake_is_recovered(dx, dy, degrees, tilt, ev, seed):
    """The median: no block lies in the corners, where slight perspective may go unnoticed.

    Of 200 shakes the worst has a median of 0.29 pixels (and a mean of 0.45, of corners off by 2).
    """
    moved = hand(dx, dy, degrees, (tilt, -tilt))
    light = scene(seed)
    frame, _ = aligned_to(shoot(light, 0, seed=seed), shoot(light, ev, moved, seed=seed + 1))
    # below a third of a pixel a frame may be left alone
    assert error(frame, moved, over=np.median) < 0.35


def test_a_bitmap_finds_a_shift(radiance):
    moved = hand(23, -31)
    frame, found = aligned_to(shoot(radiance), shoot(radiance, -2, moved, seed=1), "mtb")
    assert found.method == "mtb"
    assert found.model == "translation"
    assert error(frame, moved) < 0.25


def test_bitmaps_see_through_any_exposure(radiance):
    one = seen_by(radiance).mean(axis=2)
    other = seen_by(radiance, hand(-14, 9)).mean(axis=2)
    assert np.array_equal(from_bitmaps(one, other**0.3 * 200)[:2, 2], [-14, 9])


def test_a_rotation_that_bitmaps_cannot_follow_is_not_accepted(radiance):
    frame, found = aligned_to(
        shoot(radiance), shoot(radiance, -2, hand(30, 10, degrees=8), seed=1), "mtb"
    )
    assert frame.warp is None
    assert found.method == "failed"
    assert found.note


def test_the_models_found_are_as_simple_as_the_movement(radiance):
    _, shifted = aligned_to(shoot(radiance), shoot(radiance, -1, hand(12, 7), seed=1))
    _, turned = aligned_to(shoot(radiance), shoot(radiance, -1, hand(12, 7, 1), seed=1))
    assert (shifted.model, turned.model) == ("translation", "similarity")
    assert turned.rotation == pytest.approx(1, abs=0.02)
    assert shifted.shift == pytest.approx((12, 7), abs=0.1)


def test_a_wrong_exposure_does_not_matter(radiance):
    moved = hand(17, -9, degrees=0.5)
    other = replace(shoot(radiance, -2, moved, seed=1), exposure=2.0**-3)
    frame, _ = aligned_to(shoot(radiance), other)
    assert error(frame, moved) < 0.25


def test_an_unknown_tone_curve_does_not_matter(radiance):
    def film(light):
        code = srgb_encode(light)
        return code * code * (3 - 2 * code)

    moved = hand(17, -9, degrees=0.5)
    other = shoot(radiance, -2, moved, seed=1, curve=film)
    frame, _ = aligned_to(shoot(radiance, curve=film), other)
    assert error(frame, moved) < 0.25


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_other_codes_align_as_well(radiance, kind):
    moved = hand(9.5, 4.5)
    frames = []
    for ev, move in ((0, None), (-2, moved)):
        light = np.minimum(seen_by(radiance, move) * 2.0**ev, 1)
        codes = light if kind == "float32" else (srgb_encode(light) * 65535).astype(np.uint16)
        frames.append(Frame(codes.astype(kind), exposure=2.0**ev, name=str(ev)))
    assert error(aligned_to(*frames)[0], moved) < 0.1


@pytest.mark.slow
def test_big_files_are_aligned_at_full_size():
    size = (800, 1216)
    moved = hand(24.3, -13.8, degrees=0.7, size=size)
    light = scene(5, size)
    frame, found = aligned_to(
        shoot(light, 0, None, 1, size), shoot(light, -2, moved, 2, size), "homography"
    )
    assert error(frame, moved, size) < 0.25
    assert found.method == "orb"


# --- what is left alone ------------------------------------------------------------------------


def test_a_tripod_is_left_alone(radiance):
    frames = [shoot(radiance, ev, seed=i) for i, ev in enumerate((-4, -2, 0, 2))]
    aligned, report = align_bracket(Bracket.of(frames))
    assert [frame.warp for frame in aligned.frames] == [None] * 4
    assert {frame.method for frame in report.frames} == {"still", "reference"}
    assert not report.warnings


def test_none_takes_frames_as_they_lie(radiance):
    first, second = shoot(radiance), shoot(radiance, -2, hand(20, 0))
    frame, found = aligned_to(first, replace(second, warp=hand(3)), "none")
    assert frame.warp is None
    assert found.method == "none"


def test_a_blue_sky_stays_where_it_is_and_says_so():
    sky = np.full((SIZE[0] + 2 * PAD, SIZE[1] + 2 * PAD, 3), (0.1, 0.2, 0.4), np.float32)
    frame, found = aligned_to(shoot(sky, seed=1), shoot(sky, -2, seed=2))
    assert frame.warp is None
    assert found.method == "failed"
    assert "detail" in found.note


@pytest.mark.parametrize("method", ["auto", "mtb"])
def test_another_scene_stays_where_it_is_and_says_so(radiance, method):
    bracket = pair(shoot(radiance), shoot(scene(7), -1, seed=1, name="stranger"))
    aligned, report = align_bracket(bracket, method)
    assert aligned.frames[0].warp is None
    assert not report.frames[0].same_scene
    assert "stranger was not aligned" in report.warnings[0]


def test_frames_of_another_scene_can_be_left_out(radiance):
    shots = [shoot(radiance), shoot(radiance, -2, seed=1), shoot(scene(7), -1, seed=2, name="odd")]
    aligned, report = align_bracket(Bracket.of(shots, shots[0]), "mtb")
    kept = belonging(aligned, report)
    assert [frame.name for frame in kept.frames] == ["-2.0", "+0.0"]
    assert kept.ref is aligned.ref


def test_two_scenes_are_no_bracket(radiance):
    shots = [shoot(radiance), shoot(scene(7), -1, seed=2, name="odd")]
    aligned, report = align_bracket(Bracket.of(shots, shots[0]), "mtb")
    with pytest.raises(BracketError, match="odd"):
        belonging(aligned, report)


def test_a_noise_that_hides_everything_does_not_move_a_frame(radiance):
    rng = np.random.default_rng(0)
    dark = Frame(rng.integers(0, 3, (*SIZE, 3), np.uint8), exposure=2.0**-9, name="dark")
    assert aligned_to(shoot(radiance), dark)[0].warp is None


def test_what_moves_by_itself_does_not_drag(radiance):
    """A textured thing over a third of the picture walks 25 pixels; the hand turned besides."""
    moved = hand(6.2, -8.7, degrees=0.6)
    first = seen_by(radiance)
    second = seen_by(radiance, moved)
    thing = seen_by(scene(3))[:200, :160]
    first[40:240, 40:200] = thing
    second[40:240, 65:225] = thing
    frames = [
        Frame(np.rint(srgb_encode(np.clip(light, 0, 1)) * 255).astype(np.uint8), exposure=ev)
        for light, ev in ((first, 1.0), (second / 4, 0.25))
    ]
    assert error(aligned_to(*frames)[0], moved) < 0.25


@pytest.mark.slow
def test_a_walker_before_a_tripod_leaves_it_still(radiance):
    first, second = seen_by(radiance), seen_by(radiance)
    thing = seen_by(scene(3))[:200, :160]
    first[40:240, 40:200] = thing
    second[40:240, 65:225] = thing
    frames = [
        Frame(np.rint(srgb_encode(np.clip(light, 0, 1)) * 255).astype(np.uint8), exposure=ev)
        for light, ev in ((first, 1.0), (second / 4, 0.25))
    ]
    frame, found = aligned_to(*frames)
    assert frame.warp is None
    assert found.method == "still"


# --- brackets ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_order_of_the_files_does_not_matter(radiance):
    moves = [hand(12, 5, 0.4), None, hand(-9, 14)]
    shots = [shoot(radiance, ev, m, seed=ev + 9) for ev, m in zip((-2, 0, 2), moves, strict=True)]
    one, _ = align_bracket(Bracket.of(shots, shots[1]))
    two, _ = align_bracket(Bracket.of(reversed(shots), shots[1]))
    for a, b in zip(one.frames, two.frames, strict=True):
        one_warp, two_warp = (np.eye(3) if f.warp is None else f.warp for f in (a, b))
        assert np.array_equal(one_warp, two_warp)


@pytest.mark.slow
def test_frames_too_far_apart_are_aligned_through_their_neighbours():
    """Eight stops apart, the darkest frame and the brightest share next to nothing."""
    wave = np.sin(np.arange(SIZE[1] + 2 * PAD, dtype=np.float32) * (2 * np.pi / 150))
    light = scene(2, level=0.1) * np.exp2(3 * wave)[None, :, None]
    evs = (-4, -2, 0, 2, 4)
    moves = [hand(5.0 * i, -4.0 * i, 0.3 * i) for i in range(5)]
    shots = [shoot(light, ev, m, seed=i) for i, (ev, m) in enumerate(zip(evs, moves, strict=True))]
    aligned, report = align_bracket(Bracket.of(shots, shots[0]), "homography")
    assert report.frames[4].via == "+2.0"
    for frame, moved in zip(aligned.frames, moves, strict=True):
        assert error(frame, moved) < 1.0
    assert error(aligned.frames[1], moves[1]) < 0.3


def test_the_report_is_plain_data_and_readable(radiance):
    bracket = pair(shoot(radiance), shoot(radiance, -2, hand(20, -10), seed=1))
    report = align_bracket(bracket)[1]
    data = json.loads(json.dumps(report.as_dict()))
    assert [frame["method"] for frame in data["frames"]][1] == "reference"
    assert "shift +20.0 -10.0 px" in str(report.frames[0])


# --- what they have in common ------------------------------------------------------------------


def warped(*warps, size=(60, 100)):
    codes = np.zeros((*size, 3), np.uint8)
    frames = [Frame(codes, exposure=2.0**i, name=str(i), warp=w) for i, w in enumerate(warps)]
    return Bracket(tuple(frames), 0)


def test_unmoved_frames_have_everything_in_common():
    assert crop_to_overlap(warped(None, None)) == (slice(0, 60), slice(0, 100))


def test_the_overlap_of_shifts_is_exact():
    shift = np.array([[1, 0, 10], [0, 1, -5], [0, 0, 1.0]])
    other = np.array([[1, 0, -3.5], [0, 1, 0], [0, 0, 1.0]])
    assert crop_to_overlap(warped(None, shift, other)) == (slice(5, 60), slice(4, 90))


@settings(max_examples=30)
@given(st.floats(-8, 8), st.floats(-8, 8), st.floats(-9, 9), st.floats(-0.05, 0.05))
def test_the_overlap_lies_in_every_frame_and_cannot_grow(dx, dy, degrees, tilt):
    moved = hand(dx, dy, degrees, (tilt, tilt), size=(60, 100))
    bracket = warped(None, moved)
    rows, cols = crop_to_overlap(bracket)

    def fits(top, bottom, left, right):
        ys, xs = np.mgrid[top:bottom, left:right]
        at = apply(moved, np.stack([xs.ravel(), ys.ravel()], 1).astype(float))
        inside = (at > -1e-3) & (at < np.array([99, 59]) + 1e-3)
        return top >= 0 and left >= 0 and bottom <= 60 and right <= 100 and inside.all()

    box = (rows.start, rows.stop, cols.start, cols.stop)
    assert fits(*box)
    assert (rows.stop - rows.start) * (cols.stop - cols.start) > 1500
    for grown in ((-2, 0, 0, 0), (0, 2, 0, 0), (0, 0, -2, 0), (0, 0, 0, 2)):
        assert not fits(*(b + g for b, g in zip(box, grown, strict=True)))


def test_the_overlap_respects_what_is_transparent():
    bracket = warped(None, None)
    valid = np.ones((60, 100), np.bool_)
    valid[:, :30] = False
    frames = (bracket.frames[0], replace(bracket.frames[1], valid=valid))
    assert crop_to_overlap(bracket.with_frames(frames)) == (slice(0, 60), slice(30, 100))


def test_frames_apart_have_nothing_in_common():
    far = np.array([[1, 0, 500], [0, 1, 0], [0, 0, 1.0]])
    rows, cols = crop_to_overlap(warped(None, far))
    assert (rows, cols) == (slice(0, 0), slice(0, 0))


def test_a_warped_frame_lies_on_the_reference(radiance):
    moved = hand(20.4, -11.3, degrees=1.0)
    reference, frame = shoot(radiance), replace(shoot(radiance, 0, moved, seed=1), warp=moved)
    back = warp_frame(frame)
    assert back.warp is None
    assert back.valid is not None
    assert back.valid.mean() == pytest.approx(coverage(moved, SIZE), abs=0.01)
    seen = back.valid
    apart = srgb_decode(back.codes / 255) - srgb_decode(reference.codes / 255)
    assert np.median(np.abs(apart[seen])) < 0.004
    assert np.median(np.abs(apart[~seen])) > 0.01


def test_rows_of_a_warped_frame_are_the_rows_of_the_whole(radiance):
    frame = replace(shoot(radiance), warp=hand(5.5, 3.25, degrees=2.0))
    whole, part = warp_frame(frame), warp_frame(frame, slice(100, 164))
    apart = whole.codes[100:164].astype(int) - part.codes
    assert np.abs(apart).max() <= 1
    assert whole.valid is not None
    assert part.valid is not None
    assert (whole.valid[100:164] == part.valid).mean() > 0.999


def test_a_frame_without_a_warp_is_not_resampled(radiance):
    frame = shoot(radiance)
    assert np.shares_memory(warp_frame(frame).codes, frame.codes)
    assert np.array_equal(warp_frame(frame, slice(3, 9)).codes, frame.codes[3:9])


# --- the geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_fits_its_own_kind_despite_outliers(model, rng):
    true = {
        "translation": hand(3.5, -8),
        "similarity": hand(3.5, -8, 2.0) @ np.diag([1.01, 1.01, 1]),
        "affine": hand(3.5, -8, 2.0) @ np.diag([1.02, 1.0, 1]),
        "tilt": hand(3.5, -8, 2.0, (0.03, 0.05)),
        "homography": hand(3.5, -8, 2.0, (0.03, 0.05)) @ np.diag([1.02, 1.0, 1]),
    }[model]
    a = rng.uniform(0, 1, (60, 2)) * SIZE[::-1]
    b = apply(true, a) + rng.normal(size=a.shape) * 0.05
    b[:18] += [9, 4]  # one third walks
    found = fit(a, b, true @ hand(0.5, 0.5), list(MODELS), SIZE, np.ones(60))
    assert found.model == model
    at = lattice(SIZE)
    assert np.abs(apply(found.matrix, at) - apply(true, at)).max() < 0.2


def test_a_transformation_is_taken_apart_as_it_was_made():
    seen = parts(hand(12, -7, 3.0, (0.02, 0)), SIZE)
    assert seen.rotation == pytest.approx(3, abs=0.15)
    assert seen.shift == pytest.approx((12, -7), abs=0.5)
    assert seen.scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.diag([1.3, 1.3, 1]), "scale"),
        (np.diag([1.1, 1, 1]), "shear"),
        (hand(degrees=40), "rotation"),
        (hand(dx=300), "overlap"),
        (hand(tilt=(0.4, 0)), "perspective"),
        (np.diag([1, 1, -1]), "inside out"),
    ],
)
def test_what_no_hand_does_is_refused(matrix, word):
    assert word in (implausible(matrix, SIZE) or "")


def test_what_hands_do_is_not_refused():
    assert all(implausible(moved, SIZE) is None for moved in MOVES.values())


def test_response_tables_of_any_shape_are_understood(radiance):
    gamma = sampled("gamma", lambda code: code**2.2)
    moved = hand(7, 3)
    frames = [
        replace(shoot(radiance, ev, m, curve=lambda x: x ** (1 / 2.2)), response=gamma)
        for ev, m in ((0, None), (-2, moved))
    ]
    assert error(aligned_to(*frames)[0], moved) < 0.25


# --- blocks in machine code ----------------------------------------------------------------------


def test_a_band_is_a_gaussian_less_a_mean():
    patches = np.random.default_rng(0).normal(size=(3, 40, 40)).astype(np.float32)
    fine = [cv2.GaussianBlur(patch, (0, 0), 1.0) for patch in patches]
    expected = np.stack([one - cv2.blur(one, (25, 25)) for one in fine])
    kernels.band(patches, blocks.FINE, np.empty(40 * 40 + 3 * 64, np.float32), 40, 3)
    assert patches == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("window", [7, 26])
def test_texture_is_the_weaker_eigenvalue_of_the_slopes(window):
    rng = np.random.default_rng(window)
    light = rng.normal(size=(60, 83)).astype(np.float32)
    good = rng.random(light.shape) < 0.8
    smooth = cv2.GaussianBlur(light, (0, 0), 1.0)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *o, scale=1 / 8) * good for o in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.blur(part, (window, window)) for part in (x * x, y * y, x * y))
    tensors = np.moveaxis(np.array([[xx, xy], [xy, yy]], np.float64), (0, 1), (2, 3))
    weakest = np.linalg.eigvalsh(tensors)[..., 0]
    assert blocks._texture(light, good, 1.0, window) == pytest.approx(weakest, abs=1e-6)


@settings(max_examples=10)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_blocks_are_found_where_they_went(dx, dy):
    light = seen_by(scene(3), None).mean(axis=2)
    there = cv2.warpPerspective(
        light, hand(dx, dy), light.shape[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    corners = [(60, 60), (150, 90), (200, 200)]
    own, wide = (
        np.stack([plane[y - r : y + 40 + r, x - r : x + 40 + r] for x, y in corners])
        for plane, r in ((light, 0), (there, blocks.REACH))
    )
    found, room = np.zeros((3, 5)), np.empty(3 * 40 * 40, np.float32)
    masks = [np.ones(patches.shape, np.uint8) for patches in (own, wide)]
    kernels.track(
        *(own, masks[0], wide, masks[1]), np.float32(0.4), room, found, 40, blocks.REACH, 3
    )
    assert (found[:, 3:] > 0.9).all()
    assert found[:, :2] == pytest.approx(np.tile([-dx, -dy], (3, 1)), abs=0.1)


def test_a_frame_that_moved_is_seen_on_the_blocks_of_one_that_did_not(radiance):
    moved = MOVES["a pixel"]
    shots = [(0, None), (-1, None), (-2, moved), (-3, None)]
    frames = [shoot(radiance, ev, m, seed=i) for i, (ev, m) in enumerate(shots)]
    aligned, report = align_bracket(Bracket.of(frames, frames[0]))
    assert [found.method for found in report.frames] == ["still", "blocks", "still", "reference"]
    assert error(aligned.frames[1], moved) < 0.25


@pytest.mark.parametrize("size", [(20, 30), (45, 200), (51, 52)])
def test_a_picture_smaller_than_a_block_stays_where_it_is(radiance, size):
    frames = [shoot(radiance, ev, seed=i, size=size) for i, ev in enumerate((0, -2))]
    aligned, _ = align_bracket(Bracket.of(frames, frames[0]))
    assert [frame.warp for frame in aligned.frames] == [None, None]


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (3, 600), (12, 12), (30, 300)])
def test_a_picture_smaller_than_a_block_is_left_alone(size):
    """Nothing beside its pixels may be looked at, which would end the process now and then."""
    height, width = size
    aligned, _ = align_bracket(photograph(texture(200, 600)[:height, :width]))
    warps = [frame.warp for frame in aligned.frames if frame.warp is not None]
    assert all(np.abs(warp - np.eye(3)).max() < 1 for warp in warps)
