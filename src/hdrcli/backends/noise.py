"""How noisy photographs are: what differs between two that show the same thing.

One photograph cannot tell noise from sand, cloth or the grain of a print: what is as fine and as
faint looks alike. Between two frames that lie on each other texture cancels, and noise does not.
Both are halved in size first, because a frame that was resampled has lost its finest detail.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli import strips
from hdrcli.frames import Bracket, Codes, Frame
from hdrcli.motion import Motion, finest
from hdrcli.sights import DARK, LEAST_QUANTISED, QUANTUM, Noise, light_of, sensor_variance
from hdrcli.strips import Placement

ENOUGH = 1_000_000  # pixels of a frame that noise is measured on
BAND = 32  # rows of them that are taken together, an even number
SURE = 0.95  # belief from which two frames show the same
FEWEST = 300  # differences that tell something
STEPS = tuple(0.0025 * 4**k for k in range(5))  # light, ends of the steps of brightness
TO_DEVIATION = 1.4826  # of a Gaussian, over its median absolute value
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """A band of a frame at half the size: green ``light`` (h, w), and where it is ``usable``."""

    light: Floats
    usable: NDArray[np.bool_]

    @classmethod
    def of(cls, codes: Codes, frame: Frame, usable: NDArray[np.bool_] | None) -> "Sample":
        """Of codes (2 h, 2 w, 3), as far as they neither clip nor are nearly black."""
        codes = np.ascontiguousarray(codes)
        top = strips.largest(codes)
        told = (top < frame.clip * (frame.levels - 1)) & (top > DARK * (frame.levels - 1))
        told = told if usable is None else told & usable
        return cls(halved(light_of(codes, frame)[..., 1]), halved(told.astype(np.float32)) == 1)


def observed(bracket: Bracket, motion: Motion) -> float | None:
    """The deviation that noise has over that of ``motion.noise``; None where nothing tells.

    The median over pairs of the reference with another frame, and over steps of brightness, of
    the deviation of what differs, with its mean over a few pixels taken out.
    """
    if not bracket.ref.levels:
        return None
    others = places(bracket, motion)
    found: dict[tuple[int, int], list[Floats]] = {}
    for rows in bands(*bracket.size):
        own = Sample.of(bracket.ref.codes[rows], bracket.ref, valid_of(bracket.ref, rows))
        for i, place in others.items():
            other = sample(place, motion, i, rows)
            noises = motion.noise[bracket.reference], motion.noise[i]
            differences, light = compared(own, other, float(bracket.ratios[i]), noises)
            for k, (low, high) in enumerate(itertools.pairwise(STEPS)):
                here = (light >= low) & (light < high)
                found.setdefault((i, k), []).append(differences[here])
    told = [np.concatenate(parts) for parts in found.values()]
    said = [TO_DEVIATION * float(np.median(np.abs(z))) for z in told if len(z) >= FEWEST]
    return float(np.median(said)) if said else None


def bands(height: int, width: int) -> Iterator[slice]:
    """Bands of rows all over a picture, of ENOUGH pixels together."""
    step = max(1, round(height * width / ENOUGH))
    for top in range(0, height - BAND + 1, BAND * step):
        yield slice(top, top + BAND)


def valid_of(frame: Frame, rows: slice) -> NDArray[np.bool_] | None:
    """Where the frame has pixels at all."""
    return None if frame.valid is None else frame.valid[rows]


def places(bracket: Bracket, motion: Motion) -> dict[int, Placement]:
    """Where the other frames lie, as far as they have codes."""
    return {
        i: Placement(frame, motion.flows[i], motion.scale)
        for i, frame in enumerate(bracket.frames)
        if i != bracket.reference and frame.levels
    }


def sample(place: Placement, motion: Motion, i: int, rows: slice) -> Sample:
    """Frame i at some rows of the reference, as far as it is believed there."""
    codes, usable = place.codes(rows)
    belief = motion.confidence[i]
    if belief is not None:
        sure = strips.upsample(belief, motion.scale, rows, codes.shape[1]) > SURE
        usable = sure if usable is None else usable & sure
    return Sample.of(codes, place.frame, usable)


def compared(
    own: Sample, other: Sample, ratio: float, noises: Sequence[Noise]
) -> tuple[Floats, Floats]:
    """What differs between two frames in deviations, (n,), and the light there, (n,).

    ``ratio`` is the exposure of the other over the reference's, ``noises`` are those of both.
    """
    import cv2

    difference = finest(own.light - other.light / np.float32(ratio))
    usable = (own.usable & other.usable).view(np.uint8)
    where = cv2.erode(usable, np.ones((3, 3), np.uint8), borderValue=0) > 0
    variance = variance_of(own.light, noises[0]) + variance_of(other.light, noises[1]) / ratio**2
    deviation = np.sqrt(variance[where] / 4)  # four pixels were averaged
    return np.asarray(difference[where] / deviation, np.float32), own.light[where]


def variance_of(light: Floats, noise: Noise) -> Floats:
    """Of single pixels of a frame, (h, w), its own white at 1.0."""
    return sensor_variance(light, (noise.shot, noise.read, QUANTUM), LEAST_QUANTISED)


def halved(plane: Floats) -> Floats:
    """A plane at half the size, in means of 2 x 2; an odd last column is left out.

    A plane of one row or one column stays as it is.
    """
    import cv2

    height, width = plane.shape[0] // 2, plane.shape[1] // 2
    if not height or not width:
        return plane
    even = plane[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
