"""The nouns of the program: Response, Metadata, Frame, Bracket, Radiance, DisplayImage.

A Frame keeps the file's own integer codes and says what they mean; codes become linear light
strip by strip, through a table. A Radiance is scene-linear and has no upper bound. A
DisplayImage is display-encoded in [0, 1]. The types keep the three apart.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import REC709, Primaries, srgb_decode
from hdrcli.errors import BracketError

Codes = NDArray[Any]  # uint8, uint16 or float32, (H, W, 3)
Floats = NDArray[np.float32]

CLIP = 250 / 255  # JPEG pushes clipped codes a little down: from here on a code is a lower bound
FADE = 235 / 255  # from here to CLIP the weight of a code falls to zero


@dataclass(frozen=True, eq=False)
class Response:
    """How codes become light: one monotone curve per channel.

    ``samples`` is (K, 3) float32: linear light in [0, 1] behind the code k / (K - 1), so that
    the largest code is 1.0, the frame's white.
    """

    name: str
    samples: Floats

    def __post_init__(self) -> None:
        assert self.samples.ndim == 2, self.samples.shape
        assert self.samples.shape[1] == 3, self.samples.shape
        assert (np.diff(self.samples, axis=0) >= 0).all(), "a response is monotone"

    def table(self, levels: int) -> Floats:
        """Linear light for each of ``levels`` integer codes, (levels, 3)."""
        if levels == len(self.samples):
            return self.samples
        at = np.linspace(0, 1, levels)
        knots = np.linspace(0, 1, len(self.samples))
        return np.stack(
            [np.interp(at, knots, self.samples[:, c]) for c in range(3)], axis=1
        ).astype(np.float32)

    def at(self, code: float) -> float:
        """Linear light behind a code in [0, 1], mean of the channels."""
        knots = np.linspace(0, 1, len(self.samples))
        return float(np.mean([np.interp(code, knots, self.samples[:, c]) for c in range(3)]))


def sampled(
    name: str, decode: Callable[[NDArray[np.float64]], NDArray[Any]], samples: int = 65536
) -> Response:
    """Make a Response of a function from code in [0, 1] to light in [0, 1]."""
    curve = np.asarray(decode(np.linspace(0, 1, samples)), np.float32)
    curve = np.maximum.accumulate(curve, axis=0)
    return Response(name, np.ascontiguousarray(np.broadcast_to(curve[:, None], (samples, 3))))


SRGB = sampled("sRGB", srgb_decode)
LINEAR = sampled("linear", np.asarray)


@dataclass(frozen=True)
class Metadata:
    """What a file says of how it was taken. None where it says nothing."""

    exposure_time: float | None = None  # seconds
    f_number: float | None = None
    iso: float | None = None
    bias: float | None = None  # exposure bias in stops, + is brighter
    taken: str | None = None  # "YYYY:MM:DD hh:mm:ss"
    subsecond: float = 0.0  # seconds to add to ``taken``
    utc_offset: str | None = None  # "+02:00"
    make: str | None = None
    model: str | None = None
    serial: str | None = None
    lens: str | None = None
    focal_length: float | None = None  # millimetres
    orientation: int = 1  # as the file has it; the codes are already upright
    exif: bytes | None = field(default=None, repr=False)  # the raw TIFF block, to be copied
    bracket_tags: tuple[tuple[str, str], ...] = ()  # maker notes that speak of bracketing
    merged: bool = False  # no photograph: the picture that hdrcli made of a bracket


@dataclass(frozen=True, eq=False)
class Frame:
    """One photograph: its codes, and what they mean.

    ``exposure`` is shutter seconds x ISO / 100 / f-number squared: doubling it doubles the
    light behind every code. It is None until bracket.py has found it.
    """

    codes: Codes  # (H, W, 3) uint8, uint16, or float32 (linear, as stored), RGB
    response: Response = SRGB
    primaries: Primaries = REC709
    exposure: float | None = None
    name: str = "frame"
    path: Path | None = None
    metadata: Metadata = Metadata()
    bits: int = 8  # meaningful bits per code: 8, 10, 12, 14, 16 or 32
    valid: NDArray[np.bool_] | None = None  # (H, W), False where alpha says there is no picture
    warp: NDArray[np.float64] | None = None  # (3, 3) homography, reference pixel -> this pixel
    white: float = 1.0  # code, over the largest, that a grey which clips has: response/white.py
    washed: bool = False  # colours that nearly clip are whiter than their light: see response/

    def __post_init__(self) -> None:
        assert self.codes.ndim == 3, self.codes.shape
        assert self.codes.shape[2] == 3, self.codes.shape
        assert self.codes.dtype in (np.uint8, np.uint16, np.float32), self.codes.dtype
        assert self.exposure is None or 0 < self.exposure < np.inf, (self.name, self.exposure)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def levels(self) -> int:
        """How many codes there are: 256, 65536, or 0 for floats."""
        return {1: 256, 2: 65536, 4: 0}[self.codes.itemsize]

    @property
    def clip(self) -> float:
        """From this code on, over the largest one, light may be brighter than it says."""
        return CLIP - (1 - self.white)

    @property
    def fade(self) -> float:
        """From this code on, over the largest one, to ``clip`` a code is believed less and less."""
        return FADE - (1 - self.white)

    @cached_property
    def table(self) -> Floats:
        """Linear light in [0, 1] for each code, (levels, 3). Empty for float frames."""
        return self.response.table(self.levels) if self.levels else np.empty((0, 3), np.float32)

    def linear(self, rows: slice = slice(None), cols: slice = slice(None)) -> Floats:
        """Linear light of a part of the frame, (h, w, 3): 1.0 is the frame's own white.

        The frame's ``warp`` is not applied here; strips.py does that.
        """
        part = self.codes[rows, cols]
        if not self.levels:
            return np.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
        if self.levels == 256:
            import cv2

            return np.asarray(cv2.LUT(part, self.table[None]))
        return np.stack([np.take(self.table[:, c], part[..., c]) for c in range(3)], axis=-1)


@dataclass(frozen=True, eq=False)
class Bracket:
    """Frames of one scene, darkest first, all of one size, and the one that decides.

    The result shows the moment and the viewpoint of the reference.
    """

    frames: tuple[Frame, ...]
    reference: int

    @classmethod
    def of(cls, frames: Iterable[Frame], reference: Frame | None = None) -> "Bracket":
        """Sort the frames and check that they can be merged. All exposures must be known.

        Equal exposures are ordered by name and content, so that the order in which the files
        were given changes nothing. Without ``reference`` the middle frame is taken.
        """
        given = tuple(frames)
        if len(given) < 2:
            raise BracketError(
                "a bracket needs at least two frames",
                hint="one photograph can be tone mapped: hdrcli tonemap",
            )
        for frame in given:
            assert frame.exposure is not None, frame.name
            if frame.size != given[0].size:
                sizes = ", ".join(f"{f.name} {f.size[1]}x{f.size[0]}" for f in given)
                raise BracketError(f"the frames differ in size: {sizes}")
        ordered = tuple(_sorted(given))
        index = len(ordered) // 2 if reference is None else _index_of(ordered, reference)
        return cls(ordered, index)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        return self.frames[0].size

    @property
    def ref(self) -> Frame:
        """The reference frame."""
        return self.frames[self.reference]

    @property
    def exposures(self) -> NDArray[np.float64]:
        """The exposure of each frame, ascending."""
        return np.array([frame.exposure for frame in self.frames], np.float64)

    @property
    def ratios(self) -> NDArray[np.float64]:
        """The exposure of each frame over that of the reference."""
        return np.asarray(self.exposures / self.exposures[self.reference])

    @property
    def evs(self) -> NDArray[np.float64]:
        """Stops of each frame above the reference; + is the brighter photograph."""
        return np.asarray(np.log2(self.ratios))

    def with_frames(self, frames: Iterable[Frame]) -> "Bracket":
        """The same bracket with each frame replaced by its successor, in the same order."""
        return replace(self, frames=tuple(frames))


def _sorted(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames by exposure and name; where both are equal, by content, which takes a look."""
    for _, equals in groupby(sorted(frames, key=_order), key=_order):
        equal = list(equals)
        yield from sorted(equal, key=_content) if len(equal) > 1 else equal


