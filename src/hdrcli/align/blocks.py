"""Local shifts between two frames: a grid of textured blocks, each tracked below a pixel.

This one measurement serves everything: to see that a tripod did not move, to refine a
transformation at full size, and to say how good it is. Each block is a Lucas-Kanade
translation (Lucas and Kanade 1981) between band-passed, contrast-normalised log light, with
what clips in either frame left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from hdrcli.align import kernels
from hdrcli.align.models import Matrix, Points, apply
from hdrcli.align.views import Mask, Tone
from hdrcli.frames import Codes, Floats
from hdrcli.once import once

Cell = tuple[slice, slice]

BLOCKS = 54  # about nine by six
REACH = 6  # pixels: a block is found if it is no further off than this
SIMILAR = 0.5  # correlation from which a block counts as found
SEEN = 0.4  # of a block must be unclipped in both frames
FLAT = 1e-6  # mean squared gradient of log light, across its weakest direction
STRONG = 2e-3  # from here on even what looks like noise is taken for texture
NOISE_REACH = 14  # pixels of a blur over three, and of slopes
WHITE = 18.0  # blurring thrice as wide divides that of white noise by 40, of pictures by about 7


@dataclass(frozen=True, eq=False)
class View:
    """The codes of one frame at one scale, and what they mean."""

    codes: Codes
    valid: Mask | None
    tone: Tone

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.codes.shape[0], self.codes.shape[1]

    def patches(
        self, matrix: Matrix, corners: NDArray[np.int64], side: int
    ) -> tuple[Floats, NDArray[np.uint8]]:
        """Band-passed log light and 0/1 mask, (n, side, side) each, one for each corner.

        At matrix @ (corner + 0 … side - 1).
        """
        codes = np.empty((len(corners), side, side, 3), self.codes.dtype)
        inside = None if self.valid is None else np.empty(codes.shape[:3], np.bool_)
        cut = self._own if (matrix == np.eye(3)).all() else self._warped
        for i, corner in enumerate(corners):
            cut(matrix, corner, codes[i], None if inside is None else inside[i])
        light, good = self.tone(codes)
        room = np.empty(side * side + 3 * (side + 24), np.float32)
        kernels.band(light, FINE, room, side, len(corners))
        return light, (good if inside is None else good & inside).view(np.uint8)

    def _own(self, _: Matrix, corner: NDArray[np.int64], codes: Codes, inside: Mask | None) -> None:
        side = len(codes)
        box = np.s_[corner[1] : corner[1] + side, corner[0] : corner[0] + side]
        codes[:] = self.codes[box]
        if inside is not None and self.valid is not None:
            inside[:] = self.valid[box]

    def _warped(
        self, matrix: Matrix, corner: NDArray[np.int64], codes: Codes, inside: Mask | None
    ) -> None:
        import cv2

        side = len(codes)
        span = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (side - 1.0) + corner
        at = apply(matrix, span)
        low = np.maximum(np.floor(at.min(axis=0)).astype(int) - 2, 0)
        high = np.ceil(at.max(axis=0)).astype(int) + 4
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        local = shifted(-low) @ matrix @ shifted(corner)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cubic = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        cv2.warpPerspective(
            self.codes[box], local, (side, side), codes, cubic, cv2.BORDER_REPLICATE
        )
        if inside is not None and self.valid is not None:
            mask = np.ascontiguousarray(self.valid[box]).view(np.uint8)
            inside[:] = cv2.warpPerspective(mask * 255, local, (side, side), flags=flags) == 255


def shifted(by: NDArray[np.int64]) -> Matrix:
    """The translation by (x, y)."""
    out = np.eye(3)
    out[:2, 2] = by
    return out


def gaussian(sigma: float) -> Floats:
    """The middle and one side of a Gaussian's taps, as many as OpenCV takes for float pictures."""
    reach = (round(8 * sigma + 1) | 1) // 2
    taps = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    return np.asarray(taps / (2 * taps.sum() - taps[0]), np.float32)


FINE = gaussian(1.0)  # pixels: what is finer is noise


@dataclass(frozen=True, eq=False)
class Blocks:
    """Where to look: top left corners (n, 2) of square blocks, x before y."""

    at: NDArray[np.int64]
    side: int

    reference: View

    @property
    def centres(self) -> Points:
        """The middle of each block, (n, 2)."""
        return np.asarray(self.at + (self.side - 1) / 2, np.float64)

    @once
    def models(self) -> tuple[Floats, NDArray[np.uint8]]:
        """What the blocks look like in the reference: band-passed log light and 0/1 mask."""
        return self.reference.patches(np.eye(3), self.at, self.side)


@dataclass(frozen=True, eq=False)
class Shifts:
    """What the blocks say of one transformation. Arrays of n, one per block.

    ``d`` is how much further, in reference pixels, the frame's content lies than the
    transformation says.
    """

    centres: Points
    d: Points
    found: Mask  # tracked, and alike
    inside: Mask  # lies in both frames and is seen there
    alike: NDArray[np.float64]  # correlation where the transformation puts it, before tracking
    after: NDArray[np.float64]  # correlation where it was found

    @property
    def lengths(self) -> NDArray[np.float64]:
        """The length of the shift of each block that was found, in pixels."""
        return np.asarray(np.linalg.norm(self.d[self.found], axis=1))

    @property
    def residual(self) -> float | None:
        """The median local shift in pixels, or None where fewer than four blocks were found."""
        return float(np.median(self.lengths)) if self.found.sum() >= 4 else None


