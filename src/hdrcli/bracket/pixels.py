"""Exposures from the pixels: how much brighter each frame is than its neighbours.

The pixels alone cannot tell a steeper curve from longer steps (Grossberg and Nayar 2003), so the
curve is taken from families: what the file claims, plus some of what cameras add to it. How much
of it is seen from the curve's shape, and then the steps follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import LINEAR, Frame, Response
from hdrcli.response import recover
from hdrcli.response.pairs import Pairs, group_medians, light_ev, pairs_of, partners_of, systematic
from hdrcli.response.samples import Samples

Doubles = NDArray[np.float64]

ENOUGH_PAIRS = 300  # points that tie a frame to its neighbour firmly
LOOSE_EV = 0.5  # a spread of the points' ratios that halves the confidence
FIRM = 0.3  # confidence of a link that measures its step
NEIGHBOURS = 2  # frames up in brightness that each is compared with
# What camera JPEGs add to sRGB, in EV of light at codes 0 to 255: the mean of curves recovered
# from six cameras' brackets. They lift shadows and press highlights.
CAMERA_CODES = (0, 16, 32, 48, 64, 80, 96, 128, 160, 192, 224, 240, 255)
CAMERA_EV = (1.54, 1.30, 0.83, 0.42, 0.10, -0.13, -0.30, -0.52, -0.60, -0.56, -0.39, -0.23, 0.0)
CAMERA_AMOUNTS = (0.0, 0.5, 1.0, 1.5)  # of that curve, tried first
CONTRAST_AMOUNTS = (0.2, 0.5, 0.8, 1.0)  # of a smooth step, likewise
FINEST = 0.1  # step of the amount at which the search ends
DECISIVE, EXPLAINS_EV = 0.6, 0.05  # the second family must fit so much better, and so well
PLAUSIBLE = (0.7, 1.7)  # steps seen through the claimed curve over true steps, of any camera
STRANGE_EV = 1.0  # spread of the step between frames that show different things


@dataclass(frozen=True, eq=False)
class Link:
    """Two frames near in brightness: the step between them, and how sure it is."""

    darker: int
    brighter: int
    step: float  # EV
    spread: float  # standard deviation of the step over the points, EV, robust
    points: int

    @property
    def confidence(self) -> float:
        """0, a guess, to 1, sure: many points that agree."""
        return min(self.points / ENOUGH_PAIRS, 1.0) / (1 + (self.spread / LOOSE_EV) ** 2)


Found = tuple[float, Doubles, list[Link]]  # systematic error in EV, exposures, links


@dataclass(frozen=True, eq=False)
class PixelExposures:
    """What the pixels say. ``evs`` (F,) with mean 0; ``confidence`` (F,), 0 a guess to 1 sure."""

    evs: Doubles
    confidence: Doubles
    order: NDArray[np.intp]  # frames by brightness, darkest first
    misfit: float  # systematic error left, EV; inf where nothing can be compared
    strangers: tuple[int, ...] = ()  # frames that show something else than all the others

    @property
    def sure(self) -> float:
        """Confidence in the weakest frame: it is the one that counts."""
        return float(self.confidence.min())

    @property
    def measured(self) -> int:
        """How many frames are tied to another."""
        return int((self.confidence >= FIRM).sum())

    def evenly(self) -> Doubles:
        """The stops, where a frame that is tied to no other is one usual step from the next."""
        firm = self.order[self.confidence[self.order] >= FIRM]
        step = float(np.median(np.diff(self.evs[firm])))
        evs = np.empty(len(self.evs))
        places = np.arange(len(self.order), dtype=np.float64)
        known = np.isin(self.order, firm)
        at = np.flatnonzero(known)
        values = self.evs[self.order[at]]
        inner = np.interp(places, at, values)
        below, above = np.maximum(at[0] - places, 0), np.maximum(places - at[-1], 0)
        evs[self.order] = inner + step * (above - below)
        return np.asarray(evs - evs.mean())


def rough(samples: Samples, response: Response) -> PixelExposures:
    """Relative exposures, as if the claimed curve were true: quick, and a third too far apart."""
    order = np.argsort(samples.bright, kind="stable")
    pairs = pairs_of(samples, _neighbours(order), response)
    return _found(order, *_through(pairs, response, len(order)))


def estimate(samples: Samples, response: Response) -> PixelExposures:
    """Relative exposure of each frame, in stops; + is brighter."""
    order = np.argsort(samples.bright, kind="stable")
    pairs = pairs_of(samples, _neighbours(order), response)
    best = _search(pairs, response, camera, CAMERA_AMOUNTS, len(order))
    other = _search(pairs, response, contrast, CONTRAST_AMOUNTS, len(order))
    if other[0] < min(DECISIVE * best[0], EXPLAINS_EV):
        best = other
    return _found(order, *best)


def _search(
    pairs: Pairs,
    response: Response,
    family: Callable[[Response, float], Response],
    amounts: Sequence[float],
    count: int,
) -> Found:
    """The amount of a family's curve that fits best: a coarse scan, then halved steps."""
    tried = {a: _through(pairs, family(response, a), count) for a in amounts}
    width = amounts[1] - amounts[0]
    while width > FINEST and len(pairs.dark):
        width /= 2
        best = min(tried, key=lambda amount: tried[amount][0])
        for amount in (best - width, best + width):
            if amount not in tried and amounts[0] <= amount <= amounts[-1]:
                tried[amount] = _through(pairs, family(response, amount), count)
    return min(tried.values(), key=lambda found: found[0])


