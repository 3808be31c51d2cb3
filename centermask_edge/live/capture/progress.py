"""Where a camera stands, worked out from what happened and when; no threads, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.capture.retry import Retry
from centermask_edge.live.health import Fault, Health, State

_RATE_WINDOW_S = 5.0
_RATE_LEAST_S = 0.5
# FFmpeg's own time-outs know better what failed: they get so much longer than the watchdog.
_SLACK_S = 0.3


class Phase(Enum):
    """What is being waited for."""

    RETRY = "retry"
    OPENING = "opening"
    FIRST = "first frame"
    NEXT = "next frame"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a connection is over: the fault and one line for the operator."""

    fault: Fault
    message: str


class Progress:
    """The state of one camera; every moment is handed in, in seconds of a monotonic clock.

    Args:
        name: of the camera.
        options: the bounds.
        retry: when to try again.
        live: whether silence is a fault; a file may take its time.
    """

    def __init__(self, name: str, options: CaptureOptions, retry: Retry, *, live: bool) -> None:
        self.phase = Phase.RETRY
        self.retry_at_s = 0.0
        self.frames = 0
        self._name = name
        self._options = options
        self._retry = retry
        self._live = live
        self._state = State.CONNECTING
        self._trouble: Trouble | None = None
        self._connections = 0
        self._decoder = ""
        self._note = ""
        self._since_s = 0.0
        self._within_s = 0.0
        self._live_since_s = 0.0
        self._times: deque[float] = deque(maxlen=512)

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self.phase is Phase.OVER

    def attempt(self, now: float) -> float:
        """A connection is being made; returns the seconds it may take."""
        self.phase, self._since_s = Phase.OPENING, now
        self._within_s = self._retry.patience_s(now)
        # A frozen camera stays frozen until it gives a frame or fails in another way.
        if self._state is not State.FROZEN:
            self._state = State.CONNECTING
        return self._within_s

    def opened(self, now: float) -> None:
        """The connection stands."""
        self.phase = Phase.FIRST
        self._live_since_s = now
        self._connections += 1

    def decoding(self, decoder: str, note: str) -> None:
        """What decodes, and why not something faster."""
        self._decoder, self._note = decoder, note

    def frame(self, now: float) -> bool:
        """A frame came; returns whether it is the first of its connection."""
        first = self.phase is Phase.FIRST
        if first:
            self._retry.opened(now - self._since_s)
            self._live_since_s = now
        self._retry.seen(now, now - self._live_since_s)
        self.phase, self._state, self._since_s = Phase.NEXT, State.LIVE, now
        self.frames += 1
        self._times.append(now)
        return first

    def failed(self, trouble: Trouble, now: float) -> None:
        """The connection is over; the next attempt is due at ``retry_at_s``."""
        self.phase, self._trouble = Phase.RETRY, trouble
        self._state = State.FROZEN if trouble.fault is Fault.FROZEN else State.WAITING
        self.retry_at_s = now + self._retry.wait_s(trouble.fault, now)

    def end(self, trouble: Trouble | None = None) -> None:
        """Nothing will come any more, with or without a fault."""
        self.phase, self._state = Phase.OVER, State.ENDED
        self._trouble = trouble or self._trouble

    def late(self, now: float, heard_s: float | None) -> Trouble | None:
        """Why the connection must be given up now, or None.

        Args:
            now: the time.
            heard_s: when the last data came, decoded or not; None where the source cannot say.
        """
        due = [(at, trouble) for at, trouble in self._deadlines(heard_s) if at <= now]
        return min(due, key=lambda pair: pair[0])[1] if due else None

    def look_again_s(self, now: float, heard_s: float | None) -> float | None:
        """Seconds until :meth:`late` can change its answer; None where only an event can."""
        if self.phase is Phase.RETRY:
            return max(0.0, self.retry_at_s - now)
        times = [at for at, _ in self._deadlines(heard_s)]
        return max(0.0, min(times) - now) if times else None

    def _deadlines(self, heard_s: float | None) -> Iterator[tuple[float, Trouble]]:
        options = self._options
        if not self._live:
            return
        if self.phase is Phase.OPENING:
            text = f"no answer within {self._within_s:.1f} s; check that it is on and reachable"
            yield self._since_s + self._within_s + _SLACK_S, Trouble(Fault.TIMEOUT, text)
        elif self.phase is Phase.FIRST:
            if heard_s is not None:
                text = f"connected, but no data for {options.frozen_s:.1f} s"
                last = max(heard_s, self._live_since_s)
                yield last + options.frozen_s, Trouble(Fault.FROZEN, text)
            text = f"connected, but no picture within {options.first_frame_s:.0f} s"
            fault = Fault.FROZEN if heard_s is None else Fault.CODEC
            yield self._live_since_s + options.first_frame_s, Trouble(fault, text)
        elif self.phase is Phase.NEXT:
            talks = heard_s is not None and heard_s > self._since_s + options.frozen_s / 2
            text = f"no frame for {options.frozen_s:.1f} s{', though data comes' if talks else ''}"
            yield self._since_s + options.frozen_s, Trouble(Fault.FROZEN, text)

    def health(self, now: float, dropped: int) -> Health:
        """How it is now; ``dropped`` frames were replaced before anybody took them."""
        return Health(
            camera=self._name,
            state=self._state,
            fault=self._trouble.fault if self._trouble else None,
            message=self._trouble.message if self._trouble else "",
            frames=self.frames,
            dropped=dropped,
            reconnects=max(0, self._connections - 1),
            rate_hz=self._rate_hz(now),
            decoder=self._decoder,
            note=self._note,
        )

    def _rate_hz(self, now: float) -> float:
        times = [time for time in self._times if time > now - _RATE_WINDOW_S]
        if len(times) < 2:
            return 0.0
        # Up to now and not up to the last one, so that a camera that stopped slows down; and not
        # over the moment in which a new connection hands over what it has kept.
        return (len(times) - 1) / max(now - times[0], _RATE_LEAST_S)
