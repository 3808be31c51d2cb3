"""Who enters and leaves zones and crosses lines, told by the pixels of masks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from centermask_edge.instances import Instances
from centermask_edge.live.result import Event, Tally
from centermask_edge.live.track.areas import Bools, count_in, line_sides, zone_area
from centermask_edge.live.track.place_config import LineConfig, ZoneConfig
from centermask_edge.masks import Crop

Side = Literal["left", "right"]
T = TypeVar("T")

# Share of a mask that has to lie before the line for its side to be known.
_LEAST_BEFORE = 0.1


@dataclass(frozen=True, slots=True)
class Seen:
    """An object with an identity in a frame.

    Attributes:
        track: identity.
        name: of its class.
        crop: its mask.
        area: pixels of the mask, at least 1.
        size: (height, width) of the picture.
        time_s: of the frame.
    """

    track: int
    name: str
    crop: Crop
    area: int
    size: tuple[int, int]
    time_s: float

    def event(self, kind: str, place: str, direction: str = "") -> Event:
        """What happened to it."""
        return Event(kind, place, self.track, self.name, direction, self.time_s)


class _OfSize(Generic[T]):
    """What is made once for a size of pictures."""

    def __init__(self, make: Callable[[tuple[int, int]], T]) -> None:
        self._make = make
        self._made: tuple[tuple[int, int], T] | None = None

    def __call__(self, size: tuple[int, int]) -> T:
        if self._made is None or self._made[0] != size:
            self._made = size, self._make(size)
        return self._made[1]


@dataclass(slots=True)
class _Visit:
    since_s: float
    told: bool = False


class Zone:
    """Tells who enters and leaves a zone.

    Args:
        config: where it is and when somebody is in it.
    """

    def __init__(self, config: ZoneConfig) -> None:
        self.config = config
        self._area: _OfSize[Bools] = _OfSize(lambda size: zone_area(config, size))
        self._visits: dict[int, _Visit] = {}
        self._entered = self._left = 0

    def see(self, seen: Seen) -> Event | None:
        """What the next frame of that object shows."""
        share = count_in(self._area(seen.size), seen.crop) / seen.area
        visit = self._visits.get(seen.track)
        if visit is None:
            if share < self.config.inside:
                return None
            visit = self._visits[seen.track] = _Visit(seen.time_s)
        elif share <= self.config.outside:
            del self._visits[seen.track]
            self._left += visit.told
            return seen.event("leave", self.config.name) if visit.told else None
        if visit.told or seen.time_s - visit.since_s < self.config.dwell_s:
            return None
        visit.told = True
        self._entered += 1
        return seen.event("enter", self.config.name)

    def keep(self, tracks: Container[int]) -> None:
        """Forgets all other objects; that one vanished is no event."""
        self._visits = {t: v for t, v in self._visits.items() if t in tracks}

    def occupants(self) -> list[int]:
        """Identities of those who entered and did not leave, lost ones included."""
        return [track for track, visit in self._visits.items() if visit.told]

    def tally(self) -> Tally:
        """What it has counted."""
        return Tally(self.config.name, len(self.occupants()), self._entered, self._left)


class Line:
    """Tells who crosses a line, once each time.

    Args:
        config: where it is.
    """

    def __init__(self, config: LineConfig) -> None:
        self.config = config
        self._sides: _OfSize[tuple[Bools, Bools]] = _OfSize(lambda size: line_sides(config, size))
        self._side: dict[int, Side] = {}
        self._ins = self._outs = 0

    def see(self, seen: Seen) -> Event | None:
        """What the next frame of that object shows."""
        left, right = (count_in(side, seen.crop) for side in self._sides(seen.size))
        before = left + right
        if before < _LEAST_BEFORE * seen.area:
            # Past one of its ends: who comes back on the other side went around it.
            self._side.pop(seen.track, None)
            return None
        was = self._side.get(seen.track)
        if right >= self.config.over * before:
            self._side[seen.track] = "right"
            self._ins += was == "left"
            return seen.event("cross", self.config.name, "in") if was == "left" else None
        if left >= self.config.over * before:
            self._side[seen.track] = "left"
            self._outs += was == "right"
            return seen.event("cross", self.config.name, "out") if was == "right" else None
        return None

    def keep(self, tracks: Container[int]) -> None:
        """Forgets all other objects."""
        self._side = {t: side for t, side in self._side.items() if t in tracks}

    def tally(self) -> Tally:
        """What it has counted."""
        return Tally(self.config.name, None, self._ins, self._outs)


class Places:
    """All zones and lines of a camera.

    Args:
        zones: areas.
        lines: lines.
    """

    def __init__(self, zones: Sequence[ZoneConfig] = (), lines: Sequence[LineConfig] = ()) -> None:
        self._places: tuple[Zone | Line, ...] = (
            *(Zone(zone) for zone in zones),
            *(Line(line) for line in lines),
        )

    def see(
        self,
        found: Instances,
        ids: NDArray[np.int64],
        time_s: float,
        followed: Container[int],
    ) -> tuple[Event, ...]:
        """What happened in this frame.

        Args:
            found: instances of the frame.
            ids: int64 (K,) their identities; those without one are not looked at.
            time_s: of the frame.
            followed: identities that may still come back.
        """
        if not self._places:
            return ()
        for place in self._places:
            place.keep(followed)
        seen = list(_seen(found, ids, time_s))
        events = (place.see(one) for place in self._places for one in seen)
        return tuple(event for event in events if event is not None)

    def tallies(self) -> tuple[Tally, ...]:
        """What each has counted: zones, then lines."""
        return tuple(place.tally() for place in self._places)


def _seen(found: Instances, ids: NDArray[np.int64], time_s: float) -> Iterator[Seen]:
    """Those with an identity and a mask."""
    for i in np.flatnonzero(ids > 0).tolist():
        crop = found.crop(i)
        area = int(np.count_nonzero(crop[0]))
        if area:
            yield Seen(int(ids[i]), found.name(i), crop, area, found.source_size, time_s)
