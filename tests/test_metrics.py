"""Metrics: laws, numbers worked out by hand, and second implementations."""

import logging

import numpy as np
import pytest

from hdrcli.errors import InputError, ResourceError
from hdrcli.metrics import (
    METRICS,
    flicker,
    least_squares_scale,
    measure,
    median_scale,
    mu_law,
    psnr,
    pu21,
    ssim_gaussian,
    ssim_skimage,
    ssim_volumetric,
    validation_score,
)

HERE = tuple(name for name, metric in METRICS.items() if metric.needs is None)


@pytest.fixture
def truth(rng):
    smooth = np.add.outer(np.linspace(0, 0.5, 40), np.linspace(0, 0.4, 48))[..., None]
    return (smooth * [1.0, 0.8, 0.6] + 0.05 * rng.random((40, 48, 3))).astype(np.float32)


@pytest.fixture
def estimate(truth, rng):
    return np.clip(truth + 0.02 * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)


# --- laws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_the_truth_is_best(truth, estimate, name):
    worse = np.clip(truth + 3 * (estimate - truth), 0, 1)
    scores = [measure(x, truth, [name])[name] for x in (truth, estimate, worse)]
    assert scores[0] > scores[1] > scores[2]
    assert scores[0] == pytest.approx(1.0 if name.startswith("ssim") else 100.0)


@pytest.mark.parametrize("name", [n for n in HERE if "skimage" not in n])
def test_order_does_not_matter(truth, estimate, name):
    there, back = measure(estimate, truth, [name]), measure(truth, estimate, [name])
    assert there[name] == pytest.approx(back[name], rel=1e-9)


@pytest.mark.parametrize("scale", ["median", "least-squares"])
def test_a_global_factor_is_forgiven_where_asked(truth, estimate, scale):
    plain = measure(estimate, truth, scale=scale)
    scaled = measure(estimate * np.float32(4), truth, scale=scale)
    assert scaled == pytest.approx(plain, rel=1e-4)
    assert measure(estimate * np.float32(4), truth)["psnr-l"] < plain["psnr-l"] - 5


def test_the_peak_only_names_the_unit(truth, estimate):
    assert measure(estimate * np.float32(8), truth * np.float32(8), peak=8.0) == pytest.approx(
        measure(estimate, truth), rel=1e-6
    )


def test_a_dimmer_display_shows_less_difference(truth, estimate):
    bright, dim = (measure(estimate, truth, ["pu21-psnr"], nits=n) for n in (1000.0, 1.0))
    assert dim["pu21-psnr"] > bright["pu21-psnr"]


# --- by hand ----------------------------------------------------------------------------------


def test_psnr_of_a_constant_error():
    truth = np.full((12, 12, 3), 0.5, np.float32)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-5)
    assert psnr(truth + 0.1, truth, peak=2.0) == pytest.approx(20 + 20 * np.log10(2), abs=1e-5)


def test_psnr_mu_of_black_and_white():
    truth = np.zeros((12, 12, 3), np.float32)
    half = np.full_like(truth, (5001**0.5 - 1) / 5000)  # the light whose mu-law code is 0.5
    assert measure(half, truth, ["psnr-mu"])["psnr-mu"] == pytest.approx(-20 * np.log10(0.5))


def test_clipping_above_the_peak_is_forgiven():
    truth = np.full((12, 12, 3), 3.0, np.float32)
    assert measure(truth * 2, truth, ["psnr-l"])["psnr-l"] == 100.0


def test_pu21_is_256_at_100_nits_and_monotone():
    assert pu21(np.array([100.0]))[0] == pytest.approx(256, abs=1)
    assert (np.diff(pu21(np.geomspace(0.006, 9999, 500))) > 0).all()
    assert pu21(np.array([0.0]))[0] == pytest.approx(0, abs=0.5)


def test_mu_law_ends():
    assert mu_law(np.array([0.0, 1.0])) == pytest.approx([0, 1])


def test_median_scale_ignores_what_the_truth_does_not_show_well(truth):
    wrong = truth / 2
    wrong[truth.mean(axis=-1) > 0.9] = 77
    assert median_scale(wrong.astype(np.float64), truth.astype(np.float64)) == pytest.approx(2)


def test_least_squares_scale_is_least(truth, estimate):
    x, y = estimate.astype(np.float64), truth.astype(np.float64)
    best = least_squares_scale(x, y)
    errors = [((f * x - y) ** 2).sum() for f in (best * 0.99, best, best * 1.01)]
    assert errors[1] < min(errors[0], errors[2])


def test_a_black_estimate_is_left_alone(truth):
    black = np.zeros_like(truth)
    assert measure(black, truth, ["psnr-l"], scale="median")["psnr-l"] < 20
    assert measure(black, truth, ["psnr-l"], scale="least-squares")["psnr-l"] < 20


# --- second implementations -------------------------------------------------------------------


def test_ssim_skimage7_is_scikit_images(truth, estimate):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = estimate.astype(np.float64), truth.astype(np.float64)
    theirs = metrics.structural_similarity(x, y, channel_axis=2, data_range=float(np.ptp(y)))
    assert ssim_skimage(x, y) == pytest.approx(theirs, abs=1e-9)


