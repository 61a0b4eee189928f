"""Neighbours brought to the present frame by one similarity each, before anything else.

Flow finds what moves by a part of the picture's width at most; a camera that is jerked moves all
of it further. The present frame itself stays as it is, so the film keeps its movement.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Frame
from hdrcli.video.clip import Timed
from hdrcli.video.motion import PIXELS, exposed_alike, factor_of, small
from hdrcli.video.windows import Window

CORNERS = 400  # that are followed
FEWEST = 12  # that must agree
LEAST = 0.5  # px, moves less than that are left to flow
NEAR = 1.5  # px of the reduced picture within which a corner agrees

Matrix = NDArray[np.float64]  # (2, 3), present pixel to the neighbour's


def steadied(window: Window) -> Window:
    """The window with its neighbours where the present frame has them."""
    moved: dict[int, Timed] = {window.now.index: window.now}

    def there(timed: Timed | None) -> Timed | None:
        if timed is None:
            return None
        if timed.index not in moved:
            moved[timed.index] = brought(window.now, timed)
        return moved[timed.index]

    scene = [there(timed) for timed in window.scene]
    return replace(
        window,
        others=tuple((there(before), there(after)) for before, after in window.others),
        alike=(there(window.alike[0]), there(window.alike[1])),
        scene=tuple(timed for timed in scene if timed is not None),
    )


def brought(now: Timed, other: Timed) -> Timed:
    """A neighbour in the geometry of the present frame; itself where it does not move."""
    matrix = similarity(now, other)
    if matrix is None:
        return other
    return replace(other, frame=placed(other.frame, matrix), memo={})


def similarity(now: Timed, other: Timed) -> Matrix | None:
    """From the pixels of the present frame to a neighbour's; None where that is no move, or
    where too few corners agree on one."""
    import cv2

    one, two = exposed_alike(small(now), small(other), _ratio(now, other))
    corners = cv2.goodFeaturesToTrack(one, CORNERS, 0.01, 6)
    if corners is None or len(corners) < FEWEST:
        return None
    found, met, _ = cv2.calcOpticalFlowPyrLK(
        one, two, corners, np.empty_like(corners), winSize=(21, 21), maxLevel=5
    )
    kept = met.ravel() > 0
    if np.count_nonzero(kept) < FEWEST:
        return None
    matrix, agree = cv2.estimateAffinePartial2D(
        corners[kept], found[kept], ransacReprojThreshold=NEAR
    )
    if matrix is None or np.count_nonzero(agree) < max(FEWEST, 0.3 * np.count_nonzero(kept)):
        return None
    return _full(np.asarray(matrix, np.float64), now.frame)


def _ratio(now: Timed, other: Timed) -> float:
    assert now.frame.exposure is not None
    assert other.frame.exposure is not None
    return other.frame.exposure / now.frame.exposure


def _full(matrix: Matrix, frame: Frame) -> Matrix | None:
    """A matrix of the reduced picture for the full one; None where it moves nothing."""
    factor = factor_of(frame.size, PIXELS)
    half = np.full(2, (factor - 1) / 2)  # of a block, to its middle
    full = np.array(matrix)
    full[:, 2] = factor * matrix[:, 2] + half - matrix[:, :2] @ half
    height, width = frame.size
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    shifts = ends @ full[:, :2].T + full[:, 2] - ends
    return full if np.abs(shifts).max() >= LEAST else None


def placed(frame: Frame, matrix: Matrix) -> Frame:
    """The frame, resampled; what lies outside repeats its edge."""
    import cv2

    height, width = frame.size
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    codes: Any = cv2.warpAffine(
        frame.codes, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return replace(frame, codes=np.asarray(codes))
