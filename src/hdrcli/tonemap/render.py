"""A Plan applied to pixels, strip by strip: a few table look-ups and matrices per pixel.

A strip gives the same codes whether it is rendered alone or with the whole picture: every
operation is on single pixels, and blocks are padded so that the odd ends of vectorised loops,
which may round differently, never hold a pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels
from hdrcli.color import REC709, conversion, srgb_encode
from hdrcli.frames import Radiance
from hdrcli.strips import blocks, run
from hdrcli.tonemap.curves import REC709_LUMINANCE, towards_grey
from hdrcli.tonemap.plan import Plan
from hdrcli.tonemap.scene import HUGE, as_floats, cleaned

Floats = NDArray[np.float32]
Codes = NDArray[Any]

BLOCK = 96_000  # pixels: with smaller ones threads wait for each other's Python between kernels
RUN = 1024  # pixels of a row that are shown at once; their numbers stay in a first-level cache
LANES = 64  # blocks are padded to a multiple of this many pixels
STEPS = 65535  # a table's index is STEPS x sqrt(light / top): finer than an 8-bit code everywhere
MOST_LIGHT = 2.0**20  # times the top of the table; a local gain may still multiply it by 1000
MOST_STOPS = 12.0  # no table reaches further above 1.0
LUMINANCE = REC709_LUMINANCE.astype(np.float32).reshape(1, 3)
LEVELS = {"uint8": 255, "uint16": 65535, "float32": 1}


@dataclass(frozen=True, eq=False)
class WideMap:
    """A plan's gain map, stretched to the picture's width, and where the picture's rows lie in it.

    Row y of the picture lies ``part[y]`` below row ``upper[y]`` of the map.
    """

    gains: Floats  # (h, 2, W), slope and offset
    upper: NDArray[np.int64]  # (H,)
    part: Floats  # (H,)


def widened(gain: Floats | None, extent: tuple[float, float], size: tuple[int, int]) -> WideMap:
    """Stretch a (2, h, w) map to the width of a picture of (height, width); None: no gain."""
    height, width = size
    if gain is None:
        gain = np.zeros((2, 1, 1), np.float32)

    def places(count: int, covered: float, cells: int) -> tuple[NDArray[np.int64], Floats]:
        at = np.clip((np.arange(count) + 0.5) / (count * covered) * cells - 0.5, 0, cells - 1)
        whole = at.astype(np.int64)
        return whole, (at - whole).astype(np.float32)

    left, t = places(width, extent[1], gain.shape[2])
    right = np.minimum(left + 1, gain.shape[2] - 1)
    wide = gain[:, :, left] * (1 - t) + gain[:, :, right] * t
    rows = np.ascontiguousarray(wide.transpose(1, 0, 2), np.float32)
    return WideMap(rows, *places(height, extent[0], gain.shape[1]))


@dataclass(frozen=True, eq=False)
class Renderer:
    """The tables and matrices of a plan, for one full size and one type of code."""

    plan: Plan
    size: tuple[int, int]
    enter: Floats | None  # (3, 3): the Radiance's RGB to Rec. 709, where they differ
    matrix: Floats  # (4, 3): Rec. 709 to the exposed colours of the curve, and to luminance
    after: Floats | None  # (3, 3): the curve's colours to Rec. 709
    scale: float  # STEPS / sqrt(top)
    table: NDArray[Any]  # (1, 65536): display light, gain, or at once the code
    codes: NDArray[Any]  # (1, 65536): the code of display light (j / STEPS)^2
    map: WideMap
    floor: float  # exposed luminance below which the local gain is constant
    most: float  # light above which all is white anyway: keeps indices within integers

    def strip(self, pixels: NDArray[np.floating], rows: slice, out: Codes | None = None) -> Codes:
        """The codes of these rows of the picture, (h, W, 3), in ``out`` if there is one."""
        out = np.empty(pixels.shape, self.codes.dtype) if out is None else out
        if self.quick and pixels.dtype == np.float16:
            self._show(np.ascontiguousarray(pixels), rows.start, out)
            return out
        room = np.empty(0, np.float32)  # for one block after the other: fresh memory is slow
        for part in blocks((pixels.shape[0], pixels.shape[1]), BLOCK):
            size = -(-pixels[part].size // (3 * LANES)) * 3 * LANES
            room = room if room.size >= size else np.empty(size, np.float32)
            self._block(pixels[part], rows.start + part.start, room[:size], out[part])
        return out

    @property
    def quick(self) -> bool:
        """Whether there is nothing to do but to expose, and to look the codes up."""
        curve = self.plan.spec.on == "channels" and self.after is None
        return curve and self.enter is None

    def _show(self, pixels: NDArray[np.float16], start: int, out: Codes) -> None:
        """The codes of contiguous half floats whose first row is ``start``, in one pass."""
        rows, width = pixels.shape[:2]
        kernels.show_halves(
            pixels.view(np.uint16),
            *self._exposure(start, rows),
            np.float32(self.scale),
            self.table,
            np.empty(3 * RUN, np.float32),
            np.empty(3 * RUN, np.uint16),
            out,
            RUN,
            rows,
            width,
        )

    def _exposure(
        self, start: int, rows: int
    ) -> tuple[np.float32, Floats, Floats, NDArray[np.int64], Floats, np.float32]:
        """What ``kernels.expose`` must know of the plan, for so many rows from ``start`` on."""
        stop = start + rows
        return (
            np.float32(self.most),
            self.matrix,
            self.map.gains,
            self.map.upper[start:stop],
            self.map.part[start:stop],
            np.float32(self.floor),
        )

    def _block(self, pixels: NDArray[np.floating], start: int, light: Floats, out: Codes) -> None:
        """The codes of a block whose first row is ``start``; ``light`` is room to work in."""
        rows, width = pixels.shape[:2]
        light[pixels.size :] = 0
        as_floats(pixels, light)
        if self.enter is not None:
            inside = into_gamut(turned(cleaned(light.reshape(1, -1, 3))[0], self.enter))
            light[:] = inside.reshape(-1)
        kernels.expose(light, *self._exposure(start, rows), rows, width)
        colours = light.reshape(1, -1, 3)
        if self.plan.spec.on == "luminance":
            self._paling(colours, out)
        else:
            self._curve(colours, out)

    def _curve(self, light: Floats, out: Codes) -> None:
        """The curve on each channel."""
        if self.after is None:
            _look_up(light, self.scale, self.table, out)
            return
        shown = np.empty_like(light)
        _look_up(light, self.scale, self.table, shown)
        _look_up(_positive(turned(shown, self.after)), STEPS, self.codes, out)

    def _paling(self, light: Floats, out: Codes) -> None:
        """The curve on luminance; colours too bright for the display pale towards white."""
        gain = np.empty(light.shape[:2], np.float32)
        _look_up(turned(light, LUMINANCE), self.scale, self.table, gain)
        _look_up(paled(_times(light, gain)), STEPS, self.codes, out)


def renderer(plan: Plan, size: tuple[int, int], dtype: str = "uint8") -> Renderer:
    """Prepare a plan for pictures of (height, width). Kept for the next strip."""
    return _renderer(plan, size, dtype)


@lru_cache(maxsize=2)
def _renderer(plan: Plan, size: tuple[int, int], dtype: str) -> Renderer:
    values, spec = plan.values, plan.spec
    exposure = 2.0 ** values["ev"]
    colours = towards_grey(1 - values["saturation"], REC709_LUMINANCE)
    if spec.before is not None:
        colours = spec.before @ colours
    colours = exposure * 2.0 ** values.get("show_ev", 0.0) * colours
    same = plan.primaries.chromaticities == REC709.chromaticities
    top = 2.0 ** min(values["top"], MOST_STOPS)
    codes = _coded((np.arange(STEPS + 1) / STEPS) ** 2, dtype)
    return Renderer(
        plan=plan,
        size=size,
        enter=None if same else conversion(plan.primaries, REC709).astype(np.float32),
        matrix=np.concatenate([colours, exposure * LUMINANCE]).astype(np.float32),
        after=None if spec.after is None else spec.after.astype(np.float32),
        scale=STEPS / float(np.sqrt(top)),
        table=_table(plan, top, dtype),
        codes=codes,
        map=widened(plan.gain, plan.extent, size),
        floor=2.0 ** values["floor"],
        most=min(MOST_LIGHT * top / exposure, float(HUGE)),
    )


def _table(plan: Plan, top: float, dtype: str) -> NDArray[Any]:
    """What the curve gives for light top x (j / STEPS)^2: a gain, display light, or the code."""
    light = top * (np.arange(STEPS + 1) / STEPS) ** 2
    if plan.spec.on == "luminance":
        light[0] = light[1]
        return (plan.spec.curve(light, plan.values) / light).astype(np.float32).reshape(1, -1)
    shown = plan.spec.curve(light, plan.values)
    if plan.spec.after is None:
        return _coded(shown, dtype)
    return shown.astype(np.float32).reshape(1, -1)


def _coded(shown: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Display light in [0, 1] as sRGB codes of the given type, (1, 65536)."""
    code = srgb_encode(np.clip(shown, 0, 1)).astype(np.float64) * LEVELS[dtype]
    rounded = code if dtype == "float32" else np.rint(code)
    return rounded.astype(dtype).reshape(1, -1)


