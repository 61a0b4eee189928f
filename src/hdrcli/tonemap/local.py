"""Local operators: they work on the small log luminance, and are carried to any size by a map.

A local operator says what each pixel of the reduced picture should become, in stops. In a small
window the answer is nearly a straight line of the input, so that two numbers per window, slope
and offset, carry it to the full picture with all its edges: He et al., Guided image filtering,
PAMI 2013; Chen et al., Bilateral guided upsampling, SIGGRAPH Asia 2016.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels

Floats = NDArray[np.float32]

WINDOW = 0.006  # half side of the window of the fit, as a fraction of the longer side
TEXTURE = 0.08  # stops squared: variance below which a window keeps its contrast


def gain_map(before: Floats, after: Floats) -> Floats:
    """Slope and offset of log2 gain over log2 light, (2, h, w) float32.

    At every pixel ``after - before`` is about ``slope * before + offset``; where the window is
    flat the slope tends to 0, that is, finer detail than the reduced picture shows is kept.
    """
    import cv2

    radius = max(1, round(WINDOW * max(before.shape)))
    side = (2 * radius + 1, 2 * radius + 1)

    def mean(x: NDArray[np.floating]) -> Floats:
        return np.asarray(cv2.blur(x, side, borderType=cv2.BORDER_REFLECT), np.float32)

    gain = after - before
    centre, level = mean(before), mean(gain)
    variance = np.maximum(mean(before * before) - centre * centre, 0)
    slope = (mean(before * gain) - centre * level) / (variance + np.float32(TEXTURE))
    slope = np.clip(slope, -1, 1)  # brighter never becomes darker
    return np.stack([mean(slope), mean(level - slope * centre)])


def local_laplacian(
    stops: Floats, *, threshold: float, detail: float, compression: float
) -> Floats:
    """Compress large contrasts and keep small ones, without halos.

    Paris, Hasinoff and Kautz, Local Laplacian filters, SIGGRAPH 2011, in the fast form of Aubry
    et al., TOG 2014. Differences below ``threshold`` stops are multiplied by about ``detail``;
    what exceeds it is multiplied by ``compression``, and so is the coarsest level.
    """
    low, high = float(stops.min()), float(stops.max())
    gauss = _gaussian_pyramid(stops)
    count = max(2, int(np.ceil((high - low) / (0.7 * threshold))) + 1)
    references = np.linspace(low, max(high, low + 1e-3), count)
    step = np.float32(references[1] - references[0])
    levels = [np.zeros_like(g) for g in gauss[:-1]]
    for reference in references.astype(np.float32):
        remapped = _gaussian_pyramid(_remap(stops, reference, threshold, detail, compression))
        for total, (fine, below), here in zip(levels, pairwise(remapped), gauss, strict=False):
            kernels.add_near(fine, _up(below, fine), here, reference, step, total, total.size)
    coarse = gauss[-1]
    anchor = np.float32(stops.mean())
    return _collapse(levels, anchor + np.float32(compression) * (coarse - anchor))


def _remap(
    stops: Floats, reference: np.float32, threshold: float, detail: float, compression: float
) -> Floats:
    out = np.empty_like(stops)
    kinds = np.float32(threshold), np.float32(detail), np.float32(compression)
    kernels.remap(stops, reference, *kinds, out, out.size)
    return out


def _gaussian_pyramid(image: Floats) -> list[Floats]:
    import cv2

    levels = [image]
    while min(levels[-1].shape) > 4:
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.float32))
    return levels


def _up(coarse: Floats, fine: Floats) -> Floats:
    import cv2

    return np.asarray(cv2.pyrUp(coarse, dstsize=(fine.shape[1], fine.shape[0])), np.float32)


def _collapse(levels: list[Floats], coarse: Floats) -> Floats:
    for level in reversed(levels):
        coarse = level + _up(coarse, level)
    return coarse


def bilateral(stops: Floats, *, space: float, tone: float) -> Floats:
    """The bilateral filter, piecewise linear: Durand and Dorsey, SIGGRAPH 2002, section 5.

    ``space`` is the spatial deviation as a fraction of the longer side, ``tone`` that of the
    values, in stops.
    """
    import cv2

    low, high = float(stops.min()), float(stops.max())
    references = np.linspace(low, max(high, low + 1e-3), max(2, int((high - low) / tone) + 2))
    step = np.float32(references[1] - references[0])
    deviation = max(space * max(stops.shape), 0.5)
    out = np.zeros_like(stops)
    for reference in references.astype(np.float32):
        weight = np.exp(-0.5 * ((stops - reference) / np.float32(tone)) ** 2)
        total = cv2.GaussianBlur(weight, (0, 0), deviation)
        base = cv2.GaussianBlur(weight * stops, (0, 0), deviation)
        base = base / np.maximum(total, np.float32(1e-6))
        base = np.where(total > 1e-6, base, stops)
        out += base * np.maximum(0, 1 - np.abs(stops - reference) / step)
    return out


def dodged(light: Floats, *, threshold: float, sharpness: float) -> Floats:
    """The local adaptation V1 of Reinhard et al., SIGGRAPH 2002, eq. 5-9, with a = 0.18.

    ``light`` is scaled so that 0.18 is middle grey. For each pixel the widest Gaussian whose
    centre and surround still agree is taken: eight scales, each 1.6 times the last, up to a
    tenth of the longer side, so that the picture's size changes nothing.
    """
    import cv2

    widest = 0.1 * max(light.shape)
    scales = [widest / 1.6 ** (8 - i) for i in range(9)]
    blurred = [cv2.GaussianBlur(light, (0, 0), max(s, 0.3)) for s in scales]
    adapted = blurred[0].copy()
    agreeing = np.ones(light.shape, bool)
    for i in range(8):
        share = np.float32(2.0**sharpness * 0.18 / 1.6 ** (2 * i))
        contrast = (blurred[i] - blurred[i + 1]) / (share + blurred[i])
        agreeing &= np.abs(contrast) < threshold
        adapted = np.where(agreeing, blurred[i], adapted)
    return np.asarray(adapted, np.float32)
