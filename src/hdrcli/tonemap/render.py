"""A Plan applied to pixels, strip by strip: a few table look-ups and matrices per pixel.

A strip gives the same codes whether it is rendered alone or with the whole picture: every
operation is on single pixels, and blocks are padded so that the odd ends of vectorised loops,
which may round differently, never hold a pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, conversion, srgb_encode
from hdrcli.frames import Radiance
from hdrcli.strips import blocks, run
from hdrcli.tonemap.curves import REC709_LUMINANCE, towards_grey
from hdrcli.tonemap.plan import Plan
from hdrcli.tonemap.scene import HUGE, cleaned

Floats = NDArray[np.float32]
Codes = NDArray[Any]

BLOCK = 24_000  # pixels: a block and its half dozen float planes stay in a second-level cache
LANES = 64  # blocks are padded to a multiple of this many pixels
STEPS = 65535  # a table's index is STEPS x sqrt(light / top): finer than an 8-bit code everywhere
MOST_LIGHT = 2.0**20  # times the top of the table; a local gain may still multiply it by 1000
MOST_STOPS = 12.0  # no table reaches further above 1.0
LUMINANCE = REC709_LUMINANCE.astype(np.float32).reshape(1, 3)
LEVELS = {"uint8": 255, "uint16": 65535, "float32": 1}


@dataclass(frozen=True, eq=False)
class WideMap:
    """A plan's gain map, stretched to the picture's width; (h, 2, W) slope and offset.

    Both are in natural logarithms. ``rise`` is the difference to the next row.
    """

    rows: Floats
    rise: Floats
    extent: float  # how much of the picture's height the map covers, at least 1

    def row(self, place: float) -> Floats:
        """Slope and offset along the row at ``place``, 0 to 1 of the picture's height, (2, W)."""
        count = self.rows.shape[0]
        at = min(max(place / self.extent * count - 0.5, 0.0), count - 1.0)
        upper = int(at)
        row: Floats = self.rise[upper] * np.float32(at - upper)
        row += self.rows[upper]
        return row


def widened(gain: Floats, extent: tuple[float, float], width: int) -> WideMap:
    """Stretch a (2, h, w) map to the width of the picture."""
    small = gain.shape[2]
    at = np.clip((np.arange(width) + 0.5) / (width * extent[1]) * small - 0.5, 0, small - 1)
    left = np.minimum(at.astype(np.int64), max(small - 2, 0))
    right = np.minimum(left + 1, small - 1)
    t = (at - left).astype(np.float32)
    wide = gain[:, :, left] * (1 - t) + gain[:, :, right] * t
    wide[1] *= np.float32(np.log(2))
    rows = np.ascontiguousarray(wide.transpose(1, 0, 2), np.float32)
    return WideMap(rows, np.diff(rows, axis=0, append=rows[-1:]), extent[0])