def turned(light: Floats, matrix: Floats) -> Floats:
    """Each colour of (1, n, 3) times an (m, 3) matrix: (1, n, m), or (1, n) where m is 1."""
    import cv2

    return np.asarray(cv2.transform(light, matrix), np.float32)


def _look_up(light: Floats, scale: float, table: NDArray[Any], out: NDArray[Any]) -> None:
    """What a table gives for each number of at least 0, saturating at the top; fills ``out``."""
    index = np.empty(light.size, np.uint16)
    kernels.root_index(light, np.float32(scale), index, light.size)
    kernels.looked_up(index, table, out, out.size)


def _positive(light: Floats) -> Floats:
    """Negative numbers become 0, in place."""
    import cv2

    flat = light.reshape(1, -1)
    cv2.threshold(flat, 0.0, 0.0, cv2.THRESH_TOZERO, dst=flat)
    return light


def _times(light: Floats, gain: Floats) -> Floats:
    """(1, n, 3) light times n gains, in place."""
    import cv2

    row = gain.reshape(1, -1)
    cv2.multiply(light, cv2.merge((row, row, row)), dst=light)
    return light


def into_gamut(light: Floats) -> Floats:
    """Colours outside Rec. 709 moved towards their grey until no channel is negative.

    The distance from grey, 1 at the gamut's border, is kept up to 0.8 and rolls off to 1 from
    there: neighbouring colours stay apart. Luminance is kept.
    """
    grey = np.maximum(turned(light, LUMINANCE), 0)[..., None]
    least = light.min(axis=-1, keepdims=True)
    reach = (grey - least) / np.maximum(grey, np.float32(1e-30))
    rolled = np.float32(0.8) + np.float32(0.2) * np.tanh((reach - np.float32(0.8)) * 5)
    share = np.where(reach > 0.8, rolled / np.maximum(reach, np.float32(0.8)), 1)
    return np.asarray(np.maximum(grey + (light - grey) * share, 0), np.float32)


