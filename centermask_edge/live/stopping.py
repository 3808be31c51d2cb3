"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Stop:
    """The signal that asked for the end; 0 before it came."""

    signum: int = 0


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """What the first SIGINT or SIGTERM sets; the second raises ``KeyboardInterrupt``.

    Outside the main thread no signal can be caught, and none is.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.signum:
            raise KeyboardInterrupt
        stop.signum = signum

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
