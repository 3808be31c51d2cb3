"""One thread that owns a GPU's context and stream; calls from any other are sent to it.

A CUDA context is current on a thread, and TensorRT's execution contexts may be used by one thread
at a time. With one owner neither can go wrong, whichever thread a frame comes from.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from centermask_edge.engines.tensorrt.cuda import GpuError

T = TypeVar("T")

_Call = tuple[Callable[[], Any], "Future[Any]"]


class GpuThread:
    """A worker with a short queue: callers wait when it is full, so nothing piles up.

    Args:
        depth: calls that may wait.
    """

    def __init__(self, depth: int = 4) -> None:
        self._calls: queue.Queue[_Call | None] = queue.Queue(depth)
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(
            target=_work, args=(self._calls,), name="centermask-gpu", daemon=True
        )
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Sends work to the thread.

        Raises:
            GpuError: the thread has been closed.
        """
        future: Future[T] = Future()
        with self._lock:  # nothing is queued behind the end
            if self._closed:
                raise GpuError("this engine is closed; open it again to run more frames")
            self._calls.put((work, future))
        return future

    def call(self, work: Callable[[], T]) -> T:
        """The result of work done by the thread; what it raises is raised here.

        Work that is itself done by the thread runs at once.
        """
        if threading.current_thread() is self._thread:
            return work()
        return self.submit(work).result()

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Finishes what is queued, does the last work, and ends the thread. Twice is harmless.

        What ``last`` raises is raised here, after the thread has ended.
        """
        future: Future[None] = Future()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if last is not None:
                self._calls.put((last, future))
            self._calls.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if last is not None and future.done():
            future.result()


def _work(calls: queue.Queue[_Call | None]) -> None:
    # A function, not a method: the thread must not keep alive what it works for.
    while (call := calls.get()) is not None:
        work, future = call
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # the caller's to handle, whatever it is
                future.set_exception(error)
        del call, work, future
