"""Laws of the strip engine: cut = whole, order kept, every pixel interpolated once."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrcli import strips
from hdrcli.frames import Frame
from hdrcli.strips import Placement
from tests.scenes import checker, frame_of, moved, shake, texture

SIZE = (96, 128)
WHOLE = slice(0, SIZE[0])


@pytest.fixture(scope="module")
def frame():
    return frame_of(texture(*SIZE, seed=3), 1.0)


def hand(dx=0.0, dy=0.0, degrees=0.0):
    return shake(dx, dy, degrees, SIZE)


def steady(dx, dy, scale=(1.0, 1.0)):
    """The same flow everywhere, in pixels of a reduced picture."""
    size = round(SIZE[0] * scale[1]), round(SIZE[1] * scale[0])
    return np.full((*size, 2), (dx * scale[0], dy * scale[1]), np.float32)


# ---- blocks and threads ----------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 100_000))
def test_blocks_cover_every_row_once(height, width, pixels):
    cut = list(strips.blocks((height, width), pixels))
    assert [row for rows in cut for row in range(rows.start, rows.stop)] == list(range(height))
    assert all((rows.stop - rows.start) * width <= max(pixels, width) for rows in cut)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_results_come_in_the_order_of_the_rows(threads):
    size = (1200, 1024)  # several blocks
    found = strips.run(lambda rows: (rows.start, rows.stop), size, threads)
    assert found == [(rows.start, rows.stop) for rows in strips.blocks(size)]
    assert len(found) > 3


def test_an_error_in_a_block_is_not_lost():
    def work(rows):
        if rows.start > 0:
            raise ValueError(f"row {rows.start}")

    with pytest.raises(ValueError, match="row"):
        strips.run(work, (1200, 1024), 3)


def test_opencvs_threads_are_as_before_even_after_runs_side_by_side():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    begun, ended = threading.Event(), threading.Event()
    counted = []

    def outer(_rows):
        counted.append(cv2.getNumThreads())
        thread.start()
        assert begun.wait(60)

    def inner(_rows):
        begun.set()
        assert ended.wait(60)
        counted.append(cv2.getNumThreads())

    thread = threading.Thread(target=strips.run, args=(inner, (4, 4), 1))
    try:
        strips.run(outer, (4, 4), 1)
        ended.set()  # the first run is over while the second goes on
        thread.join()
        assert counted == [1, 1]
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


# ---- where pixels lie ------------------------------------------------------------------------


def test_a_frame_that_lies_right_is_not_touched(frame):
    codes, valid = Placement(frame).codes(slice(10, 20))
    assert np.shares_memory(codes, frame.codes)
    assert (codes == frame.codes[10:20]).all()
    assert valid is None


def test_no_flow_is_no_interpolation(frame):
    codes, _ = Placement(frame, steady(0, 0)).codes(slice(3, 50))
    assert np.shares_memory(codes, frame.codes)


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -5), (-7, 4)])
def test_whole_pixels_are_moved_exactly(frame, dx, dy):
    expected = np.roll(frame.codes, (-dy, -dx), (0, 1))[8:-8, 8:-8]
    for placed in (
        Placement(replace(frame, warp=hand(dx, dy))),
        Placement(frame, steady(dx, dy)),
    ):
        assert (placed.codes(WHOLE)[0][8:-8, 8:-8] == expected).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_last_row_of_a_frame_stands_for_less_than_a_pixel_more(frame, masked):
    """Where only the reference is left its noise alone is seen, as a line along the border."""
    known = replace(frame, valid=np.ones(SIZE, bool) if masked else None)
    for shift, rows in ((0.7, 0), (1.3, 1), (4.0, 3)):
        for placed in (
            Placement(replace(known, warp=hand(0, shift))),
            Placement(known, steady(0, shift)),
        ):
            valid = placed.codes(WHOLE)[1]
            missing = 0 if valid is None else int(np.count_nonzero(~valid[:, 5]))
            assert missing == rows


def test_a_hand_and_a_flow_are_one_interpolation(frame):
    """Half a pixel there and half a pixel back is no blur."""
    there_and_back = Placement(replace(frame, warp=hand(0.5, 0.5)), steady(-0.5, -0.5))
    codes, _ = there_and_back.codes(WHOLE)
    assert (codes[4:-4, 4:-4] == frame.codes[4:-4, 4:-4]).all()
    twice = Placement(replace(frame, codes=Placement(frame, steady(0.5, 0.5)).codes(WHOLE)[0]))
    blurred, _ = replace(twice, flow=steady(-0.5, -0.5)).codes(WHOLE)
    assert not (blurred[4:-4, 4:-4] == frame.codes[4:-4, 4:-4]).all()


def test_flow_comes_before_the_hand(frame):
    """The flow is in the reference's pixels: the homography turns what it leads to."""
    turned = replace(frame, warp=hand(2.0, 1.0, 30.0))
    x, y = Placement(turned, steady(6.0, -3.0)).positions(WHOLE)
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]]
    at = np.stack([cols + 6.0, rows - 3.0, np.ones(SIZE)]).reshape(3, -1)
    expected = turned.warp @ at
    np.testing.assert_allclose(x.ravel(), expected[0] / expected[2], atol=1e-3)
    np.testing.assert_allclose(y.ravel(), expected[1] / expected[2], atol=1e-3)


