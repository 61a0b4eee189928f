"""How near an HDR picture is to the truth: one table of metrics, each with its units and flavour.

Radiance is divided by ``peak`` and clipped to [0, 1] first, both pictures alike; the letters of a
name say what happens then: ``-l`` linear light, ``-mu`` the mu-law of Kalantari and Ramamoorthi
(SIGGRAPH 2017, eq. 5, mu = 5000). Published SSIM values compare only within one flavour:

* ``gaussian11-valid``  11 x 11 Gaussian of deviation 1.5, borders left out, per channel
  (HDR-Transformer, SCTNet, AFUNet, ADNet)
* ``matlab-volumetric``  MATLAB's ``ssim`` on an H x W x 3 array: the Gaussian also runs over the
  channels, borders replicated (SAFNet, DeepHDRVideo)
* ``skimage7``  scikit-image's defaults: 7 x 7 uniform window, unbiased covariance, data range of
  the truth (HDRFlow)
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, luminance_weights
from hdrcli.errors import InputError, ResourceError

Pixels = NDArray[np.floating]  # (H, W, 3)
Doubles = NDArray[np.float64]
Scale = Literal["none", "median", "least-squares"]

MU = 5000.0
MOST_DB = 100.0  # what equal pictures get: a file of results holds no infinity
EXPOSED = (2.0**-4 * 0.1, 0.9)  # mean of a pixel that the reference frame shows well; 1 is white
PU21 = (  # banding + glare
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)
PU21_RANGE = (0.005, 10000.0)  # cd/m²
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """One way to compare: ``compare`` takes estimate and truth in [0, 1] and the nits of 1.0."""

    name: str
    summary: str
    source: str
    unit: str
    compare: Callable[[Doubles, Doubles, float], float]
    needs: str | None = None  # a package that is not installed with hdrcli


def mu_law(light: Pixels, mu: float = MU) -> Doubles:
    """log(1 + mu x) / log(1 + mu): light in [0, 1] to code in [0, 1]."""
    code: Doubles = np.log1p(mu * np.asarray(light, np.float64)) / np.log1p(mu)
    return code


def psnr(estimate: Pixels, truth: Pixels, peak: float = 1.0) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all pixels and channels, 100 at most."""
    error = float(np.mean((np.asarray(estimate, np.float64) - truth) ** 2)) / peak**2
    return float(-10 * np.log10(max(error, 10 ** (-MOST_DB / 10))))


def pu21(luminance: Pixels) -> Doubles:
    """cd/m² to perceptually uniform units: 100 cd/m² is about 256.

    V = p7 (((p1 + p2 L^p4) / (1 + p3 L^p4))^p5 - p6). Mantiuk and Azimi, PCS 2021, eq. 10, with
    the authors' parameters for banding and glare; L is limited to 0.005 ... 10,000.
    """
    p1, p2, p3, p4, p5, p6, p7 = PU21
    power = np.clip(np.asarray(luminance, np.float64), *PU21_RANGE) ** p4
    units = p7 * (((p1 + p2 * power) / (1 + p3 * power)) ** p5 - p6)
    return np.asarray(np.maximum(units, 0), np.float64)


def ssim_gaussian(x: Doubles, y: Doubles) -> float:
    """SSIM of (H, W, 3) in [0, 1], flavour gaussian11-valid. Wang et al., TIP 2004, eq. 13."""
    import cv2

    kernel = cv2.getGaussianKernel(11, 1.5)

    def mean(image: Doubles) -> Doubles:
        blurred = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)
        return np.asarray(blurred, np.float64)[5:-5, 5:-5]

    return _structure(x, y, mean)


def ssim_volumetric(x: Doubles, y: Doubles) -> float:
    """SSIM of (H, W, 3) in [0, 1] as MATLAB's ssim takes it: a volume three pixels deep."""
    import cv2

    kernel = cv2.getGaussianKernel(11, 1.5)
    depth = np.zeros((3, 3))  # the Gaussian over the channels, the outer ones replicated
    for channel in range(3):
        for step in range(-5, 6):
            depth[channel, min(max(channel + step, 0), 2)] += float(kernel[step + 5, 0])

    def mean(image: Doubles) -> Doubles:
        blurred = cv2.sepFilter2D(
            image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REPLICATE
        )
        return np.asarray(blurred @ depth.T, np.float64)

    return _structure(x, y, mean)


def ssim_skimage(x: Doubles, y: Doubles) -> float:
    """SSIM of estimate x and truth y as scikit-image's structural_similarity with its defaults."""
    import cv2

    def mean(image: Doubles) -> Doubles:
        return np.asarray(cv2.blur(image, (7, 7)), np.float64)[3:-3, 3:-3]

    return _structure(x, y, mean, span=max(float(np.ptp(y)), 1e-12), unbiased=49 / 48)


