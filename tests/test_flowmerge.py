"""FlowMerge as a backend: the mean where nothing moved, no ghosts where something did."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hdrcli import kernels, motion
from hdrcli.backends import Settings, average, load_backend
from hdrcli.backends.average import Average
from hdrcli.backends.flowmerge import correct, evidence_arrays, evidence_of, padded
from hdrcli.nets import flowmerge as nets
from hdrcli.nets.flowmerge import FlowMerge
from tests.scenes import photograph, texture

SMALL = {"widths": (8, 8, 8, 8), "fill_widths": (8, 8, 8, 8, 8)}
ONE = Settings(threads=1)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def moving(count=3, reference=None):
    """A square that is somewhere else in every frame, over a texture that stands still."""
    step = 2.0 if count <= 3 else 1.0
    stops = [step * (i - count // 2) for i in range(count)]
    truth = texture(96, 128)
    bracket = photograph(truth, stops)
    frames = []
    for i, frame in enumerate(bracket.frames):
        shown = truth.copy()
        x = 16 + i * 96 // max(count - 1, 1)
        shown[40:64, x - 8 : x + 8] = 0.6
        frames.append(replace(frame, codes=photograph(shown, stops).frames[i].codes))
    moved = bracket.with_frames(frames)
    return moved if reference is None else replace(moved, reference=reference)


def test_an_untrained_network_changes_almost_nothing():
    bracket = moving()
    found = motion.analyse(bracket, keep_views=True)
    corrected, guess = correct(FlowMerge(**SMALL).eval(), bracket, found)
    plain = Average(ONE).merge(bracket, found).pixels
    same = Average(ONE).merge(bracket, corrected, guess).pixels
    assert np.median(np.abs(same / plain - 1)) < 1e-3
    assert np.quantile(np.abs(same / plain - 1), 0.95) < 0.03
    assert not guess.any()


def test_photographs_are_merged_by_the_rules_that_the_network_learned_with():
    assert average.LIKELY == nets.LIKELY
    assert kernels.HEARD == nets.HEARD


@pytest.mark.parametrize(("count", "reference"), [(2, 0), (2, 1), (3, 1), (5, 0), (7, 6), (9, 4)])
def test_any_number_of_frames_and_any_reference(count, reference):
    bracket = moving(count, reference)
    found = motion.analyse(bracket, keep_views=True)
    corrected, guess = correct(FlowMerge(**SMALL).eval(), bracket, found)
    merged = Average(ONE).merge(bracket, corrected, guess)
    assert merged.pixels.shape == (96, 128, 3)
    assert np.isfinite(merged.pixels).all()
    assert merged.pixels.min() >= 0


def test_maps_are_padded_by_their_borders():
    bracket = moving()
    arrays = evidence_arrays(bracket, motion.analyse(bracket, keep_views=True))
    grown = padded(arrays, 100)
    assert grown["light"].shape[-2:] == (100, 200)
    np.testing.assert_array_equal(grown["light"][..., :96, :128], arrays["light"])
    np.testing.assert_array_equal(grown["light"][..., 99, :128], arrays["light"][..., 95, :])
    assert evidence_of([grown, grown]).light.shape == (2, 3, 3, 100, 200)


@pytest.mark.weights
def test_a_static_bracket_is_merged_as_average_merges_it():
    bracket = photograph(texture(96, 128))
    found = motion.analyse(bracket, keep_views=True)
    np.testing.assert_array_equal(
        load_backend("flowmerge", ONE).merge(bracket, found).pixels,
        load_backend("average", ONE).merge(bracket, found).pixels,
    )


@pytest.mark.weights
@pytest.mark.parametrize("count", [2, 3, 5])
def test_what_moved_leaves_no_ghost(count):
    bracket = moving(count)
    found = motion.analyse(bracket, keep_views=True)
    pixels = load_backend("flowmerge", ONE).merge(bracket, found).pixels
    alone = bracket.ref.linear()
    exposed = (bracket.ref.codes.max(axis=2) < 230) & (bracket.ref.codes.min(axis=2) > 25)
    error = np.abs(pixels / np.maximum(alone, 1e-4) - 1).mean(axis=2)[exposed]
    assert np.quantile(error, 0.99) < 0.25  # a ghost of the square would be off by its contrast


@pytest.mark.weights
def test_unmoved_light_keeps_its_colour():
    """Where nothing moved the median ratio to the mean of the classical merge is 1."""
    bracket = moving()
    found = motion.analyse(bracket, keep_views=True)
    ratio = (
        load_backend("flowmerge", ONE).merge(bracket, found).pixels
        / load_backend("average", ONE).merge(bracket, found).pixels
    )
    assert np.abs(np.median(ratio[:30], axis=(0, 1)) - 1).max() < 0.01


@pytest.mark.weights
def test_the_order_of_the_files_changes_nothing():
    bracket = moving()
    found = motion.analyse(bracket, keep_views=True)
    again = type(bracket).of(bracket.frames[::-1], bracket.ref)
    repeated = motion.analyse(again, keep_views=True)
    backend = load_backend("flowmerge", ONE)
    np.testing.assert_array_equal(
        backend.merge(bracket, found).pixels, backend.merge(again, repeated).pixels
    )


def test_tiles_change_nothing():
    torch.manual_seed(3)
    net = FlowMerge(**SMALL).eval()
    with torch.no_grad():
        for layer in (net.logit, net.flow, net.level):
            layer.weight.normal_(0, 0.05)
    bracket = moving()
    wide = bracket.with_frames(
        replace(frame, codes=np.tile(frame.codes, (2, 2, 1))) for frame in bracket.frames
    )
    found = motion.analyse(wide, keep_views=True)
    whole, level = correct(net, wide, found, core=4096)
    parts, pieces = correct(net, wide, found, core=96)
    assert level.any()
    np.testing.assert_allclose(pieces, level, atol=1e-3)
    for i in (0, 2):
        for some, all_ in ((parts.confidence, whole.confidence), (parts.flows, whole.flows)):
            part, alone = some[i], all_[i]
            assert part is not None
            assert alone is not None
            np.testing.assert_allclose(part, alone, atol=1e-3)
