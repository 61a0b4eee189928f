"""Windows become radiance, all frames on one scale.

1.0 is what the pattern's anchor exposure records as white, in every frame, whatever its own
exposure.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Protocol

import numpy as np

from hdrcli.backends import BACKENDS, check_backend
from hdrcli.backends.registry import Settings
from hdrcli.errors import InputError
from hdrcli.frames import Bracket, Radiance
from hdrcli.motion import Motion
from hdrcli.sights import Noise
from hdrcli.video import cascade, motion
from hdrcli.video.aligned import tiles
from hdrcli.video.clip import Timed
from hdrcli.video.windows import Window

NOISE = Noise()


class Merger(Protocol):
    """A window in, radiance out; 1.0 is the white of the exposure that the merger was made for."""

    side_by_side: bool  # whether several windows may be merged at once, in threads

    def merge(self, window: Window, strength: str) -> Radiance:
        """Merge one window; ``strength`` is that of --deghost. One frame alone is itself."""


class SteadyAverage:
    """Of every pixel the brightest exposure that shows it clearly; see hdrcli.video.cascade."""

    side_by_side = True

    def __init__(self, settings: Settings, anchor: float, *, crushed: bool = False) -> None:
        self.settings = settings
        self.anchor = anchor
        self.crushed = crushed

    def merge(self, window: Window, strength: str) -> Radiance:
        """See Merger."""
        window = needed(window)
        bracket, order = motion.bracket_of(window)
        return self.mean_of(bracket, motion.analyse(window, bracket, order, strength, NOISE))

    def mean_of(self, bracket: Bracket, motion: Motion) -> Radiance:
        """Merge a bracket whose motion is known, on a picture smaller by a whole number."""
        exposures = cascade.exposures_of(bracket, motion, self.anchor, crushed=self.crushed)
        out = np.empty((*bracket.size, 3), np.float32)
        factor = max(1, round(1 / motion.scale[0]))
        lost = sum(
            cascade.merged_tile(exposures, tile, out[tile.part])
            for tile in tiles(bracket.size, factor)
        )
        return Radiance(
            out.astype(self.settings.dtype, copy=False),
            bracket.ref.primaries,
            self.anchor,
            clipped=lost / (out.shape[0] * out.shape[1]),
        )


def needed(window: Window) -> Window:
    """The window without the exposures that are darker than one that clips nowhere."""
    pairs = [(pair, window.now in pair) for pair in (*window.others, (window.now, None))]
    kept: list[tuple[Timed | None, Timed | None]] = []
    met = False
    for pair, present in sorted(pairs, key=lambda item: -_exposure(item[0])):
        if not present:
            kept.append(pair)
        met |= present
        if met and not any(
            cascade.near_clipping(timed.frame.codes, timed.frame)
            for timed in pair
            if timed is not None
        ):
            break
    return replace(window, others=tuple(kept))


def _exposure(pair: tuple[Timed | None, Timed | None]) -> float:
    return max((timed.frame.exposure or 0 for timed in pair if timed is not None), default=0.0)


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
