"""Against the numbers of the standards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrcli import color
from hdrcli.color import ADOBE_RGB, DISPLAY_P3, KNOWN, PROPHOTO, REC709, REC2020

unit = np.linspace(0, 1, 4097)


def test_known_values_of_pq():
    # BT.2408: 203 cd/m² is 58 % PQ, 100 cd/m² 51 %, 1000 cd/m² 75 %
    assert color.pq_encode(np.array([203.0]))[0] == pytest.approx(0.58069, abs=1e-5)
    assert color.pq_encode(np.array([100.0]))[0] == pytest.approx(0.50808, abs=1e-5)
    assert color.pq_encode(np.array([1000.0]))[0] == pytest.approx(0.75183, abs=1e-5)
    np.testing.assert_allclose(color.pq_encode(np.array([0.0, 10000.0])), [0, 1], atol=1e-6)


def test_known_values_of_hlg():
    # BT.2100: the two parts meet at 1/2; BT.2408: 75 % HLG is 0.265 of the scene's peak
    np.testing.assert_allclose(color.hlg_encode(np.array([0, 1 / 12, 1])), [0, 0.5, 1], atol=1e-6)
    assert color.hlg_encode(np.array([0.2650]))[0] == pytest.approx(0.75, abs=2e-4)
    white = color.hlg_ootf(np.full((1, 3), color.hlg_decode(np.array(0.75))))
    np.testing.assert_allclose(white, 203, rtol=0.005)


def test_known_values_of_srgb_and_rec709():
    assert color.srgb_encode(np.array([0.18]))[0] == pytest.approx(0.46136, abs=1e-5)
    assert color.srgb_decode(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-5)
    assert color.rec709_encode(np.array([0.18]))[0] == pytest.approx(0.40897, abs=2e-4)


@pytest.mark.parametrize(
    ("encode", "decode", "top"),
    [
        (color.srgb_encode, color.srgb_decode, 1),
        (color.rec709_encode, color.rec709_decode, 1),
        (color.hlg_encode, color.hlg_decode, 1),
        (color.pq_encode, color.pq_decode, 10000),
        (lambda x: color.gamma_encode(x, 2.2), lambda x: color.gamma_decode(x, 2.2), 1),
    ],
)
def test_decoding_undoes_encoding_and_both_are_monotone(encode, decode, top):
    light = unit * top
    back = decode(encode(light))
    np.testing.assert_allclose(back, light, rtol=2e-4, atol=1e-6 * top)
    assert (np.diff(encode(light)) >= 0).all()
    assert (np.diff(decode(unit)) >= 0).all()


def test_the_matrix_from_rec709_to_xyz():
    published = [
        [0.4123908, 0.3575843, 0.1804808],
        [0.2126390, 0.7151687, 0.0721923],
        [0.0193308, 0.1191948, 0.9505322],
    ]
    np.testing.assert_allclose(color.rgb_to_xyz(REC709), published, atol=1e-6)


def test_the_matrix_from_rec709_to_rec2020():
    published = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    np.testing.assert_allclose(color.conversion(REC709, REC2020), published, atol=5e-5)  # BT.2087


def test_the_matrices_from_rec709_to_display_p3_and_aces():
    p3 = [[0.822462, 0.177538, 0], [0.033194, 0.966806, 0], [0.017083, 0.072397, 0.910520]]
    np.testing.assert_allclose(color.conversion(REC709, DISPLAY_P3), p3, atol=2e-6)  # CSS Color 4
    acescg = [
        [0.61309741, 0.33952316, 0.04737943],
        [0.07019373, 0.91635388, 0.01345239],
        [0.02061560, 0.10956977, 0.86981463],
    ]  # colour-science, Bradford
    np.testing.assert_allclose(color.conversion(REC709, color.ACES_AP1), acescg, atol=1e-5)


def test_luminance_weights_are_those_of_the_standards():
    np.testing.assert_allclose(color.luminance_weights(REC709), [0.2126, 0.7152, 0.0722], atol=5e-5)
    np.testing.assert_allclose(color.luminance_weights(REC2020), [0.2627, 0.678, 0.0593], atol=5e-5)
    np.testing.assert_allclose(
        color.luminance_weights(ADOBE_RGB), [0.2974, 0.6274, 0.0753], atol=1e-4
    )
    np.testing.assert_allclose(
        color.luminance_weights(PROPHOTO), [0.288, 0.7119, 0.0001], atol=1e-4
    )


@pytest.mark.parametrize("src", KNOWN, ids=lambda p: p.name)
@pytest.mark.parametrize("dst", KNOWN, ids=lambda p: p.name)
def test_white_stays_white_and_there_is_a_way_back(src, dst):
    there = color.conversion(src, dst)
    np.testing.assert_allclose(there @ np.ones(3), 1, atol=1e-9)
    np.testing.assert_allclose(color.conversion(dst, src) @ there, np.eye(3), atol=1e-9)


@given(st.lists(st.floats(0, 1000, width=32), min_size=3, max_size=30))
def test_conversion_is_linear(values):
    values = np.array(values[: len(values) // 3 * 3], np.float32).reshape(-1, 3)
    once = color.convert(values, REC709, REC2020)
    twice = color.convert(values * 2, REC709, REC2020)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5, atol=1e-3)


def test_conversion_keeps_the_shape_and_takes_strides(rng):
    image = rng.random((5, 7, 3)).astype(np.float32)
    whole = color.convert(image, REC709, PROPHOTO)
    np.testing.assert_allclose(whole, image @ color.conversion(REC709, PROPHOTO).T, atol=1e-5)
    part = color.convert(image[::2, ::-1], REC709, PROPHOTO)
    np.testing.assert_allclose(part, whole[::2, ::-1], rtol=1e-6)
    assert color.convert(image[0, 0], REC709, PROPHOTO).shape == (3,)
    np.testing.assert_array_equal(color.convert(image, REC709, REC709), image)


@pytest.mark.parametrize("primaries", [REC709, REC2020])
def test_grey_has_no_chroma_and_full_colours_reach_half(primaries):
    matrix = color.ycbcr_matrix(primaries)
    np.testing.assert_allclose(matrix @ np.ones(3), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(matrix @ [0, 0, 1], [matrix[0, 2], 0.5, matrix[2, 2]], atol=1e-12)
    assert (matrix @ [1, 0, 0])[2] == pytest.approx(0.5)


def test_well_known_primaries_are_recognised():
    near = color.Primaries("?", (0.6401, 0.33), (0.2999, 0.6001), (0.15, 0.0599), (0.3127, 0.3291))
    assert color.known(near) is REC709
    far = color.Primaries("?", (0.63, 0.33), (0.3, 0.6), (0.15, 0.06), (0.3127, 0.329))
    assert color.known(far) is far