def _order(frame: Frame) -> tuple[float, str]:
    assert frame.exposure is not None
    return frame.exposure, frame.name


def _content(frame: Frame) -> int:
    return int(frame.codes[:: 1 + frame.size[0] // 64].sum())


def _index_of(frames: tuple[Frame, ...], wanted: Frame) -> int:
    return next(i for i, frame in enumerate(frames) if frame is wanted)


@dataclass(frozen=True, eq=False)
class Radiance:
    """Scene-linear light, (H, W, 3), finite, without an upper bound.

    1.0 is what a frame of the given ``exposure`` records as white; ``absolute`` divides it out.
    ``pixels`` is float32, or float16 where the caller asked for half to save memory.
    """

    pixels: NDArray[np.floating]
    primaries: Primaries = REC709
    exposure: float = 1.0
    clipped: float = 0.0  # fraction of pixels that clip in every frame: only a lower bound is known
    info: dict[str, Any] = field(default_factory=dict)  # what the merge did; goes into metadata

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] == 3, self.pixels.shape
        assert self.pixels.dtype in (np.float32, np.float16), self.pixels.dtype

    def absolute(self) -> "Radiance":
        """The same light on the scale all brackets share: code / exposure."""
        scaled = self.pixels.astype(np.float32) * np.float32(1 / self.exposure)
        return replace(self, pixels=scaled, exposure=1.0)


@dataclass(frozen=True, eq=False)
class DisplayImage:
    """An image ready for a screen, float32 (H, W, 3), display-encoded in [0, 1]."""

    pixels: Floats
    primaries: Primaries = REC709
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] == 3, self.pixels.shape
        assert self.pixels.dtype == np.float32, self.pixels.dtype
