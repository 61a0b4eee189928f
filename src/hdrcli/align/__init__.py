"""Bring the frames of a bracket to the reference: how each must be warped, and how sure that is.

For each frame, outwards from the reference in exposure:

1. Does it lie on the reference as it is? Small blocks are tracked at full size (blocks.py);
   a bracket from a tripod ends here, and is never resampled. Where another frame lay still on
   its blocks, and this one certainly does on the same, they are not chosen anew.
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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdrcli.align.models import Matrix
from hdrcli.align.overlap import crop_to_overlap, warp_frame
from hdrcli.align.pair import FrameAlignment, Method, Pair
from hdrcli.align.views import Picture
from hdrcli.errors import BracketError
from hdrcli.frames import Bracket

__all__ = [
    "AlignReport",
    "FrameAlignment",
    "Method",
    "align_bracket",
    "belonging",
    "crop_to_overlap",
    "warp_frame",
]

FAR = 4.0  # stops: beyond this the neighbour is tried before the reference


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
        return {"method": self.method, "frames": [frame.as_dict() for frame in self.frames]}


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


def belonging(bracket: Bracket, report: AlignReport) -> Bracket:
    """Leave out the frames that show another scene than the reference.

    Raises BracketError where fewer than two are left.
    """
    kept = [
        frame
        for frame, found in zip(bracket.frames, report.frames, strict=True)
        if found.same_scene
    ]
    if len(kept) < 2:
        names = ", ".join(frame.name for frame in bracket.frames)
        raise BracketError(
            f"these photographs do not seem to show one scene: {names}",
            hint="if they do, merge them as they lie with --align none",
        )
    at = next(i for i, frame in enumerate(kept) if frame is bracket.ref)
    return Bracket(tuple(kept), at)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A frame's warp from the reference, what is said of it, and what it was compared with."""

    warp: Matrix | None
    found: FrameAlignment
    anchor: int = -1
    blocks: NDArray[np.int64] | None = None  # of the anchor, on which the frame lies still


def _walk(
    pictures: Sequence[Picture], bracket: Bracket, method: Method, order: Sequence[int]
) -> dict[int, _Placed]:
    """Align frames one after the other, each to the reference or to one already aligned."""
    done: dict[int, _Placed] = {}
    for i in order:
        anchors = [j for j in reversed(order) if j in done and done[j].found.method != "failed"]
        near = abs(bracket.evs[i]) <= FAR
        anchors = [bracket.reference, *anchors[:1]] if near else [*anchors[:2], bracket.reference]
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
    elsewhere = (placed.blocks for placed in reversed(done.values()) if placed.anchor == j)
    pair = Pair(pictures[j], pictures[i], method, next(elsewhere, None))
    matrix, found = pair.align()
    still = pair.blocks.at if found.method == "still" else None
    if j == bracket.reference:
        return _Placed(matrix, found, j, still)
    found = replace(found, via=pictures[j].frame.name)
    before = done[j].warp
    if found.method == "failed" or (matrix is None and before is None):
        return _Placed(None, found, j, still)
    eye = np.eye(3)
    both = (eye if matrix is None else matrix) @ (eye if before is None else before)
    both = both / both[2, 2]
    model = found.model if matrix is not None else done[j].found.model
    return _Placed(both, replace(found, model=model).placed(both, bracket.size), j, still)
