"""Tethered shooting: sets merged as they arrive."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from hdrcli.batch import session
from hdrcli.batch.plan import Job, Plan
from hdrcli.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

OFTEN = 1.0  # seconds between two looks at the folder, at most


def settled_plans(
    request: session.Request,
    settle: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.time,
) -> Iterator[Plan]:
    """A plan of the sets that are complete, whenever there are new ones; for ever.

    A set is complete when its files, and any newer one of the folder, have not changed for
    ``settle`` seconds: before that another photograph might still join it.
    """
    seen: dict[tuple[Path, ...], tuple[tuple[int, int], ...]] = {}
    while True:
        plan = _look(request)
        fresh = [job for job in plan.jobs if _is_settled(job, settle, now())]
        fresh = [job for job in fresh if seen.get(job.paths) != _state(job)]
        if fresh:
            seen |= {job.paths: _state(job) for job in fresh}
            yield replace(plan, jobs=tuple(fresh))
        sleep(min(OFTEN, settle / 4))


def _look(request: session.Request) -> Plan:
    """What is there now; nothing yet, or a file that is being written, is no error."""
    try:
        return session.find_plan(request)
    except (InputError, FileNotFoundError):
        session.check_options(request)
        return Plan(())


def _is_settled(job: Job, settle: float, now: float) -> bool:
    return all(now - path.stat().st_mtime >= settle for path in job.paths if path.exists())


def _state(job: Job) -> tuple[tuple[int, int], ...]:
    return tuple((s.st_size, s.st_mtime_ns) for s in (path.stat() for path in job.paths))
