"""When a camera is tried again, and how long the attempt may take."""

from __future__ import annotations

import random

from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.health import Fault

# A connection that held for so long ends the series of failures.
_STABLE_S = 5.0
# One attempt in so many gets the full patience: a camera may have become slower than it was.
_PATIENT_EVERY = 4


class Retry:
    """Exponential backoff with full jitter, and patience learnt from the last connection.

    Full jitter (a wait drawn evenly from zero to the bound) keeps many cameras behind one switch
    from coming back at the same moment. After a refused password the wait is at least half of its
    bound: drawn from zero, it would still hammer the camera now and then.

    Args:
        options: the bounds.
        rng: draws the waits.
    """

    def __init__(self, options: CaptureOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self._failures = 0
        self._refusals = 0
        self._opening_s: float | None = None
        self._seen_s: float | None = None

    def opened(self, took_s: float) -> None:
        """A connection gave its first frame after so long."""
        self._opening_s = took_s

    def seen(self, now: float, live_s: float) -> None:
        """A frame came over a connection that has been giving frames for ``live_s``."""
        self._seen_s = now
        self._refusals = 0
        if live_s >= _STABLE_S:
            self._failures = 0

    def recent(self, now: float) -> bool:
        """Whether the camera gave frames not long ago."""
        return self._seen_s is not None and now - self._seen_s <= self._options.recent_s

    def wait_s(self, fault: Fault, now: float) -> float:
        """Until the next attempt, after one that ended so."""
        options = self._options
        if fault is Fault.AUTH:
            bound = min(options.auth_retry_max_s, 2 * options.auth_retry_s * 2**self._refusals)
            self._refusals = min(self._refusals + 1, 30)
            return self._rng.uniform(bound / 2, bound)
        most = options.retry_recent_s if self.recent(now) else options.retry_max_s
        bound = min(most, options.retry_s * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        return self._rng.uniform(0, bound)

    def patience_s(self, now: float) -> float:
        """For the next attempt to connect.

        A camera that was live a moment ago and connected quickly then is not waited for long: the
        attempt may hang on a machine that is no more, while the camera is back.
        """
        most = self._options.open_s
        patient = self._failures % _PATIENT_EVERY == _PATIENT_EVERY - 1
        if self._opening_s is None or patient or not self.recent(now):
            return most
        return min(most, max(self._options.frozen_s, 2 * self._opening_s))
