"""What a frame looks like in small: all that finding the exposures needs of it.

A probe is a few hundred kilobytes, whatever the frame's size, so that seconds of 8K fit into
memory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli.video.clip import Timed

Floats = NDArray[np.float32]

BLOCKS = 24_000  # of a frame, about
SMALLEST = 4  # px, side of a block


@dataclass(frozen=True, eq=False)
class Probe:
    """Block means of one frame. Codes are code / largest code; (h, w, 3)."""

    mean: Floats
    spread: Floats  # standard deviation inside the block
    level: float  # mean code of the frame
    index: int = 0

    @classmethod
    def of(cls, timed: Timed) -> "Probe":
        """Reduce a frame."""
        import cv2

        frame = timed.frame
        height, width = frame.size
        side = max(SMALLEST, 2 * round((height * width / BLOCKS) ** 0.5 / 2))  # two halves each
        size = max(1, width // side), max(1, height // side)
        codes = frame.codes[: size[1] * side, : size[0] * side]
        top = np.float32(1 / (frame.levels - 1) if frame.levels else 1)
        half = cv2.resize(  # detail inside a block shows between its quarters
            codes, (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        quarters = half.reshape(size[1], 2, size[0], 2, 3) * top
        small = np.asarray(quarters.mean(axis=(1, 3)), np.float32)
        spread = np.asarray(quarters.max(axis=(1, 3)) - quarters.min(axis=(1, 3)), np.float32)
        return cls(small, spread, float(np.mean(small)), timed.index)


def unlike(first: Probe, second: Probe) -> float:
    """Mean difference of two probes, in codes of 1."""
    return float(np.abs(first.mean - second.mean).mean())
