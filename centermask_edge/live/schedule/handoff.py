"""Between two threads of the pipeline: one place for work, and no more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
_TICK_S = 0.5  # nothing waits longer without looking whether the end has come


class Handoff(Generic[T]):
    """A queue of one. Once closed, what is in it can still be taken."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Waits for room; False where it was closed and the item is lost."""
        with self._changed:
            while self._item is not None and not self._closed:
                self._changed.wait(_TICK_S)
            if self._closed:
                return False
            self._item = item
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Waits for an item; None once it is closed and empty."""
        with self._changed:
            while self._item is None and not self._closed:
                self._changed.wait(_TICK_S)
            item, self._item = self._item, None
            self._changed.notify_all()
            return item

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether there is room, at the latest after ``timeout_s``."""
        with self._changed:
            if self._item is not None and not self._closed:
                self._changed.wait(timeout_s)
            return self._item is None or self._closed

    def close(self) -> None:
        """No more items; whoever waits goes on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Pace:
    """When to begin the next batch, so that it is ready just as the engine is, and no earlier.

    A frame prepared long before the engine is free only grows old.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._began_s: float | None = None
        self._engine_s: deque[float] = deque(maxlen=16)
        self._prepare_s: deque[float] = deque(maxlen=16)

    def begin(self) -> None:
        """The engine has begun."""
        with self._changed:
            self._began_s = self._clock()

    def end(self) -> None:
        """The engine is free."""
        with self._changed:
            if self._began_s is not None:
                self._engine_s.append(self._clock() - self._began_s)
            self._began_s = None
            self._changed.notify_all()

    def prepared(self, seconds: float) -> None:
        """What preparing a batch took."""
        with self._changed:
            self._prepare_s.append(seconds)

    def delay_s(self) -> float:
        """Seconds until the next batch is to be begun; 0 for at once."""
        if self._began_s is None or not self._engine_s or not self._prepare_s:
            return 0.0
        # A short guess of the engine and a long one of the preparation: a frame that waits a
        # little costs less than an engine that does.
        engine, prepare = np.percentile(self._engine_s, 25), np.percentile(self._prepare_s, 75)
        return max(float(self._began_s + engine - prepare - self._clock()), 0.0)

    def wait(self) -> None:
        """Returns when the next batch is to be begun."""
        with self._changed:
            delay = self.delay_s()
            if delay > 0:
                self._changed.wait(delay)
