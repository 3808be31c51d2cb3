"""Cameras and an engine for tests of the live pipeline: exact, quick, and broken on demand."""

from __future__ import annotations

import threading
import time

import numpy as np
from tiny_model import metadata

from centermask_edge.engines.base import Detections, Floats
from centermask_edge.frame import Frame
from centermask_edge.live.camera import Bell
from centermask_edge.live.health import Health, State
from centermask_edge.preprocess import Placement, padded_size


class FakeCamera:
    """A thread that makes a grey frame every ``1 / rate_hz``, and keeps only the freshest."""

    def __init__(
        self, name: str, rate_hz: float, size: tuple[int, int] = (48, 64), last: int | None = None
    ) -> None:
        self.name, self._rate_hz, self._size, self._last = name, rate_hz, size, last
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._end = threading.Event()
        self.frozen = threading.Event()
        self.made = self.dropped = 0
        self.done_making = False
        self._thread = threading.Thread(target=self._make, name=f"fake-{name}")

    @property
    def done(self) -> bool:
        return self.done_making and self._frame is None

    def start(self, bell: Bell) -> None:
        self._bell = bell
        self._thread.start()

    def _make(self) -> None:
        image = np.full((*self._size, 3), 90, np.uint8)
        due = time.monotonic()
        while not self._end.is_set() and (self._last is None or self.made < self._last):
            due += 1 / self._rate_hz
            self._end.wait(max(due - time.monotonic(), 0))
            if self.frozen.is_set():
                continue
            with self._lock:
                self.dropped += self._frame is not None
                self._frame = Frame(image, 0.0, time.monotonic(), self.name, self.made)
                self.made += 1
            self._bell.ring()
        self.done_making = True
        self._bell.ring()

    def take(self) -> Frame | None:
        with self._lock:
            frame, self._frame = self._frame, None
            return frame

    def health(self) -> Health:
        state = State.FROZEN if self.frozen.is_set() else State.LIVE
        return Health(self.name, state, frames=self.made, dropped=self.dropped)

    def stop(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()


class DeadCamera(FakeCamera):
    """Never has a frame."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1.0)
        self.frozen.set()

    def health(self) -> Health:
        return Health(self.name, State.WAITING, message="connection refused")


def detections(pictures: int, count: int = 2) -> Detections:
    """Two boxes in each picture."""
    boxes = np.tile(np.array([[4, 4, 20, 30], [30, 8, 50, 40]], np.float32), (pictures, 1, 1))
    return Detections(
        boxes[:, :count],
        np.full((pictures, count), 0.9, np.float32),
        np.full((pictures, count), 0.8, np.float32),
        np.zeros((pictures, count), np.int64),
        np.ones((pictures, count, 28, 28), np.float32),
        np.full(pictures, count, np.int64),
    )


class SleepingEngine:
    """Takes ``frame_s`` for each picture of a batch; remembers the batches."""

    name = "sleeping"
    metadata = metadata()

    def __init__(self, frame_s: float = 0.01) -> None:
        self.frame_s = frame_s
        self.shapes: list[tuple[int, ...]] = []
        self.failure: Exception | None = None

    def run(self, images: Floats, image_sizes: Floats) -> Detections:
        if self.failure is not None:
            raise self.failure
        self.shapes.append(images.shape)
        time.sleep(self.frame_s * images.shape[0])
        return detections(images.shape[0])


class SkippingEngine(SleepingEngine):
    """Can leave the masks out."""

    can_skip_masks = True

    def __init__(self, frame_s: float = 0.01) -> None:
        super().__init__(frame_s)
        self.without = 0

    def run_without_masks(self, images: Floats, image_sizes: Floats) -> Detections:
        self.without += 1
        return detections(images.shape[0])


def placement(size: tuple[int, int] = (48, 64)) -> Placement:
    return Placement(size, size, padded_size(*size))
