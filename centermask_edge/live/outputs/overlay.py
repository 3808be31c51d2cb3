"""The annotated picture of a live result: masks in the colours of their tracks, age, events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import require
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.draw import draw
from centermask_edge.live.outputs.places_overlay import PlacesDrawing
from centermask_edge.live.result import Event, Result
from centermask_edge.live.track.place_config import FollowConfig

Image = npt.NDArray[np.uint8]
Draw = Callable[[Result], Image]

FLASH_S = 1.5
_MOST_FLASHES = 3
_INK, _PAPER, _ALARM = (255, 255, 255), (24, 24, 24), (40, 40, 230)


def annotate(
    result: Result, events: tuple[Event, ...] | None = None, follow: FollowConfig | None = None
) -> Image:
    """A copy of the result's picture with all that is known about it drawn in.

    Args:
        result: whose instances are drawn in the colours of their tracks, labelled with them.
        events: flashed; the result's own where None.
        follow: its camera's zones and lines, drawn with their counts.
    """
    colors = [int(t) - 1 if t else i for i, t in enumerate(result.track_ids)]
    if follow is None or not (follow.zones or follow.lines):
        image = draw(result.frame.image, _labelled(result), None, colors)
    else:
        # Outlines under the objects: they would cut through the labels.
        places = PlacesDrawing(follow, result.tallies, result.instances.source_size)
        ground = np.array(result.frame.image, order="C")
        places.outline(ground)
        image = draw(ground, _labelled(result), None, colors)
        places.label(image)
    age = f"{1000 * result.age_s:.0f} ms"
    _line(image, f"{result.frame.camera}  {age}", 0, _PAPER)
    shown = result.events if events is None else events
    for row, event in enumerate(shown[-_MOST_FLASHES:], start=1):
        _line(image, event_text(event), row, _ALARM)
    if shown:
        _frame(image)
    return image


def event_text(event: Event) -> str:
    """What happened, in a few words.

    >>> event_text(Event("cross", "door", 7, "person", "in", 0.0))
    'person 7 cross door in'
    """
    return f"{event.name} {event.track} {event.kind} {event.place} {event.direction}".rstrip()


def _labelled(result: Result) -> Instances:
    """The instances, each under a name of its own that tells its track."""
    found = result.instances
    names = tuple(
        f"{found.name(i)} {track}" if (track := int(result.track_ids[i])) else found.name(i)
        for i in range(len(found))
    )
    return replace(found, names=names, classes=np.arange(len(found), dtype=np.int64))


def _line(image: Image, text: str, row: int, paper: tuple[int, int, int]) -> None:
    """White text on a strip, ``row`` strips below the top left corner."""
    cv2: Any = require("cv2", extra="cpu", why="draw results")
    scale = max(min(image.shape[:2]) / 720.0, 0.35) * 0.6 + 0.1
    # OpenCV's strokes are ASCII; anything else would show as question marks.
    words = text.encode("ascii", "replace").decode()
    (width, height), base = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    tall = height + base + 6
    top = row * tall
    cv2.rectangle(image, (0, top), (width + 10, top + tall - 1), paper, -1)
    at = (5, top + height + 3)
    cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)


def _frame(image: Image) -> None:
    thick = max(min(image.shape[:2]) // 120, 2)
    for edge in (image[:thick], image[-thick:], image[:, :thick], image[:, -thick:]):
        edge[:] = _ALARM


class Overlay:
    """``annotate``, with each event flashed for a while; for any number of cameras and threads.

    Args:
        flash_s: how long an event is shown.
        places: zones and lines of cameras, by name.
    """

    def __init__(
        self, flash_s: float = FLASH_S, places: Mapping[str, FollowConfig] | None = None
    ) -> None:
        self._flash_s, self._places = flash_s, places or {}
        self._events: dict[str, tuple[Event, ...]] = {}
        self._lock = threading.Lock()

    def __call__(self, result: Result) -> Image:
        """The annotated picture, uint8 (H, W, 3) BGR."""
        camera, now = result.frame.camera, result.frame.arrival_s
        with self._lock:
            before = [e for e in self._events.get(camera, ()) if e not in result.events]
            fresh = [e for e in (*before, *result.events) if now - e.time_s < self._flash_s]
            self._events[camera] = tuple(fresh[-_MOST_FLASHES:])
            shown = self._events[camera]
        return annotate(result, shown, self._places.get(camera))


class DrawnOnce:
    """A picture function whose last picture of each camera is shared by the sinks that ask.

    Drawing 50 masks costs more than encoding the picture; with a window, a video and a page open
    it is done once. The sinks must not draw into what they get: it is read-only.

    Args:
        draw: the picture function; called by one thread at a time.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._last: dict[str, tuple[Result, Image]] = {}
        self._lock = threading.Lock()

    def __call__(self, result: Result) -> Image:
        """The annotated picture, uint8 (H, W, 3) BGR, read-only."""
        with self._lock:
            last = self._last.get(result.frame.camera)
            if last is not None and last[0] is result:
                return last[1]
            image = self._draw(result).view()  # the array itself may be the frame's
            image.flags.writeable = False
            self._last[result.frame.camera] = (result, image)
            return image