@dataclass(frozen=True, eq=False)
class Renderer:
    """The tables and matrices of a plan, for one full size and one type of code."""

    plan: Plan
    size: tuple[int, int]
    enter: Floats | None  # (3, 3): the Radiance's RGB to Rec. 709, where they differ
    colours: Floats  # (3, 3): Rec. 709 to the exposed colours of the curve
    mixing: bool  # whether ``colours`` can leave negative numbers
    luminance: Floats  # (1, 3): Rec. 709 to exposed luminance
    after: Floats | None  # (3, 3): the curve's colours to Rec. 709
    scale: float  # STEPS / sqrt(top)
    table: NDArray[Any]  # (1, 65536): display light, gain, or at once the code
    codes: NDArray[Any]  # (1, 65536): the code of display light (j / STEPS)^2
    map: WideMap | None
    floor: np.float32  # exposed luminance below which the local gain is constant
    most: np.float32  # light above which all is white anyway: keeps indices within integers

    def strip(self, pixels: NDArray[np.floating], rows: slice) -> Codes:
        """The codes of these rows of the picture, (h, W, 3)."""
        out = np.empty(pixels.shape, self.codes.dtype)
        for part in blocks((pixels.shape[0], pixels.shape[1]), BLOCK):
            at = range(rows.start + part.start, rows.start + part.stop)
            out[part] = self._block(pixels[part], at)
        return out

    def _block(self, pixels: NDArray[np.floating], at: range) -> Codes:
        count = pixels.shape[0] * pixels.shape[1]
        light = _padded(cleaned(pixels, self.most)[0].reshape(1, count, 3))
        if self.enter is not None:
            light = into_gamut(turned(light, self.enter))
        colours = turned(light, self.colours)
        if self.mixing:
            colours = _positive(colours)
        if self.map is not None:
            colours = _times(colours, self._gain(turned(light, self.luminance), at, self.map))
        codes = self._paling(colours) if self.plan.spec.on == "luminance" else self._curve(colours)
        return codes.reshape(-1, 3)[:count].reshape(pixels.shape)

    def _gain(self, luminance: Floats, at: range, wide: WideMap) -> Floats:
        """The local gain of each pixel, exp(slope log L + offset)."""
        import cv2

        np.maximum(luminance, self.floor, out=luminance)
        cv2.log(luminance, dst=luminance)
        logs = luminance.reshape(-1)
        width = self.size[1]
        for y, count in pairs(at):  # the map is far coarser than two rows
            slope, offset = wide.row((y // 2 * 2 + 1) / self.size[0])
            for i in range(y - at.start, y - at.start + count):
                row = logs[i * width : (i + 1) * width]
                row *= slope
                row += offset
        cv2.exp(luminance, dst=luminance)
        return luminance

    def _curve(self, light: Floats) -> Codes:
        """The curve on each channel."""
        shown = _looked_up(_index(light, self.scale), self.table)
        if self.after is None:
            return shown
        return _looked_up(_index(_positive(turned(shown, self.after)), STEPS), self.codes)

    def _paling(self, light: Floats) -> Codes:
        """The curve on luminance; colours too bright for the display pale towards white."""
        gain = _looked_up(_index(turned(light, LUMINANCE), self.scale), self.table)
        shown = paled(_times(light, gain))
        return _looked_up(_index(shown, STEPS), self.codes)


def pairs(rows: range) -> Iterator[tuple[int, int]]:
    """Rows of a picture two by two, from the even ones on: where each pair starts, and how many."""
    at = rows.start
    while at < rows.stop:
        count = min(2 - at % 2, rows.stop - at)
        yield at, count
        at += count


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
        colours=colours.astype(np.float32),
        mixing=bool((colours < 0).any()),
        luminance=np.float32(exposure) * LUMINANCE,
        after=None if spec.after is None else spec.after.astype(np.float32),
        scale=STEPS / float(np.sqrt(top)),
        table=_table(plan, top, dtype),
        codes=codes,
        map=None if plan.gain is None else widened(plan.gain, plan.extent, size[1]),
        floor=np.float32(2.0 ** values["floor"]),
        most=np.float32(min(MOST_LIGHT * top / exposure, float(HUGE))),
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


def _looked_up(index: NDArray[np.uint16], table: NDArray[Any]) -> NDArray[Any]:
    import cv2

    return np.asarray(cv2.LUT(index, table)).reshape(index.shape)


def _index(light: Floats, scale: float) -> NDArray[np.uint16]:
    """The table index of each number of at least 0, saturating at the top. Destroys ``light``."""
    import cv2

    flat = light.reshape(1, -1)
    root = cv2.sqrt(flat, dst=flat)
    index = cv2.addWeighted(root, scale, root, 0.0, 0.0, dtype=cv2.CV_16U)
    return np.asarray(index, np.uint16).reshape(light.shape)


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


def _padded(light: Floats) -> Floats:
    """(1, n, 3) as (1, m, 3), m a multiple of LANES."""
    count = light.shape[1]
    if count % LANES == 0:
        return light
    padded = np.empty((1, -(-count // LANES) * LANES, 3), np.float32)
    padded[:, :count] = light
    padded[:, count:] = 0
    return padded


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
        out[rows] = ready.strip(radiance.pixels[rows], rows)

    run(work, (height, width), threads, BLOCK)
    return out
