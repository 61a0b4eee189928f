"""One frame and the one it is to lie on: stay, or find the way, and be sure of it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdrcli.align.blocks import REACH, Blocks, Shifts, View, choose, measure, side_of
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
from hdrcli.align.views import Picture, tones
from hdrcli.once import once

Method = Literal["auto", "none", "mtb", "homography"]

STILL = 0.3  # pixels: a frame displaced less than this is not resampled
WORTH = 0.15  # pixels: nor is it for less than this
ENOUGH = 8  # blocks
MANY = 24  # blocks: nearly half of those that there may be
AGREEING = 0.4  # of the blocks found must agree with the transformation
SEEN = 0.12  # of the blocks that both frames see must
WIDE = 0.5  # of the picture: agreement this wide is the scene's, no need to look further
CLOSE = 1.0  # pixels: a block agrees if it ends within this
STRANGE = 0.06  # fewer blocks found than this: another scene
SURE = 0.5  # pixels: frames that share little, but lie as close as this, may stay
ROUNDS = 6
STARTS = {"auto": ("orb", "sift", "mtb"), "homography": ("orb", "sift"), "mtb": ("mtb",)}


@dataclass(frozen=True)
class FrameAlignment:
    """What was found for one frame.

    ``method`` is reference; still (it lies on the reference as it is); blocks, orb, sift or mtb
    (where the transformation started); none (not asked for); or failed (it is left where it
    is: the note says why). A residual is the median of the local shifts of textured blocks
    that both exposures show, in pixels: what moves by itself is in it, but does not decide.
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
    same_scene: bool = True  # False: it has detail, but none of the other frame's
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

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def placed(self, matrix: Matrix, size: tuple[int, int]) -> "FrameAlignment":
        """The same with what follows from the transformation."""
        seen = parts(matrix, size)
        return replace(
            self,
            shift=seen.shift,
            rotation=seen.rotation,
            scale=seen.scale,
            overlap=coverage(matrix, size),
        )


@dataclass(frozen=True, eq=False)
class Attempt:
    """One transformation that was tried, in full pixels, and what the blocks say of it."""

    start: str  # what it started from
    matrix: Matrix
    model: str
    shifts: Shifts
    trouble: str | None  # why it is not good enough; None if it is


def _reach(shifts: Shifts) -> float:
    """The part of all blocks' hull that the hull of those that end CLOSE fills.

    A thing that moves may be large, but the scene is all around it.
    """
    import cv2

    agreeing = shifts.centres[shifts.found][shifts.lengths < CLOSE]
    if len(agreeing) < 3:
        return 0.0
    part, whole = (
        cv2.contourArea(cv2.convexHull(points.astype(np.float32)))
        for points in (agreeing, shifts.centres)
    )
    return float(part / whole)


def _score(shifts: Shifts) -> float:
    """How many blocks end where they should, how near, and how wide they lie."""
    return _reach(shifts) * float(np.maximum(1 - shifts.lengths / CLOSE, 0).sum())


