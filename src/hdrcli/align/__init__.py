"""Bring the frames of a bracket to the reference: how each must be warped, and how sure that is.

For each frame, outwards from the reference in exposure:

1. Does it lie on the reference as it is? Small blocks are tracked at full size (blocks.py);
   a bracket from a tripod ends here, and is never resampled.
2. Otherwise a first transformation comes from features on reduced pictures of one exposure
   (features.py), or from median threshold bitmaps.
3. The same blocks refine it, reduced first and then at full size; the simplest model that
   explains them is taken (models.py), and what moves by itself is left out as an outlier.
4. The gate: enough blocks must agree with it, be more alike than where they were, and end
   closer; and the transformation must be one that a hand can do. Else the frame stays where
   it is, and the report says why.

A frame too far in exposure from the reference to have much in common with it goes through the
aligned frame next to it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from hdrcli.align.blocks import REACH, Blocks, Shifts, View, choose, measure
from hdrcli.align.features import from_bitmaps, from_features, normalised
from hdrcli.align.models import (
    MODELS,
    Matrix,
    apply,
    coverage,
    displacement,
    fit,
    implausible,
    parts,
)
from hdrcli.align.overlap import crop_to_overlap, warp_frame
from hdrcli.align.views import Picture, Tone, tones
from hdrcli.frames import Bracket, Frame

__all__ = [
    "AlignReport",
    "FrameAlignment",
    "Method",
    "align_bracket",
    "crop_to_overlap",
    "warp_frame",
]

Method = Literal["auto", "none", "mtb", "homography"]

STILL = 0.25  # pixels: a frame displaced less than this is not resampled
FAR = 4.0  # stops: beyond this the neighbour is tried before the reference
ENOUGH = 6  # blocks
AGREEING = 0.25  # of the blocks seen in both frames must agree with the transformation
CLOSE = 1.0  # pixels: a block agrees if it ends within this
STARTS = {"auto": ("orb", "sift", "mtb"), "homography": ("orb", "sift"), "mtb": ("mtb",)}


@dataclass(frozen=True)
class FrameAlignment:
    """What was found for one frame. Residuals are medians of local block shifts, in pixels.

    ``method`` is reference, still (it lies on the reference as it is), orb, sift or mtb (where
    the transformation started), none (not asked for), or failed (left where it is: see note).
    """

    name: str
    method: str
    model: str = "identity"
    via: str | None = None  # the frame it was aligned to, if not the reference
    residual_before: float | None = None  # None: could not be measured
    residual_after: float | None = None
    shift: tuple[float, float] = (0.0, 0.0)  # pixels, of the centre
    rotation: float = 0.0  # degrees
    scale: float = 1.0
    overlap: float = 1.0  # the part of the reference that the frame covers
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self._moved()}{f' ({self.note})' if self.note else ''}"

    def _moved(self) -> str:
        if self.model == "identity":
            return self.method
        x, y = self.shift
        turn = f", {self.rotation:+.2f}°" if abs(self.rotation) >= 0.005 else ""
        after = "" if self.residual_after is None else f", residual {self.residual_after:.2f} px"
        return f"{self.method} {self.model}, shift {x:+.1f} {y:+.1f} px{turn}{after}"


@dataclass(frozen=True)
class AlignReport:
    """What was found for each frame, in the order of the bracket."""

    method: Method
    frames: tuple[FrameAlignment, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should hear: the frames that could not be aligned, and why."""
        return tuple(
            f"{frame.name} was not aligned: {frame.note}"
            for frame in self.frames
            if frame.method == "failed"
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for JSON and metadata."""
        return {"method": self.method, "frames": [asdict(frame) for frame in self.frames]}


def align_bracket(bracket: Bracket, method: Method = "auto") -> tuple[Bracket, AlignReport]:
    """Set the ``warp`` of every frame, reference pixel → frame pixel; None where it needs none.

    No pixel is resampled here. Warps the frames had before are replaced. ``homography`` starts
    from features, ``mtb`` is shift only and fast, ``auto`` tries one after the other, ``none``
    takes the frames as they lie. All exposures must be known; errors of half a stop do not
    matter.
    """
    ref = bracket.reference
    if method == "none":
        found = [FrameAlignment(frame.name, "none") for frame in bracket.frames]
        found[ref] = replace(found[ref], method="reference")
        plain = [replace(frame, warp=None) for frame in bracket.frames]
        return bracket.with_frames(plain), AlignReport(method, tuple(found))
    pictures = [Picture(frame) for frame in bracket.frames]
    outwards = [range(ref - 1, -1, -1), range(ref + 1, len(pictures))]
    walk = partial(_walk, pictures, bracket, method)
    with ThreadPoolExecutor(2) as pool:
        done = {i: placed for part in pool.map(walk, outwards) for i, placed in part.items()}
    done[ref] = _Placed(None, FrameAlignment(bracket.ref.name, "reference"))
    frames = [replace(frame, warp=done[i].warp) for i, frame in enumerate(bracket.frames)]
    report = AlignReport(method, tuple(done[i].found for i in range(len(frames))))
    return bracket.with_frames(frames), report


@dataclass(frozen=True, eq=False)
class _Placed:
    """A frame's warp from the reference, and what is said of it."""

    warp: Matrix | None
    found: FrameAlignment


def _walk(
    pictures: Sequence[Picture], bracket: Bracket, method: Method, order: Sequence[int]
) -> dict[int, _Placed]:
    """Align frames one after the other, each to the reference or to one already aligned."""
    done: dict[int, _Placed] = {}
    for i in order:
        anchors = [j for j in reversed(order) if j in done and done[j].found.method != "failed"]
        near = abs(bracket.evs[i]) <= FAR
        anchors = [bracket.reference, *anchors] if near else [*anchors, bracket.reference]
        pairs = (_through(pictures, i, j, bracket, done, method) for j in anchors)
        tried = []
        for placed in pairs:
            tried.append(placed)
            if placed.found.method != "failed":
                break
        done[i] = tried[-1] if tried[-1].found.method != "failed" else tried[0]
    return done


def _through(
    pictures: Sequence[Picture],
    i: int,
    j: int,
    bracket: Bracket,
    done: dict[int, _Placed],
    method: Method,
) -> _Placed:
    """Align frame i to frame j, whose own place is known, and combine the two."""
    matrix, found = _Pair(pictures[j], pictures[i], method).align()
    if j == bracket.reference:
        return _Placed(matrix, found)
    found = replace(found, via=pictures[j].frame.name)
    before = done[j].warp
    if found.method == "failed" or (matrix is None and before is None):
        return _Placed(None, found)
    eye = np.eye(3)
    both = (eye if matrix is None else matrix) @ (eye if before is None else before)
    both = both / both[2, 2]
    model = found.model if matrix is not None else done[j].found.model
    return _Placed(both, replace(found, model=model, **_told(both, bracket.size)))


def _told(matrix: Matrix, size: tuple[int, int]) -> dict[str, Any]:
    """The fields of a FrameAlignment that follow from the transformation."""
    seen = parts(matrix, size)
    return {
        "shift": seen.shift,
        "rotation": seen.rotation,
        "scale": seen.scale,
        "overlap": coverage(matrix, size),
    }


@dataclass(frozen=True, eq=False)
class _Attempt:
    """One transformation that was tried, in full pixels, and what the blocks say of it."""

    matrix: Matrix
    model: str
    shifts: Shifts
    trouble: str | None  # why it is not good enough; None if it is


class _Pair:
    """One frame and the one it is to lie on."""

    def __init__(self, reference: Picture, picture: Picture, method: Method) -> None:
        self.reference, self.picture, self.method = reference, picture, method
        self.size = picture.frame.size
        self.tones = tones(reference.frame, picture.frame)
        self.views = (_view(reference.frame, self.tones[0]), _view(picture.frame, self.tones[1]))
        self.models = ["translation"] if method == "mtb" else list(MODELS)

    def align(self) -> tuple[Matrix | None, FrameAlignment]:
        """The warp (None: leave it as it lies) and what is said of it."""
        name = self.picture.frame.name
        self.blocks = choose(self.reference.picked, self.reference.factor, self.size, self.tones[0])
        self.still = measure(*self.views, np.eye(3), self.blocks)
        here = self.still.residual
        if self._is_still():
            return None, FrameAlignment(name, "still", residual_before=here, residual_after=here)
        if len(self.blocks.at) < ENOUGH:
            return None, _failed(name, here, "too little detail that both exposures show")
        trouble = "no features in common"
        for start, first in self._starts():
            attempt = self._attempt(first)
            if attempt.trouble is None:
                return self._accepted(start, attempt)
            trouble = attempt.trouble
        return None, _failed(name, here, trouble)

    def _is_still(self) -> bool:
        """Whether most blocks lie where they should, within STILL."""
        seen = int(self.still.inside.sum())
        if self.still.found.sum() < max(ENOUGH, seen / 2):
            return False
        found = self._fitted(np.eye(3), self.still, ["translation", "similarity"])
        off = float(np.median(self.still.lengths))
        return displacement(found[0], self.size) < STILL and off < 2 * STILL

    def _starts(self) -> Iterator[tuple[str, Matrix]]:
        """First transformations in full pixels, the likeliest first, made as they are needed."""
        lift = self.reference.lift
        down = np.linalg.inv(lift)
        small = [
            normalised(picture.small, tone)
            for picture, tone in zip((self.reference, self.picture), self.tones, strict=True)
        ]
        for kind in STARTS[self.method]:
            if kind == "mtb":
                greys = [
                    p.small.mean(axis=2, dtype=np.float32) for p in (self.reference, self.picture)
                ]
                yield kind, lift @ from_bitmaps(greys[0], greys[1]) @ down
                continue
            found = from_features(kind, small[0], small[1])
            if found is not None:
                yield kind, lift @ found @ down

    def _attempt(self, matrix: Matrix) -> _Attempt:
        """Refine a first transformation, reduced and then at full size, and judge it."""
        model = self.models[0]
        if self.reference.factor > 1:
            lift = self.reference.lift
            down = np.linalg.inv(lift)
            views = tuple(
                View(picture.small, picture.small_valid, tone)
                for picture, tone in zip((self.reference, self.picture), self.tones, strict=True)
            )
            blocks = choose(self.reference.small, 1, views[0].size, self.tones[0])
            small, model = self._refined(down @ matrix @ lift, views, blocks)
            matrix = lift @ small @ down
        matrix, model = self._refined(matrix, self.views, self.blocks)
        shifts = measure(*self.views, matrix, self.blocks)
        trouble = implausible(matrix, self.size) or self._gate(shifts)
        return _Attempt(matrix / matrix[2, 2], model, shifts, trouble)

    def _refined(
        self, matrix: Matrix, views: tuple[View, ...], blocks: Blocks
    ) -> tuple[Matrix, str]:
        """Move a transformation to where the blocks say, until it stays."""
        model = self.models[0]
        for _ in range(5):
            if implausible(matrix, views[0].size):
                break
            shifts = measure(views[0], views[1], matrix, blocks)
            if shifts.found.sum() < 4:
                break
            before = matrix
            matrix, model = self._fitted(matrix, shifts, self.models, views[0].size)
            if displacement(np.linalg.inv(before) @ matrix, views[0].size) < 0.02:
                break
        return matrix, model

    def _fitted(
        self,
        matrix: Matrix,
        shifts: Shifts,
        models: list[str],
        size: tuple[int, int] | None = None,
    ) -> tuple[Matrix, str]:
        a = shifts.centres[shifts.found]
        b = apply(matrix, a + shifts.d[shifts.found])
        found = fit(a, b, matrix, size or self.size, models)
        return found.matrix, found.model

    def _gate(self, after: Shifts) -> str | None:
        """Why a transformation is no better than none; None if it is better."""
        seen = int(after.inside.sum())
        agree = int((after.lengths < CLOSE).sum())
        if agree < ENOUGH or agree < AGREEING * seen:
            return f"only {agree} of {seen} places agree with the best transformation found"
        both = after.inside & self.still.inside
        if np.median(after.alike[both]) <= np.median(self.still.alike[both]):
            return "it would not lie better than it does now"
        if (after.residual or 0) >= (self._before(after) or REACH):
            return "it would not lie closer than it does now"
        return None

    def _before(self, after: Shifts) -> float | None:
        """The residual without a transformation, where it can be measured where it lies."""
        half = max(4, int(after.found.sum()) // 2)
        return self.still.residual if self.still.found.sum() >= half else None

    def _accepted(self, start: str, attempt: _Attempt) -> tuple[Matrix | None, FrameAlignment]:
        name, after = self.picture.frame.name, attempt.shifts
        a = after.centres[after.found]
        moved = np.linalg.norm(apply(attempt.matrix, a + after.d[after.found]) - a, axis=1)
        before = float(np.median(moved))
        if displacement(attempt.matrix, self.size) < STILL:
            return None, FrameAlignment(name, "still", "identity", None, before, before)
        told = _told(attempt.matrix, self.size)
        return attempt.matrix, FrameAlignment(
            name, start, attempt.model, None, before, after.residual, **told
        )


def _failed(name: str, residual: float | None, why: str) -> FrameAlignment:
    return FrameAlignment(
        name, "failed", residual_before=residual, residual_after=residual, note=why
    )


def _view(frame: Frame, tone: Tone) -> View:
    return View(frame.codes, frame.valid, tone)
