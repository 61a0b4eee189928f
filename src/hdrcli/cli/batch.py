"""``hdrcli batch``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hdrcli.cli import display, options
from hdrcli.cli.merge_options import takes_merge_options
from hdrcli.errors import BatchError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hdrcli.batch.executors import Place
    from hdrcli.batch.plan import Job, Plan
    from hdrcli.batch.run import Todo
    from hdrcli.batch.session import Request
    from hdrcli.pipeline import MergeOptions

GROUPS, RUNS = "Grouping and naming", "Running"
MOST = "80%"  # of what is free, unless --max-memory says otherwise


@takes_merge_options
def command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIR|FILES…",
            help="Folders, searched to any depth, or photographs. @list.txt and - (stdin) stand "
            "for lists of names.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Folder to write; made if absent. The folders in DIR are made in it again.",
            show_default=False,
        ),
    ] = None,
    files_from: options.FilesFrom = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "-n", help="Show the sets and why, write nothing; with --json a plan."
        ),
    ] = False,
    sets: Annotated[
        Path | None,
        typer.Option(
            "--sets",
            metavar="PLAN",
            rich_help_panel=GROUPS,
            help="Merge the sets of a plan that --dry-run --json wrote, and you may have edited.",
        ),
    ] = None,
    brackets: Annotated[
        int | None,
        typer.Option("--brackets", min=2, rich_help_panel=GROUPS, help="Photographs in every set."),
    ] = None,
    group: Annotated[
        Literal["auto", "time", "folder"],
        typer.Option(
            "--group",
            rich_help_panel=GROUPS,
            help="auto: by exposures, time, tags and scene; time: by --gap alone; folder: each is "
            "one set.",
        ),
    ] = "auto",
    gap: Annotated[
        float,
        typer.Option(
            "--gap",
            min=0.0,
            metavar="SECONDS",
            rich_help_panel=GROUPS,
            help="From the end of an exposure to the next: a longer pause ends a set.",
        ),
    ] = 30.0,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            rich_help_panel=GROUPS,
            help="Of the outputs: {first} {last} {index} {date} {time} {parent} {camera} {count}.",
        ),
    ] = "{first}-{last}_hdr",
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            rich_help_panel=GROUPS,
            metavar="KIND",
            help="Kind of output: exr, hdr, tif, jpg, png; repeat for more.",
            show_default="exr",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            rich_help_panel=RUNS,
            help="Sets merged at once; as many as cores and memory allow if not given.",
        ),
    ] = None,
    max_memory: Annotated[
        str,
        typer.Option(
            "--max-memory",
            metavar="SIZE",
            rich_help_panel=RUNS,
            help="Of all workers together: 6G, 800M, or a part of what is free.",
        ),
    ] = MOST,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            "--skip-existing",
            rich_help_panel=RUNS,
            help="Leave out the sets that are done, of the same photographs and options.",
        ),
    ] = True,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            rich_help_panel=RUNS,
            help="Merge on the workers of a Dask scheduler, tcp://HOST:8786; they must see the "
            "same files.",
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            "--worker-resource",
            metavar="NAME=NUMBER",
            rich_help_panel=RUNS,
            help="Only on Dask workers that offer this, such as GPU=1.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            rich_help_panel=RUNS,
            help="Go on, and merge new sets as they arrive in DIR; Ctrl-C ends it.",
        ),
    ] = False,
    settle: Annotated[
        float,
        typer.Option(
            "--settle",
            min=0.2,
            metavar="SECONDS",
            rich_help_panel=RUNS,
            help="With --watch: a set is complete when nothing has joined it for so long.",
        ),
    ] = 10.0,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", rich_help_panel=RUNS, help="Write OUT/report.html."),
    ] = True,
    merge_options: "MergeOptions",
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Merge every bracket on a card, in a folder, or in a list of files.

    [dim]hdrcli batch DCIM -o merged[/]
    """
    from hdrcli.batch import session
    from hdrcli.batch.grouping import Rules
    from hdrcli.batch.plan import Naming

    display.talk(verbose=verbose, quiet=quiet)
    if output is None and not dry_run:
        raise typer.BadParameter("where to? -o OUT is missing", param_hint="--output")
    folder = output or Path("hdr")
    given = () if sets is not None and not inputs else options.expand(inputs or (), files_from)
    request = session.Request(
        inputs=tuple(given),
        naming=Naming(folder, name, tuple(kinds or ("exr",))),
        rules=Rules(group, brackets, gap),
        options=merge_options,
        sets=sets,
    )
    if dry_run:
        _show(session.find_plan(request), json=json)
        return
    told = Told(json=json, quiet=quiet)
    running = Running(request, resume=resume, report=report, told=told)
    where = Where(jobs, max_memory, scheduler, tuple(resource or ()))
    if watch:
        running.watch(where, settle)
    else:
        running.once(where)
    told.end(folder)