def choose(reference: View, picked: Codes, factor: int) -> Blocks:
    """Put one block on the strongest texture of each cell of a grid, where both frames see.

    ``picked`` is the reference reduced by ``factor``. Cells without texture get no block.
    """
    import cv2

    size = reference.size
    side = side_of(size)
    if min(size) < side + REACH:  # no block fits, and the windows of texture would not either
        return Blocks(np.empty((0, 2), np.int64), side, reference)
    light, good = reference.tone(picked)
    window = max(side // factor, 3)
    texture = _texture(light, good, 1.0, window)
    count = cv2.boxFilter(good.view(np.uint8), cv2.CV_32F, (window, window), normalize=False)
    texture[count < np.float32(SEEN * window**2)] = 0
    edge = (side // 2 + REACH + 2) // factor + 1
    rows = max(2, round(np.sqrt(BLOCKS * size[0] / size[1])))
    cols = max(2, round(BLOCKS / rows))
    cells = _cells(texture.shape, edge, (rows, cols))
    weak = [cell for cell in cells if FLAT < _most(texture[cell]) < STRONG]
    together = len(weak) > len(cells) // 3
    for part in [np.s_[:, :]] if together else weak:
        _without_noise(texture, light, good, window, part)
    found = _peaks(texture, cells, side // factor)
    centres = found * factor + factor // 2
    at = np.clip(centres - side // 2, REACH, np.array([size[1], size[0]]) - side - REACH)
    whole = at[(at >= 0).all(axis=1)]  # a picture may be smaller than a block
    return Blocks(whole.astype(np.int64), side, reference)


def side_of(size: tuple[int, int]) -> int:
    """The side of the blocks of a picture of height, width."""
    return int(np.clip(min(size) / 8, 40, 104)) // 8 * 8


def _cells(shape: tuple[int, ...], edge: int, counts: tuple[int, int]) -> list[Cell]:
    """A picture without its edges, cut into so many rows and columns of cells."""
    ys, xs = (
        np.linspace(edge, n - edge, parts + 1).astype(int).tolist()
        for n, parts in zip(shape, counts, strict=True)
    )
    return [(slice(*down), slice(*across)) for down, across in product(pairwise(ys), pairwise(xs))]


def _without_noise(texture: Floats, light: Floats, good: Mask, window: int, part: Cell) -> None:
    """Make texture zero where it is weak, and looks like noise, in a part of the picture."""
    room = window + NOISE_REACH
    wide = tuple(
        slice(max(0, (one.start or 0) - room), None if one.stop is None else one.stop + room)
        for one in part
    )
    inner = tuple(
        slice(one.start - around.start, one.stop - around.start) if one.stop else one
        for one, around in zip(part, wide, strict=True)
    )
    coarse = _texture(light[wide], good[wide], 3.0, window)[inner]
    fine = texture[part]
    fine[(fine > WHITE * coarse) & (fine < STRONG)] = 0


def _most(texture: Floats) -> float:
    """The largest value, 0 of none."""
    return float(texture.max(initial=0.0))


def _texture(light: Floats, good: Mask, blur: float, window: int) -> Floats:
    """The smaller eigenvalue of the structure tensor around each pixel (Shi and Tomasi 1994)."""
    import cv2

    height, width = light.shape
    out = np.empty((height, width), np.float32)
    kernels.texture(
        np.asarray(cv2.GaussianBlur(light, (0, 0), blur), np.float32),
        np.ascontiguousarray(good).view(np.uint8),
        window,
        np.empty(3 * width),
        np.empty(3 * (width + window + 1)),
        out,
        height,
        width,
    )
    return out


def _peaks(strength: Floats, cells: Sequence[Cell], side: int) -> NDArray[np.int64]:
    """The (x, y) of the largest value of each cell, where it is not flat; no two too close."""
    left, found = strength.copy(), []
    for rows, cols in cells:
        cell = left[rows, cols]
        if not cell.size or cell.max() <= FLAT:
            continue
        y, x = divmod(int(cell.argmax()), cell.shape[1])
        found.append((cols.start + x, rows.start + y))
        apart = 2 * side // 3
        around = [slice(max(0, at - apart), at + apart) for at in found[-1]]
        left[around[1], around[0]] = 0
    return np.array(found, np.int64).reshape(-1, 2)


def measure(blocks: Blocks, frame: View, matrix: Matrix) -> Shifts:
    """Track every block of the reference to where ``matrix`` puts it in the frame."""
    side = blocks.side
    limit = np.array([frame.size[1], frame.size[0]]) - 1 - REACH
    span = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (side - 1.0)
    target = apply(matrix, (blocks.at[:, None] + span).reshape(-1, 2)).reshape(-1, 4, 2)
    there = np.flatnonzero(((target >= REACH) & (target <= limit)).all(axis=(1, 2)))
    found = np.zeros((len(blocks.at), 5))
    found[there] = track(blocks, there, frame, matrix)
    seen = found[:, 4] > 0
    alike, after = found[:, 2], found[:, 3]
    return Shifts(blocks.centres, found[:, :2], seen & (after >= SIMILAR), seen, alike, after)


def track(
    blocks: Blocks, which: NDArray[np.intp], frame: View, matrix: Matrix
) -> NDArray[np.float64]:
    """Find some of the blocks in the frame, by Gauss-Newton: (n, 5).

    The shift (x, y), the correlation before and after (0 where it was lost), and whether enough
    is unclipped in both.
    """
    side, found = blocks.side, np.zeros((len(which), 5))
    light, mask = blocks.models
    wide, wide_mask = frame.patches(matrix, blocks.at[which] - REACH, side + 2 * REACH)
    kernels.track(
        light if len(which) == len(light) else light[which],
        mask if len(which) == len(mask) else mask[which],
        wide,
        wide_mask,
        np.float32(SEEN),
        np.empty(3 * side * side, np.float32),
        found,
        side,
        REACH,
        len(which),
    )
    return found
