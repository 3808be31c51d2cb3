"""Keeps the age of results below a limit by asking less of each frame, and no less than needed.

Three knobs, turned in this order: every how many fresh frames one is segmented, the short side of
the network's input, and in which of the segmented frames masks are computed. Fewer frames make
results younger only where frames wait for a busy engine, so that the first knob is left alone
where it is not busy, and comes back by itself as soon as it would not be. The others are turned
back in the reverse order when ages have room for it; what had to be undone is not tried again
for minutes, unless the load has changed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

STRIDES = (1, 2, 3, 4, 6)
REFRESHES = (1, 2, 4)
_SIZE_STEP = 32
_MOST_SIZES = 4
_SIZE_FLOOR = 0.7  # of the model's own short side: below, small objects are lost

_WINDOW_S = 2.0
_LEAST_SAMPLES = 8
_SETTLE_S = 1.0  # after a turn, for frames on their way and for networks that are compiled
_ROOM = 0.75  # of the limit: above it, nothing is turned back
_KEPT = 0.95  # of the limit: below it, a smaller stride for which there is time costs no age
_MOST_STEPS = 3
_CALM_S = 3.0  # there has to be room for so long
_FAILED_S = 20.0  # a turn back that had to be undone within this failed
_RETRY_S = 120.0  # what failed is tried again after this, and each further time after twice that
_LONGEST_RETRY_S = 1800.0
_OTHER_LOAD = 0.8  # an age below so much of the one at the failure means another load
_BUSY = 0.85  # share of the time an engine works from which on frames wait for it
_BUSY_AGAIN = 0.7  # that a smaller stride may lead to


class Knob(str, Enum):
    """What can be turned, in the order in which it is."""

    STRIDE = "stride"
    SIZE = "short side"
    MASKS = "mask refresh"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is asked of frames now.

    Attributes:
        stride: every how many fresh frames of a camera one is segmented.
        short_side: of the network's input in pixels.
        refresh: in every how many segmented frames of a camera masks are computed.
    """

    stride: int
    short_side: int
    refresh: int = 1

    def __str__(self) -> str:
        """In words for the terminal and the log."""
        every = "every frame" if self.stride == 1 else f"1 frame in {self.stride}"
        masks = "" if self.refresh == 1 else f", masks in 1 of {self.refresh}"
        return f"{every}, short side {self.short_side}{masks}"


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn of a knob, for the log.

    Attributes:
        time_s: by the governor's clock.
        before, after: the settings.
        age_p95_s: what it was decided on.
        limit_s: that was to be kept.
    """

    time_s: float
    before: Setting
    after: Setting
    age_p95_s: float
    limit_s: float

    def __str__(self) -> str:
        """One line."""
        age, limit = 1000 * self.age_p95_s, 1000 * self.limit_s
        relation = "over" if self.age_p95_s > self.limit_s else "within"
        return f"governor: {self.after} (age p95 {age:.0f} ms, {relation} {limit:.0f} ms)"


def short_sides(full: int, most: int = _MOST_SIZES, step: int = _SIZE_STEP) -> tuple[int, ...]:
    """Short sides from the model's own down to the floor, evenly, in multiples of ``step``.

    No more than ``most``: engines that compile a network for each size keep only so many, and
    compiling takes a second during which frames would grow old.

    >>> short_sides(352), short_sides(600)
    ((352, 320, 288, 256), (600, 544, 480, 448))
    """
    floor = math.ceil(_SIZE_FLOOR * full / step) * step
    below = list(range((full - 1) // step * step, floor - 1, -step))
    if len(below) >= most:
        picks = np.linspace(0, len(below) - 1, most)[1:]
        below = [below[round(float(pick))] for pick in picks]
    return (full, *below)


@dataclass(slots=True)
class _Failure:
    """A turn back that had to be undone."""

    age_s: float  # after it was undone: what this load costs one step below
    time_s: float
    wait_s: float


@dataclass(slots=True)
class _Knob:
    kind: Knob
    values: Sequence[int]
    place: int = 0
    failures: dict[int, _Failure] = field(default_factory=dict)

    @property
    def value(self) -> int:
        return self.values[self.place]


@dataclass(slots=True)
class _Turn:
    knob: _Knob
    down: bool
    time_s: float


class Governor:
    """Chooses a setting from the ages of the results.

    Args:
        limit_s: that the 95th percentile of the ages is to keep.
        sizes: short sides that may be used, the model's own first.
        refreshes: in every how many frames masks may be computed, 1 first; only 1 where the
            engine cannot leave them out.
        strides: every how many frames one may be segmented, 1 first.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limit_s: float,
        sizes: Sequence[int],
        refreshes: Sequence[int] = REFRESHES,
        strides: Sequence[int] = STRIDES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s, self._clock = limit_s, clock
        self._knobs = [
            _Knob(Knob.STRIDE, strides),
            _Knob(Knob.SIZE, sizes),
            _Knob(Knob.MASKS, refreshes),
        ]
        self._samples: deque[tuple[float, float]] = deque()
        self._changed_s = clock()
        self._room_since_s: float | None = None
        self._last: _Turn | None = None

    @property
    def setting(self) -> Setting:
        """What is asked of frames now."""
        stride, size, refresh = (knob.value for knob in self._knobs)
        return Setting(stride, size, refresh)

    @property
    def sizes(self) -> Sequence[int]:
        """Short sides it may ask for."""
        return self._knobs[1].values

    def observe(self, age_s: float, setting: Setting) -> None:
        """The age of one result, and the setting its frame was prepared under."""
        now = self._clock()
        if setting == self.setting and now >= self._changed_s + _SETTLE_S:
            self._samples.append((now, age_s))

    def decide(self, busy: float = 1.0) -> Decision | None:
        """Turns a knob if the ages ask for it; to be called a few times a second.

        Args:
            busy: share of the last seconds in which the slowest stage worked.
        """
        now = self._clock()
        while self._samples and self._samples[0][0] < now - _WINDOW_S:
            self._samples.popleft()
        if len(self._samples) < self._wanted(now):
            return None
        age = float(np.percentile([age for _, age in self._samples], 95))
        before = self.setting
        self._learn(age)
        if age > self.limit_s:
            self._room_since_s = None
            self._down(age, busy, now)
        else:
            self._up(age, busy, now)
        after = self.setting
        if after == before:
            return None
        self._changed_s, self._room_since_s = now, None
        self._samples.clear()
        return Decision(now, before, after, age, self.limit_s)

    def _wanted(self, now: float) -> int:
        """Samples without which nothing is decided: fewer, once they had time to come."""
        return _LEAST_SAMPLES if now < self._changed_s + _SETTLE_S + _WINDOW_S else 2

    def _learn(self, age: float) -> None:
        """Completes what is known of a turn back that was just undone."""
        for knob in self._knobs:
            failure = knob.failures.get(knob.place - 1)
            if failure is not None and math.isnan(failure.age_s):
                failure.age_s = age

    def _down(self, age: float, busy: float, now: float) -> None:
        """Asks less, by several steps where the age is far off."""
        last = self._last
        if last is not None and not last.down and now <= last.time_s + _FAILED_S:
            # Whatever the reason, it was the last turn back: another knob would only cover it up.
            self._undo(last.knob, now)
            return
        stride, size, masks = self._knobs
        order = [stride, size, masks] if busy >= _BUSY else [size, masks, stride]
        knob = next((k for k in order if k.place + 1 < len(k.values)), None)
        if knob is None:
            return
        steps = min(max(round(age / self.limit_s), 1), _MOST_STEPS)
        knob.place = min(knob.place + steps, len(knob.values) - 1)
        self._last = _Turn(knob, True, now)

    def _undo(self, knob: _Knob, now: float) -> None:
        """Takes a turn back and remembers that it failed."""
        known = knob.failures.get(knob.place)
        wait = _RETRY_S if known is None else min(2 * known.wait_s, _LONGEST_RETRY_S)
        knob.failures[knob.place] = _Failure(math.nan, now, wait)
        knob.place += 1
        self._last = _Turn(knob, True, now)

    def _up(self, age: float, busy: float, now: float) -> None:
        """Asks more, once there was room for a while and nothing is known against it."""
        stride, size, masks = self._knobs
        free = stride.place > 0 and self._busy_at_smaller_stride(busy) <= _BUSY_AGAIN
        if age > (_KEPT if free else _ROOM) * self.limit_s:
            self._room_since_s = None
            return
        if self._room_since_s is None:
            self._room_since_s = now
        if now < self._room_since_s + _CALM_S:
            return
        order = [stride, masks, size] if free else [masks, size]
        knob = next((k for k in order if k.place and self._may_turn_back(k, age, now)), None)
        if knob is not None:
            knob.place -= 1
            self._last = _Turn(knob, False, now)

    def _busy_at_smaller_stride(self, busy: float) -> float:
        stride = self._knobs[0]
        return busy * stride.value / stride.values[stride.place - 1]

    def _may_turn_back(self, knob: _Knob, age: float, now: float) -> bool:
        failure = knob.failures.get(knob.place - 1)
        if failure is None or now >= failure.time_s + failure.wait_s:
            return True
        if age < _OTHER_LOAD * failure.age_s:
            del knob.failures[knob.place - 1]
            return True
        return False
