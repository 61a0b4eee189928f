"""Work on an image in overlapping tiles. Knows nothing of HDR or PyTorch.

Each tile brings ``halo`` pixels of context that are computed and thrown away, then a ramp
``blend`` pixels wide that fades it into its neighbour:

    tile k       ────────────╲
                              ╲ blend │ halo │
    tile k+1     │ halo │      ╱────────────

A function that looks no further than ``halo`` gives the same picture tiled or whole. The weights
of all tiles add up to one at every pixel: each axis is divided by the sum of its own ramps, and
the tiles are the products of both axes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Window = tuple[slice, slice]
Result = TypeVar("Result")


@dataclass(frozen=True)
class TileSpec:
    """How to cut: the side of a tile, halo included, its two margins, and the grid, in pixels.

    Tiles start at multiples of ``multiple``, the network's stride, so that all of them halve the
    picture at the same pixels. ``oblong`` tiles have as many pixels as a square of that side may
    have, in the shape that wastes the fewest on margins.
    """

    size: int
    halo: int
    blend: int = 16
    multiple: int = 1
    oblong: bool = False

    def __post_init__(self) -> None:
        assert self.blend > 0
        assert self.stride > 0, f"nothing is left of a {self.size} px tile"

    @property
    def stride(self) -> int:
        """Distance from one tile to the next."""
        return (self.size - 2 * self.halo - self.blend) // self.multiple * self.multiple

    def smaller(self) -> "TileSpec | None":
        """Return tiles of half the side, or None when the margins would fill them."""
        size = self.size // 2
        if size - 2 * self.halo - self.blend < self.multiple:
            return None
        return replace(self, size=size)


@dataclass(frozen=True, eq=False)
class Tile:
    """A part of the image: where it lies, and its weight along each axis."""

    rows: slice
    cols: slice
    down: Floats  # (h,)
    across: Floats  # (w,)

    @property
    def weight(self) -> Floats:
        """Weight of each pixel, (h, w) in [0, 1]; those of all tiles add up to 1."""
        return np.outer(self.down, self.across)


def windows(size: tuple[int, int], core: int, halo: int) -> Iterator[tuple[Window, Window, Window]]:
    """Tiles that need no fading: what is looked at, what of that is kept, where that belongs."""
    for y, x in product(range(0, size[0], core), range(0, size[1], core)):
        top, left = max(0, y - halo), max(0, x - halo)
        bottom, right = min(size[0], y + core), min(size[1], x + core)
        seen = np.s_[top : min(size[0], bottom + halo), left : min(size[1], right + halo)]
        yield seen, np.s_[y - top : bottom - top, x - left : right - left], np.s_[y:bottom, x:right]


def tiles(size: tuple[int, int], spec: TileSpec) -> list[Tile]:
    """Cut an image of (height, width), row by row from the top left."""
    down_spec, across_spec = shape(size, spec) if spec.oblong else (spec, spec)
    columns = list(weighted(size[1], across_spec))
    return [
        Tile(rows, cols, down, across)
        for rows, down in weighted(size[0], down_spec)
        for cols, across in columns
    ]


def shape(size: tuple[int, int], spec: TileSpec) -> tuple[TileSpec, TileSpec]:
    """How to cut down and across, so that tiles of at most ``size``² pixels add up to the fewest.

    All rows of tiles count, from one to twice as many as squares need.
    """
    height, width = size
    least = 2 * spec.halo + spec.blend + spec.multiple
    found = [(spec, spec)]
    for rows in range(1, 2 * len(list(spans(height, spec))) + 1):
        down = replace(spec, size=max(least, tallest(height, rows, spec)))
        wide = spec.size**2 // min(height, down.size)
        if wide >= min(width, least):
            found.append((down, replace(spec, size=max(least, wide))))
    return min(found, key=lambda cut: covered(height, cut[0]) * covered(width, cut[1]))


def tallest(length: int, count: int, spec: TileSpec) -> int:
    """Pixels of the longest of so many slices of one axis."""
    if count == 1:
        return length
    margins = 2 * spec.halo + spec.blend
    return -(-(length - margins) // (count * spec.multiple)) * spec.multiple + margins


def covered(length: int, spec: TileSpec) -> int:
    """Pixels of one axis that all tiles have together, their margins included."""
    return sum(span.stop - span.start for span in spans(length, spec))


def weighted(length: int, spec: TileSpec) -> Iterator[tuple[slice, Floats]]:
    """The slices of one axis with their ramps, divided by the sum of all ramps."""
    cut = [(span, ramp(span, length, spec)) for span in spans(length, spec)]
    total = np.zeros(length, np.float32)
    for span, weight in cut:
        total[span] += weight
    for span, weight in cut:
        yield span, weight / total[span]


def spans(length: int, spec: TileSpec) -> Iterator[slice]:
    """Cut ``length`` into as few slices as there must be, all as small as that allows.

    The last ends at the edge and may be shorter than the others.
    """
    if length <= spec.size:
        yield slice(0, length)
        return
    margins = 2 * spec.halo + spec.blend
    count = -(-(length - margins) // spec.stride)
    stride = -(-(length - margins) // (count * spec.multiple)) * spec.multiple
    count = -(-(length - margins) // stride)
    for start in range(0, count * stride, stride):
        yield slice(start, min(start + stride + margins, length))


def ramp(span: slice, length: int, spec: TileSpec) -> Floats:
    """Weight along one axis: 0 in the halo, rising over the blend, 1 inside."""
    at = np.arange(span.start, span.stop) + 0.5
    left = (at - span.start - spec.halo) / spec.blend if span.start > 0 else np.ones_like(at)
    right = (span.stop - at - spec.halo) / spec.blend if span.stop < length else np.ones_like(at)
    return np.clip(np.minimum(left, right), 0, 1).astype(np.float32)


def shrinking(
    run: Callable[[TileSpec], Result],
    spec: TileSpec,
    out_of_memory: type[BaseException] | tuple[type[BaseException], ...] = MemoryError,
) -> Result:
    """Call ``run`` with tiles of half the side each time memory runs out.

    Every attempt starts from the beginning: a resumed canvas is easy to get wrong. Raises what
    ``run`` raised once tiles cannot be smaller.
    """
    while True:
        try:
            return run(spec)
        except out_of_memory:
            smaller = spec.smaller()
            if smaller is None:
                raise
            spec = smaller


def run_tiled(
    fn: Callable[[Any], Any],
    image: Any,  # noqa: ANN401  an array of NumPy or a tensor of PyTorch, (..., H, W)
    spec: TileSpec,
    out_of_memory: type[BaseException] | tuple[type[BaseException], ...] = MemoryError,
) -> Any:  # noqa: ANN401
    """Apply ``fn`` tile by tile, with smaller tiles each time memory runs out.

    ``fn`` maps (..., h, w) to (..., h, w), other dimensions as it likes. The result is of the
    kind and type that ``fn`` returns.
    """
    return shrinking(lambda cut: _run(fn, image, cut), spec, out_of_memory)


def _run(fn: Callable[[Any], Any], image: Any, spec: TileSpec) -> Any:  # noqa: ANN401
    height, width = image.shape[-2:]
    canvas: Any = None
    for tile in tiles((height, width), spec):
        found = fn(image[..., tile.rows, tile.cols])
        if canvas is None:
            canvas = _zeros(found, (*found.shape[:-2], height, width))
        canvas[..., tile.rows, tile.cols] += found * _like(tile.weight, found)
    return canvas


def _zeros(like: Any, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    return np.zeros(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def _like(weight: Floats, other: Any) -> Any:  # noqa: ANN401
    """The weight as an array or tensor of the kind, type and device of ``other``."""
    if isinstance(other, np.ndarray):
        return weight.astype(other.dtype, copy=False)
    return other.new_tensor(weight)
