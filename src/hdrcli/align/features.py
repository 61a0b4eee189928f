"""A first transformation between two frames, from features or from median threshold bitmaps.

Features: ORB (Rublee et al. 2011), and where that fails SIFT (Lowe 2004), on pictures of equal
exposure whose local contrast is normalised, so that shadows give as many as lights; the
strongest of each cell of a grid; ratio and mutual tests; MAGSAC++ (Barath et al. 2020).
Bitmaps: Ward 2003, "Fast, robust image registration for compositing high dynamic range
photographs from hand-held exposures".
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hdrcli.align.models import Matrix
from hdrcli.align.views import Mask, Tone
from hdrcli.frames import Codes, Floats

SIFT_SIZE = 800  # pixels: SIFT is slow, and gets along with less
CELLS = 8  # the features are spread over 8 × 8 cells
PER_CELL = 25
RATIO = {"orb": 0.85, "sift": 0.8}  # best distance over second best
NEAR = 2.5  # pixels: a match agrees with a homography up to this distance
ENOUGH = 10  # agreeing matches
SOFT = 0.03  # log light: contrast below this is not amplified

Grey = NDArray[np.uint8]
Seen = tuple[Grey, Mask]
Words = NDArray[np.generic]  # descriptors, one row each


class Detector(Protocol):
    """What ORB and SIFT have in common."""

    def detect(self, image: Grey, mask: None) -> Sequence[Any]:
        """Find key points."""

    def compute(self, image: Grey, keypoints: Sequence[Any]) -> tuple[Sequence[Any], Words]:
        """Describe key points."""


class Matcher(Protocol):
    """What finds the nearest descriptors."""

    def knnMatch(self, query: Words, train: Words, k: int) -> Sequence[Any]:  # noqa: N802
        """Find the k nearest of ``train`` for each of ``query``."""


def normalised(codes: Codes, tone: Tone) -> Seen:
    """Log light with its local mean and contrast made equal everywhere; and what is unclipped."""
    import cv2

    raw, good = tone(codes)
    light = cv2.GaussianBlur(raw, (0, 0), 0.8)
    window = (max(min(light.shape) // 16, 8) * 2 + 1,) * 2
    centred = light - cv2.blur(light, window)
    contrast = np.sqrt(np.maximum(cv2.blur(centred * centred, window), 0)) + np.float32(SOFT)
    grey = np.clip(128 + 48 * centred / contrast, 0, 255).astype(np.uint8)
    return grey, good


def from_features(kind: str, one: Seen, other: Seen) -> list[Matrix]:
    """The homographies that features agree on, one → other: that of most, that of the rest.

    What most features agree on may be a large thing that moves; then the rest is the scene.
    """
    import cv2

    if kind == "sift" and max(one[0].shape) > SIFT_SIZE:
        double = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        found = from_features(kind, _seen_half(one), _seen_half(other))
        return [double @ matrix @ np.linalg.inv(double) for matrix in found]
    if kind == "sift":
        detector: Any = cv2.SIFT.create(nfeatures=4000, contrastThreshold=0.02)
        matcher: Any = cv2.BFMatcher(cv2.NORM_L2)
    else:
        detector = cv2.ORB.create(nfeatures=6000, fastThreshold=8)
        matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    a, a_words = _described(detector, *one)
    b, b_words = _described(detector, *other)
    if min(len(a), len(b)) < ENOUGH:
        return []
    pairs = _mutual(matcher, a_words, b_words, RATIO[kind])
    found = []
    for _ in range(2):
        if len(pairs) < ENOUGH:
            break
        cv2.setRNGSeed(0)
        matrix, agree = cv2.findHomography(
            a[pairs[:, 0]], b[pairs[:, 1]], cv2.USAC_MAGSAC, NEAR, maxIters=5000, confidence=0.999
        )
        if matrix is None or agree.sum() < ENOUGH:
            break
        found.append(np.asarray(matrix, np.float64))
        pairs = pairs[agree.ravel() == 0]
    return found


def _seen_half(seen: Seen) -> Seen:
    import cv2

    grey, good = seen
    height, width = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
    halved = cv2.resize(
        grey[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    return np.asarray(halved, np.uint8), good[:height:2, :width:2]


def _described(detector: Detector, grey: Grey, good: Mask) -> tuple[NDArray[np.float64], Words]:
    """Positions (n, 2) and descriptors of the strongest unclipped features of each cell."""
    points = sorted(detector.detect(grey, None), key=lambda p: (-p.response, p.pt))
    height, width = grey.shape
    taken = np.zeros((CELLS, CELLS), int)
    kept: list[Any] = []
    for point in points:
        x, y = point.pt
        cell = int(y * CELLS / height), int(x * CELLS / width)
        if taken[cell] < PER_CELL and good[int(y), int(x)]:
            taken[cell] += 1
            kept.append(point)
    described, words = detector.compute(grey, kept)
    return np.array([p.pt for p in described], np.float64).reshape(-1, 2), words


def _mutual(matcher: Matcher, a: Words, b: Words, ratio: float) -> NDArray[np.int64]:
    """Index pairs that are each other's nearest and clearly nearer than the second, (n, 2)."""
    back = {m[0].queryIdx: m[0].trainIdx for m in matcher.knnMatch(b, a, k=1) if m}
    both = [m for m in matcher.knnMatch(a, b, k=2) if len(m) == 2]
    kept = [
        (best.queryIdx, best.trainIdx)
        for best, second in both
        if best.distance < ratio * second.distance and back.get(best.trainIdx) == best.queryIdx
    ]
    return np.array(kept, np.int64).reshape(-1, 2)


