"""Looks: radiance becomes the Y'CbCr planes of one kind of video.

PQ and HLG show light as it is up to about white, and roll what is brighter off to the display's
peak by the curve of Report ITU-R BT.2390; their exposure is decided once per clip. SDR is tone
mapped frame by frame, by plans that follow each other slowly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hdrcli import tonemap
from hdrcli.color import (
    REC709,
    REC2020,
    Primaries,
    conversion,
    hlg_encode,
    luminance_weights,
    pq_decode,
    pq_encode,
)
from hdrcli.frames import Radiance
from hdrcli.strips import run
from hdrcli.tonemap import Plan
from hdrcli.tonemap.render import renderer
from hdrcli.video.exposures import Pattern
from hdrcli.video.planes import Codes, Levels, chroma_codes, coding_matrix, luma_codes
from hdrcli.video.probe import Probe

Floats = NDArray[np.float32]
Planes = tuple[Codes, Codes, Codes]
Strip = Callable[[Floats, slice], Floats]  # radiance of some rows to R'G'B' in [0, 1]

STEPS = 65535  # tables are looked up at STEPS x sqrt(light / top)
HLG_PEAK = 1000.0  # cd/m², the display HLG is graded for (BT.2408)
HLG_GAMMA = 1.2
NARROW = 384  # px of the longer side that plans are made from
SLOWLY = 0.8  # seconds in which a plan's numbers go 63 % of the way
QUICKLY = 0.12  # and its map
MIDDLE = float(np.log2(0.2))  # the mean of what is not brighter than white, in stops below it
SAMPLES = 6  # moments of the survey that decide the exposure of HDR


@dataclass
class LightLevel:
    """What CTA-861.3 asks for, measured from the encoded frames: cd/m²."""

    content: float = 0.0  # MaxCLL: the brightest channel of any pixel
    average: float = 0.0  # MaxFALL: the largest mean of the brightest channels of a frame

    def take(self, most: float, mean: float) -> None:
        """Count a frame."""
        self.content = max(self.content, most)
        self.average = max(self.average, mean)


class Look(Protocol):
    """Turns frames of a clip into planes, one after the other."""

    light: LightLevel

    def planes(self, radiance: Radiance, seconds: float, scene: int) -> Planes:
        """The planes of the next frame, which is ``seconds`` into the clip."""


@dataclass(frozen=True)
class Shape:
    """How planes are stored."""

    levels: Levels
    primaries: Primaries
    topleft: bool = False  # chroma siting
    halved: bool = True  # chroma has half the rows, too (4:2:0 rather than 4:2:2)


def coded(radiance: Radiance, shape: Shape, strip: Strip) -> Planes:
    """R'G'B' strip by strip in threads, then Y'CbCr. Sizes are padded to even ones."""
    import cv2

    height, width = radiance.pixels.shape[:2]
    tall, wide = height + height % 2, width + width % 2
    kind = np.uint8 if shape.levels.bits == 8 else np.uint16
    luma = np.empty((tall, wide), kind)
    blue, red = np.empty((2, tall, wide), np.float32)
    matrix = coding_matrix(shape.primaries)

    def work(rows: slice) -> None:
        mixed = cv2.transform(strip(radiance.pixels[rows], rows), matrix)
        y, b, r = cv2.split(mixed)
        luma[rows, :width] = luma_codes(y, shape.levels)
        blue[rows, :width], red[rows, :width] = b, r

    run(work, (height, width))
    for plane in (luma, blue, red):
        plane[:, width:] = plane[:, width - 1 : width]
        plane[height:] = plane[height - 1 : height]
    chroma = [
        chroma_codes(c, shape.levels, topleft=shape.topleft, rows=shape.halved) for c in (blue, red)
    ]
    return luma, chroma[0], chroma[1]


# --- HDR --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """How radiance is shown in HDR, fixed for a clip."""

    white: float = 203.0  # cd/m² of diffuse white (BT.2408)
    peak: float = 1000.0  # cd/m² of the display
    ev: float = 0.0  # stops by which radiance is exposed, so that 1.0 is diffuse white
    source_peak: float = 1000.0  # cd/m² that the scene's highlights would have


def rough(probes: Sequence[Probe], pattern: Pattern) -> Radiance:
    """Small radiance of some moments of the survey, one above the other.

    Each block is taken from the brightest exposure that does not clip there.
    """
    period = pattern.period
    usable = len(probes) - period + 1
    starts = np.unique(np.linspace(0, usable - 1, min(SAMPLES, usable)).astype(int))
    curve = pattern.response.samples.mean(axis=1)
    knots = np.linspace(0, 1, len(curve))
    moments = []
    for start in starts:
        light = None
        group = [(pattern.exposures[(pattern.first + probes[i].index) % period], probes[i])
                 for i in range(start, start + period)]  # fmt: skip
        for exposure, probe in sorted(group, key=lambda pair: pair[0]):
            here = np.interp(probe.mean, knots, curve) * (
                pattern.exposures[pattern.anchor] / exposure
            )
            clear = probe.mean.max(axis=2, keepdims=True) < 0.92 - (1 - pattern.white)
            light = here if light is None else np.where(clear, here, light)
        moments.append(np.asarray(light, np.float32))
    return Radiance(np.vstack(moments))


def grade_of(small: Radiance, white: float, peak: float, exposure: float = 0.0) -> Grade:
    """Expose for the whole clip, so that what is not a highlight comes out middling bright."""
    luminance = small.pixels @ luminance_weights(small.primaries).astype(np.float32)
    stops = np.log2(luminance[luminance > 0].astype(np.float64))
    if not stops.size:
        return Grade(white, peak, exposure, peak)
    ev = exposed_for(np.clip(stops, *np.percentile(stops, (1, 100)))) + exposure
    brightest = float(np.percentile(small.pixels.max(axis=2), 99.9)) * 2.0**ev * white
    return Grade(white, peak, ev, max(1.5 * brightest, peak))


def exposed_for(stops: NDArray[np.float64]) -> float:
    """The exposure, in stops, that brings the mean to MIDDLE, highlights counting as white."""
    low, high = MIDDLE - float(stops.max()) - 1, MIDDLE - float(stops.min()) + 1
    for _ in range(40):
        ev = (low + high) / 2
        low, high = (ev, high) if np.minimum(stops + ev, 0).mean() < MIDDLE else (low, ev)
    return (low + high) / 2


def rolled_off(light: NDArray[np.float64], source: float, peak: float) -> NDArray[np.float64]:
    """Report ITU-R BT.2390, EETF: cd/m² as mastered for ``source`` shown up to ``peak``."""
    if source <= peak * 1.001:
        return np.minimum(light, peak)
    top = float(pq_encode(np.array([source]))[0])
    most = float(pq_encode(np.array([peak]))[0]) / top
    e = np.minimum(pq_encode(light).astype(np.float64) / top, 1)
    knee = 1.5 * most - 0.5
    t = np.clip((e - knee) / (1 - knee), 0, 1)
    hermite = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    shown = np.where(e < knee, e, hermite) * top
    return np.asarray(np.minimum(pq_decode(shown), peak), np.float64)


class HdrLook:
    """PQ or HLG in BT.2020."""

    def __init__(self, grade: Grade, shape: Shape, *, hlg: bool = False) -> None:
        self.shape = shape
        self.light = LightLevel()
        self.hlg = hlg
        self.scale = grade.white * 2.0**grade.ev
        self.peak = HLG_PEAK if hlg else grade.peak
        self.top = max(4 * grade.source_peak, 4 * self.peak)
        light = self.top * (np.arange(STEPS + 1) / STEPS) ** 2
        light[0] = light[1]
        shown = rolled_off(light, grade.source_peak, self.peak)
        self.knee = float(light[np.argmax(shown < light * (1 - 1e-6))])  # as it is up to here
        self.gain = (shown / light).astype(np.float32).reshape(1, -1)
        share = (np.arange(STEPS + 1) / STEPS) ** 2
        code = hlg_encode(share) if hlg else pq_encode(share * self.peak)
        self.code = code.astype(np.float32).reshape(1, -1)
        share[0] = share[1]
        self.undo = (share ** (1 / HLG_GAMMA - 1)).astype(np.float32).reshape(1, -1)

    def planes(self, radiance: Radiance, seconds: float, scene: int) -> Planes:
        """The planes of a frame; its light is counted."""
        import cv2

        matrix = (self.scale * conversion(radiance.primaries, REC2020)).astype(np.float32)
        found: list[tuple[float, float]] = []

        def strip(pixels: Floats, _rows: slice) -> Floats:
            light, most = self._shown(pixels, matrix)
            found.append((float(most.max()), float(cv2.sumElems(most)[0])))
            return self._encoded(light)

        planes = coded(radiance, self.shape, strip)
        height, width = radiance.pixels.shape[:2]
        self.light.take(max(m for m, _ in found), sum(s for _, s in found) / (height * width))
        return planes

    def _shown(self, pixels: Floats, matrix: Floats) -> tuple[Floats, Floats]:
        """Display light in cd/m², (h, w, 3), and its brightest channel, (h, w)."""
        import cv2

        light = cv2.transform(np.asarray(pixels, np.float32), matrix)
        cv2.max(light, 0.0, dst=light)
        planes = cv2.split(light)
        most = cv2.max(cv2.max(planes[0], planes[1]), planes[2])
        if cv2.minMaxLoc(most)[1] < self.knee:
            return np.asarray(light), np.asarray(most)
        known = cv2.min(most, self.top)  # brighter still is shown as the top of the table is
        shown = cv2.multiply(known, looked_up(known, self.top, self.gain))
        gain = cv2.divide(shown, cv2.max(most, 1e-9))
        return np.asarray(cv2.multiply(light, cv2.merge((gain, gain, gain)))), shown

    def _encoded(self, light: Floats) -> Floats:
        """R'G'B' in [0, 1] of display light."""
        import cv2

        if self.hlg:  # BT.2100 table 5: the inverse of the display's gamma, on luminance
            weights = luminance_weights(REC2020).astype(np.float32).reshape(1, 3)
            undo = looked_up(cv2.transform(light, weights), self.peak, self.undo)
            light = cv2.multiply(light, cv2.merge((undo, undo, undo)))
        return looked_up(light, self.peak, self.code)


