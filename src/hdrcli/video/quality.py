"""How good merged video is: PSNR-μ per place of the pattern, and flicker.

As the DeepHDRVideo paper does (Chen et al., ICCV 2021, table 1): light is relative to the white
of the darkest exposure and clipped there, then compressed by the μ-law; values are means over
the frames of each place, and over all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MU = 5000.0


def psnr_mu(found: Floats, true: Floats) -> float:
    """PSNR in dB of the μ-law codes; both (H, W, 3), 1.0 is the darkest exposure's white."""
    codes = [np.log1p(MU * np.clip(light, 0, 1)) / np.log1p(MU) for light in (found, true)]
    error = float(np.mean((codes[0].astype(np.float64) - codes[1]) ** 2))
    return float(-10 * np.log10(max(error, 1e-12)))


@dataclass
class Scores:
    """PSNR-μ by place in the pattern."""

    by_place: dict[int, list[float]] = field(default_factory=dict)

    def add(self, place: int, value: float) -> None:
        """Count a frame."""
        self.by_place.setdefault(place, []).append(value)

    def table(self, evs: Sequence[float]) -> dict[str, float]:
        """Means by the names of the paper's table: low, middle, high, all."""
        order = sorted(self.by_place, key=lambda place: evs[place])
        names = ("low", "high") if len(order) == 2 else ("low", "middle", "high")
        every = [value for values in self.by_place.values() for value in values]
        rows = {
            name: float(np.mean(self.by_place[p])) for name, p in zip(names, order, strict=True)
        }
        return {**rows, "all": float(np.mean(every))}


def flicker(frames: Iterable[Floats], still: NDArray[np.bool_] | None = None) -> float:
    """Mean departure of a frame from the mean of its neighbours, relative, in percent.

    ``frames`` are luminances (h, w) of one scale; ``still`` marks what does not move. An error
    that comes and goes with the exposures is all that an even motion of light leaves here.
    """
    clip = np.stack(list(frames)).astype(np.float64)
    assert len(clip) >= 3, "flicker shows in three frames"
    beside = (clip[:-2] + clip[2:]) / 2
    off = np.abs(clip[1:-1] - beside) / np.maximum(beside, 1e-4)
    return float(100 * np.mean(off if still is None else off[:, still]))


def flicker_beyond(frames: Iterable[Floats], truth: Iterable[Floats]) -> float:
    """Flicker of what the frames are wrong by, whatever moves, in percent: the mean departure of
    each pixel's ratio to the true luminance from the mean of that ratio before and after."""
    wrong = [
        np.asarray(np.maximum(found, 1e-3) / np.maximum(true, 1e-3), np.float32)
        for found, true in zip(frames, truth, strict=True)
    ]
    return flicker(wrong)
