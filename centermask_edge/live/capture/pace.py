"""Frames of a file at the moments their time stamps say, as if a camera gave them."""

from __future__ import annotations

import time
from collections.abc import Callable

# A longer gap between two frames is taken for a damaged time stamp.
_MAX_GAP_S = 10.0


class Pace:
    """Waits that turn time stamps into moments, and time stamps that go on when a file begins anew.

    >>> pace = Pace(clock=lambda: 100.0)
    >>> [pace.wait_s(pace.stamp_s(pts)) for pts in (5.0, 5.5, 6.0)]
    [0.0, 0.5, 1.0]
    >>> pace.again()
    >>> pace.stamp_s(5.0)
    6.5
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._start_s: float | None = None
        self._due_s = 0.0
        self._last_s: float | None = None
        self._step_s = 0.0
        self._offset_s = 0.0
        self._again = False

    def again(self) -> None:
        """The file begins anew: its first frame follows the last as any other would."""
        self._again = True

    def stamp_s(self, pts_s: float) -> float:
        """The time stamp of a frame, counted on over the beginnings of the file."""
        if self._again and self._last_s is not None:
            self._offset_s = self._last_s + self._step_s - pts_s
        self._again = False
        stamp = pts_s + self._offset_s
        if self._last_s is not None and 0 < stamp - self._last_s <= _MAX_GAP_S:
            self._step_s = stamp - self._last_s
        self._last_s = stamp
        return stamp

    def wait_s(self, stamp_s: float) -> float:
        """Seconds until the frame with this stamp is due; 0.0 where it is late."""
        now = self.now()
        jumped = abs(stamp_s - self._due_s) > _MAX_GAP_S
        if self._start_s is None or jumped:
            self._start_s = now - stamp_s
        self._due_s = stamp_s
        return max(0.0, self._start_s + stamp_s - now)
