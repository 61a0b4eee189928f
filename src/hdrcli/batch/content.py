"""What EXIF cannot tell: photographs that show one scene, seen in 64 by 64 pixels.

Two jobs. A bracket made by hand, with minutes between the shutters, or by three automatic
brackets one beside the other, is joined where the pictures are of one scene and their exposures
make one even ladder. And photographs without EXIF are ordered by name, told apart by scene, and
their brightness stands in for the exposure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hdrcli import formats
from hdrcli.batch.grouping import SAME, Group, Grouping, Rules, merged
from hdrcli.batch.grouping import group as by_exif
from hdrcli.batch.grouping import streams as streams_of
from hdrcli.batch.shots import SUFFIXES, Shot
from hdrcli.bracket import sidecar
from hdrcli.errors import HdrcliError
from hdrcli.formats.sniffed import kind_of_head

SIDE = 64
ALIKE = 0.4  # correlation of the gradients from which two pictures show one scene
ENOUGH = 600  # gradients that both must have for that
STRICT, FEW = 0.8, 80  # what is asked of fewer, and how few will not do
SHAKE = 2  # pixels of the small picture
FAR = 300.0  # seconds between photographs that may still be joined
LEAST_STEP = 0.6  # stops: less is one exposure metered twice
EVEN = 2.5  # the widest step over the narrowest
LONGEST = 24
CURVE = 0.3, 2.0  # stops seen over stops told: a camera's curve may hide or add as much

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Look:
    """A photograph at a glance: its gradients where it is well exposed, and its brightness."""

    logs: Floats  # (SIDE, SIDE), log2 of light
    valid: NDArray[np.bool_]  # (SIDE, SIDE), neither black nor white
    stops: float  # mean of the logs

    def like(self, other: "Look") -> bool:
        """Whether two pictures show one scene, whatever their exposures; a hand may shake."""
        return any(
            self._alike(other, dy, dx)
            for dy in range(-SHAKE, SHAKE + 1)
            for dx in range(-SHAKE, SHAKE + 1)
        )

    def _alike(self, other: "Look", dy: int, dx: int) -> bool:
        """Whether gradients agree where both are well exposed, the other moved by dy, dx."""
        mine, theirs = _overlap(dy, dx), _overlap(-dy, -dx)
        both = self.valid[mine] & other.valid[theirs]
        pairs = [_slopes(self.logs[mine], other.logs[theirs], both, axis) for axis in (0, 1)]
        a, b = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        sure = ALIKE if len(a) >= ENOUGH else STRICT
        norm = math.sqrt(float(a @ a) * float(b @ b))
        return len(a) >= FEW and norm > 1e-9 and float(a @ b) / norm > sure

    def brighter(self, other: "Look") -> float:
        """How many stops brighter the other is, where both are well exposed."""
        both = self.valid & other.valid
        return float(np.median((other.logs - self.logs)[both])) if both.any() else 0.0


def _overlap(dy: int, dx: int) -> tuple[slice, slice]:
    return slice(max(dy, 0), SIDE + min(dy, 0)), slice(max(dx, 0), SIDE + min(dx, 0))


def _slopes(
    a: Floats, b: Floats, both: NDArray[np.bool_], axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inside = both[1:] & both[:-1] if axis == 0 else both[:, 1:] & both[:, :-1]
    return np.diff(a, axis=axis)[inside], np.diff(b, axis=axis)[inside]


@cache
def look(path: Path) -> Look | None:
    """Read a photograph at the least cost; None where it cannot be read."""
    try:
        grey = _grey(path)
    except (HdrcliError, OSError, ValueError, SyntaxError):
        return None
    logs = np.log2((grey / 255) ** 2.2 + 1e-4)
    return Look(logs, (grey > 5) & (grey < 250), float(logs.mean()))


def _grey(path: Path) -> Floats:
    """(SIDE, SIDE) codes in [0, 255]. A JPEG is decoded at an eighth of its size."""
    from PIL import Image

    with path.open("rb") as file:
        jpeg = kind_of_head(file.read(512)) == "jpeg"
    if jpeg:
        with Image.open(path) as image:
            image.draft("L", (2 * SIDE, 2 * SIDE))
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        return np.asarray(small, np.float64)
    frame = formats.read(path)
    import cv2

    top = frame.levels - 1 if frame.levels else 1.0
    codes = cv2.resize(frame.codes.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.mean(codes, axis=2) * (255 / top), np.float64)


# ---- sets ------------------------------------------------------------------------------------


def group(shots: Sequence[Shot], rules: Rules | None = None) -> Grouping:
    """All that can be found: by sidecar, by EXIF, and by what the pictures show."""
    chosen = rules or Rules()
    if chosen.how != "auto" or chosen.brackets is not None:
        return by_exif(shots, chosen)
    listed = by_sidecar(shots)
    taken = {id(shot) for part in listed for shot in part.shots}
    rest = [shot for shot in shots if id(shot) not in taken]
    dated = [shot for shot in rest if shot.exposure is not None]
    found = joined(by_exif(dated, chosen))
    bare = by_brightness([shot for shot in rest if shot.exposure is None], chosen)
    return Grouping((*listed, *found.sets, *bare.sets), (*found.singles, *bare.singles))


def by_sidecar(shots: Sequence[Shot]) -> list[Group]:
    """Folders whose exposures are written beside the pictures: each is one set."""
    folders: dict[Path, list[Shot]] = {}
    for shot in shots:
        folders.setdefault(shot.path.parent, []).append(shot)
    found = []
    for held in folders.values():
        beside = _sidecar(held)
        if beside and 2 <= len(held) <= LONGEST and len({s.size for s in held}) == 1:
            ordered = sorted(held, key=lambda s: sidecar.natural(s.path.name))
            found.append(Group(tuple(ordered), (f"{beside.name} lists them",)))
    return found


def _sidecar(held: Sequence[Shot]) -> Path | None:
    paths = [shot.path for shot in held]
    pictures = [p for p in paths[0].parent.iterdir() if p.suffix.lower() in SUFFIXES]
    if len(pictures) != len(paths):
        return None
    told = [found for found in sidecar.find(paths) if isinstance(found, sidecar.Sidecar)]
    return told[0].path if told else None


def joined(found: Grouping) -> Grouping:
    """Sets and singles that follow each other, and together are one bracket, made one."""
    parts = [*found.sets, *(Group((shot,)) for shot in found.singles)]
    streams: dict[object, list[Group]] = {}
    for part in parts:
        first = part.shots[0]
        streams.setdefault((first.stream, first.camera, first.size), []).append(part)
    grown = [part for stream in streams.values() for part in _grown(stream)]
    return Grouping(
        tuple(part for part in grown if len(part.shots) > 1),
        tuple(part.shots[0] for part in grown if len(part.shots) == 1),
    )


def _grown(stream: list[Group]) -> list[Group]:
    """Join from left to right; two singles alone are too little to be a bracket."""
    stream.sort(key=lambda part: part.shots[0].start or 0.0)
    runs: list[list[Group]] = []
    for part in stream:
        if runs and _joins(runs[-1], part):
            runs[-1].append(part)
        else:
            runs.append([part])
    out = []
    for run in runs:
        shots = sum(len(part.shots) for part in run)
        if len(run) > 1 and shots > 2:
            out.append(merged(run, f"one scene, {shots} exposures in even steps"))
        else:
            out += run
    return out


def _joins(run: Sequence[Group], part: Group) -> bool:
    before = [shot for held in run for shot in held.shots]
    gaps = [b.start - a.start for a, b in [(before[-1], part.shots[0])] if a.start and b.start]
    if not gaps or not -1 <= gaps[0] <= FAR + (before[-1].metadata.exposure_time or 0.0):
        return False
    if len({shot.metadata.f_number for shot in (*before, *part.shots)}) > 1:
        return False
    if not _even([*before, *part.shots]):
        return False
    return _one_scene(before, part.shots)


def _even(shots: Sequence[Shot]) -> bool:
    """Whether exposures make one ladder: all different, in steps of about one width."""
    stops = sorted(math.log2(shot.exposure) for shot in shots if shot.exposure)
    steps = [b - a for a, b in pairwise(stops)]
    if len(shots) > LONGEST or len(steps) < len(shots) - 1:
        return False
    return min(steps) > max(LEAST_STEP, SAME) and max(steps) <= EVEN * min(steps)


def _one_scene(before: Sequence[Shot], after: Sequence[Shot]) -> bool:
    """Whether the two that are exposed most alike show one scene."""

    def apart(pair: tuple[Shot, Shot]) -> float:
        a, b = pair
        return abs(math.log2((a.exposure or 1.0) / (b.exposure or 1.0)))

    a, b = min(((a, b) for a in before for b in after), key=apart)
    seen = look(a.path), look(b.path)
    if seen[0] is None or seen[1] is None or not seen[0].like(seen[1]):
        return False
    told = math.log2((b.exposure or 1.0) / (a.exposure or 1.0))
    return CURVE[0] < seen[0].brighter(seen[1]) / told < CURVE[1]


# ---- without EXIF ----------------------------------------------------------------------------


def by_brightness(shots: Sequence[Shot], rules: Rules) -> Grouping:
    """Sets among photographs whose exposures nobody recorded, by name, scene and brightness."""
    sets: list[Group] = []
    singles: list[Shot] = []
    for stream in streams_of(shots):
        for run in _scenes(stream):
            if _is_bracket(run):
                why = f"{len(run)} photographs of one scene, no exposures recorded"
                sets.append(Group(tuple(run), (why,)))
            else:
                singles += run
    return Grouping(tuple(sets), tuple(singles))


def _scenes(stream: Sequence[Shot]) -> list[list[Shot]]:
    """Cut where the scene changes, or the brightness starts again."""
    runs: list[list[Shot]] = []
    for shot in stream:
        if runs and _continues(runs[-1], shot):
            runs[-1].append(shot)
        else:
            runs.append([shot])
    return runs


def _continues(run: Sequence[Shot], shot: Shot) -> bool:
    last, now = look(run[-1].path), look(shot.path)
    if last is None or now is None or shot.size != run[-1].size:
        return False
    if shot.prefix != run[-1].prefix or len(run) >= LONGEST:
        return False
    before = [held.stops for held in map(look, (s.path for s in run)) if held is not None]
    again = any(abs(now.stops - stops) < SAME for stops in before)
    seen = any(other is not None and other.like(now) for other in (look(s.path) for s in run))
    return seen and not again


def _is_bracket(run: Sequence[Shot]) -> bool:
    stops = [seen.stops for seen in (look(shot.path) for shot in run) if seen is not None]
    return len(stops) > 1 and max(stops) - min(stops) > LEAST_STEP
