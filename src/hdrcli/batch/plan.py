"""A plan: which photographs make which files. Shown, edited, taken back, and checked."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hdrcli import formats
from hdrcli.batch import names
from hdrcli.batch.grouping import Grouping
from hdrcli.batch.shots import Shot, find, read
from hdrcli.bracket import sidecar
from hdrcli.errors import InputError
from hdrcli.pipeline import MergeOptions

EDITED = 0.05  # stops: an EV of a plan further off than this from EXIF was written by a hand
PLAN = "sets.json"


@dataclass(frozen=True)
class Job:
    """One set: what is merged into what, and how."""

    index: int
    name: str
    paths: tuple[Path, ...]
    outputs: tuple[Path, ...]
    options: MergeOptions
    why: tuple[str, ...] = ()
    evs: tuple[float | None, ...] = ()  # above the middle one, as recorded; + is brighter
    pixels: int = 0  # of one photograph, 0 where it is not known
    stamp: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """What names the set in the log: its first output."""
        return str(self.outputs[0])


@dataclass(frozen=True)
class Plan:
    """All sets of a batch, and every photograph that is in none."""

    jobs: tuple[Job, ...]
    singles: tuple[Path, ...] = ()
    left_out: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Naming:
    """Where the outputs go, and what they are called."""

    folder: Path
    template: str = names.DEFAULT
    kinds: tuple[str, ...] = ("exr",)


def plan_of(
    found: Grouping,
    naming: Naming,
    options: MergeOptions,
    left_out: Iterable[tuple[Shot, str]] = (),
    first: int = 1,
) -> Plan:
    """Name the outputs of every set: the folders under OUT are those of the photographs."""
    names.check(naming.template)
    jobs = [
        job_of(group.shots, naming, options, index, group.why)
        for index, group in enumerate(found.sets, first)
    ]
    dropped = tuple((shot.path.absolute(), why) for shot, why in left_out)
    return Plan(tuple(jobs), tuple(shot.path.absolute() for shot in found.singles), dropped)


def job_of(
    shots: Sequence[Shot],
    naming: Naming,
    options: MergeOptions,
    index: int,
    why: Sequence[str] = (),
    outputs: Sequence[Path] = (),
) -> Job:
    """One set with its outputs, those given or those of the template."""
    named = names.name(naming.template, shots, index)
    first = shots[0]
    inside = first.path.absolute().parent.relative_to(first.root.absolute())
    base = naming.folder.absolute() / inside / named
    size = first.size or (0, 0)
    return Job(
        index=index,
        name=named,
        paths=tuple(shot.path.absolute() for shot in shots),
        outputs=tuple(outputs) or _outputs(base, naming.kinds, options),
        options=replace(options, preview=False),
        why=tuple(why),
        evs=evs_of(shots),
        pixels=size[0] * size[1],
    )


def _outputs(base: Path, kinds: Sequence[str], options: MergeOptions) -> tuple[Path, ...]:
    """One file per kind, and the preview that ``hdrcli merge`` would write beside them."""
    files = [base.with_name(f"{base.name}.{kind.lstrip('.')}") for kind in kinds]
    if options.preview and all(formats.for_output(path).linear for path in files):
        files.append(base.with_name(f"{base.name}_preview.jpg"))
    return tuple(files)


def evs_of(shots: Sequence[Shot]) -> tuple[float | None, ...]:
    """Stops above the middle exposure by a file beside them, else by EXIF; + is brighter."""
    recorded = [shot.exposure for shot in shots]
    exposures: Sequence[float | None] = _told_beside(shots) or recorded
    known = sorted(exposure for exposure in exposures if exposure)
    if not known:
        return (None,) * len(shots)
    middle = known[(len(known) - 1) // 2]
    return tuple(round(math.log2(e / middle), 2) if e else None for e in exposures)


def _told_beside(shots: Sequence[Shot]) -> Sequence[float] | None:
    """What ev.txt and the like say; of several readings the likeliest, as merging tries first."""
    beside = sidecar.find([shot.path for shot in shots])
    return next((found.readings[0] for found in beside if isinstance(found, sidecar.Sidecar)), None)


# ---- as JSON ---------------------------------------------------------------------------------


def as_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain data; ``--sets`` takes it back."""
    return {
        "sets": [
            {
                "name": job.name,
                "files": [str(path) for path in job.paths],
                "ev": list(job.options.evs or job.evs),
                "outputs": [str(path) for path in job.outputs],
                "why": list(job.why),
            }
            for job in plan.jobs
        ],
        "singles": [str(path) for path in plan.singles],
        "left_out": [{"file": str(path), "why": why} for path, why in plan.left_out],
    }