class Pair:
    """A frame and the one it is to lie on."""

    def __init__(
        self,
        reference: Picture,
        picture: Picture,
        method: Method,
        elsewhere: NDArray[np.int64] | None = None,
    ) -> None:
        """``elsewhere`` are corners of blocks on which another frame lay still."""
        self.pictures, self.method = (reference, picture), method
        self.elsewhere = elsewhere
        self.size = picture.frame.size
        self.lift = reference.lift
        self.down: Matrix = np.asarray(np.linalg.inv(reference.lift), np.float64)
        self.tones = tones(reference.frame, picture.frame)
        self.models = ["translation"] if method == "mtb" else list(MODELS)
        self.softness = float(reference.factor**0.25)  # the pixels of a big file are softer

    @once
    def views(self) -> tuple[View, View]:
        """Both frames at full size."""
        one, other = (
            View(picture.frame.codes, picture.frame.valid, tone)
            for picture, tone in zip(self.pictures, self.tones, strict=True)
        )
        return one, other

    @once
    def small_views(self) -> tuple[View, View]:
        """Both frames reduced."""
        one, other = (
            View(picture.small, picture.small_valid, tone)
            for picture, tone in zip(self.pictures, self.tones, strict=True)
        )
        return one, other

    @once
    def blocks(self) -> Blocks:
        """The blocks of the reference at full size."""
        reference = self.pictures[0]
        return choose(self.views[0], reference.picked, reference.factor)

    @once
    def small_blocks(self) -> Blocks:
        """The blocks of the reduced reference."""
        return choose(self.small_views[0], self.small_views[0].codes, 1)

    @once
    def still(self) -> Shifts:
        """Where the blocks lie if nothing is done."""
        return measure(self.blocks, self.views[1], np.eye(3))

    def align(self) -> tuple[Matrix | None, FrameAlignment]:
        """The warp (None: leave the frame as it lies) and what is said of it."""
        if self._is_surely_still():
            return None, self._stays()
        if len(self.blocks.at) < ENOUGH:
            return None, self._failed("too little detail that both exposures show")
        if self._is_still():
            return None, self._stays()
        trouble = "nothing of the reference is found in it"
        good: list[Attempt] = []
        for attempt in self._attempts():
            trouble = attempt.trouble or trouble
            good += [attempt] if attempt.trouble is None else []
            if good and _reach(good[-1].shifts) >= WIDE:
                break
        if good:
            best = max(good, key=lambda one: _score(one.shifts))
            better = _score(best.shifts) > _score(self.still)
            return self._accepted(best) if better else (None, self._stays())
        if self._is_another_scene():
            strange = self._failed("it does not seem to show the same scene")
            return None, replace(strange, same_scene=False)
        return None, self._failed(trouble)

    def _is_surely_still(self) -> bool:
        """Whether it lies still by half of what would do, on many blocks chosen for another."""
        if self.elsewhere is None:
            return False
        blocks = Blocks(self.elsewhere, side_of(self.size), self.views[0])
        still = measure(blocks, self.views[1], np.eye(3))
        if still.found.sum() < MANY or not self._lies_still(still, STILL / 2):
            return False
        self.blocks, self.still = blocks, still
        return True

    def _is_still(self) -> bool:
        """Whether most blocks lie where they should, within STILL."""
        return self._lies_still(self.still, STILL)

    def _lies_still(self, still: Shifts, most: float) -> bool:
        if not self._mostly_found(still):
            return False
        found = self._fitted(np.eye(3), still, ["translation", "similarity"], self.size)
        limit = most * self.softness
        near = float(np.median(still.lengths)) < 2 * limit
        return near and displacement(found[0], self.size) < limit

    def _mostly_found(self, shifts: Shifts) -> bool:
        return bool(shifts.found.sum() >= max(ENOUGH, shifts.inside.sum() / 2))

    def _stays(self) -> FrameAlignment:
        here = self.still.residual
        return FrameAlignment(self._name, "still", residual_before=here, residual_after=here)

    def _failed(self, why: str) -> FrameAlignment:
        """It stays; which is no failure if the few places there are lie where they should."""
        found = self._stays()
        if found.residual_before is not None and found.residual_before < SURE * self.softness:
            return replace(found, note=f"judged by {int(self.still.found.sum())} places only")
        return replace(found, method="failed", note=why)

    @property
    def _name(self) -> str:
        return self.pictures[1].frame.name

    def _attempts(self) -> Iterator[Attempt]:
        return (self._attempt(start, first) for start, ms in self._starts() for first in ms)

    def _starts(self) -> Iterator[tuple[str, list[Matrix]]]:
        """First transformations in full pixels, the likeliest first, made as they are needed."""
        if self.still.found.sum() >= ENOUGH:
            yield "blocks", [np.eye(3)]
        for kind in STARTS[self.method]:
            found = self._by_bitmaps() if kind == "mtb" else self._by_features(kind)
            yield kind, [self.lift @ matrix @ self.down for matrix in found]

    def _by_bitmaps(self) -> list[Matrix]:
        one, other = (p.small.mean(axis=2, dtype=np.float32) for p in self.pictures)
        return [from_bitmaps(one, other)]

    def _by_features(self, kind: str) -> list[Matrix]:
        return from_features(kind, self._normalised[0], self._normalised[1])

    @once
    def _normalised(self) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        return [normalised(view.codes, view.tone) for view in self.small_views]

    def _attempt(self, start: str, matrix: Matrix) -> Attempt:
        """Refine a first transformation, reduced and then at full size, and judge it."""
        if self.pictures[0].factor > 1:
            small = self.down @ matrix @ self.lift
            small, _ = self._refined(small, self.small_blocks, self.small_views[1])
            matrix = self.lift @ small @ self.down
        matrix, model = self._refined(matrix, self.blocks, self.views[1])
        shifts = measure(self.blocks, self.views[1], matrix)
        trouble = implausible(matrix, self.size) or self._gate(shifts)
        return Attempt(start, matrix / matrix[2, 2], model, shifts, trouble)

    def _refined(self, matrix: Matrix, blocks: Blocks, view: View) -> tuple[Matrix, str]:
        """Move a transformation to where the blocks say, until it stays."""
        model = self.models[0]
        for _ in range(ROUNDS):
            if implausible(matrix, view.size):
                break
            shifts = measure(blocks, view, matrix)
            if shifts.found.sum() < ENOUGH / 2:
                break
            before = matrix
            matrix, model = self._fitted(matrix, shifts, self.models, view.size)
            if displacement(np.linalg.inv(before) @ matrix, view.size) < 0.03:
                break
        return matrix, model

    def _fitted(
        self, matrix: Matrix, shifts: Shifts, models: list[str], size: tuple[int, int]
    ) -> tuple[Matrix, str]:
        a = shifts.centres[shifts.found]
        found = fit(
            a,
            apply(matrix, a + shifts.d[shifts.found]),
            matrix,
            models,
            size,
            1 / (1.1 - shifts.after[shifts.found]),
        )
        return found.matrix, found.model

    def _gate(self, after: Shifts) -> str | None:
        """Why a transformation is no better than none; None if it is better."""
        seen, agree = int(after.inside.sum()), int((after.lengths < CLOSE).sum())
        if agree < max(ENOUGH, AGREEING * after.found.sum(), SEEN * seen):
            return f"only {agree} of {seen} places agree with the best transformation found"
        told = after.inside & self.still.inside & (after.found | self.still.found)
        if after.alike[told].sum() <= self.still.alike[told].sum():
            return "it would not lie better than it does now"
        as_well = self.still.found.sum() >= after.found.sum() / 2
        before = self.still.residual if as_well else None
        if (after.residual or 0.0) >= (REACH if before is None else before):
            return "it would not lie closer than it does now"
        return None

    def _accepted(self, attempt: Attempt) -> tuple[Matrix | None, FrameAlignment]:
        matrix, shifts = attempt.matrix, attempt.shifts
        a = shifts.centres[shifts.found]
        moved = np.linalg.norm(apply(matrix, a + shifts.d[shifts.found]) - a, axis=1)
        before, after = float(np.median(moved)), float(np.median(shifts.lengths))
        small = displacement(matrix, self.size) < STILL * self.softness
        if small or before - after < WORTH * self.softness:
            return None, self._stays()
        found = FrameAlignment(self._name, attempt.start, attempt.model, None, before, after)
        return matrix, found.placed(matrix, self.size)

    def _is_another_scene(self) -> bool:
        """Whether both frames have plenty of detail, and none of it in common."""
        own = choose(self.views[1], self.pictures[1].picked, self.pictures[1].factor)
        plenty = min(len(own.at), int(self.still.inside.sum())) >= 3 * ENOUGH
        return plenty and bool(self.still.found.sum() < STRANGE * self.still.inside.sum())