def paled(light: Floats) -> Floats:
    """Display light whose brightest channel exceeds 1 moved towards its grey until it does not."""
    most = np.maximum(np.maximum(light[..., 0], light[..., 1]), light[..., 2])
    over = most > 1
    if not over.any():
        return light
    colours = light[over]  # (k, 3)
    grey = np.minimum(turned(colours[None], LUMINANCE).reshape(-1, 1), 1)
    reach = np.maximum(most[over][:, None] - grey, np.float32(1e-6))
    light[over] = grey + (colours - grey) * ((1 - grey) / reach)
    return light


def apply(
    plan: Plan,
    pixels: NDArray[np.floating],
    rows: slice,
    size: tuple[int, int],
    *,
    dtype: str = "uint8",
) -> Codes:
    """Show a strip: ``pixels`` (h, W, 3) are these rows of a picture of (height, width) ``size``.

    Gives sRGB codes, (h, W, 3) of ``dtype``: uint8, uint16, or float32 in [0, 1].
    """
    assert pixels.shape[0] == rows.stop - rows.start, (pixels.shape, rows)
    assert pixels.shape[1] == size[1], (pixels.shape, size)
    return renderer(plan, size, dtype).strip(pixels, rows)


def tonemap_codes(
    radiance: Radiance, plan: Plan, threads: int | None = None, *, dtype: str = "uint8"
) -> Codes:
    """Show a whole picture, strips in threads: sRGB codes, (H, W, 3), as ``apply`` gives."""
    height, width = radiance.pixels.shape[:2]
    out = np.empty(radiance.pixels.shape, dtype)
    ready = renderer(plan, (height, width), dtype)

    def work(rows: slice) -> None:
        ready.strip(radiance.pixels[rows], rows, out[rows])

    run(work, (height, width), threads, 2 * BLOCK)
    return out
