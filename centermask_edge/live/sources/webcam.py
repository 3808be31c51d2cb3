"""Webcams, by their number, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from centermask_edge.errors import SourceError, require
from centermask_edge.frame import Frame
from centermask_edge.live.source import Kind


class WebcamSource:
    """Frames of a camera of this machine; their times count from the first one.

    Args:
        index: 0 for the first camera.

    Raises:
        MissingPackageError: OpenCV is not installed.
        SourceError: there is no such camera, or another program holds it.
    """

    kind = Kind.WEBCAM
    total = None

    def __init__(self, index: int) -> None:
        self.name = f"webcam {index}"
        self.paths: list[Path] = []
        self.warnings: list[str] = []
        cv2 = require("cv2", extra="cpu", why="read a webcam")
        # It would tell in five lines what the error below tells in one.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(
                f"webcam {index} cannot be opened; check that it is connected and not in use "
                "by another program, or try another number"
            )
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        known = np.isfinite(rate) and 1 <= rate <= 1000
        self.rate = Fraction(rate).limit_denominator(1001) if known else None

    def __iter__(self) -> Iterator[Frame]:
        start = None
        index = 0
        while True:
            good, image = self._capture.read()
            now = time.monotonic()
            if not good:
                break
            start = now if start is None else start
            yield Frame(image, now - start, now, self.name, index)
            index += 1
        if index == 0:
            raise SourceError(f"{self.name} gives no picture; unplug it and try again")
        self.warnings.append(f"{self.name} stopped after frame {index}; was it unplugged?")

    def close(self) -> None:
        """Lets go of the camera."""
        self._capture.release()