def from_bitmaps(one: Floats, other: Floats) -> Matrix:
    """The shift that makes the median threshold bitmaps differ least, one → other (Ward 2003).

    Both pictures are (H, W) and need no common exposure. Pixels within a small band around
    the median are not compared. The reach is a quarter of the picture's smaller side.
    """
    levels = max(1, int(np.log2(max(min(one.shape) / 4, 2))))
    pyramid = [(one, other)]
    while len(pyramid) < levels:
        a, b = pyramid[-1]
        pyramid.append((_half(a), _half(b)))
    shift = (0, 0)
    for a, b in reversed(pyramid):
        shift = _best_near((2 * shift[0], 2 * shift[1]), _bitmap(a), _bitmap(b))
    out = np.eye(3)
    out[:2, 2] = shift
    return out


def _half(image: Floats) -> Floats:
    import cv2

    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    halved = cv2.resize(
        image[:height, :width], (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    return np.asarray(halved, np.float32)


def _bitmap(image: Floats) -> tuple[Mask, Mask]:
    """Above the median, and far enough from it to be sure: 3 % of the pixels' ranks each way."""
    low, middle, high = np.quantile(image, [0.47, 0.5, 0.53])
    return image > middle, (image < low) | (image > high)


def _best_near(
    start: tuple[int, int], a: tuple[Mask, Mask], b: tuple[Mask, Mask]
) -> tuple[int, int]:
    """The best of the nine shifts around ``start``; the smallest of equals."""
    shifts = [(start[0] + i, start[1] + j) for j in (-1, 0, 1) for i in (-1, 0, 1)]
    return min(shifts, key=lambda s: (_disagreement(s, a, b), abs(s[0]) + abs(s[1])))


def _disagreement(shift: tuple[int, int], a: tuple[Mask, Mask], b: tuple[Mask, Mask]) -> float:
    (x, y), (height, width) = shift, a[0].shape
    here = np.s_[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    there = np.s_[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    sure = a[1][here] & b[1][there]
    if sure.sum() < 0.2 * height * width:
        return 1.0
    return float(((a[0][here] != b[0][there]) & sure).sum() / sure.sum())