def from_file(path: Path, naming: Naming, options: MergeOptions) -> Plan:
    """A plan that ``--dry-run --json`` wrote and a hand has edited.

    Files may be moved between sets, sets removed and added; ``outputs`` may be left out, and an
    ``ev`` that is not the one EXIF tells counts as ``--ev``.
    """
    sets = _sets_in(path)
    names.check(naming.template)
    jobs = []
    for index, entry in enumerate(sets, 1):
        where = f"{path}: set {index}"
        files = [Path(name) for name in _texts(entry, "files", where)]
        if len(files) < 2:
            raise InputError(f"{where} has fewer than two files")
        shots = read(find(files))
        if len(shots) != len(files):
            raise InputError(f"{where} names what is no photograph, or one of them twice")
        outputs = [Path(name) for name in _texts(entry, "outputs", where, needed=False)]
        job = job_of(shots, naming, options, index, ["as planned"], outputs)
        evs = _edited(entry.get("ev"), job.evs, where)
        jobs.append(replace(job, options=replace(job.options, evs=evs or options.evs)))
    return Plan(tuple(jobs))


def _sets_in(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"{path}: {err.strerror}") from err
    except ValueError as err:
        raise InputError(f"{path}: not JSON ({err})") from err
    sets = data.get("sets") if isinstance(data, dict) else None
    if not isinstance(sets, list) or not all(isinstance(entry, dict) for entry in sets):
        raise InputError(
            f"{path}: there is no list of sets", hint="hdrcli batch DIR --dry-run --json writes one"
        )
    return sets


def _texts(entry: dict[str, Any], key: str, where: str, *, needed: bool = True) -> list[str]:
    value = entry.get(key, None if needed else [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {key} is not a list of names")
    return value


def _edited(given: object, known: Sequence[float | None], where: str) -> tuple[float, ...] | None:
    """The stops of a plan, where they are not those that EXIF tells."""
    if given is None or given == [None] * len(known):
        return None
    numbers = given if isinstance(given, list) else []
    if len(numbers) != len(known) or not all(isinstance(n, int | float) for n in numbers):
        raise InputError(f"{where}: ev is not a list of {len(known)} numbers")
    same = all(b is not None and abs(a - b) < EDITED for a, b in zip(numbers, known, strict=True))
    return None if same else tuple(float(number) for number in numbers)


# ---- checks ----------------------------------------------------------------------------------


def check(plan: Plan) -> None:
    """Find every collision of names before the first pixel: InputError names both sides."""
    inputs = {str(path).casefold(): path for job in plan.jobs for path in job.paths}
    made: dict[str, Job] = {}
    for job in plan.jobs:
        for output in job.outputs:
            formats.for_output(output)
            key = str(output).casefold()  # some file systems do not tell A from a
            if key in inputs:
                raise InputError(f"{output} is one of the photographs", hint="choose another -o")
            if key in made:
                raise InputError(
                    f"two sets would be written to {output}: {made[key].paths[0].name} … and "
                    f"{job.paths[0].name} …",
                    hint="add {index} or {parent} to --name",
                )
            made[key] = job
