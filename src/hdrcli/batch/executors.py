"""Where sets are merged: processes of this machine, or the workers of a Dask cluster.

Both are a ``concurrent.futures`` executor; what differs is how many sets may run at once, what
happens when a worker dies, and where the memory is.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from hdrcli.batch import memory
from hdrcli.batch.plan import Job
from hdrcli.batch.work import run_job
from hdrcli.errors import ResourceError, SetupError
from hdrcli.strips import default_threads

Outcome = dict[str, Any]

# what every merge imports: loaded once, in the process that the workers are copies of
LOADED = ("hdrcli.batch.work", "hdrcli.batch.pictures", "cv2", "OpenEXR", "exifread", "PIL.Image")
LOADED_BY_NETWORKS = ("torch", "hdrcli.backends.neural", "hdrcli.backends.flowmerge")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Place(Protocol):
    """Somewhere that sets can be merged."""

    def room(self, running: Sequence[Job], job: Job) -> bool:
        """Whether one more set may start beside those that run."""

    def refused(self, job: Job) -> str | None:
        """Why a set can never run here, or None."""

    def submit(self, job: Job) -> "Future[Outcome]":
        """Start one."""

    def again(self, job: Job, outcome: Outcome) -> bool:
        """Whether a set failed for want of memory, and may have more of it when it is alone."""

    def restart(self) -> None:
        """Make workers anew after one died."""

    def close(self) -> None:
        """Stop everything at once."""


class Processes:
    """Worker processes on this machine, as many as the memory takes.

    ``max_memory`` bounds all of them together: sets start beside each other as far as their
    estimates fit. Where the bound is ``held``, a worker can allocate no more than its set's share,
    and a set that needs more than was estimated runs again with all there is.
    """

    def __init__(
        self, jobs: int, max_memory: int, *, pictures: bool = True, held: bool = False
    ) -> None:
        self.jobs = jobs
        self.max_memory = max_memory
        self.held = held
        self.pictures = pictures
        self.threads = max(1, default_threads() // jobs)
        self.pool: Executor | None = None
        self.greedy: set[str] = set()  # sets that needed more than their estimate

    def room(self, running: Sequence[Job], job: Job) -> bool:
        """By number, and by what all of them need; idle workers keep their base."""
        if not running:
            return True
        if len(running) >= self.jobs:
            return False
        idle = (self.jobs - len(running) - 1) * memory.idle(job)
        return sum(map(self._share, running)) + self._share(job) + idle <= self.max_memory

    def _share(self, job: Job) -> int:
        """Bytes that a set's worker may take: all there is, where nothing runs beside it."""
        alone = self.jobs == 1 or job.target in self.greedy
        return self._all(job) if alone else min(memory.need(job), self._all(job))

    def _all(self, job: Job) -> int:
        """Bytes that a set may have when it runs alone."""
        return self.max_memory - (self.jobs - 1) * memory.idle(job)

    def refused(self, job: Job) -> str | None:
        """Where a set certainly needs more than all there may be."""
        wanted = memory.least(job)
        if wanted <= self._all(job):
            return None
        return (
            f"merging these {len(job.paths)} photographs takes about {wanted / 2**30:.1f} GB; "
            f"{self.max_memory / 2**30:.1f} GB may be used"
        )

    def submit(self, job: Job) -> "Future[Outcome]":
        """Start one, and the workers with the first."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                self.jobs, _context(job, self.threads), _begin, (self.threads,)
            )
        return self.pool.submit(
            run_job,
            job,
            threads=self.threads,
            pictures=self.pictures,
            max_memory=self._share(job) if self.held else None,
        )

    def again(self, job: Job, outcome: Outcome) -> bool:
        """Once, where the estimate was less than all there is."""
        if not outcome.get("error", {}).get("of_memory") or job.target in self.greedy:
            return False
        had = self._share(job)
        self.greedy.add(job.target)
        return had < self._all(job)

    def restart(self) -> None:
        """Forget the broken pool; the next set starts another."""
        self.close()

    def close(self) -> None:
        """Stop everything at once."""
        pool, self.pool = self.pool, None
        if pool is None:
            return
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _context(job: Job, threads: int) -> BaseContext:
    """How workers come to be: as copies of one process that has imported everything, on Linux.

    Elsewhere each starts from nothing: macOS' libraries do not live through a fork.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods() or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing.forkserver import ensure_running

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [*LOADED, *(LOADED_BY_NETWORKS if memory.is_neural(job) else ())]
    )
    with _threads_in_environment(threads):
        ensure_running()
    return context


