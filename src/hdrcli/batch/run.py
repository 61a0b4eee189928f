"""A batch from plan to outcomes: what is done already, what runs, what is written down."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hdrcli.batch.executors import Outcome, Place
from hdrcli.batch.outcomes import OutcomeLog
from hdrcli.batch.plan import Job, Plan
from hdrcli.batch.stamp import difference, stamp
from hdrcli.errors import InputError, SetupError
from hdrcli.formats.save import REPEATED, make_folder

FOLDER = ".hdrcli"  # in the output folder: what the batch knows of itself
BEGUN = "begun"  # in it: outputs that an unfinished batch may have written
TRIES = 2  # a set whose worker died twice is not tried again

Heard = Callable[[Outcome], None]


@dataclass(frozen=True)
class Todo:
    """What of a plan is to be done, and what is done already."""

    jobs: tuple[Job, ...]
    done: tuple[Job, ...] = ()


def todo_of(plan: Plan, folder: Path, *, resume: bool = True, overwrite: bool = False) -> Todo:
    """Compare a plan with the outcomes of earlier batches in its folder.

    A set is done where its last outcome has the same stamp and all its files are there. Files
    that an unfinished batch left are its own and are written again. Raises InputError for any
    other file that exists, unless ``overwrite``.
    """
    before = OutcomeLog(folder).latest() if resume else {}
    begun = _begun(folder) if resume else set()
    jobs, done = [], []
    for job in plan.jobs:
        job = replace(job, stamp=stamp(job.paths, job.outputs, job.options))
        last = before.get(job.target, {})
        if _is_done(job, last):
            done.append(job)
            continue
        if not overwrite:
            _refuse(job, last, begun)
        jobs.append(replace(job, options=replace(job.options, overwrite=True)))
    return Todo(tuple(jobs), tuple(done))


def _is_done(job: Job, last: Outcome) -> bool:
    return (
        last.get("status") == "done"
        and difference(last.get("stamp", {}), job.stamp) is None
        and all(path.is_file() for path in job.outputs)
    )


def _refuse(job: Job, last: Outcome, begun: set[str]) -> None:
    """Raise InputError for a file that is not what this very set left when it failed."""
    there = [path for path in job.outputs if path.exists() and str(path) not in begun]
    why = difference(last.get("stamp", {}), job.stamp) if last else "not of this batch"
    if not there or why is None:
        return
    raise InputError(
        f"{there[0]}: the file exists ({why})",
        hint="--overwrite replaces it, or choose another -o",
    )


# ---- what a killed batch leaves --------------------------------------------------------------


def _begun(folder: Path) -> set[str]:
    path = folder / FOLDER / BEGUN
    if not path.is_file():
        return set()
    return set(path.read_text(encoding="utf-8", errors="surrogateescape").split("\0"))


def begin(folder: Path, jobs: Sequence[Job]) -> None:
    """Make the folders, write down what is going to be written, and sweep up old remains."""
    make_folder(folder / FOLDER)
    outputs = [path for job in jobs for path in job.outputs]
    for parent in {path.parent for path in outputs}:
        make_folder(parent)
    _note_begun(folder, _begun(folder) | set(map(str, outputs)))
    sweep(outputs)


def finish(folder: Path, jobs: Sequence[Job]) -> None:
    """These are unfinished no more; others may be, of a batch that was killed before."""
    _note_begun(folder, _begun(folder) - {str(path) for job in jobs for path in job.outputs})


def _note_begun(folder: Path, outputs: set[str]) -> None:
    if outputs:
        write_whole(folder / FOLDER / BEGUN, "\0".join(sorted(outputs)), durable=True)
    else:
        (folder / FOLDER / BEGUN).unlink(missing_ok=True)


def sweep(outputs: Sequence[Path]) -> None:
    """Remove the temporary files of these outputs, which a killed process left."""
    names = {(path.name[:REPEATED], path.suffix) for path in outputs}
    for parent in {path.parent for path in outputs}:
        for entry in os.scandir(parent):
            match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.part(\.\w+)", entry.name, re.DOTALL)
            if match and match.groups() in names:
                Path(entry.path).unlink(missing_ok=True)


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a file of our own whole or not at all; ``durable``: on disk before this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One batch per output folder: SetupError while another runs. The system forgets the dead."""
    make_folder(folder / FOLDER)
    with (folder / FOLDER / "lock").open("w") as file:
        _lock(file.fileno(), folder)
        yield


