"""Windows become radiance, all frames on one scale.

1.0 is what the pattern's anchor exposure records as white, in every frame, whatever its own
exposure. In ``average`` an exposure counts the same whether one frame of it is in the window or
two, so that the mix, and with it any error of the response, does not change from frame to frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.backends import BACKENDS, check_backend
from hdrcli.backends.average import FADE, Average, Source, light_plane, lookup, store
from hdrcli.backends.registry import Settings
from hdrcli.errors import InputError
from hdrcli.frames import Bracket, Frame, Radiance
from hdrcli.motion import CLIP, Motion, Noise
from hdrcli.video import motion
from hdrcli.video.windows import Window

Floats = NDArray[np.float32]

NOISE = Noise()
CRUSHED = 1 / 255  # a code that says nothing but "dark"
CLEAR = {False: 5 / 255, True: 16 / 255}  # codes to be relied on; by whether blacks are crushed
CRUSHED_WEIGHT = 1e-8  # of a crushed code against a clear one
CLIPPED_WEIGHT = CRUSHED_WEIGHT ** (2 / 3)  # of a clipped code: a third up the crushed ones
LOST_WEIGHT = 0.3  # of a code that clips in the darkest frame; there is nothing better
GUESS = 1e-3  # belief in a neighbour that contradicts, where the present frame is blind


class Merger(Protocol):
    """A window in, radiance out; 1.0 is the white of the exposure that the merger was made for."""

    def merge(self, window: Window, strength: str) -> Radiance:
        """Merge one window; ``strength`` is that of --deghost. One frame alone is itself."""


@dataclass(frozen=True, eq=False)
class Witness:
    """A source, and how far its dark codes are believed, by their brightness."""

    source: Source
    crush: Floats | None  # (1, levels), at the grey code; None where all are


class SteadyAverage:
    """The noise-optimal mean, with a weight per exposure instead of one per frame."""

    def __init__(self, settings: Settings, anchor: float, *, crushed: bool = False) -> None:
        self.settings = settings
        self.mean = Average(settings)
        self.anchor = anchor
        self.clear = CLEAR[crushed]

    def witnesses(self, bracket: Bracket, motion: Motion) -> list[Witness]:
        """Tables relative to the anchor, shared among the frames of one exposure."""
        found = [
            self.mean._source(frame, i, float(bracket.exposures[i]) / self.anchor, motion)
            for i, frame in enumerate(bracket.frames)
        ]
        distinct = sorted({round(float(np.log2(e)), 2) for e in bracket.exposures})
        ranks = [distinct.index(round(float(np.log2(e)), 2)) for e in bracket.exposures]
        clear = float(np.interp(self.clear, *_curve(found[0].weight[0])))
        return [
            Witness(
                replace(
                    source, weight=_bounded(source, rank, clear) / np.float32(ranks.count(rank))
                ),
                _crush(source.placement.frame, self.clear) if rank < len(distinct) - 1 else None,
            )
            for source, rank in zip(found, ranks, strict=True)
        ]

    def merge(self, window: Window, strength: str) -> Radiance:
        """See Merger."""
        bracket, order = motion.bracket_of(window)
        return self.mean_of(bracket, motion.analyse(window, bracket, order, strength, NOISE))

    def mean_of(self, bracket: Bracket, motion: Motion) -> Radiance:
        """Merge a bracket whose motion is known."""
        witnesses = self.witnesses(bracket, motion)
        guessed = _guessed(bracket.ref, self.clear)
        out = np.empty((*bracket.size, 3), self.settings.dtype)

        def work(rows: slice) -> int:
            planes, lost = steady_block(witnesses, guessed, bracket.ref, rows)
            store(planes, out[rows])
            return lost

        lost = sum(strips.run(work, bracket.size, self.settings.threads))
        return Radiance(
            out, bracket.ref.primaries, self.anchor, clipped=lost / (out.shape[0] * out.shape[1])
        )


def _curve(weight: Floats) -> tuple[Floats, Floats]:
    """Codes in [0, 1] and their weights, to be changed."""
    return np.linspace(0, 1, len(weight), dtype=np.float32), weight.copy()


def _bounded(source: Source, rank: int, clear: float) -> Floats:
    """Weights in which a clipped code counts where no other exposure says more.

    Where the dark frame is crushed and the bright one clips, the clipping level is nearer to
    the truth than a colour made of two or three codes.
    """
    if not source.placement.frame.levels:
        return source.weight
    codes, weight = _curve(source.weight[0])
    least = clear * (LOST_WEIGHT if rank == 0 else CLIPPED_WEIGHT * 0.1 ** (rank - 1))
    bright = codes > FADE
    weight[bright] = np.maximum(weight[bright], np.float32(least))
    return np.asarray(weight, np.float32)[None]


def _crush(frame: Frame, darkest: float) -> Floats | None:
    """By grey code, (1, levels): crushed codes fade out by powers of ten, so that they give way
    to a brighter frame's clipping level without an edge."""
    if not frame.levels:
        return None
    codes = np.linspace(0, 1, frame.levels, dtype=np.float32)
    crushed = np.clip((darkest - codes) / (darkest - CRUSHED), 0, 1)
    return np.asarray(np.float32(CRUSHED_WEIGHT) ** crushed, np.float32)[None]


def _guessed(frame: Frame, clear: float) -> Floats | None:
    """By code, (1, levels): the belief that a neighbour keeps where the present frame says
    nothing, being crushed or clipped. Another moment is better than none."""
    if not frame.levels:
        return None
    codes = np.linspace(0, 1, frame.levels)
    blind = np.interp(codes, (CRUSHED, clear, FADE, CLIP), (1, 0, 0, 1))
    return (GUESS * blind).astype(np.float32)[None]


