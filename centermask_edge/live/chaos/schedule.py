"""What goes wrong with which camera, and when: ``freeze@10+5,reset@20#2``, or ``random``."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from centermask_edge.errors import ConfigError


class Mishap(str, Enum):
    """What a camera does that it should not."""

    FREEZE = "freeze"
    RESET = "reset"
    REFUSE = "refuse"
    UNAUTHORISED = "unauthorised"
    NOT_FOUND = "not-found"
    RESOLUTION = "resolution"
    LATENCY = "latency"
    LOSS = "loss"
    GARBAGE = "garbage"
    HUGE_SDP = "huge-sdp"
    ENDLESS_HEADERS = "endless-headers"
    BAD_H264 = "bad-h264"
    HUGE_FRAMES = "huge-frames"


RANDOM = "random"
USUAL_S = 5.0
_EVENT = re.compile(r"([\w-]+)@(\d+(?:\.\d+)?)(?:\+(\d+(?:\.\d+)?))?(?:#(\d+))?", re.ASCII)
_RANDOM = re.compile(rf"{RANDOM}(?::(\d{{1,9}}))?", re.ASCII)
_LATEST_S = 7 * 86400.0
_SHORTEST_S = 0.1
# Of random schedules: seconds between two mishaps, and what they last.
_PAUSE_S = (5.0, 15.0)
_LASTS_S = (1.0, 6.0)
# After a refused password a camera is left alone for a minute: nothing else would happen to it.
_DRAWN = tuple(mishap for mishap in Mishap if mishap is not Mishap.UNAUTHORISED)

Change = tuple[float, Mishap | None]
"""Seconds from the beginning, and what is wrong from then on; None for nothing."""


@dataclass(frozen=True, slots=True)
class Event:
    """One mishap.

    Attributes:
        mishap: what happens.
        start_s: seconds from the first connection to the camera.
        duration_s: what it lasts; 0 only for ``RESET``, which is over at once.
        camera: its number, from 1 on; 0 for all.
    """

    mishap: Mishap
    start_s: float
    duration_s: float
    camera: int = 0

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.start_s + self.duration_s

    def meets(self, other: Event) -> bool:
        """Whether both are on at one moment at one camera."""
        if self.camera and other.camera and self.camera != other.camera:
            return False
        first, second = sorted((self, other), key=lambda event: (event.start_s, event.end_s))
        return second.start_s < first.end_s or second.start_s == first.start_s

    def __str__(self) -> str:
        lasts = f"+{self.duration_s:.10g}" if self.duration_s else ""
        camera = f"#{self.camera}" if self.camera else ""
        return f"{self.mishap.value}@{self.start_s:.10g}{lasts}{camera}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """The mishaps of a run.

    Attributes:
        events: by their starts; none meets another.
        seed: of mishaps drawn without end instead; None where they are written down.
    """

    events: tuple[Event, ...] = ()
    seed: int | None = None

    def changes(self, camera: int) -> Iterator[Change]:
        """What changes for the camera of that number (from 1 on) and when, in order of time."""
        if self.seed is not None:
            yield from _drawn(random.Random(self.seed * 1000 + camera))
            return
        for event in self.events:
            if event.camera in (0, camera):
                yield event.start_s, event.mishap
                yield event.end_s, None

    def __str__(self) -> str:
        if self.seed is not None:
            return f"{RANDOM}:{self.seed}"
        return ",".join(str(event) for event in self.events)


def parse_schedule(text: str, cameras: int) -> Schedule:
    """The schedule in ``MISHAP@START[+DURATION][#CAMERA],...`` or ``random[:SEED]``.

    Seconds, from the first connection to each camera. Without a duration a mishap lasts 5 s, a
    reset no time. Without a number it happens to all cameras.

    Args:
        text: the schedule.
        cameras: how many there are.

    Raises:
        ConfigError: it cannot be read, there is no such mishap or camera, or two meet.

    >>> str(parse_schedule("reset@20, freeze@10+2.5#1", cameras=1))
    'freeze@10+2.5#1,reset@20'
    """
    drawn = _RANDOM.fullmatch(text.strip())
    if drawn:
        return Schedule(seed=int(drawn[1] or 0))
    events = [_event(part.strip(), cameras) for part in text.split(",")]
    events.sort(key=lambda event: (event.start_s, event.camera))
    for index, event in enumerate(events):
        for other in events[index + 1 :]:
            if event.meets(other):
                raise ConfigError(
                    f"chaos: {event} and {other} meet; a camera takes one at a time, so begin "
                    "one when the other is over"
                )
    return Schedule(tuple(events))


def _event(text: str, cameras: int) -> Event:
    found = _EVENT.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"chaos: {text!r} cannot be read; wanted for example freeze@10+5 (from second 10 on "
            f"for 5 s), freeze@10+5#2 (camera 2 only), or {RANDOM}"
        )
    mishap = _mishap(found[1])
    start_s = float(found[2])
    usual_s = 0.0 if mishap is Mishap.RESET else USUAL_S
    duration_s = usual_s if found[3] is None else float(found[3])
    least_s = 0.0 if mishap is Mishap.RESET else _SHORTEST_S
    if not least_s <= duration_s <= _LATEST_S or start_s > _LATEST_S:
        raise ConfigError(
            f"chaos: {text!r} is out of range; wanted a duration of at least {least_s:g} s and "
            f"no more than {_LATEST_S:.0f} s for both"
        )
    camera = int(found[4] or 0)
    if found[4] is not None and not 1 <= camera <= cameras:
        raise ConfigError(f"chaos: {text!r} names camera {camera}; there are 1 to {cameras}")
    return Event(mishap, start_s, duration_s, camera)


def _mishap(word: str) -> Mishap:
    try:
        return Mishap(word.lower().replace("_", "-"))
    except ValueError:
        known = ", ".join(mishap.value for mishap in Mishap)
        raise ConfigError(f"chaos: there is no {word!r}; there are {known}") from None


def _drawn(chance: random.Random) -> Iterator[Change]:
    now_s = 0.0
    while True:
        now_s += chance.uniform(*_PAUSE_S)
        mishap = chance.choice(_DRAWN)
        yield now_s, mishap
        now_s += 0.0 if mishap is Mishap.RESET else chance.uniform(*_LASTS_S)
        yield now_s, None
