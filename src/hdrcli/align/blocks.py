"""Local shifts between two frames: a grid of textured blocks, each tracked below a pixel.

This one measurement serves everything: to see that a tripod did not move, to refine a
transformation at full size, and to say how good it is. Each block is a Lucas-Kanade
translation (Lucas and Kanade 1981) between band-passed, contrast-normalised log light, with
what clips in either frame left out.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels
from hdrcli.align.models import Matrix, Points, apply
from hdrcli.align.views import Mask, Tone
from hdrcli.frames import Codes, Floats

BLOCKS = 54  # about nine by six
REACH = 6  # pixels: a block is found if it is no further off than this
SIMILAR = 0.5  # correlation from which a block counts as found
SEEN = 0.4  # of a block must be unclipped in both frames
FLAT = 1e-6  # mean squared gradient of log light, across its weakest direction
STRONG = 2e-3  # from here on even what looks like noise is taken for texture
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

    def patch(self, matrix: Matrix, corner: NDArray[np.int64], side: int) -> tuple[Floats, Floats]:
        """Band-passed log light and 0/1 mask at matrix @ (corner + 0 … side - 1), (side, side)."""
        codes, inside = self._cut(matrix, corner, side)
        light, good = self.tone(codes)
        return band(light), (good & inside).astype(np.float32)

    def _cut(self, matrix: Matrix, corner: NDArray[np.int64], side: int) -> tuple[Codes, Mask]:
        import cv2

        span = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (side - 1.0) + corner
        at = apply(matrix, span)
        low = np.maximum(np.floor(at.min(axis=0)).astype(int) - 2, 0)
        high = np.ceil(at.max(axis=0)).astype(int) + 4
        box = np.s_[low[1] : high[1], low[0] : high[0]]
        if (matrix == np.eye(3)).all():
            box = np.s_[corner[1] : corner[1] + side, corner[0] : corner[0] + side]
            whole = np.ones((side, side), np.bool_) if self.valid is None else self.valid[box]
            return self.codes[box], whole
        local = shifted(-low) @ matrix @ shifted(corner)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cubic = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        source = self.codes[box]
        cut = cv2.warpPerspective(
            source, local, (side, side), flags=cubic, borderMode=cv2.BORDER_REPLICATE
        )
        if self.valid is None:
            return cut, np.ones((side, side), np.bool_)
        mask = np.ascontiguousarray(self.valid[box]).view(np.uint8)
        return cut, cv2.warpPerspective(mask * 255, local, (side, side), flags=flags) == 255


def shifted(by: NDArray[np.int64]) -> Matrix:
    """The translation by (x, y)."""
    out = np.eye(3)
    out[:2, 2] = by
    return out


def band(light: Floats) -> Floats:
    """Keep detail between about one and a dozen pixels: no noise, no slow change of brightness."""
    import cv2

    fine = cv2.GaussianBlur(light, (0, 0), 1.0)
    return np.asarray(fine - cv2.blur(fine, (25, 25)), np.float32)


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

    @cached_property
    def models(self) -> "list[Template]":
        """What each block looks like in the reference."""
        return [Template.of(self.reference, corner, self.side) for corner in self.at]


@dataclass(frozen=True, eq=False)
class Template:
    """One block of the reference: band-passed log light, its 0/1 mask, its slopes; (S, S)."""

    light: Floats
    mask: Floats
    gx: Floats
    gy: Floats

    @classmethod
    def of(cls, view: View, corner: NDArray[np.int64], side: int) -> "Template":
        """Cut the block out of a view; the slopes are zero where the mask is."""
        light, mask = view.patch(np.eye(3), corner, side)
        gy, gx = np.gradient(light)
        return cls(light, mask, (gx * mask).astype(np.float32), (gy * mask).astype(np.float32))


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
    side = int(np.clip(min(size) / 8, 40, 104)) // 8 * 8
    light, good = reference.tone(picked)
    window = max(side // factor, 3)
    texture = _texture(light, good, 1.0, window)
    noise = (texture > WHITE * _texture(light, good, 3.0, window)) & (texture < STRONG)
    seen = cv2.blur(good.astype(np.float32), (window, window)) >= SEEN
    texture[noise | ~seen] = 0
    edge = (side // 2 + REACH + 2) // factor + 1
    rows = max(2, round(np.sqrt(BLOCKS * size[0] / size[1])))
    cols = max(2, round(BLOCKS / rows))
    found = _peaks(texture, edge, (rows, cols), side // factor)
    centres = found * factor + factor // 2
    at = np.clip(centres - side // 2, REACH, np.array([size[1], size[0]]) - side - REACH)
    return Blocks(at.astype(np.int64), side, reference)


def _texture(light: Floats, good: Mask, blur: float, window: int) -> Floats:
    """The smaller eigenvalue of the structure tensor around each pixel (Shi and Tomasi 1994)."""
    import cv2

    smooth = cv2.GaussianBlur(light, (0, 0), blur)
    gx, gy = (cv2.Sobel(smooth, cv2.CV_32F, *o, scale=1 / 8) * good for o in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.blur(part, (window, window)) for part in (gx * gx, gy * gy, gx * gy))
    weakest = (xx + yy) / 2 - np.sqrt((xx - yy) ** 2 / 4 + xy * xy)
    return np.asarray(weakest, np.float32)


def _peaks(
    strength: NDArray[np.floating], edge: int, cells: tuple[int, int], side: int
) -> NDArray[np.int64]:
    """The (x, y) of the largest value of each cell, where it is not flat; no two too close."""
    left = strength.copy()
    ys, xs = (
        np.linspace(edge, n - edge, parts + 1).astype(int)
        for n, parts in zip(left.shape, cells, strict=True)
    )
    found = []
    for (top, bottom), (start, stop) in product(pairwise(ys), pairwise(xs)):
        cell = left[top:bottom, start:stop]
        if not cell.size or cell.max() <= FLAT:
            continue
        y, x = divmod(int(cell.argmax()), cell.shape[1])
        found.append((start + x, top + y))
        apart = 2 * side // 3
        around = [slice(max(0, at - apart), at + apart) for at in (top + y, start + x)]
        left[around[0], around[1]] = 0
    return np.array(found, np.int64).reshape(-1, 2)


def measure(blocks: Blocks, frame: View, matrix: Matrix) -> Shifts:
    """Track every block of the reference to where ``matrix`` puts it in the frame."""
    n = len(blocks.at)
    d, alike, after = np.zeros((n, 2)), np.zeros(n), np.zeros(n)
    found, inside = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    limit = np.array([frame.size[1], frame.size[0]]) - 1
    span = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (blocks.side - 1.0)
    for i, corner in enumerate(blocks.at):
        target = apply(matrix, corner + span)
        if (target < REACH).any() or (target > limit - REACH).any():
            continue
        wide, wide_mask = frame.patch(matrix, corner - REACH, blocks.side + 2 * REACH)
        result = track(blocks.models[i], wide, wide_mask)
        if result is not None:
            d[i], alike[i], after[i] = result
            inside[i], found[i] = True, after[i] >= SIMILAR
    return Shifts(blocks.centres, d, found, inside, alike, after)


def track(
    model: Template, wide: Floats, wide_mask: Floats
) -> tuple[NDArray[np.float64], float, float] | None:
    """Find a block (S, S) in ``wide`` (S + 2 REACH, S + 2 REACH), by Gauss-Newton.

    Returns the shift (x, y) from the middle, and the correlation at the middle and at the
    shift (0 where it was lost); None where too little is unclipped in both.
    """
    side, room, sums = len(model.light), np.empty_like(model.light), np.empty(11)
    block = model.light, model.mask, model.gx, model.gy, wide, wide_mask
    shift, first = np.zeros(2), 0.0
    xx = xy = yy = 0.0
    for step in range(10):
        x, y = shift.astype(np.float32)
        kernels.compare(*block, x, y, side, REACH, room, sums)
        seen, aa, bb, ab, *slopes = sums.tolist()
        if seen < SEEN * room.size:
            return None if step == 0 else (np.zeros(2), first, 0.0)
        alike = aa > 0 and bb > 0
        after = ab / np.sqrt(aa * bb) if alike else 0.0
        if step == 0:  # the mask hardly changes within a few pixels
            first, (xx, xy, yy) = after, slopes[4:]
        det = xx * yy - xy * xy
        if det <= 0.02 * (xx + yy) ** 2 / 4:
            return np.zeros(2), first, 0.0  # a straight edge: it may slide along itself
        scale = np.sqrt(aa / bb) if alike else 0.0
        gx, gy = slopes[0] - scale * slopes[2], slopes[1] - scale * slopes[3]
        move = np.array([yy * gx - xy * gy, xx * gy - xy * gx]) / det
        move *= min(1.0, 2 / max(float(np.hypot(*move)), 1e-9))
        shift = shift + move
        if np.abs(shift).max() > REACH - 1:
            return np.zeros(2), first, 0.0
        if np.abs(move).max() < 0.01:
            break
    return shift, first, after