def steady_block(
    witnesses: list[Witness], guessed: Floats | None, now: Frame, rows: slice
) -> tuple[list[Floats], int]:
    """Merge one block of rows: three (h, w) planes, and how many pixels clip everywhere."""
    import cv2

    width = now.size[1]
    shape = (rows.stop - rows.start, width)
    total = [np.zeros(shape, np.float32) for _ in range(3)]
    norm = np.full(shape, 1e-30, np.float32)
    least = None
    lost = 0
    for witness in witnesses:
        light, weight, largest = evidence(witness, rows)
        belief = believed(witness.source, rows, width)
        if belief is not None:
            if least is None and guessed is not None:
                least = lookup(largest_code(now.codes[rows]), guessed)
            weight = cv2.multiply(weight, belief if least is None else cv2.max(belief, least))
        if witness is witnesses[0] and now.levels:
            lost = int(np.count_nonzero(largest >= CLIP * (now.levels - 1)))
        norm += weight
        for channel, plane in zip(total, light, strict=True):
            cv2.accumulateProduct(plane, weight, channel)
    for channel in total:
        cv2.divide(channel, norm, dst=channel)
    return total, lost


def largest_code(codes: NDArray[Any]) -> NDArray[Any]:
    """The largest of the three codes of each pixel."""
    import cv2

    red, green, blue = cv2.split(codes)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def evidence(witness: Witness, rows: slice) -> tuple[list[Floats], Floats, NDArray[Any]]:
    """Three planes of light, the weight of each pixel, and its largest code."""
    import cv2

    source = witness.source
    codes, valid = placed_codes(source, rows)
    planes = cv2.split(codes)
    largest = cv2.max(cv2.max(planes[0], planes[1]), planes[2])
    weight = lookup(largest, source.weight)
    if witness.crush is not None:
        weight *= lookup(cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY), witness.crush)
    if valid is not None:
        weight *= valid
    return [light_plane(source, c, plane) for c, plane in enumerate(planes)], weight, largest


def placed_codes(source: Source, rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Codes of a frame at the present one's pixels; only what moved is resampled."""
    import cv2

    placement = source.placement
    frame, flow = placement.frame, placement.flow
    if flow is None:
        return frame.codes[rows], None
    cols = moving_columns(flow, placement.scale, rows, frame.size[1])
    if cols is None:
        return frame.codes[rows], None
    full = strips.upsample(flow, placement.scale, rows, frame.size[1])[:, cols]
    x = full[..., 0] / np.float32(placement.scale[0])
    y = full[..., 1] / np.float32(placement.scale[1])
    x += np.arange(cols.start, cols.stop, dtype=np.float32)
    y += np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    height, width = frame.size
    top = int(np.clip(y.min() - strips.MARGIN, 0, height - 1))
    bottom = int(np.clip(y.max() + strips.MARGIN + 2, top + 1, height))
    y -= np.float32(top)
    moved = cv2.remap(
        frame.codes[top:bottom], x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    codes = frame.codes[rows].copy()
    codes[:, cols] = moved
    y += np.float32(top)
    if x.min() >= -0.5 and y.min() >= -0.5 and x.max() <= width - 0.5 and y.max() <= height - 0.5:
        return codes, None
    valid = np.ones(codes.shape[:2], bool)
    valid[:, cols] = (x >= -0.5) & (y >= -0.5) & (x <= width - 0.5) & (y <= height - 0.5)
    return codes, valid


def moving_columns(
    flow: Floats, scale: tuple[float, float], rows: slice, width: int
) -> slice | None:
    """The full-size columns between which anything moves in these rows; None where nothing."""
    moving = np.flatnonzero(strips.small_rows(flow, scale, rows).any(axis=(0, 2)))
    if not len(moving):
        return None
    first = int((moving[0] - 1) / scale[0])
    last = int((moving[-1] + 2) / scale[0]) + 1
    return slice(max(first, 0), min(last, width))


def believed(source: Source, rows: slice, width: int) -> Floats | None:
    """Confidence in these rows; None where it is full."""
    if source.confidence is None:
        return None
    if strips.small_rows(source.confidence, source.scale, rows).min() >= 1:
        return None
    return strips.upsample(source.confidence, source.scale, rows, width)


# --- the table --------------------------------------------------------------------------------

VIDEO: Mapping[str, str] = MappingProxyType(
    {  # "module:Class", called with settings and anchor, and crushed=
        "average": "hdrcli.video.merge:SteadyAverage",
        "flowmerge": "hdrcli.video.neural:SteadyFlow",
        "deephdrvideo": "hdrcli.video.neural:DeepWindow",
    }
)
AUTO = "average"


def available() -> list[str]:
    """The backends for video that this build has."""
    return [name for name in VIDEO if name in BACKENDS]


def load_merger(name: str, settings: Settings, anchor: float, *, crushed: bool = False) -> Merger:
    """The merger called ``name``; ``auto`` chooses.

    ``anchor`` is the exposure whose white becomes 1.0; ``crushed`` tells that dark codes lie.
    Raises InputError where there is no such merger, WeightsError where it has no weights.
    """
    chosen = AUTO if name == "auto" else name
    if chosen not in available():
        raise InputError(
            f"--backend {chosen}: not for video", hint=f"one of {', '.join(available())}"
        )
    check_backend(chosen, settings.device)
    module, _, attribute = VIDEO[chosen].partition(":")
    merger: Merger = getattr(import_module(module), attribute)(settings, anchor, crushed=crushed)
    return merger
