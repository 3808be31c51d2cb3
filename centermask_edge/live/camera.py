"""What the scheduler knows of a camera, and the bell by which cameras wake it."""

from __future__ import annotations

import threading
from typing import Protocol

from centermask_edge.frame import Frame
from centermask_edge.live.health import Health


class Bell:
    """Wakes one waiting thread when any of many cameras has something new."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        """Something is new."""
        self._rung.set()

    def wait(self, timeout_s: float) -> bool:
        """Whether it rang since the last call, at the latest after ``timeout_s``."""
        rang = self._rung.wait(timeout_s)
        self._rung.clear()
        return rang


class Camera(Protocol):
    """A source behind a thread of its own; nothing here blocks."""

    @property
    def name(self) -> str:
        """Unique among the cameras of a run, never with credentials."""

    @property
    def done(self) -> bool:
        """Whether no frame will come any more and the last one was taken."""

    def start(self, bell: Bell) -> None:
        """Starts the thread; the bell rings for each fresh frame and each change of state."""

    def take(self) -> Frame | None:
        """The freshest frame that nobody took yet, or None."""

    def health(self) -> Health:
        """How it is now."""

    def stop(self) -> None:
        """Ends the thread within a second and closes the source; may be called twice."""
