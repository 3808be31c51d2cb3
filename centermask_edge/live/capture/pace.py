"""Frames of a file at the moments their time stamps say, as if a camera gave them."""

from __future__ import annotations

import time
from collections.abc import Callable

# A longer gap between two frames is taken for a damaged time stamp.
_MAX_GAP_S = 10.0


class Pace:
    """Waits that turn time stamps into moments.

    >>> pace = Pace(clock=lambda: 100.0)
    >>> [pace.wait_s(pts) for pts in (5.0, 5.5, 6.0)]
    [0.0, 0.5, 1.0]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._start_s: float | None = None
        self._last_s = 0.0

    def again(self) -> None:
        """The file begins anew: its first frame is due at once."""
        self._start_s = None

    def wait_s(self, pts_s: float) -> float:
        """Seconds until the frame with this time stamp is due; 0.0 where it is late."""
        now = self.now()
        jumped = not -_MAX_GAP_S <= pts_s - self._last_s <= _MAX_GAP_S
        if self._start_s is None or jumped:
            self._start_s = now - pts_s
        self._last_s = pts_s
        return max(0.0, self._start_s + pts_s - now)