def test_a_hands_movement_is_undone():
    scene = texture(*SIZE, seed=5)
    matrix = hand(3.3, -2.2, 1.5)
    shaken = frame_of(moved(scene, matrix), 1.0)
    codes, valid = Placement(replace(shaken, warp=np.linalg.inv(matrix))).codes(WHOLE)
    straight = frame_of(scene, 1.0).codes
    assert valid is not None
    known = cv2.erode(valid.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    known[:8], known[-8:], known[:, :8], known[:, -8:] = False, False, False, False
    error = np.abs(codes.astype(int) - straight)[known]
    assert known.mean() > 0.6
    assert np.median(error) <= 1
    assert np.percentile(error, 99) <= 6
    assert np.median(np.abs(shaken.codes.astype(int) - straight)) > 3  # it had moved


def test_outside_of_a_frame_nothing_is_valid(frame):
    for placed in (
        Placement(replace(frame, warp=hand(20, 0))),
        Placement(frame, steady(20, 0)),
    ):
        codes, valid = placed.codes(WHOLE)
        assert valid is not None
        assert valid[:, : SIZE[1] - 20].all()
        assert not valid[:, SIZE[1] - 19 :].any()
        assert (codes[:, SIZE[1] - 19 :] == frame.codes[:, -1:]).all()  # the edge, never black


@pytest.mark.parametrize("far", [(500.0, 0.0), (0.0, 500.0), (0.0, -500.0)])
def test_a_frame_somewhere_else_is_nowhere_valid(frame, far):
    for placed in (Placement(replace(frame, warp=hand(*far))), Placement(frame, steady(*far))):
        codes, valid = placed.codes(WHOLE)
        assert codes.shape == frame.codes.shape
        assert valid is not None
        assert not valid.any()


@pytest.mark.parametrize("kind", ["still", "warp", "flow"])
def test_what_is_transparent_stays_so(frame, kind):
    known = np.ones(SIZE, bool)
    known[40:60, 50:80] = False
    clear = replace(frame, valid=known)
    placed = {
        "still": Placement(clear),
        "warp": Placement(replace(clear, warp=hand(4, 2))),
        "flow": Placement(clear, steady(4, 2)),
    }[kind]
    dx, dy = (0, 0) if kind == "still" else (4, 2)
    _, valid = placed.codes(WHOLE)
    assert valid is not None
    assert (valid[:80, :100] == known[dy : 80 + dy, dx : 100 + dx]).all()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_every_kind_of_code_keeps_its_type(kind):
    bits = {"uint8": 8, "uint16": 16, "float32": 8}[kind]
    given_frame = frame_of(texture(*SIZE), 1.0, bits=bits)
    if kind == "float32":
        given_frame = Frame(texture(*SIZE), exposure=1.0)
    for placed in (
        Placement(replace(given_frame, warp=hand(1.5, 1.5))),
        Placement(given_frame, steady(1.5, 1.5)),
    ):
        codes, _ = placed.codes(slice(20, 40))
        assert codes.dtype == np.dtype(kind)
        assert codes.shape == (20, SIZE[1], 3)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.34375, 0.375)])
@pytest.mark.parametrize("columns", [slice(0, 4), slice(17, 30), slice(40, None)])
def test_what_lies_beside_a_flow_is_not_touched(frame, rng, scale, columns):
    """Only the columns that move are interpolated; the result is that of moving them all."""
    size = round(SIZE[0] * scale[1]), round(SIZE[1] * scale[0])
    flow = np.zeros((*size, 2), np.float32)
    flow[10:25, columns] = rng.normal(0, 3, 2)
    partly = Placement(frame, flow, scale)
    wholly = Placement(replace(frame, valid=np.ones(SIZE, bool)), flow, scale)
    for rows in strips.blocks(SIZE, 7 * SIZE[1]):
        (codes, valid), (expected, inside) = partly.codes(rows), wholly.codes(rows)
        off = np.abs(codes.astype(int) - expected)
        assert off.max() <= 8
        assert np.mean(off > 1) < 0.01
        seen = [np.ones(codes.shape[:2], bool) if v is None else v for v in (valid, inside)]
        assert np.mean(seen[0] != seen[1]) < 0.01