def _structure(
    x: Doubles,
    y: Doubles,
    mean: Callable[[Doubles], Doubles],
    *,
    span: float = 1.0,
    unbiased: float = 1.0,
) -> float:
    """The mean of SSIM with K1 = 0.01, K2 = 0.03, from a local mean."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mx, my = mean(x), mean(y)
    xx = unbiased * (mean(x * x) - mx * mx)
    yy = unbiased * (mean(y * y) - my * my)
    xy = unbiased * (mean(x * y) - mx * my)
    ssim = (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (xx + yy + c2))
    return float(ssim.mean())


def _plain(light: Doubles) -> Doubles:
    return light


def _psnr_of(coded: Callable[[Doubles], Doubles]) -> Callable[[Doubles, Doubles, float], float]:
    return lambda x, y, _nits: psnr(coded(x), coded(y))


def _ssim_of(
    flavour: Callable[[Doubles, Doubles], float], coded: Callable[[Doubles], Doubles]
) -> Callable[[Doubles, Doubles, float], float]:
    return partial(_ssim, flavour, coded)


def _ssim(
    flavour: Callable[[Doubles, Doubles], float],
    coded: Callable[[Doubles], Doubles],
    x: Doubles,
    y: Doubles,
    _nits: float,
) -> float:
    if min(x.shape[:2]) < 11:
        raise InputError(
            f"{x.shape[1]}x{x.shape[0]} pixels are too few for SSIM, whose window is 11 pixels"
        )
    return flavour(coded(x), coded(y))


def _pu21_psnr(x: Doubles, y: Doubles, nits: float) -> float:
    return psnr(pu21(x * nits), pu21(y * nits), peak=256.0)


def _cvvdp(x: Doubles, y: Doubles, nits: float) -> float:
    """Just-objectionable differences below 10, on a display whose peak is ``nits``."""
    try:
        pycvvdp: Any = import_module("pycvvdp")
    except ImportError as err:
        raise ResourceError(
            f"the metric cvvdp needs {err.name}",
            hint="pip install --no-deps cvvdp, and what it then misses; or leave the metric out",
        ) from err
    metric = pycvvdp.cvvdp(display_name="standard_hdr_linear")
    quality, _ = metric.predict(
        (x * nits).astype(np.float32), (y * nits).astype(np.float32), dim_order="HWC"
    )
    return float(quality)


_FLAVOURS: Mapping[str, Callable[[Doubles, Doubles], float]] = {
    "gaussian11-valid": ssim_gaussian,
    "matlab-volumetric": ssim_volumetric,
    "skimage7": ssim_skimage,
}
_CODINGS: Mapping[str, Callable[[Doubles], Doubles]] = {"l": _plain, "mu": mu_law}


def _ssims() -> list[Metric]:
    """One entry for each flavour and coding; the first flavour goes without its name."""
    return [
        Metric(
            f"ssim-{letter}" + ("" if flavour == "gaussian11-valid" else f"-{flavour}"),
            f"structural similarity, flavour {flavour}",
            "Wang et al., TIP 2004",
            "",
            _ssim_of(function, coded),
        )
        for flavour, function in _FLAVOURS.items()
        for letter, coded in _CODINGS.items()
    ]


_ALL = (
    Metric("psnr-l", "PSNR of linear light", "peak 1", "dB", _psnr_of(_plain)),
    Metric("psnr-mu", "PSNR after the mu-law, mu = 5000", "peak 1", "dB", _psnr_of(mu_law)),
    *_ssims(),
    Metric(
        "pu21-psnr",
        "PSNR in perceptually uniform units, banding and glare, per channel, peak 256",
        "Mantiuk and Azimi, PCS 2021",
        "dB",
        _pu21_psnr,
    ),
    Metric(
        "cvvdp",
        "ColorVideoVDP, linear HDR display, 10 is no difference",
        "Mantiuk et al., SIGGRAPH 2024",
        "JOD",
        _cvvdp,
        needs="cvvdp",
    ),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
DEFAULT = ("psnr-mu", "psnr-l", "ssim-mu", "ssim-l", "pu21-psnr")


def measure(
    estimate: Pixels,
    truth: Pixels,
    names: Iterable[str] = DEFAULT,
    *,
    scale: Scale = "none",
    peak: float = 1.0,
    nits: float = 1000.0,
) -> dict[str, float]:
    """Compare two pictures of linear light, (H, W, 3) in one unit, by the named metrics.

    ``scale`` first multiplies the estimate by one number: "median" over the pixels that are well
    exposed in the truth (1.0 being the reference frame's white), or "least-squares". ``peak`` is
    the light that becomes 1.0, above which both are clipped; ``nits`` is the luminance in cd/m²
    at which a display shows it (pu21-psnr and cvvdp). NaN and infinity in the estimate count
    as 0, and are reported. Raises InputError for another size or an unknown name.
    """
    if estimate.shape != truth.shape:
        raise InputError(
            f"cannot compare {_size(estimate)} with {_size(truth)}",
            hint="estimate and truth must have the same size and viewpoint",
        )
    chosen = [metric_of(name) for name in names]
    x, y = _finite(estimate, "estimate"), _finite(truth, "truth")
    x = x * SCALES[scale](x, y)
    x, y = np.clip(x / peak, 0, 1), np.clip(y / peak, 0, 1)
    return {metric.name: metric.compare(x, y, nits) for metric in chosen}


def metric_of(name: str) -> Metric:
    """The metric called ``name``. InputError, listing what exists, where there is none."""
    if name not in METRICS:
        raise InputError(f"there is no metric {name!r}", hint=f"one of {', '.join(METRICS)}")
    return METRICS[name]


def _size(pixels: Pixels) -> str:
    return "x".join(str(side) for side in (*pixels.shape[1::-1], *pixels.shape[2:]))


def _finite(pixels: Pixels, what: str) -> Doubles:
    values = np.asarray(pixels, np.float64)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        _log.warning("%d numbers of the %s are NaN or infinite and count as 0", bad, what)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def median_scale(estimate: Doubles, truth: Doubles) -> float:
    """What to multiply the estimate by, from the pixels that the truth shows well exposed.

    1.0 in the truth is the white of the reference frame. 1 where no pixel is well exposed or
    the estimate is black there.
    """
    brightness = truth.mean(axis=-1)
    exposed = (brightness > EXPOSED[0]) & (brightness < EXPOSED[1])
    if not exposed.any():
        return 1.0
    ratio = brightness[exposed] / np.maximum(estimate[exposed].mean(axis=-1), 1e-9)
    return float(np.median(ratio)) if estimate[exposed].any() else 1.0


def least_squares_scale(estimate: Doubles, truth: Doubles) -> float:
    """The factor with the least squared error over all pixels; 1 for a black estimate."""
    energy = float(np.sum(estimate * estimate))
    return float(np.sum(estimate * truth)) / energy if energy > 0 else 1.0


def _unscaled(_estimate: Doubles, _truth: Doubles) -> float:
    return 1.0


SCALES: Mapping[str, Callable[[Doubles, Doubles], float]] = MappingProxyType(
    {"none": _unscaled, "median": median_scale, "least-squares": least_squares_scale}
)


def validation_score(estimate: Pixels, truth: Pixels, top: float) -> dict[str, float]:
    """psnr-mu and psnr-l of a merge, after one global scale, as the validation brackets count.

    1.0 in ``truth`` is the reference frame's white; ``top`` is the clipping level of the
    shortest frame on that scale, 2^-ev of its EV (1 if none is shorter than the reference).
    """
    positive = np.maximum(np.nan_to_num(np.asarray(estimate, np.float64), posinf=0.0), 0)
    return measure(positive, truth, ("psnr-mu", "psnr-l"), scale="median", peak=top)


def flicker(
    frames: Sequence[Pixels],
    truths: Sequence[Pixels] | None = None,
    static: NDArray[np.bool_] | None = None,
) -> float:
    """How much the brightness of a video jumps where nothing moves: variance over time, stops².

    Of every frame the mean of log2 of its luminance over the truth's (over the first frame's,
    where no truth is given) is taken on the pixels marked in ``static`` (H, W; all by default);
    the result is the variance of that number over the frames. Pixels that are black in any
    frame are left out; InputError if none remains.
    """
    weights = luminance_weights(REC709)
    logs = np.stack([_log_luminance(frame, weights) for frame in frames])  # (T, H, W)
    references = truths if truths is not None else frames[:1]
    base = np.stack([_log_luminance(frame, weights) for frame in references])
    usable = np.isfinite(logs).all(axis=0) & np.isfinite(base).all(axis=0)
    if static is not None:
        usable &= static
    if not usable.any():
        raise InputError("no pixel is static and lit in all frames: flicker cannot be measured")
    ratios = (logs[:, usable] - base[:, usable]).mean(axis=1)
    return float(ratios.var())


def _log_luminance(frame: Pixels, weights: Doubles) -> Doubles:
    luminance = np.asarray(frame, np.float64) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log2(np.where(luminance > 0, luminance, np.nan)), np.float64)
