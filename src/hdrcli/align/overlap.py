"""What aligned frames have in common, and resampling one of them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hdrcli.align.models import Matrix, apply, corners
from hdrcli.frames import Bracket, Codes, Frame

COARSE = 240  # the rectangle is first looked for on a grid of about this many cells a side

Mask = NDArray[np.bool_]


def crop_to_overlap(bracket: Bracket) -> tuple[slice, slice]:
    """Rows and columns of the largest rectangle that every frame covers.

    Found on a coarse grid, where alpha masks count too, and then widened to the pixel where
    there are none. Empty slices where the frames have nothing in common.
    """
    height, width = bracket.size
    if all(frame.warp is None and frame.valid is None for frame in bracket.frames):
        return slice(0, height), slice(0, width)
    step = max(1, max(height, width) // COARSE)
    ys, xs = np.arange(0, height, step), np.arange(0, width, step)
    covered = np.ones((len(ys), len(xs)), np.bool_)
    for frame in bracket.frames:
        covered &= _covers(frame, ys, xs)
    top, left, bottom, right = _largest_rectangle(covered)
    if bottom == top:
        return slice(0, 0), slice(0, 0)
    box = [int(ys[top]), int(xs[left]), int(ys[bottom - 1]) + 1, int(xs[right - 1]) + 1]
    if all(frame.valid is None for frame in bracket.frames):
        box = _widened(box, bracket)
    return slice(box[0], box[2]), slice(box[1], box[3])


def _covers(frame: Frame, ys: NDArray[np.int64], xs: NDArray[np.int64]) -> Mask:
    """Whether the frame has a pixel at each reference position of a grid, (len ys, len xs)."""
    x, y = np.meshgrid(xs, ys)
    at = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    if frame.warp is not None:
        at = apply(frame.warp, at)
    inside = _inside(at, frame.size)
    if frame.valid is not None:
        col, row = np.rint(at).astype(np.int64).T
        seen = np.minimum(np.maximum(row, 0), frame.size[0] - 1)
        inside &= frame.valid[seen, np.minimum(np.maximum(col, 0), frame.size[1] - 1)]
    return np.asarray(inside.reshape(x.shape))


def _inside(at: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """Whether positions (n, 2) lie between the first and the last pixel centres."""
    edge = 1e-6
    limit = np.array([size[1], size[0]]) - 1 + edge
    return np.asarray(((at >= -edge) & (at <= limit)).all(axis=1))


def _largest_rectangle(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom, right (exclusive) of the largest all-true rectangle; zeros if none.

    The classical scan: under each row the columns are a histogram, whose largest rectangle a
    stack of rising bars gives.
    """
    best, area = (0, 0, 0, 0), 0
    heights = np.zeros(mask.shape[1], np.int64)
    for row, line in enumerate(mask):
        heights = np.where(line, heights + 1, 0)
        stack: list[tuple[int, int]] = []  # column where a bar starts, its height
        for col, tall in enumerate([*heights.tolist(), 0]):
            start = col
            while stack and stack[-1][1] >= tall:
                start, bar = stack.pop()
                if bar * (col - start) > area:
                    area = bar * (col - start)
                    best = (row + 1 - bar, start, row + 1, col)
            stack.append((start, tall))
    return best


def _widened(box: list[int], bracket: Bracket) -> list[int]:
    """Push each side outwards while all corners stay inside every frame.

    Frames are convex, and so are their images: four corners inside mean all of it is.
    """
    limits, steps = (0, 0, *bracket.size), (-1, -1, 1, 1)
    moving = True
    while moving:
        moving = False
        for side in range(4):
            wider = list(box)
            wider[side] += steps[side]
            if box[side] != limits[side] and _all_inside(wider, bracket):
                box, moving = wider, True
    return box


def _all_inside(box: list[int], bracket: Bracket) -> bool:
    top, left, bottom, right = box
    square = corners((bottom - top, right - left)) + np.array([left, top])
    return all(
        frame.warp is None or bool(_inside(apply(frame.warp, square), frame.size).all())
        for frame in bracket.frames
    )


def warp_frame(frame: Frame, rows: slice | None = None) -> Frame:
    """Resample a frame's codes onto the reference (Lanczos, 8 × 8), all of it or some ``rows``.

    The frame returned has no warp any more; its ``valid`` is False where it had no pixels. A
    frame without a warp comes back as it is, cut to the rows.
    """
    height, width = frame.size
    top, bottom, _ = (rows or slice(None)).indices(height)
    if frame.warp is None:
        valid = None if frame.valid is None else frame.valid[top:bottom]
        return replace(frame, codes=frame.codes[top:bottom], valid=valid)
    down = np.eye(3)
    down[1, 2] = top
    matrix, size = frame.warp @ down, (bottom - top, width)
    return replace(
        frame, codes=_resampled(frame.codes, matrix, size), valid=_seen(frame, matrix, size),
        warp=None,
    )  # fmt: skip


def _resampled(codes: Codes, matrix: Matrix, size: tuple[int, int]) -> Codes:
    import cv2

    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    out: Codes = cv2.warpPerspective(
        codes, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def _seen(frame: Frame, matrix: Matrix, size: tuple[int, int]) -> Mask:
    """True where all four neighbours of the position are real pixels of the frame."""
    import cv2

    source = np.ones(frame.size, np.bool_) if frame.valid is None else frame.valid
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(
        np.ascontiguousarray(source).view(np.uint8) * np.uint8(255), matrix, size[::-1], flags=flags
    )
    return np.asarray(seen >= 254)
