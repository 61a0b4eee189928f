"""One frame of a pair as an alignment sees it: log light in units both frames share.

Two photographs of one scene can be compared once they are brought to one exposure and clipped
alike: what the brighter one records as white is the upper end for both, and where the darker
one drowns in noise the logarithm turns into a straight line for both.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hdrcli import kernels
from hdrcli.frames import Codes, Floats, Frame
from hdrcli.once import once

FLOOR = 6 / 255  # below this part of the range there is mostly noise
SMALL = 1200  # pixels: the longer side of a reduced picture is at most this
LUMA = np.array([0.25, 0.6, 0.15], np.float32)  # close to Rec. 709, a little more from red and blue

Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]


class Picture:
    """A frame at full size and reduced, the reduced one made when first asked for.

    A reduced pixel at u covers the full pixels k u … k u + k - 1, k being ``factor``.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.factor = 1
        while max(frame.size) > SMALL * self.factor:
            self.factor *= 2

    @once
    def small(self) -> Codes:
        """The codes averaged over factor × factor pixels; averaging by halves is the fastest."""
        import cv2

        codes, left = self.frame.codes, self.factor
        while left > 1:
            height, width = codes.shape[0] // 2, codes.shape[1] // 2
            even = codes[: 2 * height, : 2 * width]
            codes = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
            left //= 2
        return codes

    @once
    def small_valid(self) -> Mask | None:
        """Where the reduced picture rests on real pixels; None if everywhere."""
        valid = self.frame.valid
        return None if valid is None else np.ascontiguousarray(valid[self._every])

    @once
    def picked(self) -> Codes:
        """Every factor-th pixel of every factor-th row: reduced, noisy, and almost free."""
        return np.ascontiguousarray(self.frame.codes[self._every])

    @property
    def _every(self) -> tuple[slice, slice]:
        k, (height, width) = self.factor, self.frame.size
        return np.s_[k // 2 : height // k * k : k], np.s_[k // 2 : width // k * k : k]

    @property
    def lift(self) -> Matrix:
        """Reduced pixel position to full pixel position, 3×3."""
        k = float(self.factor)
        return np.array([[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class Tone:
    """How the codes of one frame become the log light of its pair."""

    table: Floats  # (3, levels or 1): weighted light per code, 1 in sum where all channels clip
    floor: float  # light below which the scale is linear, in units of the common clip

    def __call__(self, codes: Codes) -> tuple[Floats, Mask]:
        """Log light, (…) float32, of (…, 3), and where it clips neither here nor in the other.

        Each channel is clipped alike in both frames, so one that is not clipped is enough.
        """
        if codes.dtype == np.float32:
            finite = np.nan_to_num(codes, nan=0.0, posinf=0.0, neginf=0.0)
            light = np.asarray(np.maximum(finite @ self.table[:, 0], 0), np.float32)
            return np.log(np.minimum(light, 1) * np.float32(1 / self.floor) + 1), light < 0.999
        logs, good = np.empty(codes.shape[:-1], np.float32), np.empty(codes.shape[:-1], np.bool_)
        kernels.log_light(
            np.ascontiguousarray(codes),
            self.table,
            np.float32(1 / self.floor),
            logs,
            good.view(np.uint8),
            self.table.shape[1],
            logs.size,
        )
        return logs, good


def tones(one: Frame, other: Frame) -> tuple[Tone, Tone]:
    """The tones that make two frames comparable, whichever of them is brighter."""
    ends = [_ends(frame) for frame in (one, other)]
    common = np.minimum(ends[0][0], ends[1][0])
    floor = max(floor for _, floor in ends) / float(common @ LUMA)
    floor = min(max(floor, 1e-3), 0.2)
    return _tone(one, common, floor), _tone(other, common, floor)


def _ends(frame: Frame) -> tuple[Floats, float]:
    """Scene light at the clipping level of each channel, and at the noise floor, of a frame."""
    if frame.levels:
        clip, low = (frame.table[round(part * (frame.levels - 1))] for part in (frame.clip, FLOOR))
        floor = float(low @ LUMA)
    else:
        grid = frame.linear()[:: 1 + frame.size[0] // 256, :: 1 + frame.size[1] // 256]
        clip, floor = np.full(3, 0.98 * grid.max()), 0.02 * float(np.median(grid @ LUMA))
    clip = np.maximum(clip, 1e-9) / (frame.exposure or 1.0)
    return clip, max(floor / (frame.exposure or 1.0), 1e-4 * float(clip @ LUMA))


def _tone(frame: Frame, common: Floats, floor: float) -> Tone:
    scale = LUMA / float(common @ LUMA) / (frame.exposure or 1.0)
    if not frame.levels:
        return Tone(scale[:, None].astype(np.float32), floor)
    alike = np.minimum(frame.table, common * (frame.exposure or 1.0))
    return Tone(np.ascontiguousarray((alike * scale).T, np.float32), floor)
