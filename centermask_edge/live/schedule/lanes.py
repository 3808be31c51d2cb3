"""Whose turn it is: the freshest frames of many cameras, by the longest wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from centermask_edge.frame import Frame
from centermask_edge.live.camera import Camera
from centermask_edge.live.result import Mode
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.preprocess import Size


class InputSizes(Protocol):
    """Knows the network's input size for a frame."""

    def input_size(self, frame: Frame, short_side: int) -> Size:
        """(height, width) in pixels."""


@dataclass(slots=True)
class Lane:
    """One camera as the scheduler sees it.

    Attributes:
        camera: where frames come from.
        turn: number of its last turn; who has the lowest is next.
        segmented: frames that went into the engine.
        skipped: fresh frames left out by the stride, or replaced while they waited for a batch
            of their size.
        lost: frames that could not be prepared or finished.
        trouble: what the last of them suffered from.
    """

    camera: Camera
    turn: int = 0
    segmented: int = 0
    skipped: int = 0
    lost: int = 0
    trouble: str = ""
    _held: Frame | None = None
    _last_index: int = -1

    def fresh(self, stride: int) -> Frame | None:
        """The camera's freshest frame that nobody took yet, if it is its turn by the stride."""
        frame = self.camera.take()
        if frame is not None and frame.camera != self.camera.name:
            frame = replace(frame, camera=self.camera.name)
        # An index that is not larger is that of a stream that began anew.
        last = self._last_index
        if frame is not None and 0 <= last < frame.index < last + stride:
            self.skipped += 1
            frame = None
        if frame is None:
            frame, self._held = self._held, None
        elif self._held is not None:
            self.skipped += 1
            self._held = None
        return frame

    def hold(self, frame: Frame) -> None:
        """Keeps a frame for one of the next batches."""
        self._held = frame

    def serve(self, frame: Frame, turn: int) -> None:
        """Notes that a frame goes into the engine."""
        self._last_index, self.turn = frame.index, turn
        self.segmented += 1

    @property
    def done(self) -> bool:
        """Whether nothing will come any more."""
        return self._held is None and self.camera.done


@dataclass(frozen=True, slots=True)
class Chosen:
    """A frame whose turn it is."""

    lane: Lane
    frame: Frame
    mode: Mode


class Turns:
    """Chooses batches.

    Args:
        lanes: the cameras.
        most: frames of a batch.
    """

    def __init__(self, lanes: Sequence[Lane], most: int) -> None:
        self._lanes, self._most = list(lanes), most
        self._turn = 0

    def choose(self, setting: Setting, sizes: InputSizes) -> list[Chosen]:
        """What is fresh, of one input size and all with masks or all without; may be empty.

        The camera that waited longest decides on the size; frames of others that do not fit wait
        for their own turn, or for a fresher one to replace them.
        """
        chosen: list[Chosen] = []
        kind = None
        for lane in sorted(self._lanes, key=lambda lane: lane.turn):
            if len(chosen) == self._most:
                break
            frame = lane.fresh(setting.stride)
            if frame is None:
                continue
            masks = lane.segmented % setting.refresh == 0
            wanted = (sizes.input_size(frame, setting.short_side), masks)
            if kind is not None and wanted != kind:
                lane.hold(frame)
                continue
            kind = wanted
            self._turn += 1
            lane.serve(frame, self._turn)
            mode = Mode(setting.stride, setting.short_side, masks)
            chosen.append(Chosen(lane, frame, mode))
        return chosen
