"""Neighbours in the geometry of the present frame, a tile at a time.

Only what moved is resampled: linearly, from codes sharpened as the quasi-interpolation of Condat,
Blu and Unser has it ("Beyond interpolation: optimal reconstruction by quasi-interpolation", ICIP
2005), which keeps about as much detail as cubic convolution at a quarter of its cost. Frames of
one exposure would otherwise be sharp, and those of the other soft, in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Codes, Frame

Floats = NDArray[np.float32]

QUASI = np.array([-1 / 12, 7 / 6, -1 / 12], np.float32)
TILE = (96, 480)  # rows and columns of a tile, about: its planes fit into a second-level cache
BELIEVED = 0.998  # from here on belief is full
LEAST_BELIEF = 1e-3  # by which two neighbours that are not believed are mixed all the same
BEYOND = 2  # pixels around a tile that sharpening and interpolation read


@dataclass(frozen=True)
class Tile:
    """A part of the frame; it begins at a pixel of the reduced picture."""

    rows: slice
    cols: slice

    @property
    def part(self) -> tuple[slice, slice]:
        """To index a picture with."""
        return self.rows, self.cols


def tiles(size: tuple[int, int], factor: int) -> Iterator[Tile]:
    """Cut a picture of (height, width) whose reduced one is ``factor`` times smaller."""
    high, wide = (max(factor, side // factor * factor) for side in TILE)
    for top in range(0, size[0], high):
        for left in range(0, size[1], wide):
            yield Tile(slice(top, min(top + high, size[0])), slice(left, min(left + wide, size[1])))


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A frame, where its pixels lie, and how far it is believed.

    ``flow`` (h, w, 2) and ``belief`` (h, w) are on a picture ``factor`` times smaller, of whole
    blocks only; None: nothing moved, and all is believed.
    """

    frame: Frame
    flow: Floats | None = None
    belief: Floats | None = None
    factor: int = 1

    def codes(self, tile: Tile) -> Codes:
        """The frame's codes at the present one's pixels, (h, w, 3)."""
        here = self.frame.codes[tile.part]
        if self.flow is None:
            return here
        still = self._small(self._still, tile)
        if still.all():
            return here
        moved = self._resampled(tile)
        if still.any():
            import cv2

            mask = self._enlarged(still, tile, cv2.INTER_NEAREST)
            cv2.copyTo(np.ascontiguousarray(here), np.ascontiguousarray(mask), moved)
        return moved

    def believed(self, tile: Tile) -> Floats | None:
        """Belief in these pixels, (h, w); None where it is full."""
        if self.belief is None:
            return None
        small = self._small(self._padded_belief, tile)
        if small.min() >= BELIEVED:
            return None
        import cv2

        return np.asarray(self._enlarged(small, tile, cv2.INTER_LINEAR))

    @cached_property
    def _padded_belief(self) -> Floats:
        assert self.belief is not None
        return _bordered(self.belief)

    @cached_property
    def _still(self) -> NDArray[np.uint8]:
        """255 where neither a pixel of the reduced picture nor any beside it moved."""
        import cv2

        assert self.flow is not None
        moving = np.asarray(self.flow.any(axis=2), np.uint8)
        grown = cv2.dilate(moving, np.ones((3, 3), np.uint8))
        return _bordered(np.where(grown > 0, np.uint8(0), np.uint8(255)))

    @cached_property
    def _positions(self) -> Floats:
        """Where the pixels of the reduced picture lie, x and y in full pixels of the frame."""
        assert self.flow is not None
        places = _bordered(self.flow)
        places[..., 0] += np.arange(-1, places.shape[1] - 1, dtype=np.float32)
        places[..., 1] += np.arange(-1, places.shape[0] - 1, dtype=np.float32)[:, None]
        places += np.float32(0.5)
        places *= np.float32(self.factor)
        places -= np.float32(0.5)
        return places

    def _small(self, bordered: NDArray[Any], tile: Tile) -> NDArray[Any]:
        """The part of a bordered map that a tile depends on."""
        top, left = tile.rows.start // self.factor, tile.cols.start // self.factor
        bottom, right = -(-tile.rows.stop // self.factor), -(-tile.cols.stop // self.factor)
        return bordered[top : bottom + 2, left : right + 2]

    def _enlarged(self, small: NDArray[Any], tile: Tile, how: int) -> NDArray[Any]:
        """That part at full size."""
        import cv2

        by = self.factor
        size = small.shape[1] * by, small.shape[0] * by
        full = small if by == 1 else cv2.resize(small, size, interpolation=how)
        high, wide = tile.rows.stop - tile.rows.start, tile.cols.stop - tile.cols.start
        return np.asarray(full[by : by + high, by : by + wide])

    def _resampled(self, tile: Tile) -> Codes:
        import cv2

        places = self._small(self._positions, tile)
        high, wide = self.frame.size
        left, right = _span(places[..., 0], wide)
        top, bottom = _span(places[..., 1], high)
        source = cv2.cvtColor(self.frame.codes[top:bottom, left:right], cv2.COLOR_RGB2RGBA)
        if self.frame.levels:  # four channels are interpolated faster than three
            source = cv2.sepFilter2D(source, -1, QUASI, QUASI, borderType=cv2.BORDER_REPLICATE)
        at = self._enlarged(places - np.array([left, top], np.float32), tile, cv2.INTER_LINEAR)
        moved = cv2.remap(source, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB))


def _bordered(small: NDArray[Any]) -> NDArray[Any]:
    """With a pixel more above and to the left, and two below and to the right."""
    import cv2

    return np.asarray(cv2.copyMakeBorder(small, 1, 2, 1, 2, cv2.BORDER_REPLICATE))


def _span(places: Floats, size: int) -> tuple[int, int]:
    """The pixels that are read around these places."""
    first = int(np.clip(np.floor(places.min()) - BEYOND, 0, size - 1))
    last = int(np.clip(np.ceil(places.max()) + BEYOND + 1, first + 1, size))
    return first, last