@dataclass(frozen=True)
class Where:
    """Where sets are merged, as the command line says it."""

    jobs: int | None
    max_memory: str
    scheduler: str | None
    resource: tuple[str, ...]

    def place(self, work: "Sequence[Job]", *, pictures: bool) -> "Place":
        """Workers for these sets."""
        from hdrcli.batch import executors, memory

        if self.scheduler is None:
            limit = memory.parse(self.max_memory)
            held = self.max_memory != MOST  # what was asked for is kept; what is free is a guess
            return executors.processes_for(self.jobs, limit, work, pictures=pictures, held=held)
        offered = dict(_resource(text) for text in self.resource)
        return executors.Cluster(self.scheduler, resources=offered, pictures=pictures)


def _resource(text: str) -> tuple[str, float]:
    given = options.parse_parameter(text)
    return given.name, given.value


@dataclass
class Told:
    """What is said of each outcome as it comes, and at the end."""

    json: bool
    quiet: bool
    done: int = 0
    failed: int = 0

    def outcome(self, outcome: dict[str, Any]) -> None:
        """Files on stdout, a line each, or the whole outcome as JSON; errors on stderr."""
        if self.json:
            display.as_json_line(outcome)
        else:
            display.paths([Path(name) for name in outcome["outputs"]], quiet=self.quiet)
        if outcome["status"] == "failed":
            self.failed += 1
            error = outcome["error"]
            display.error(f"{outcome['name']}: {error['message']}", error.get("hint"))
            return
        self.done += 1
        for warning in outcome["warnings"]:
            display.note(f"{outcome['name']}: {warning}")
        display.note(f"{outcome['name']}: {outcome['seconds_total']:.1f} s, {outcome['backend']}")

    def end(self, folder: Path) -> None:
        """Exit code 5 where some failed."""
        if self.failed:
            raise BatchError(
                f"{self.failed} of {self.done + self.failed} sets failed",
                hint=f"{folder / 'outcomes.jsonl'} says why; the same command tries them again",
            )


@dataclass
class Running:
    """One command's work, once or again and again."""

    request: "Request"
    resume: bool
    report: bool
    told: Told

    def once(self, where: Where) -> None:
        """Find the sets and merge those that are not done."""
        from hdrcli.batch import run, session

        folder = self.request.naming.folder
        plan = session.find_plan(self.request)
        if not plan.jobs:
            display.warn(f"there is no bracket among {len(plan.singles)} photographs")
        with run.alone(folder):
            self._run(plan, where)

    def _run(self, plan: "Plan", where: Where) -> None:
        from hdrcli.batch import run, session

        folder = self.request.naming.folder
        overwrite = self.request.options.overwrite
        todo = run.todo_of(plan, folder, resume=self.resume, overwrite=overwrite)
        _say_what_is_left(plan, todo)
        if todo.jobs:
            place = where.place(todo.jobs, pictures=self.report)
            session.execute(todo.jobs, folder, place, self.told.outcome, report=self.report)

    def watch(self, where: Where, settle: float) -> None:
        """Merge what has settled, for ever."""
        from hdrcli.batch import run
        from hdrcli.batch.watch import settled_plans

        with run.alone(self.request.naming.folder):
            for plan in settled_plans(self.request, settle):
                try:
                    self._run(plan, where)
                except InputError as err:  # one set is in the way of an older file: go on watching
                    display.warn(str(err))


def _say_what_is_left(plan: "Plan", todo: "Todo") -> None:
    if todo.done:
        display.note(f"{len(todo.done)} of {len(plan.jobs)} sets are done already")
    if plan.singles:
        display.note(f"{len(plan.singles)} photographs are in no set; --dry-run lists them")
    for path, why in plan.left_out:
        display.note(f"{path} is left out: {why}")


def _show(plan: "Plan", *, json: bool) -> None:
    from hdrcli.batch import session
    from hdrcli.batch.plan import as_dict

    if json:
        display.as_json(as_dict(plan))
        return
    display.table((">set", "photograph", ">EV", "why"), session.rows(plan))
