"""Stages that overlap: a generator that runs ahead in a thread, and a worker that is fed.

Queues are short, so that memory does not depend on the length of a clip.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL = 0.1  # seconds between two looks at whether the other side has gone


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], depth: int = 3) -> Generator[Item, None, None]:
    """The same items, made in a thread up to ``depth`` before they are asked for.

    An error of the source comes out here. Closing this generator ends the thread.
    """
    line: queue.Queue[Item | _End] = queue.Queue(depth)
    gone = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, line, gone), name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := line.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        gone.set()
        thread.join()


def _fill(items: Iterable[Item], line: "queue.Queue[Item | _End]", gone: threading.Event) -> None:
    end = _End()
    source = iter(items)
    try:
        for item in source:
            if not _put(line, item, gone):
                break
    except BaseException as err:  # noqa: BLE001  raised again where the items are taken
        end = _End(err)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()
        _put(line, end, gone)


def _put(line: "queue.Queue[Item | _End]", item: Item | _End, gone: threading.Event) -> bool:
    while not gone.is_set():
        try:
            line.put(item, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False


def side_by_side(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    count: int,
    limit: Callable[[Item], int] = lambda _item: 1 << 30,
) -> Generator[Result, None, None]:
    """``work`` done with each item, ``count`` at once; results in the order of the items.

    ``limit`` tells of an item how many such may be at hand at once. OpenCV's own threads rest
    meanwhile: the items fill the cores.
    """
    if count == 1:
        for item in items:
            yield work(item)
        return
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    waiting: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(count, thread_name_prefix="merge") as pool:
            for item in items:
                while len(waiting) >= min(count + 1, limit(item)):
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        cv2.setNumThreads(before)


class Worker(Generic[Item]):
    """Calls ``work`` with each item that is put, in a thread, in order.

    An error of the work is raised by the next ``put``, or by ``finish``.
    """

    def __init__(self, work: Callable[[Item], None], depth: int = 2) -> None:
        self.work = work
        self.line: queue.Queue[Item | _End] = queue.Queue(depth)
        self.error: BaseException | None = None
        self.failed = threading.Event()
        self.thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self.thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item; waits while the line is full."""
        _put(self.line, item, self.failed)
        self._check()

    def finish(self) -> None:
        """Wait until all is done."""
        _put(self.line, _End(), self.failed)
        self.thread.join()
        self._check()

    def abandon(self) -> None:
        """Stop after the item at hand, and forget the others."""
        self.failed.set()
        self.thread.join()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while not self.failed.is_set():
            try:
                item = self.line.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                return
            try:
                self.work(item)
            except BaseException as err:  # noqa: BLE001  raised again by put or finish
                self.error = err
                self.failed.set()
