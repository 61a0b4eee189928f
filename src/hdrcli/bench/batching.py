"""What a batch costs beside its merges: on one worker, on more, and on a cluster's."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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

    ``times_sum`` is over the seconds of the merges back to back, ``times_cpu`` the same of
    processor seconds, the workers' start and the page included, ``peak_mb`` the most that one
    process took. ``cluster`` adds as many Dask workers on loopback; their start is not counted.
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
    for row in rows:
        row["times_sum"] = round(row["seconds"] / rows[0]["seconds"], 3)
        row["times_cpu"] = round(row["cpu_seconds"] / rows[0]["cpu_seconds"], 3)
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
    with _spent() as spent:
        for job in jobs:
            merge_files(job.paths, job.outputs, job.options)
    return {"what": "merges back to back", **spent, "peak_mb": peak_mb()}


def _batch(card: Path, out: Path, options: MergeOptions, place: Place, what: str) -> dict[str, Any]:
    """A whole batch: photographs found and grouped, workers started, page and log written."""
    heard: list[Outcome] = []
    with _spent() as spent:
        session.execute(_jobs(card, out, options), out, place, heard.append)
    peaks = [outcome["peak_mb"] for outcome in heard if outcome.get("peak_mb")]
    failed = sum(outcome["status"] != "done" for outcome in heard)
    peak = max(peaks) if peaks else None
    return {"what": what, **spent, "peak_mb": peak, "failed": failed}


@contextmanager
def _spent() -> Iterator[dict[str, float]]:
    """Seconds by the clock, and of the processors by this process and all that it started."""
    before, start = _cpu_seconds(), time.perf_counter()
    spent: dict[str, float] = {}
    yield spent
    spent["seconds"] = round(time.perf_counter() - start, 3)
    spent["cpu_seconds"] = round(_cpu_seconds() - before, 3)


def _cpu_seconds() -> float:
    """Own, of ended children, and of those that live (Linux): the process workers come from."""
    return sum(os.times()[:4]) + sum(map(_cpu_seconds_of, _descendants(os.getpid())))


def _descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _descendants(child)


def _cpu_seconds_of(pid: int) -> float:
    """utime, stime, cutime and cstime of proc(5)."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it has ended
        return 0.0
    return sum(map(int, said.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


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
