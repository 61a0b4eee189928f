"""How fast, and in how much memory: measured here, beside the least that could be done.

Times are wall-clock. What must not see the caches, settings or memory of anything else runs in a
process of its own (``fresh``), which also tells how much memory it had at its highest.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Timing:
    """Seconds of every run of one thing, in the order they ran: on the wall, of all processors."""

    runs: tuple[float, ...]
    processor: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The run in the middle."""
        return statistics.median(self.runs)

    @property
    def cpu_median(self) -> float:
        """The processors' seconds in the middle; they say more where others use the machine."""
        return statistics.median(self.processor)


def timed(work: Callable[[], object], runs: int) -> Timing:
    """Run ``work`` so many times."""
    seconds, processor = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), time.process_time()
        work()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - before)
    return Timing(tuple(seconds), tuple(processor))


def fresh(function: Callable[..., Result], *args: object) -> tuple[Result, int]:
    """Call a module's function in a new process: its result, and the peak memory in bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_with_peak, function, args).result()


def _with_peak(function: Callable[..., Result], args: Sequence[object]) -> tuple[Result, int]:
    result = function(*args)
    return result, peak_memory()


def peak_memory() -> int:
    """The most memory this process has had at once, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used << 10
