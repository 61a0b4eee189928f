"""Machine code owes the same numbers as Python, however the pixels are cut; and care with files."""

import tempfile
from types import GenericAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hdrcli import kernels, native


def halves(light):
    """What the kernel makes of light, as half floats."""
    light = np.resize(light, -(-light.size // 3) * 3).astype(np.float32)
    total = np.ones((len(light) // 3, 4), np.float32)
    total[:, :3] = light.reshape(-1, 3)
    out = np.empty(light.size, np.float16)
    kernels.divide_to_half(
        total, np.float32(0), out.view(np.uint16), np.empty(1, np.int64), len(total)
    )
    return light, out


def test_halves_are_rounded_as_numpy_rounds_them():
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (every[1:] + every[:-1]) / 2
    above, below = np.nextafter(between, np.inf), np.nextafter(between, 0)
    past = np.array([65504, 65519.99, 65520, 1e6, np.inf, 1e-30, 0], np.float32)
    light, found = halves(np.concatenate([every, between, above, below, past]))
    with np.errstate(over="ignore"):
        assert (found == light.astype(np.float16)).all()


def test_every_half_is_the_float_that_numpy_says():
    bits = np.arange(65536, dtype=np.uint16)
    found = np.empty(65536, np.float32)
    kernels.floats_of_halves(bits, found, 65536)
    assert np.array_equal(found, bits.view(np.float16).astype(np.float32), equal_nan=True)


def exposed(light, slope, offset):
    """What the kernel makes of grey light, with a gain 2 ** (slope log2 L + offset)."""
    count = len(light)
    pixels = np.repeat(light.astype(np.float32), 3)
    matrix = np.concatenate([np.eye(3), [[0, 1, 0]]]).astype(np.float32)
    gains = np.array([[np.full(count, slope), np.full(count, offset)]], np.float32)
    limits = np.float32(1e30), np.float32(1e-30)
    first, part = np.zeros(1, np.int64), np.zeros(1, np.float32)
    kernels.expose(pixels, limits[0], matrix, gains, first, part, limits[1], 1, count)
    return pixels.reshape(count, 3)


@pytest.mark.parametrize("slope", [-1.0, -0.3, 0.0, 0.5])
def test_a_gain_that_is_a_power_of_light(rng, slope):
    light = np.exp2(rng.uniform(-40, 40, 997)).astype(np.float32)
    found = exposed(light, slope, 1.5)
    expected = light.astype(np.float64) ** (1 + slope) * 2**1.5
    assert np.allclose(found, expected[:, None], rtol=3e-6)
    cut = np.concatenate([exposed(light[:k], slope, 1.5)[-3:] for k in range(3, 40)])
    whole = np.concatenate([found[k - 3 : k] for k in range(3, 40)])
    assert (cut == whole).all()


def test_light_that_is_no_number_is_black_or_the_most():
    light = np.array([np.nan, -1, np.inf, -np.inf, 0, 1e-45])
    assert (exposed(light, 0, 0)[:, 0] == np.array([0, 0, 1e30, 0, 0, 1e-45], np.float32)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("run", [1, 16, 61, 100])
def test_one_pass_over_half_floats_shows_what_four_do(rng, dtype, run):
    rows, width = 5, 61
    bits = rng.uniform(-0.1, 4, (rows, width, 3)).astype(np.float16).view(np.uint16)
    bits[2, 7] = 0x7C00, 0xFE00, 0xFC00
    matrix = rng.uniform(0, 1, (4, 3)).astype(np.float32)
    gains = rng.uniform(-0.5, 0.5, (3, 2, width)).astype(np.float32)
    upper = np.array([0, 0, 1, 1, 2])
    part = np.array([0, 0.5, 0, 0.9, 0], np.float32)
    table = rng.uniform(0, 255, (1, 65536)).astype(dtype)
    exposure = np.float32(100), matrix, gains, upper, part, np.float32(1e-3)
    scale, light = np.float32(2e4), np.empty(bits.shape, np.float32)
    index, expected = np.empty(bits.shape, np.uint16), np.empty(bits.shape, dtype)
    kernels.floats_of_halves(bits, light, bits.size)
    kernels.expose(light, *exposure, rows, width)
    kernels.root_index(light, scale, index, light.size)
    kernels.looked_up(index, table, expected, index.size)
    found = np.empty(bits.shape, dtype)
    rooms = np.empty(3 * run, np.float32), np.empty(3 * run, np.uint16)
    kernels.show_halves(bits, *exposure, scale, table, *rooms, found, run, rows, width)
    apart = np.abs(found.astype(float) - expected) > 0
    assert apart.mean() < 0.01, "the last bit of a float may round an index differently"
    assert (found[2, 7] == expected[2, 7]).all()


def luminances_by_hand(light, weights, side, step):
    """Means over the rows that are read, block by block."""
    first = (step - 1) * (side % 2)
    height, width = light.shape[:2]
    luminance = np.clip(np.nan_to_num(light.astype(np.float64)), 0, 1e4) @ weights
    out = np.empty((-(-height // side), -(-width // side)))
    for y, x in np.ndindex(out.shape):
        rows = np.arange(min(y * side + first, height - 1), min((y + 1) * side, height), step)
        out[y, x] = luminance[rows, x * side : (x + 1) * side].mean()
    return out


@pytest.mark.parametrize("size", [(40, 60), (41, 63), (3, 2)])
@pytest.mark.parametrize(("side", "step"), [(1, 1), (3, 1), (4, 2), (5, 2)])
def test_luminance_of_blocks_is_a_mean(rng, size, side, step):
    light = rng.uniform(0, 4, (*size, 3)).astype(np.float16).astype(np.float32)
    weights = np.array([0.2, 0.7, 0.1], np.float32)
    height, width = size
    found = np.empty((2, -(-height // side), -(-width // side)), np.float32)
    bad, line = np.empty(1, np.int64), np.empty(width, np.float32)
    room = np.empty(3 * width, np.float32)
    rest = weights, np.float32(1e4), side, step, line

    def both():
        kernels.luminances(light, *rest, found[0], bad, height, width)
        bits, few = light.astype(np.float16).view(np.uint16), bad[0]
        kernels.luminances_of_halves(bits, room, *rest, found[1], bad, height, width)
        assert bad[0] == few
        assert (found[0] == found[1]).all()

    both()
    assert bad[0] == 0
    np.testing.assert_allclose(found[0], luminances_by_hand(light, weights, side, step), rtol=1e-6)
    read = (step - 1) * (side % 2)
    light[read, 0], light[read, 1] = (np.nan, -0.0, -1), (5e4, 1, 2)
    both()
    assert bad[0] == 3, "a negative zero is nothing bad"
    np.testing.assert_allclose(found[0], luminances_by_hand(light, weights, side, step), rtol=1e-6)


def test_differences_to_a_reference_are_remapped_as_by_hand(rng):
    stops = rng.uniform(-6, 6, 1003).astype(np.float32)
    stops[:3] = 1, 2.5, -0.5  # no difference, and the threshold
    found = np.empty_like(stops)
    reference, threshold = np.float32(1), np.float32(1.5)
    detail, compression = np.float32(1.3), np.float32(0.4)
    kernels.remap(stops, reference, threshold, detail, compression, found, 1003)
    size = np.abs(stops - reference)
    small = np.minimum(size, threshold)
    small = small * (1 + (detail - 1) * (1 - small / threshold)) + compression * (size - small)
    np.testing.assert_allclose(found, np.sign(stops - reference) * small, rtol=1e-5)


def test_what_is_near_a_reference_is_added(rng):
    fine, coarse, level, total = rng.normal(0, 2, (4, 1003)).astype(np.float32)
    share = np.maximum(0, 1 - np.abs(level - 0.7) / 1.2)
    expected = total + (fine - coarse) * share
    kernels.add_near(fine, coarse, level, np.float32(0.7), np.float32(1.2), total, 1003)
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)
    assert 0.1 < (share == 0).mean() < 0.9


@pytest.mark.parametrize("levels", [256, 65536])
def test_a_sum_of_parts_is_the_whole(rng, levels):
    count, frames = 2 * kernels.NEAR + 131, 3
    kind = np.uint8 if levels == 256 else np.uint16
    codes = tuple(rng.integers(0, levels, (count, 3)).astype(kind) for _ in range(frames))
    light = tuple(rng.random((3, levels), np.float32) for _ in range(frames))
    weight = tuple(rng.random(levels, np.float32) for _ in range(frames))
    belief = rng.random(count, np.float32), np.ones(1, np.float32), rng.random(count, np.float32)
    steps, fallbacks = np.array([1, 0, 1]), np.array([1e-7, 0, 0.5], np.float32)

    def summed(parts, groups):
        total, out = np.zeros((count, 4), np.float32), np.empty((count, 3), np.float32)
        for part in parts:
            rows, few = part.stop - part.start, np.empty(1, np.int64)
            shown = tuple(one[part] for one in codes)
            sure = tuple(one[part if len(one) > 1 else slice(None)] for one in belief)
            for some in groups:
                frame = (shown[some], light[some], weight[some], sure[some])
                rest = total[part], levels, rows, len(shown[some])
                kernels.accumulate(*frame, steps[some], fallbacks[some], *rest)
            kernels.divide(total[part], np.float32(0), out[part], few, rows)
        return total, out

    every = slice(0, frames)
    whole, mean = summed([slice(0, count)], [every])
    cuts = [0, 1, 8, 24, 57, 500, 1002, kernels.NEAR, count]
    one_by_one = [slice(k, k + 1) for k in range(frames)]
    for parts, groups in (
        (map(slice, cuts, cuts[1:]), [every]),
        ([slice(0, count)], one_by_one),
    ):
        for one, other in zip((whole, mean), summed(parts, groups), strict=True):
            assert (one == other).all()
    weights = [weight[k][codes[k].max(axis=1)] * belief[k] + fallbacks[k] for k in range(frames)]
    shown = [np.stack([light[k][c][codes[k][:, c]] for c in range(3)], -1) for k in range(frames)]
    expected = (
        sum(w[:, None] * x for w, x in zip(weights, shown, strict=True)) / sum(weights)[:, None]
    )
    assert np.allclose(whole[:, 3], sum(weights), rtol=1e-6)
    assert np.allclose(mean, expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [256, 65536])
def test_a_frame_weighs_nothing_beyond_its_range(rng, levels):
    count, frames = 3 * kernels.FEW + 17, 3
    kind, few = (np.uint8 if levels == 256 else np.uint16), 2 * kernels.FEW
    codes = tuple(rng.integers(0, levels, (count, 3)).astype(kind) for _ in range(frames))
    light = tuple(rng.random((3, levels), np.float32) for _ in range(frames))
    weight = tuple(rng.random(levels, np.float32) for _ in range(frames))
    for table in weight:
        table[-1] = 0
    belief = np.ones(1, np.float32), rng.random(count, np.float32), np.ones(1, np.float32)
    tops = np.sort(rng.integers(0, levels, count)).astype(np.uint16)
    tops[few:] = rng.permutation(tops[few:])
    beyond = np.array([levels // 16, levels // 3, levels - levels // 16])
    found = np.zeros((count, 4), np.float32)
    within = codes, light, weight, belief, np.array([0, 1, 0]), beyond, tops, found
    kernels.accumulate_within(*within, levels, count, frames)
    expected = np.zeros((count, 4))
    for k in range(frames):
        w = weight[k][codes[k].max(axis=1)] * belief[k] * (tops < beyond[k])
        shown = np.stack([light[k][c][codes[k][:, c]] for c in range(3)], -1)
        expected += np.column_stack([w[:, None] * shown, w])
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found[few:, 3] == 0).any()
    largest = np.empty(count, np.uint16)
    kernels.largest_of_three(codes[0], largest, count)
    assert (largest == codes[0].max(axis=1)).all()


def test_wrong_arrays_are_refused():
    light, bits = np.ones((4, 4), np.float32), np.empty((4, 2), np.uint16)
    with pytest.raises(AssertionError):
        kernels.floats_of_halves(bits, np.empty((4, 2)), 8)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        kernels.floats_of_halves(bits, light[:, ::2], 8)


def test_arrays_that_are_read_only_or_empty_are_passed_too():
    bits = np.array([0x3C00, 0x4000], np.uint16)
    bits.flags.writeable = False
    out = np.empty(2, np.float32)
    kernels.floats_of_halves(bits, out, 2)
    kernels.floats_of_halves(bits[:0], out[:0], 0)
    assert out.tolist() == [1, 2]


@given(st.binary(max_size=100), st.integers(0, 130))
def test_machine_code_that_was_cut_short_is_not_run(tmp_path_factory, code, length):
    path = tmp_path_factory.mktemp("kept") / "new" / "code.o"
    assert native._kept(path, code)
    assert native._read(path) == code
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert native._read(path) == (code if length >= len(whole) else None)


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert not native._kept(tmp_path / "file" / "code.o", b"1")
    assert native._read(tmp_path / "none.o") is None


def test_a_temporary_folder_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    own = list(native.folders())[1]
    assert own.parent == tmp_path
    own.chmod(0o777)
    assert len(list(native.folders())) == 1


def resampled(codes, matrix, top=0, rows=None, shifts=None):
    """Codes where a homography, and shifts, put these rows."""
    height, width = codes.shape[:2]
    rows = height if rows is None else rows
    out = np.empty((rows, width, 3), codes.dtype)
    room = np.empty((2, width), np.int64), np.empty((8, width), np.float32)
    further = np.zeros(1, np.float32) if shifts is None else shifts[top : top + rows]
    size = height, width, top, 0, rows, width
    most = np.float32(np.iinfo(codes.dtype).max)
    given = 0 if shifts is None else 1
    inside = np.empty((rows, width), np.uint8), np.float32(1)
    kernels.resample(codes, most, matrix, further, given, *room, out, *inside, *size)
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resampling_agrees_with_opencv_row_by_row(rng, dtype):
    import cv2

    codes = rng.integers(0, np.iinfo(dtype).max, (61, 83, 3)).astype(dtype)
    matrix = np.array([[1.01, 0.03, -4.2], [-0.02, 0.99, 3.3], [1e-5, -2e-5, 1]])
    found = resampled(codes, matrix)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = codes.shape[1::-1]
    theirs = cv2.warpPerspective(codes, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    apart = np.abs(found.astype(int) - theirs) / np.iinfo(dtype).max
    assert apart.max() <= 1.5 / 255
    parts = [resampled(codes, matrix, top, 7 if top < 56 else 5) for top in range(0, 61, 7)]
    assert (np.concatenate(parts) == found).all()


def test_whole_pixels_are_only_moved(rng):
    codes = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    moved = resampled(codes, np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1.0]]))
    assert (moved[2:, :-3] == codes[:-2, 3:]).all()
    assert (moved[:2] == moved[2]).all()
    shifts = np.full((40, 50, 2), (3, -2), np.float32)
    assert (resampled(codes, np.eye(3), shifts=shifts) == moved).all()


def test_places_far_outside_are_the_border(rng):
    codes = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    beyond = np.array([[1, 0, 1e30], [0, 1, 0], [0, 0, 1.0]])
    assert (resampled(codes, beyond) == codes[:, -1:]).all()
    resampled(codes, np.array([[1, 0, 0], [0, 1, 0], [0.1, 0, -1.0]]))  # the horizon is in it


def doubted_by_hand(codes, light, weight, beside, limits, darker, guess, mean, known):
    """What ``kernels.mend_doubted`` does, all pixels at once; the means of all of them."""
    fade, ceiling, shade, nearly, likely, beside_white, white = limits
    belief, least, own, sure = darker[:, :1], darker[:, 1:4], darker[:, 4:7], darker[:, 7:]
    top = codes.max(axis=1, keepdims=True)
    shown = np.take_along_axis(light, codes.T.astype(np.int64), axis=1).T
    extra = np.maximum(weight[codes] - weight[top], 0) * beside[codes]
    extra = np.maximum(extra, np.maximum(1 - 4 * belief, 0) ** 2 * weight[fade])
    measured = (known * mean + extra * shown) / (known + extra)
    lit = (codes >= shade) & (belief < 1)
    measured = np.where(lit, np.maximum(measured, nearly * shown), measured)
    fits = np.where(codes < ceiling, likely * shown / np.maximum(own, 1e-6), 1).min(
        1, keepdims=True
    )
    fits = sure + (1 - sure) * np.minimum(fits, 1)
    largest = (belief * mean + (1 - belief) * fits * own).max(1, keepdims=True)
    reached = np.clip(4 * largest / light[0, ceiling] - 3, 0, 1)
    bound = (1 - reached * (1 - beside_white)) * np.maximum(least, light[:, ceiling])
    mixed = belief * mean + (1 - belief) * np.maximum(fits * own, bound)
    heard = np.minimum(2 * (1 - belief), 1)
    risen = np.exp(np.where(own < white, heard * guess, 0))
    mended = np.where(codes >= ceiling, np.maximum(mixed * risen, bound), measured)
    return np.where(top >= fade, mended, mean)


@pytest.mark.parametrize("beside_white", [1.0, 0.3])
@pytest.mark.parametrize("guessed", [0, 1])
def test_doubted_highlights_are_mended_as_by_hand(rng, guessed, beside_white):
    count, fade, ceiling = 4000, 235, 250
    codes = rng.integers(180, 256, (count, 3)).astype(np.uint8)
    light = np.sort(rng.uniform(0.01, 1, (3, 256)).astype(np.float32), axis=1)
    weight, beside = (rng.uniform(0, 1, 256).astype(np.float32) for _ in range(2))
    darker = rng.uniform(0, 2, (count, 8)).astype(np.float32)
    darker[:, [0, 7]] /= 2
    darker[::5, 0] = 1
    guess = rng.normal(0, 1, (count, 3)).astype(np.float32)
    total = rng.uniform(0.1, 2, (count, 4)).astype(np.float32)
    beside_white, white = np.float32(beside_white), np.float32(1.5)
    limits = (fade, ceiling, 192, np.float32(0.7), np.float32(3), beside_white, white)
    known = total[:, 3:]
    asked = guess if guessed else 0 * guess
    want = doubted_by_hand(
        codes, light, weight, beside, limits, darker, asked, total[:, :3] / known, known
    )
    kernels.mend_doubted(
        codes,
        codes.max(axis=1).astype(np.uint16),
        light,
        weight,
        beside,
        *limits[:6],
        darker,
        limits[6],
        guess,
        guessed,
        total,
        256,
        count,
    )
    np.testing.assert_allclose(total[:, :3] / total[:, 3:], want, rtol=1e-5)


def test_darker_frames_tell_what_they_measure_and_what_clips():
    light = np.tile(np.linspace(0, 4, 256, dtype=np.float32), (3, 1))
    telling = np.ones(256, np.float32)
    telling[250:] = 0
    codes = np.array([[100, 90, 80], [255, 90, 80], [100, 100, 100]], np.uint8)
    bright, belief = np.array([1, 1, 0], np.uint8), np.full(3, 0.5, np.float32)
    found = np.zeros((3, 8), np.float32)

    def told(shortest):
        rest = (np.float32(4), shortest, found, 256, 3)
        kernels.darken(bright, codes, light, telling, belief, 1, *rest)

    told(0)
    assert found[:, 0].tolist() == [0.5, 0, 0], "what clips measures nothing"
    assert found[1, 1:4].tolist() == [2, 0, 0], "but is at least its white, as far as believed"
    told(1)
    assert found[:, 0].tolist() == [0.5, 0.5, 0], "of the shortest there is no better"
    np.testing.assert_array_equal(found[:2, 4:7], light[0][codes[:2]])
    assert found[:, 7].tolist() == [0.5, 0.5, 0]


def test_an_alias_of_arrays_is_their_type():
    """What NumPy 2.5 makes of NDArray where Python has aliases of types, from 3.12 on."""
    hint = GenericAlias(type("NDArray", (), {}), (np.uint16,))
    assert native._type_of(hint, None) == np.uint16
    assert native._type_of(NDArray[np.uint16], None) == np.uint16