def test_ssim_gaussian_is_scikit_images_with_wangs_window(truth, estimate):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = estimate.astype(np.float64), truth.astype(np.float64)
    theirs = metrics.structural_similarity(
        x,
        y,
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim_gaussian(x, y) == pytest.approx(theirs, abs=1e-9)


def test_ssim_volumetric_is_a_three_dimensional_gaussian(truth, estimate):
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
    x, y = estimate.astype(np.float64), truth.astype(np.float64)

    def blur(volume):  # radius 5 in all three directions, nearest = replicated
        return ndimage.gaussian_filter(volume, 1.5, mode="nearest", truncate=5 / 1.5)

    mx, my = blur(x), blur(y)
    xx, yy, xy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    theirs = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))
    assert ssim_volumetric(x, y) == pytest.approx(theirs.mean(), abs=1e-9)


def test_flavours_of_ssim_differ(truth, estimate):
    names = ("ssim-l", "ssim-l-matlab-volumetric", "ssim-l-skimage7")
    values = list(measure(estimate, truth, names).values())
    assert len({round(v, 4) for v in values}) == 3


def test_validation_score_is_the_published_scorers(truth, rng):
    """The formula of the validation brackets' scorer, written out once more."""
    truth = truth * 6
    estimate = (truth * 3 * (1 + 0.05 * rng.standard_normal(truth.shape))).astype(np.float32)
    estimate[3, 3] = np.nan
    top = 4.0
    x = np.maximum(np.where(np.isfinite(estimate), estimate, 0), 0)
    g = truth.mean(-1)
    m = (g > 2.0**-4 * 0.1) & (g < 0.9)
    s = np.median(truth[m].mean(-1) / np.maximum(x[m].mean(-1), 1e-9))
    a, b = np.clip(x * s / top, 0, 1), np.clip(truth / top, 0, 1)

    def code(v):
        return np.log1p(5000 * v) / np.log1p(5000)

    score = validation_score(estimate, truth, top)
    assert score["psnr-l"] == pytest.approx(-10 * np.log10(np.mean((a - b) ** 2)), abs=1e-4)
    expected = -10 * np.log10(np.mean((code(a) - code(b)) ** 2))
    assert score["psnr-mu"] == pytest.approx(expected, abs=1e-4)


# --- flicker ----------------------------------------------------------------------------------


def test_a_steady_video_does_not_flicker(truth):
    assert flicker([truth + 0.1] * 4) == pytest.approx(0, abs=1e-12)


def test_flicker_is_the_variance_in_stops(truth):
    frames = [np.float32(2.0**ev) * (truth + 0.1) for ev in (0, 1, 0, 1)]
    assert flicker(frames) == pytest.approx(0.25, abs=1e-5)


def test_a_change_that_the_truth_makes_too_is_no_flicker(truth):
    truths = [np.float32(2.0**ev) * (truth + 0.1) for ev in (0, 1, 2)]
    assert flicker([3 * t for t in truths], truths) == pytest.approx(0, abs=1e-10)


def test_only_static_pixels_count(truth):
    static = np.ones(truth.shape[:2], bool)
    static[:10] = False
    moving = truth + 0.1
    moving[:10] *= 50
    assert flicker([truth + 0.1, moving], static=static) == pytest.approx(0, abs=1e-12)
    assert flicker([truth + 0.1, moving]) > 0.1


def test_flicker_of_nothing_is_an_error(truth):
    with pytest.raises(InputError, match="static and lit"):
        flicker([np.zeros_like(truth)] * 2)


# --- what users do wrong ----------------------------------------------------------------------


def test_another_size_is_named(truth):
    with pytest.raises(InputError, match=r"48x39x3.*48x40x3"):
        measure(truth[:-1], truth)


def test_an_unknown_metric_lists_the_known_ones(truth):
    with pytest.raises(InputError, match="'vmaf'") as caught:
        measure(truth, truth, ["vmaf"])
    assert "pu21-psnr" in str(caught.value.hint)


def test_a_picture_smaller_than_the_window_is_refused(truth):
    with pytest.raises(InputError, match="too few for SSIM"):
        measure(truth[:8, :8], truth[:8, :8], ["ssim-l"])


def test_nan_counts_as_black_and_is_reported(truth, caplog):
    broken = truth.copy()
    broken[2, 2] = np.nan
    black = truth.copy()
    black[2, 2] = 0
    with caplog.at_level(logging.WARNING):
        assert measure(broken, truth, ["psnr-l"]) == measure(black, truth, ["psnr-l"])
    assert "3 numbers of the estimate" in caplog.text


def test_cvvdp_says_what_is_missing(truth, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycvvdp", None)  # an import that fails
    with pytest.raises(ResourceError, match="cvvdp needs pycvvdp") as caught:
        measure(truth, truth, ["cvvdp"])
    assert "pip install" in str(caught.value.hint)


def test_cvvdp_knows_the_truth(truth, estimate):
    pytest.importorskip("pycvvdp", reason="ColorVideoVDP is not installed")
    scores = [measure(x, truth, ["cvvdp"])["cvvdp"] for x in (truth, estimate)]
    assert scores[0] == pytest.approx(10, abs=0.01)
    assert scores[1] < scores[0]