# ---- cut = whole -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.5), (0.34375, 0.375)])
@pytest.mark.parametrize("warp", [None, hand(2.4, -1.3, 2.0)])
def test_blocks_are_the_rows_of_the_whole(frame, rng, scale, warp):
    size = round(SIZE[0] * scale[1]), round(SIZE[1] * scale[0])
    flow = cv2.GaussianBlur(rng.normal(0, 20, (*size, 2)).astype(np.float32), (0, 0), 4)
    flow[: size[0] // 3] = 0  # some blocks move and some do not
    placed = Placement(replace(frame, warp=warp), flow, scale)
    whole, inside = placed.codes(WHOLE)
    inside = np.ones(SIZE, bool) if inside is None else inside
    for rows in strips.blocks(SIZE, 9 * SIZE[1]):
        codes, valid = placed.codes(rows)
        off = np.abs(codes.astype(int) - whole[rows])
        assert off.max() <= 8  # positions are rounded to a 32nd of a pixel
        assert np.mean(off > 1) < 0.01
        assert np.mean((True if valid is None else valid) != inside[rows]) < 0.01


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 5), st.data())
def test_a_reduced_map_is_upsampled_between_its_values(height, width, factor, data):
    full = height * factor, width * factor
    scale = width / full[1], height / full[0]
    down, across = np.mgrid[:height, :width].astype(np.float32)
    whole = strips.upsample(across + 100 * down, scale, slice(0, full[0]), full[1])
    rows, cols = np.mgrid[: full[0], : full[1]]
    x = np.clip((cols + 0.5) * scale[0] - 0.5, 0, width - 1)
    y = np.clip((rows + 0.5) * scale[1] - 0.5, 0, height - 1)
    np.testing.assert_allclose(whole, x + 100 * y, atol=1e-3)
    start = data.draw(st.integers(0, full[0] - 1))
    stop = data.draw(st.integers(start + 1, full[0]))
    left = data.draw(st.integers(0, full[1] - 1))
    cols = slice(left, data.draw(st.integers(left + 1, full[1])))
    part = strips.upsample(across + 100 * down, scale, slice(start, stop), cols)
    np.testing.assert_allclose(part, whole[start:stop, cols], atol=1e-3)


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_small_rows_hold_all_that_upsampling_reads(full, small, data):
    small = min(small, full)
    scale = (1.0, small / full)
    reduced = np.zeros((small, 3), np.float32)
    start = data.draw(st.integers(0, full - 1))
    stop = data.draw(st.integers(start + 1, full))
    reduced[data.draw(st.integers(0, small - 1))] = 1
    seen = strips.upsample(reduced, scale, slice(start, stop), 3).max()
    held = strips.small_rows(reduced, scale, slice(start, stop))
    assert held.size
    if seen > 1 / 32:
        assert held.max() == 1


# ---- reduced pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("size", [(96, 128), (48, 64), (31, 40), (96, 50), (1, 1)])
def test_a_reduced_picture_has_the_mean_light(kind, size):
    scene = texture(*SIZE)
    given_frame = frame_of(scene, 1.0, bits=16 if kind == "uint16" else 8)
    if kind == "float32":
        given_frame = Frame(scene, exposure=1.0)
    small = strips.reduced(given_frame, size, 0.98, 0.02)
    assert small.light.shape == (*size, 3)
    assert small.clipped.shape == small.dark.shape == size
    expected = cv2.resize(given_frame.linear(), size[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small.light.mean(axis=(0, 1)), expected.mean(axis=(0, 1)), rtol=0.05)
    if SIZE[0] % size[0] == 0 == SIZE[1] % size[1]:
        np.testing.assert_allclose(small.light, expected.reshape(*size, 3), rtol=1e-3, atol=1e-4)


def test_exposures_of_one_scene_agree_when_reduced():
    """Whatever falls into one reduced pixel: black beside white, or lamps that clip."""
    scene = checker(96, 128, cell=1, low=0.01, high=0.2)
    scene[:, 64:, :][checker(96, 64, cell=3)[..., 0] > 1] = 20.0
    views = [strips.reduced(frame_of(scene, e, bits=16), (32, 43), 0.98, 0.0) for e in (0.25, 4.0)]
    known = np.max([view.clipped for view in views], axis=0) == 0
    light = [view.light / e for view, e in zip(views, (0.25, 4.0), strict=True)]
    assert 0.4 < known.mean() < 0.6
    np.testing.assert_allclose(light[0][known], light[1][known], rtol=0.01)


def test_reduced_pixels_know_how_much_of_them_clips():
    codes = np.full((40, 60, 3), 100, np.uint8)
    codes[:, :30, 1] = 255  # one channel is enough
    codes[:20, 45:] = 2
    small = strips.reduced(Frame(codes), (4, 4), 250 / 255, 5 / 255)
    np.testing.assert_allclose(small.clipped, [[1, 1, 0, 0]] * 4, atol=0.01)
    np.testing.assert_allclose(small.dark, [[0, 0, 0, 1]] * 2 + [[0] * 4] * 2, atol=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_a_block_knows_where_a_homography_leaves_the_frame(seed):
    rng = np.random.default_rng(seed)
    warp = np.eye(3) + rng.normal(0, [[0.05, 0.05, 20], [0.05, 0.05, 20], [1e-4, 1e-4, 0]])
    rows, cols, size = 40, 90, (60, 80)
    x, y = np.meshgrid(np.arange(cols), np.arange(rows))
    u, v, z = np.einsum("ij,jyx->iyx", warp, np.stack([x, y, np.ones_like(x)]))
    expected = strips._within(u / z, v / z, size)
    inside = strips.inside(warp, size, (rows, cols))
    inside = np.ones((rows, cols), bool) if inside is None else inside
    np.testing.assert_array_equal(inside, expected)