def _lock(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise SetupError(
            f"another batch is writing to {folder}", hint="wait for it, or choose another -o"
        ) from err
    except OSError:  # a file system without locks
        return


# ---- running ---------------------------------------------------------------------------------


@dataclass
class Runner:
    """Runs jobs at a place, and hears of each as it ends."""

    place: Place
    heard: Heard
    tries: dict[str, int] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all of them; the order of ending is that of the workers."""
        waiting = deque(jobs)
        running: dict[Future[Outcome], Job] = {}
        try:
            while waiting or running:
                self._start(waiting, running)
                if running:
                    self._collect(waiting, running)
        finally:
            self.place.close()

    def _start(self, waiting: deque[Job], running: dict[Future[Outcome], Job]) -> None:
        while waiting:
            job = waiting[0]
            refused = self.place.refused(job)
            if refused is not None:
                self.heard(lost(waiting.popleft(), refused, "raise --max-memory"))
                continue
            suspect = any(self.tries.get(j.target) for j in (job, *running.values()))
            if not self.place.room(list(running.values()), job) or (suspect and running):
                return
            running[self.place.submit(waiting.popleft())] = job

    def _collect(self, waiting: deque[Job], running: dict[Future[Outcome], Job]) -> None:
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        broken = []
        for future in finished:
            job = running.pop(future)
            try:
                outcome = future.result()
            except (BrokenProcessPool, CancelledError):
                broken.append(job)
            except (OSError, RuntimeError) as err:  # Dask's KilledWorker and lost connections
                self.heard(lost(job, f"its worker was lost ({err})", "try it again"))
            else:
                if self.place.again(job, outcome):
                    waiting.append(job)
                else:
                    self.heard(stamped(outcome))
        if broken:
            self._again([*broken, *running.values()], waiting)
            running.clear()

    def _again(self, jobs: Sequence[Job], waiting: deque[Job]) -> None:
        """A worker died and took the others with it: each set is tried once more, alone."""
        self.place.restart()
        sweep([path for job in jobs for path in job.outputs])
        for job in reversed(jobs):
            self.tries[job.target] = self.tries.get(job.target, 0) + 1
            if self.tries[job.target] < TRIES:
                waiting.appendleft(job)
            else:
                hint = "it may need more memory than there is: --jobs 1, or a smaller --tile"
                self.heard(lost(job, "the process that merged it died twice", hint))


def lost(job: Job, message: str, hint: str) -> Outcome:
    """The outcome of a set that no worker could speak of."""
    said = {"type": "ResourceError", "message": message, "hint": hint, "exit_code": 4}
    about: dict[str, Any] = {
        "set": job.index,
        "name": job.name,
        "target": job.target,
        "status": "failed",
        "inputs": [str(path) for path in job.paths],
        "evs": list(job.evs),
        "outputs": [],
        "why_together": list(job.why),
        "stamp": job.stamp,
        "warnings": [],
        "error": said,
        "seconds_total": 0.0,
    }
    return stamped(about)


def stamped(outcome: Outcome) -> Outcome:
    """The outcome with the time at which it became known."""
    return outcome | {"when": datetime.now(UTC).isoformat(timespec="seconds")}


def card_of(outcome: Outcome) -> str:
    """The name under which the pictures of a set are kept."""
    import hashlib

    return hashlib.sha256(outcome["target"].encode("utf-8", "surrogateescape")).hexdigest()[:16]


def forget_empty(folder: Path) -> None:
    """Remove the folders of a batch that has written nothing."""
    with suppress(OSError):
        folder.rmdir()
