"""What leaves the live pipeline: a frame, what is in it, how old that is, and what happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.measure.stages import Stage


@dataclass(frozen=True, slots=True)
class Mode:
    """What the governor asked of a frame.

    Attributes:
        stride: every how many fresh frames of the camera one is segmented.
        short_side: of the network's input in pixels.
        masks: whether masks were computed for this frame; otherwise those of the last key frame
            were moved with their boxes.
    """

    stride: int = 1
    short_side: int = 0
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a zone or a line saw.

    Attributes:
        kind: ``enter``, ``leave`` or ``cross``.
        place: name of the zone or line.
        track: identity of the object.
        name: class name of the object.
        direction: ``in`` or ``out`` for a line; empty for a zone.
        time_s: ``time.monotonic()`` at the frame's arrival.
    """

    kind: str
    place: str
    track: int
    name: str
    direction: str
    time_s: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What a zone or a line has counted since the start.

    Attributes:
        place: name of the zone or line.
        inside: objects in the zone now, those lost a moment ago included; None for a line.
        ins: entries into the zone, or crossings ``in``.
        outs: those who left the zone, or crossings ``out``. Who vanishes in a zone never leaves it.
    """

    place: str
    inside: int | None
    ins: int
    outs: int


@dataclass(frozen=True, slots=True)
class Result:
    """One segmented frame.

    Attributes:
        frame: the picture, with camera, index and arrival time.
        instances: in source pixels, masks inside their boxes.
        track_ids: int64 (K,) identity of each instance, from 1 on per camera; 0 where none yet.
        events: of zones and lines, at this frame.
        age_s: from the frame's arrival to this result, in seconds.
        stages: seconds of each stage.
        mode: what the governor asked.
        batch: number of the engine's call, the same for frames that went in together.
        tallies: of the camera's zones and lines, in their order, with this frame.
    """

    frame: Frame
    instances: Instances
    track_ids: NDArray[np.int64]
    events: tuple[Event, ...] = ()
    age_s: float = 0.0
    stages: dict[Stage, float] = field(default_factory=dict)
    mode: Mode = field(default_factory=Mode)
    batch: int = 0
    tallies: tuple[Tally, ...] = ()


class ResultSink(Protocol):
    """Takes results of all cameras, in a thread of its own; see ``live.outputs.outlet``."""

    @property
    def name(self) -> str:
        """For messages and metrics, without credentials."""

    def write(self, result: Result) -> None:
        """One result.

        Raises:
            SinkError: it cannot be delivered; the sink stays usable for the next.
        """

    def close(self) -> None:
        """Finish; may be called twice."""
