"""One place for one frame: the newest, or in order with the one who puts it waiting."""

from __future__ import annotations

import threading

from centermask_edge.frame import Frame


class Latest:
    """A slot that holds at most one frame, whatever the speed of both sides."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Frames that were replaced before anybody took them."""
        return self._dropped

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return self._frame is None

    def put(self, frame: Frame) -> None:
        """Puts the frame in the place of whatever is there."""
        with self._changed:
            self._dropped += self._frame is not None
            self._frame = frame

    def wait_empty(self, timeout_s: float) -> bool:
        """Whether the last frame is taken, at the latest after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._frame is None, timeout_s)

    def take(self) -> Frame | None:
        """The frame that nobody took yet, or None."""
        with self._changed:
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return frame
