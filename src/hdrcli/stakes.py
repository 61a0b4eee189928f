"""What moved: where the merge of what is believed, after flow, differs from the naive mean.

A frame that is not believed where it says little anyway (the short one in the shadows, the long
one where it clips) is no ghost averted, and where its noise alone is doubted nothing changes that
is seen. What moved is where it matters.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hdrcli.frames import Frame
from hdrcli.strips import largest

Floats = NDArray[np.float32]

MAX_PIXELS = 300_000  # of the picture this is looked at on
LITTLE = np.float32(1e-7)  # weight of the shortest frame, for where nothing else is known
SEEN = 0.2  # relative difference of two merges that is a ghost, not a seam of noise
FLOOR = 0.02  # of the longest frame's white: light below it shows no difference
UNKNOWN = 0.1  # part of the weight that is believed, below which the merge knows little
SMALLEST = 7  # pixels of the small picture: what is thinner is an edge, not a thing that moved


class Seen(Protocol):
    """One frame on the reduced picture, in the reference's geometry: sights.View."""

    @property
    def light(self) -> Floats:
        """(h, w, 3), the frame's own white at 1.0."""

    @property
    def clipped(self) -> NDArray[np.bool_]:
        """(h, w)."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(h, w)."""

    @property
    def ratio(self) -> float:
        """Exposure over the reference's."""


def ends_of(frame: Frame) -> tuple[float, float] | None:
    """The light of the codes between which a frame loses its weight; None if it cannot clip."""
    return (frame.response.at(frame.fade), frame.response.at(frame.clip)) if frame.levels else None


class Stakes:
    """Sums over the frames of weight and of weighted light, (2, h, w): naively, and as believed."""

    def __init__(self, size: tuple[int, int], noise: tuple[float, float]) -> None:
        """``size`` (height, width) is that of the maps to come; ``noise`` is shot and read."""
        shrink = min(1.0, (MAX_PIXELS / (size[0] * size[1])) ** 0.5)
        self.size = max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))
        self.noise = np.float32(noise[0]), np.float32(noise[1])
        self.naive, self.believed = (np.zeros((2, *self.size), np.float32) for _ in range(2))
        self.weight = np.zeros(self.size, np.float32)  # after flow, believed or not
        self.longest = 0.0

    def add(
        self,
        still: Seen,
        moved: Seen,
        belief: Floats | None,
        ends: tuple[float, float] | None,
        *,
        shortest: bool,
    ) -> None:
        """One frame as it lies, and as flow brings it to the reference; in any order.

        ``belief`` is that in the latter (None: all of it), ``ends`` what ``ends_of`` says.
        """
        weight, light = self._evidence(still, ends)
        self._sum(self.naive, weight, light, shortest=shortest)
        if moved is not still:
            weight, light = self._evidence(moved, ends)
        self.weight += weight
        part = weight if belief is None else weight * self._small(belief)
        self._sum(self.believed, part, light, shortest=shortest)
        self.longest = max(self.longest, still.ratio)

    def _evidence(self, seen: Seen, ends: tuple[float, float] | None) -> tuple[Floats, Floats]:
        """Weight and light of one frame, (h, w) each, the reference's white at 1.0."""
        import cv2

        light, ratio = np.asarray(self._small(seen.light), np.float32), np.float32(seen.ratio)
        top = largest(light)
        weight = self._small((seen.valid & ~seen.clipped).astype(np.float32)) * ratio**2
        weight /= self.noise[0] * top + self.noise[1]
        if ends is not None:
            weight *= np.clip((np.float32(ends[1]) - top) / np.float32(ends[1] - ends[0]), 0, 1)
        mean = cv2.transform(light, np.full((1, 3), 1 / (3 * ratio), np.float32))
        return weight, np.asarray(mean, np.float32)

    @staticmethod
    def _sum(sums: Floats, weight: Floats, light: Floats, *, shortest: bool) -> None:
        share = weight + LITTLE if shortest else weight
        sums[0] += share
        sums[1] += share * light

    def _small(self, plane: Floats) -> Floats:
        import cv2

        if plane.shape[:2] == self.size:
            return plane
        return np.asarray(cv2.resize(plane, self.size[::-1], interpolation=cv2.INTER_AREA))

    def moved(self) -> NDArray[np.bool_]:
        """Where what is believed makes a difference that is seen, on the small picture."""
        import cv2

        one, other = (
            light / np.maximum(norm, LITTLE) for norm, light in (self.naive, self.believed)
        )
        dark = np.float32(FLOOR / max(self.longest, 1e-12))
        differs = np.abs(one - other) > SEEN * (np.minimum(one, other) + dark)
        unknown = (self.believed[0] < UNKNOWN * self.weight) & (self.weight > 100 * LITTLE)
        shape = np.ones((SMALLEST, SMALLEST), np.uint8)
        seen = (differs | unknown).astype(np.uint8)
        return np.asarray(cv2.morphologyEx(seen, cv2.MORPH_OPEN, shape), bool)