def looked_up(light: Floats, top: float, table: Floats) -> Floats:
    """The table's entry for each number in [0, top], saturating there. Shape is kept."""
    import cv2

    flat = np.ascontiguousarray(light).reshape(1, -1)
    root = cv2.sqrt(flat)
    index = cv2.addWeighted(root, STEPS / top**0.5, root, 0.0, 0.0, dtype=cv2.CV_16U)
    return np.asarray(cv2.LUT(index, table), np.float32).reshape(light.shape)


# --- SDR --------------------------------------------------------------------------------------


@dataclass
class Steady:
    """Plans that follow each other slowly, and start anew at cuts."""

    operator: str
    params: Mapping[str, float]
    last: Plan | None = None
    seconds: float = 0.0
    scene: int = 0

    def next(self, radiance: Radiance, seconds: float, scene: int) -> Plan:
        """The plan of the next frame."""
        fresh = tonemap.analyse(narrowed(radiance), self.operator, self.params, threads=1)
        if self.last is not None and scene == self.scene:
            passed = max(seconds - self.seconds, 1e-3)
            fresh = self._followed(self.last, fresh, passed)
        self.last, self.seconds, self.scene = fresh, seconds, scene
        return fresh

    def _followed(self, last: Plan, fresh: Plan, passed: float) -> Plan:
        slow = tonemap.blend(last, fresh, float(-np.expm1(-passed / SLOWLY)))
        quick = tonemap.blend(last, fresh, float(-np.expm1(-passed / QUICKLY)))
        return replace(slow, gain=quick.gain)


