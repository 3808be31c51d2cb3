"""Results as the live pipeline hands them to sinks, made from nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.result import Event, Mode, Result

NAMES = ("person", "dog")


def instances(count: int, height: int, width: int) -> Instances:
    """So many, each a disc in a box of 20 x 16 pixels."""
    rows, columns = np.mgrid[0:28, 0:28]
    disc = (((rows - 13.5) ** 2 + (columns - 13.5) ** 2) < 150).astype(np.float32)
    left = 4.0 + 6 * np.arange(count, dtype=np.float32)
    boxes = np.stack([left, left / 2, left + 20, left / 2 + 16], axis=1).astype(np.float32)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Instances(
        boxes,
        scores,
        scores * np.float32(0.9),
        np.arange(count, dtype=np.int64) % 2,
        np.repeat(disc[None], count, axis=0),
        (height, width),
        NAMES,
    )


def event(kind: str = "enter", track: int = 7) -> Event:
    return Event(kind, "door", track, "person", "", time.monotonic())


def result(
    index: int = 0,
    camera: str = "gate",
    *,
    size: tuple[int, int] = (48, 64),
    count: int = 2,
    events: tuple[Event, ...] = (),
    batch: int = 0,
    mode: Mode | None = None,
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None = None,
    arrival_s: float | None = None,
) -> Result:
    """One result; its picture's brightness tells its index."""
    if image is None:
        image = np.full((*size, 3), (40 + 10 * index) % 256, np.uint8)
    arrived = time.monotonic() if arrival_s is None else arrival_s
    return Result(
        Frame(image, index / 10, arrived, camera, index),
        instances(count, image.shape[0], image.shape[1]),
        np.arange(1, count + 1, dtype=np.int64),
        events,
        age_s=0.042,
        mode=mode or Mode(1, 384, True),
        batch=batch,
    )


def until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits until that is so."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)
