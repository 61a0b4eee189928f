"""What a batch costs beside its merges: on one worker, on more, and on a cluster's."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hdrcli.batch import executors, run, session
from hdrcli.batch.executors import Outcome, Place
from hdrcli.batch.grouping import Rules
from hdrcli.batch.memory import available
from hdrcli.batch.plan import Job, Naming
from hdrcli.batch.work import peak_mb
from hdrcli.example import Example, write_example
from hdrcli.pipeline import MergeOptions, merge_files

Progress = Callable[[str, float], None]


def measure(
    *,
    sets: int = 12,
    size: tuple[int, int] = (480, 320),
    jobs: Sequence[int] = (1, 2),
    cluster: bool = False,
    backend: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Seconds of a batch of equal sets: merged back to back here, then by workers.

    ``times_sum`` is over the seconds of the merges back to back, ``peak_mb`` the most that one
    process took. ``cluster`` adds as many Dask workers on loopback.
    """
    say = progress or (lambda _stage, _done: None)
    with tempfile.TemporaryDirectory(prefix="hdrcli-bench-") as name:
        folder = Path(name)
        say("photographs", 0.0)
        card = _card(folder / "card", sets, size)
        options = MergeOptions(backend=backend, threads=1)
        rows = [_back_to_back(card, folder / "alone", options)]
        for count in jobs:
            say(f"{count} processes", rows.__len__() / (1 + 2 * len(jobs)))
            place = executors.Processes(count, available())
            rows.append(_batch(card, folder / f"p{count}", options, place, f"{count} processes"))
        for count in jobs if cluster and find_spec("distributed") else ():
            say(f"{count} Dask workers", rows.__len__() / (1 + 2 * len(jobs)))
            with _loopback(count) as address:
                there = executors.Cluster(address)
                title = f"{count} Dask workers"
                rows.append(_batch(card, folder / f"d{count}", options, there, title))
    total = rows[0]["seconds"]
    for row in rows:
        row["times_sum"] = round(row["seconds"] / total, 3)
    return {"sets": sets, "size": list(size), "cores": os.cpu_count(), "rows": rows}


def _card(folder: Path, sets: int, size: tuple[int, int]) -> Path:
    """A folder of folders, each with the same bracket."""
    first = folder / "set001"
    write_example(first, Example(size=size))
    (first / "truth.exr").unlink()
    for i in range(2, sets + 1):
        shutil.copytree(first, folder / f"set{i:03d}")
    return folder


def _jobs(card: Path, out: Path, options: MergeOptions) -> tuple[Job, ...]:
    naming = Naming(out)
    request = session.Request((card,), naming, Rules("folder"), options)
    return run.todo_of(session.find_plan(request), out).jobs


def _back_to_back(card: Path, out: Path, options: MergeOptions) -> dict[str, Any]:
    jobs = _jobs(card, out, options)
    run.begin(out, jobs)
    merge_files(jobs[0].paths, jobs[0].outputs, jobs[0].options)  # imports are paid for here
    start = time.perf_counter()
    for job in jobs:
        merge_files(job.paths, job.outputs, job.options)
    seconds = time.perf_counter() - start
    return {"what": "merges back to back", "seconds": round(seconds, 3), "peak_mb": peak_mb()}


def _batch(card: Path, out: Path, options: MergeOptions, place: Place, what: str) -> dict[str, Any]:
    """A whole batch: photographs found and grouped, workers started, page and log written."""
    heard: list[Outcome] = []
    start = time.perf_counter()
    session.execute(_jobs(card, out, options), out, place, heard.append)
    seconds = time.perf_counter() - start
    peaks = [outcome["peak_mb"] for outcome in heard if outcome.get("peak_mb")]
    failed = sum(outcome["status"] != "done" for outcome in heard)
    peak = max(peaks) if peaks else None
    return {"what": what, "seconds": round(seconds, 3), "peak_mb": peak, "failed": failed}


@contextmanager
def _loopback(workers: int) -> Iterator[str]:
    """A scheduler and worker processes on this machine."""
    from distributed import LocalCluster

    cluster = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    )
    try:
        yield str(cluster.scheduler_address)
    finally:
        cluster.close()