def narrowed(radiance: Radiance) -> Radiance:
    """The radiance at NARROW pixels."""
    import cv2

    height, width = radiance.pixels.shape[:2]
    share = min(1.0, NARROW / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    pixels = np.asarray(radiance.pixels, np.float32)
    return replace(radiance, pixels=cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


@dataclass
class SdrLook:
    """BT.709 by a tone-mapping operator."""

    shape: Shape
    operator: str = tonemap.DEFAULT
    params: Mapping[str, float] = field(default_factory=dict)
    light: LightLevel = field(default_factory=LightLevel)

    def __post_init__(self) -> None:
        self.steady = Steady(self.operator, self.params)

    def planes(self, radiance: Radiance, seconds: float, scene: int) -> Planes:
        """The planes of a frame."""
        plan = self.steady.next(radiance, seconds, scene)
        size = (radiance.pixels.shape[0], radiance.pixels.shape[1])
        ready = renderer(plan, size, "uint8")

        def strip(pixels: Floats, rows: slice) -> Floats:
            return ready.strip(pixels, rows).astype(np.float32) * np.float32(1 / 255)

        return coded(radiance, self.shape, strip)


@dataclass(frozen=True)
class Transfer:
    """One kind of picture; ``tags`` are the numbers of ITU-T H.273."""

    name: str
    summary: str
    primaries: Primaries
    tags: tuple[int, int, int]  # primaries, transfer, matrix
    topleft: bool


TRANSFERS: Mapping[str, Transfer] = MappingProxyType(
    {
        row.name: row
        for row in (
            Transfer("pq", "HDR10: PQ, BT.2020", REC2020, (9, 16, 9), topleft=True),
            Transfer("hlg", "HLG, BT.2020", REC2020, (9, 18, 9), topleft=True),
            Transfer("sdr", "tone mapped, BT.709", REC709, (1, 1, 1), topleft=False),
        )
    }
)
