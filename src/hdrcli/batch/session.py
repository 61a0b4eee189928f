"""One run of ``hdrcli batch``: a plan is found, what is left of it is run and written down."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hdrcli import pipeline
from hdrcli.batch import content, plan, run, shots
from hdrcli.batch.executors import Outcome, Place
from hdrcli.batch.grouping import Rules
from hdrcli.batch.outcomes import OutcomeLog
from hdrcli.batch.plan import Job, Naming, Plan
from hdrcli.errors import InputError
from hdrcli.formats.sniffed import REFUSED
from hdrcli.pipeline import MergeOptions
from hdrcli.report import Report

PER_FILE = ("evs", "exposure_times")  # options that belong to the photographs of one set
OWN = (run.FOLDER, "report.html", "outcomes.jsonl", plan.PLAN)


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    inputs: tuple[Path, ...]
    naming: Naming
    rules: Rules = field(default_factory=Rules)
    options: MergeOptions = field(default_factory=MergeOptions)
    sets: Path | None = None


def find_plan(request: Request) -> Plan:
    """The sets, from a plan or from the photographs, with names that collide with nothing.

    Raises InputError for anything that can be known to be wrong before the work.
    """
    check_options(request)
    if request.sets is not None:
        found = plan.from_file(request.sets, request.naming, request.options)
    else:
        given = photographs(request)
        if not given:
            raise _nothing_in(request.inputs)
        taken, made = shots.without_results(given)
        kept, twins = shots.without_twins(taken)
        grouped = content.group(kept, request.rules)
        found = plan.plan_of(grouped, request.naming, request.options, [*made, *twins])
    plan.check(found)
    return found


def _nothing_in(inputs: Sequence[Path]) -> InputError:
    where = ", ".join(map(str, inputs))
    raw = shots.find(inputs, suffixes=shots.RAW)
    if raw:
        return InputError(
            f"there are only cameras' raw files in {where}, {len(raw)} of them",
            hint=REFUSED["raw"][1],
        )
    return InputError(
        f"there are no photographs in {where}",
        hint="hdrcli batch DIR -o OUT searches DIR and its folders",
    )


def check_options(request: Request) -> None:
    """Options that no set could be merged with."""
    pipeline.check_options(request.options)
    for option, name in zip(PER_FILE, ("--ev", "--exposure-times"), strict=True):
        value = getattr(request.options, option)
        if value is not None and request.rules.brackets not in (len(value), None):
            raise InputError(f"{name} has {len(value)} values, and --brackets is another number")
        if value is not None and request.rules.brackets is None:
            raise InputError(
                f"{name} is for sets of one length", hint=f"add --brackets {len(value)}"
            )
    if request.options.debug_dir is not None:
        raise InputError("--debug-dir is for one set", hint="hdrcli merge --debug-dir")


def photographs(request: Request) -> list[shots.Shot]:
    """Every photograph of the inputs; what batches wrote into OUT is none."""
    folder = request.naming.folder
    roots = {path.resolve() for path in request.inputs}
    skip = [folder] if folder.resolve() not in roots else []
    skip += [Path(name) for line in OutcomeLog(folder).lines() for name in line["outputs"]]
    skip += [folder / name for name in OWN]
    return shots.read(shots.find(request.inputs, skip))


def execute(
    jobs: Sequence[Job],
    folder: Path,
    place: Place,
    heard: Callable[[Outcome], None],
    *,
    report: bool = True,
) -> list[Outcome]:
    """Run jobs and write each outcome down before the next is heard of. Returns them all."""
    log = OutcomeLog(folder)
    log.repair()
    run.begin(folder, jobs)
    page = Report(folder) if report else None
    outcomes = []

    def record(outcome: Outcome) -> None:
        pictures = outcome.pop("pictures", None)
        if page is not None:
            page.keep(outcome, pictures)
        log.append(outcome)
        outcomes.append(outcome)
        if page is not None:
            page.refresh()
        heard(outcome)

    run.Runner(place, record).run(jobs)
    if page is not None:
        page.write()
    run.finish(folder, jobs)
    return outcomes


def rows(found: Plan) -> Iterable[tuple[str, ...]]:
    """The plan as lines of a table: set, photograph, EV, why or what becomes of it."""
    for job in found.jobs:
        evs = job.options.evs or job.evs
        why = "; ".join(job.why)
        for i, (path, ev) in enumerate(zip(job.paths, evs, strict=True)):
            number, reason = (str(job.index), why) if i == 0 else ("", "")
            yield number, path.name, "?" if ev is None else f"{ev:+.1f}", reason
        yield "", f"→ {job.outputs[0]}", "", ""
    for path in found.singles:
        yield "", path.name, "", "in no set: left alone"
    for path, why in found.left_out:
        yield "", path.name, "", f"left out: {why}"