def _found(
    order: NDArray[np.intp], misfit: float, evs: Doubles, links: Sequence[Link]
) -> PixelExposures:
    sure = _confidence(links, len(order))
    return PixelExposures(evs, sure, order, misfit, _strangers(links, order))


def beside(samples: Samples, evs: Doubles, response: Response) -> PixelExposures | None:
    """What the pixels say, seen through the curve that explains ``evs`` best.

    None where no plausible curve makes sense of ``evs``.
    """
    pairs = pairs_of(samples, partners_of(evs), response)
    if len(pairs.dark) < ENOUGH_PAIRS or not plausible(links_of(pairs, response), evs):
        return None
    best, _ = recover.recovered(pairs, evs, response)
    links = links_of(pairs, best)
    off = solve_links(links, evs) - evs
    firm = _confidence(links, len(evs)) >= FIRM
    seen = evs + np.where(firm, off - np.median(off), 0.0)
    order = np.argsort(samples.bright, kind="stable")
    return _found(order, systematic(pairs, evs, best), seen - seen.mean(), links)


def plausible(links: Sequence[Link], evs: Doubles) -> bool:
    """Whether the steps seen could be those given, taken by a camera with some curve."""
    firm = [link for link in links if link.confidence >= FIRM]
    if not firm:
        return True
    seen = sum(link.step for link in firm)
    given = sum(float(evs[link.brighter] - evs[link.darker]) for link in firm)
    return given > 0 and PLAUSIBLE[0] < seen / given < PLAUSIBLE[1]


def prior_of(frames: Sequence[Frame]) -> Response:
    """The curve the estimate is held near."""
    return next((frame.response for frame in frames if frame.levels), LINEAR)


def camera(response: Response, amount: float) -> Response:
    """The curve a camera makes of what the file claims, by ``amount`` of what they usually add."""
    codes = np.linspace(0, 1, recover.CURVE)
    added = np.interp(codes * 255, CAMERA_CODES, CAMERA_EV) * amount
    return _scaled(f"camera {amount:g}", light_ev(response, codes) + added)


def contrast(response: Response, amount: float) -> Response:
    """The claimed curve under an S-shaped one: ``amount`` of a smooth step on its codes."""
    codes = np.linspace(0, 1, recover.CURVE)
    bent = (1 - amount) * codes + amount * (3 * codes**2 - 2 * codes**3)
    return _scaled(f"contrast {amount:g}", light_ev(response, np.interp(codes, bent, codes)))


def _scaled(name: str, evs: Doubles) -> Response:
    light = np.exp2(evs - evs[-1])
    light[0] = 0.0
    light = np.maximum.accumulate(light.astype(np.float32))
    return Response(name, np.repeat(np.minimum(light, 1)[:, None], 3, axis=1))


def _neighbours(order: NDArray[np.intp]) -> list[tuple[int, int]]:
    return [
        (int(i), int(j)) for a, i in enumerate(order) for j in order[a + 1 : a + 1 + NEIGHBOURS]
    ]


def _through(pairs: Pairs, curve: Response, count: int) -> Found:
    """Systematic error, exposures and links as a curve shows them."""
    links = links_of(pairs, curve)
    evs = solve_links(links, np.zeros(count))
    return systematic(pairs, evs, curve), evs, links


def links_of(pairs: Pairs, response: Response) -> list[Link]:
    """The step of each pair of frames: the median ratio of light behind their common points."""
    steps = light_ev(response, pairs.bright) - light_ev(response, pairs.dark)
    count = len(pairs.partners)
    middle, sizes = group_medians(steps, pairs.link, count)
    spread, _ = group_medians(np.abs(steps - middle[pairs.link]), pairs.link, count)
    return [
        Link(i, j, float(step), 1.4826 * float(apart), int(size))
        for (i, j), step, apart, size in zip(pairs.partners, middle, spread, sizes, strict=True)
        if size
    ]


def solve_links(links: Sequence[Link], start: Doubles) -> Doubles:
    """Exposures (F,), mean 0, by least squares over the links; frames without one stay."""
    rows = np.eye(len(start)) * 1e-6
    values = 1e-6 * start
    for link in links:
        row = np.zeros((1, len(start)))
        row[0, link.brighter], row[0, link.darker] = link.confidence, -link.confidence
        rows = np.vstack([rows, row])
        values = np.append(values, link.confidence * link.step)
    evs = np.linalg.lstsq(rows, values, rcond=None)[0]
    return np.asarray(evs - evs.mean())


def _confidence(links: Sequence[Link], count: int) -> Doubles:
    """Of each frame: that of its firmest link."""
    found = np.zeros(count)
    for link in links:
        for frame in (link.darker, link.brighter):
            found[frame] = max(found[frame], link.confidence)
    return found


def _strangers(links: Sequence[Link], order: NDArray[np.intp]) -> tuple[int, ...]:
    """Frames whose points agree with no other frame's, though there are enough of them."""
    found = []
    for frame in sorted(int(i) for i in order):
        own = [link for link in links if frame in (link.darker, link.brighter)]
        if own and all(link.spread > STRANGE_EV and link.points > ENOUGH_PAIRS for link in own):
            found.append(frame)
    return tuple(found)
