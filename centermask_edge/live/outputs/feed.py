"""The newest picture of a camera for any number of viewers, encoded once and only when wanted."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from centermask_edge.errors import SinkError, require
from centermask_edge.live.outputs.overlay import Draw, Image
from centermask_edge.live.result import Result

_SMOOTHING = 0.1


def jpeg(image: Image, quality: int) -> bytes:
    """The picture as JPEG, from uint8 (H, W, 3) BGR.

    Raises:
        MissingPackageError: OpenCV is not installed.
        SinkError: it cannot be encoded; 65535 pixels a side is JPEG's limit.
    """
    cv2: Any = require("cv2", extra="cpu", why="encode pictures")
    try:
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise SinkError(f"a picture cannot be encoded as JPEG: {error.err}") from None
    if not done:
        height, width = image.shape[:2]
        raise SinkError(f"a picture of {width} x {height} pixels cannot be encoded as JPEG")
    content: bytes = np.asarray(encoded).tobytes()
    return content


class Feed:
    """The newest result of one camera, drawn and encoded by the first viewer who asks.

    A viewer who is slow skips what came meanwhile. With no viewer, nothing is drawn.

    Args:
        draw: the picture of a result.
        quality: of the JPEG, 1 to 100.
    """

    def __init__(self, draw: Draw, quality: int) -> None:
        self._draw, self._quality = draw, quality
        self._fresh = threading.Condition()
        self._encoding = threading.Lock()
        self._number = 0
        self._result: Result | None = None
        self._encoded: tuple[int, bytes] = (0, b"")
        self._closed = False
        self._interval_s = 0.0
        self._arrival_s = 0.0
        self.encodings = 0
        self.watchers = 0

    def put(self, result: Result) -> None:
        """A new result; waiting viewers wake."""
        with self._fresh:
            self._number += 1
            self._result = result
            arrival = result.frame.arrival_s
            if self._arrival_s:
                step = arrival - self._arrival_s
                first = self._interval_s == 0
                self._interval_s += (1 if first else _SMOOTHING) * (step - self._interval_s)
            self._arrival_s = arrival
            self._fresh.notify_all()

    def picture(self, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """The newest picture's number and JPEG.

        None when none newer than ``after`` came within ``timeout_s``, or the feed is closed.
        """
        with self._fresh:
            self._fresh.wait_for(lambda: self._number > after or self._closed, timeout_s)
            if self._closed or self._number <= after:
                return None
        with self._encoding:
            with self._fresh:
                number, result = self._number, self._result
            if self._encoded[0] != number and result is not None:
                self._encoded = number, jpeg(self._draw(result), self._quality)
                self.encodings += 1
            return self._encoded

    def watch(self, step: int) -> None:
        """One viewer more, or less."""
        with self._fresh:
            self.watchers += step

    def figures(self) -> dict[str, Any]:
        """How it is, for ``/health``."""
        with self._fresh:
            return {
                "frames": self._number,
                "rate_hz": round(1 / self._interval_s, 2) if self._interval_s > 0 else 0.0,
                "age_ms": round(1000 * self._result.age_s, 1) if self._result else None,
                "seconds_since": round(time.monotonic() - self._arrival_s, 2),
                "watchers": self.watchers,
            }

    def close(self) -> None:
        """Viewers get nothing more."""
        with self._fresh:
            self._closed = True
            self._fresh.notify_all()
