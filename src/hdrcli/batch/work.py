"""One set merged, in whatever process or on whatever machine this runs."""

import logging
import os
import platform
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hdrcli import __version__, device
from hdrcli.batch import memory
from hdrcli.batch.plan import Job
from hdrcli.batch.stamp import IDLE
from hdrcli.errors import HdrcliError, SetupError
from hdrcli.pipeline import Merged, MergeOptions, merge_files
from hdrcli.provenance import command_line

_ONE = threading.Lock()  # threads of one process share OpenCV's settings and the memory


def run_job(
    job: Job, *, threads: int | None = None, pictures: bool = True, max_memory: int | None = None
) -> dict[str, Any]:
    """Merge a set and write its files. Whatever goes wrong becomes part of the outcome.

    ``max_memory``: bytes that this process may have. ``peak_mb`` is what it took.
    """
    start, worked = time.perf_counter(), time.process_time()
    outcome = _about(job)
    said: list[str] = []
    with _ONE, heard(said):
        memory.forget_peak()
        try:
            with memory.limited(max_memory):
                outcome |= _merged(job, threads, pictures=pictures)
        except Exception as err:  # noqa: BLE001  one bad set never stops the rest
            said_of = _no_memory(job, max_memory) if memory.is_lack(err) else _error(err)
            outcome |= {"status": "failed", "error": said_of}
    device.give_back()  # or the next set begins with the last one's leavings
    known = outcome.get("warnings", [])
    outcome["warnings"] = list(dict.fromkeys([*known, *said]))
    outcome["seconds_total"] = round(time.perf_counter() - start, 3)
    outcome["cpu_seconds"] = round(time.process_time() - worked, 3)
    return outcome | {"peak_mb": peak_mb(), "host": platform.node(), "pid": os.getpid()}


def _about(job: Job) -> dict[str, Any]:
    return {
        "set": job.index,
        "name": job.name,
        "target": job.target,
        "status": "done",
        "inputs": [str(path) for path in job.paths],
        "evs": list(job.evs),
        "outputs": [],
        "why_together": list(job.why),
        "stamp": job.stamp,
    }


def _merged(job: Job, threads: int | None, *, pictures: bool) -> dict[str, Any]:
    if job.stamp and job.stamp["version"] != __version__:
        raise SetupError(
            f"this worker has hdrcli {__version__}, the batch {job.stamp['version']}",
            hint="install the same version on every machine",
        )
    seen: dict[str, Any] = {}

    def look(merged: Merged) -> None:
        from hdrcli.batch.pictures import pictures as pictures_of

        seen["pictures"] = pictures_of(merged, job.options)

    options = replace(job.options, threads=job.options.threads or threads)
    token = command_line.set(_words(job))
    try:
        done = merge_files(job.paths, job.outputs, options, look=look if pictures else None)
    finally:
        command_line.reset(token)
    facts = done.as_dict()
    return facts | {"evs": facts["evs"]} | seen


def _words(job: Job) -> list[str]:
    """The command that would have merged this set alone, as far as it changes the files."""
    said = ["merge", *(word for path in job.outputs for word in ("-o", path.name))]
    for option in fields(job.options):
        value, usual = getattr(job.options, option.name), getattr(MergeOptions(), option.name)
        if option.name not in (*IDLE, "preview") and value != usual:
            said += [f"--{option.name.replace('_', '-')}", str(value)]
    return said


def _error(err: Exception) -> dict[str, Any]:
    """What a user can cure in one line; a bug with its traceback."""
    said = {"type": type(err).__name__, "message": str(err) or type(err).__name__}
    if isinstance(err, HdrcliError):
        return said | {"hint": err.hint, "exit_code": err.exit_code}
    return said | {"traceback": traceback.format_exc()}


def _no_memory(job: Job, most: int | None) -> dict[str, Any]:
    """``of_memory`` tells whoever started this that more memory might do."""
    had = "all there is" if most is None else f"{most / 2**30:.1f} GB"
    return {
        "type": "ResourceError",
        "message": f"merging these {len(job.paths)} photographs takes more memory than {had}",
        "hint": "raise --max-memory, or --jobs 1, or a smaller --tile for networks",
        "exit_code": 4,
        "of_memory": True,
    }


@contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Keep what the library warns of, for the outcome, instead of showing it."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = logging.getLogger("hdrcli")
    before, level = logger.handlers, logger.level
    ear = Ear(logging.WARNING)
    # what was set up for the terminal stays for -v, warnings are for the outcome
    logger.handlers, logger.propagate = [ear], False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, True
        logger.setLevel(level)


def peak_mb() -> float | None:
    """The most memory this process had since ``memory.forget_peak``, in MB; None if untold."""
    status = Path("/proc/self/status")
    if status.is_file():  # a child's rusage starts with its parent's peak
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return round(int(match[1]) / 1024, 1) if match else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if platform.system() == "Darwin" else 1 << 10), 1)