@contextmanager
def _threads_in_environment(threads: int) -> Iterator[None]:
    """Libraries read the number of their threads from here while they are loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _begin(threads: int) -> None:
    """What every worker does first: leave Ctrl-C to the parent, and end when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    threading.Thread(target=_end_with_parent, name="orphan", daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def processes_for(
    jobs: int | None,
    max_memory: int,
    work: Sequence[Job],
    *,
    pictures: bool = True,
    held: bool = False,
) -> Processes:
    """As many workers as asked for, or as cores, sets and memory make sense of.

    Raises ResourceError where not even one worker fits.
    """
    idle = max((memory.idle(job) for job in work), default=memory.IDLE)
    fit = max_memory // idle
    if fit < 1:
        raise ResourceError(
            f"a worker takes about {idle >> 20} MB, and {max_memory >> 20} MB may be used",
            hint="raise --max-memory",
        )
    biggest = sorted((memory.need(job) for job in work), reverse=True)
    usual = biggest[len(biggest) // 4] if biggest else idle
    wanted = jobs or min(_cores(work), max(1, max_memory // usual))
    # idle workers take what the widest set needs for itself
    fit = min(fit, 1 + (max_memory - (biggest[0] if biggest else idle)) // idle)
    count = max(1, min(wanted, fit, len(work) or 1))
    return Processes(count, max_memory, pictures=pictures, held=held)


def _cores(work: Sequence[Job]) -> int:
    """One process per core; a GPU is one place."""
    gpu = any(job.options.device.startswith(("cuda", "mps")) for job in work)
    return 1 if gpu else default_threads()


class Cluster:
    """The workers of a Dask scheduler, which share the file system with this machine."""

    def __init__(
        self, address: str, *, resources: dict[str, float] | None = None, pictures: bool = True
    ) -> None:
        self.client = _client(address)
        self.pictures = pictures
        # pure=False: equal work is never answered from memory; a lost worker's sets run again
        self.pool: Executor = self.client.get_executor(
            pure=False, retries=2, resources=resources or None
        )

    def room(self, running: Sequence[Job], job: Job) -> bool:
        """Two sets per worker thread: one runs, one waits beside it."""
        threads = sum(self.client.nthreads().values())
        return len(running) < 2 * max(1, int(threads))

    def refused(self, job: Job) -> str | None:
        """Nothing is known here of the workers' memory."""
        return None

    def submit(self, job: Job) -> "Future[Outcome]":
        """Send one out; ``threads`` are those of the worker."""
        return self.pool.submit(run_job, job, pictures=self.pictures)

    def again(self, job: Job, outcome: Outcome) -> bool:
        """Their memory is not shared out here."""
        return False

    def restart(self) -> None:
        """The scheduler does that."""

    def close(self) -> None:
        """Forget what has not started, and leave the cluster as it was."""
        self.pool.shutdown(wait=False)  # Dask's own cancels what has not started
        self.client.close()


def _client(address: str) -> Any:  # noqa: ANN401  distributed has no types
    try:
        from distributed import Client
    except ImportError as err:
        raise SetupError(
            "--scheduler needs Dask, which is not installed", hint="pip install 'hdrcli[cluster]'"
        ) from err
    try:
        return Client(
            address,  # type: ignore[no-untyped-call]
            timeout="10s",
            set_as_default=False,
        )
    except (OSError, ValueError, TimeoutError) as err:
        raise SetupError(
            f"--scheduler {address}: no scheduler answers ({err})",
            hint="dask scheduler starts one; the address is tcp://HOST:8786",
        ) from err


def on_cluster(call: Callable[[], object], client: Any) -> dict[str, object]:  # noqa: ANN401
    """Call something once on every worker; answers by the worker's address."""
    answers: dict[str, object] = client.run(call)
    return answers
