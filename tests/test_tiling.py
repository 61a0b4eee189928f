from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrcli.tiling import TileSpec, ramp, run_tiled, shrinking, spans, tiles


@st.composite
def specs(draw):
    halo, blend, multiple = (
        draw(st.integers(0, 6)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 4)),
    )
    size = draw(st.integers(2 * halo + blend + multiple, 60))
    return TileSpec(size, halo, blend, multiple, oblong=draw(st.booleans()))


def box_blur(image, radius):
    """Looks exactly ``radius`` pixels to each side."""
    padded = np.pad(image, [(0, 0), (radius, radius), (radius, radius)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1,) * 2, (1, 2))
    return windows.mean(axis=(-2, -1)).astype(np.float32)


@given(st.integers(1, 200), specs())
def test_every_pixel_has_weight(length, spec):
    weight = np.zeros(length)
    for span in spans(length, spec):
        weight[span] += ramp(span, length, spec)
    assert (weight > 0).all()


@given(st.integers(1, 120), st.integers(1, 120), specs())
def test_weights_of_all_tiles_add_up_to_one(height, width, spec):
    total = np.zeros((height, width))
    for tile in tiles((height, width), spec):
        total[tile.rows, tile.cols] += tile.weight
    np.testing.assert_allclose(total, 1, atol=1e-5)


@given(st.integers(1, 400), specs())
def test_tiles_start_on_the_grid_and_are_no_larger_than_asked(length, spec):
    cut = list(spans(length, spec))
    assert all(span.start % spec.multiple == 0 for span in cut)
    assert all(span.stop - span.start <= spec.size for span in cut)
    assert cut[0].start == 0
    assert cut[-1].stop == length


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), specs())
def test_tiled_equals_whole_when_the_halo_covers_the_reach(height, width, spec):
    image = np.random.default_rng(0).random((2, height, width), np.float32)
    whole = box_blur(image, spec.halo)
    tiled = run_tiled(lambda tile: box_blur(tile, spec.halo), image, spec)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_a_halo_shorter_than_the_reach_shows():
    image = np.random.default_rng(0).random((1, 90, 90), np.float32)
    tiled = run_tiled(lambda tile: box_blur(tile, 5), image, TileSpec(40, 1, 4))
    assert np.abs(tiled - box_blur(image, 5)).max() > 1e-3


def test_tensors_come_back_as_tensors_of_their_type():
    image = torch.rand(3, 70, 50, dtype=torch.float64)
    out = run_tiled(lambda tile: tile[:2] * 2, image, TileSpec(32, 2, 4, 2))
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, image[:2] * 2, atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(st.integers(30, 120), st.integers(30, 120), st.integers(1, 12))
def test_memory_running_out_changes_nothing(height, width, fails_at):
    image = np.random.default_rng(0).random((1, height, width), np.float32)
    calls = 0

    def identity(tile):
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise MemoryError
        return tile

    out = run_tiled(identity, image, TileSpec(size=40, halo=2, blend=4))
    np.testing.assert_allclose(out, image, rtol=0, atol=1e-6)


def test_memory_that_never_suffices_ends_with_the_error_itself():
    sizes = []

    def always_fails(spec):
        sizes.append(spec.size)
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        shrinking(always_fails, TileSpec(64, 4, 4))
    assert sizes == [64, 32, 16]


@given(st.integers(1, 300), st.integers(1, 300), specs())
def test_oblong_tiles_have_no_more_pixels_than_squares_and_waste_fewer(height, width, spec):
    def pixels(spec):
        cut = tiles((height, width), spec)
        return [len(tile.down) * len(tile.across) for tile in cut]

    square, oblong = (pixels(replace(spec, oblong=oblong)) for oblong in (False, True))
    assert max(oblong) <= spec.size**2
    assert sum(oblong) <= sum(square)


def test_a_picture_that_fits_in_pixels_is_not_cut():
    [tile] = tiles((1000, 1504), TileSpec(1250, 64, 16, 4, oblong=True))
    assert (tile.rows, tile.cols) == (slice(0, 1000), slice(0, 1504))


def test_tiles_are_no_larger_than_their_number_demands() -> None:
    spec = TileSpec(size=592, halo=32, blend=16, multiple=4)
    cut = list(spans(1500, spec))
    assert [span.stop - span.start for span in cut] == [556, 556, 548]
    assert sum(span.stop - span.start for span in cut) == 1500 + 2 * (2 * 32 + 16)
