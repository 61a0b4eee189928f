"""Exposures from the pixels: how much brighter each frame is than its neighbours.

The pixels alone cannot tell a steeper curve from longer steps (Grossberg and Nayar 2003), so the
curve is taken from a family: what the file claims, plus some of what cameras add to it. How much
of it is seen from the curve's shape, and then the steps follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import LINEAR, Frame, Response
from hdrcli.response import recover
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]

ENOUGH_PAIRS = 300  # points that tie a frame to its neighbour firmly
LOOSE_EV = 0.6  # a spread of the points' ratios that halves the confidence
FIRM = 0.3  # confidence of a link that measures its step


@dataclass(frozen=True, eq=False)
class Link:
    """Two neighbours in brightness: points seen in both, and how well they agree."""

    darker: int
    brighter: int
    confidence: float


@dataclass(frozen=True, eq=False)
class PixelExposures:
    """What the pixels say. ``evs`` (F,) with mean 0; ``confidence`` (F,), 0 a guess to 1 sure."""

    evs: Doubles
    links: tuple[Link, ...]

    @property
    def confidence(self) -> Doubles:
        """Of each frame: that of its firmest link."""
        found = np.zeros(len(self.evs))
        for link in self.links:
            for frame in (link.darker, link.brighter):
                found[frame] = max(found[frame], link.confidence)
        return found

    @property
    def sure(self) -> float:
        """Confidence in the weakest link: it is the one that counts."""
        return min(link.confidence for link in self.links)

    @property
    def steps_known(self) -> int:
        """How many steps between neighbours are measured."""
        return sum(link.confidence >= FIRM for link in self.links)

    def evenly(self) -> Doubles:
        """The stops, where each step that is not measured is as long as the usual one."""
        steps = [float(self.evs[link.brighter] - self.evs[link.darker]) for link in self.links]
        firm = [s for s, link in zip(steps, self.links, strict=True) if link.confidence >= FIRM]
        evs = np.zeros(len(self.evs))
        for step, link in zip(steps, self.links, strict=True):
            step = step if link.confidence >= FIRM else float(np.median(firm))
            evs[link.brighter] = evs[link.darker] + step
        return np.asarray(evs - evs.mean())


def estimate(samples: Samples, response: Response) -> PixelExposures:
    """Relative exposure of each frame, in stops; + is brighter."""
    evs, links = _rough(samples, response)
    pairs = recover.pairs_of(samples, evs, response)
    if len(pairs.dark) >= ENOUGH_PAIRS:
        curve = recover.solve(pairs, evs, response, recover.UNKNOWN)
        evs = evs + curve.errors
    return PixelExposures(evs - evs.mean(), tuple(links))


def contradictions(samples: Samples, evs: Doubles, response: Response) -> Doubles:
    """EV by which each frame departs from ``evs`` by whatever curve explains them best, (F,)."""
    pairs = recover.pairs_of(samples, evs, response)
    if len(pairs.dark) < ENOUGH_PAIRS:
        return np.zeros(len(evs))
    best = recover.recovered(pairs, evs, response)
    steps, links = _rough(samples, best)
    firm = all(link.confidence >= FIRM for link in links)
    off = steps - evs
    return off - np.median(off) if firm else np.zeros(len(evs))


def prior_of(frames: Sequence[Frame]) -> Response:
    """The curve the estimate is held near."""
    return next((frame.response for frame in frames if frame.levels), LINEAR)


def _rough(samples: Samples, response: Response) -> tuple[Doubles, list[Link]]:
    """Median ratio of neighbours in brightness, and how firm each is."""
    order = np.argsort(samples.bright, kind="stable")
    evs = np.zeros(len(order))
    links = []
    for i, j in pairwise(order):
        keep = samples.usable[i] & samples.usable[j]
        dark, bright = (samples.codes[k][keep].astype(np.float64) for k in (i, j))
        steps = recover.prior_ev(response, bright) - recover.prior_ev(response, dark)
        middle = float(np.median(steps)) if len(steps) else 0.0
        spread = 1.4826 * float(np.median(np.abs(steps - middle))) if len(steps) else np.inf
        evs[j] = evs[i] + middle
        sure = min(len(steps) / ENOUGH_PAIRS, 1.0) / (1 + (spread / LOOSE_EV) ** 2)
        links.append(Link(int(i), int(j), sure))
    return evs - evs.mean(), links
