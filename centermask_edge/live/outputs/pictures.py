"""Annotated pictures of live cameras in files and in a window."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from centermask_edge.errors import SinkError, require
from centermask_edge.live.outputs.names import Slugs
from centermask_edge.live.outputs.outlet import PICTURES, Queue
from centermask_edge.live.outputs.overlay import Draw, Image
from centermask_edge.live.outputs.sinks import VideoSink, WindowSink, check_window
from centermask_edge.live.result import Result

# A file wants every frame, unlike a screen; still few, for each waits with its pixels.
VIDEO = Queue(8, per_camera=True, pictures=True, again=False)


class VideoFiles:
    """An annotated video a camera, ``CAMERA.mp4`` in a folder.

    Args:
        folder: to write to, made where missing.
        draw: the picture of a result.
        rate: frames per second as written into the files; frames keep their own times.
        suffix: chooses the container.

    Raises:
        SinkError: the folder cannot be made.
    """

    queue = VIDEO

    def __init__(
        self, folder: Path, draw: Draw, rate: Fraction | None = None, suffix: str = ".mp4"
    ) -> None:
        require("av", extra="cpu", why="write video")
        self.name = f"videos {folder.name}"
        self._folder, self._draw, self._rate, self._suffix = folder, draw, rate, suffix
        self._files: dict[str, VideoSink] = {}
        self._slugs = Slugs()
        make_folder(folder)

    def path(self, camera: str) -> Path:
        """Where that camera's video is."""
        return self._folder / f"{self._slugs[camera]}{self._suffix}"

    def write(self, result: Result) -> None:
        """One picture."""
        camera = result.frame.camera
        if camera not in self._files:
            self._files[camera] = VideoSink(self.path(camera), self._rate)
        self._files[camera].write(result.frame, self._draw(result))

    def close(self) -> None:
        """Finish every file, also those after one that fails."""
        failure: SinkError | None = None
        while self._files:
            _, file = self._files.popitem()
            try:
                file.close()
            except SinkError as error:
                failure = failure or error
        if failure is not None:
            raise failure


def make_folder(folder: Path) -> None:
    """Nothing, once the folder is there.

    Raises:
        SinkError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".centermask-edge"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SinkError(f"cannot write to the folder {folder}: {error.strerror}") from None


class WindowGrid:
    """All cameras in one window, side by side; ``closed`` once the user closed it.

    The window opens with the first picture, because toolkits want one thread to do everything.

    Args:
        draw: the picture of a result.
        height: of the whole grid in pixels at most.

    Raises:
        SinkError: OpenCV has no windows here, or there is no display.
    """

    queue = PICTURES
    name = "window"

    def __init__(self, draw: Draw, height: int = 1080) -> None:
        self._cv2: Any = require("cv2", extra="cpu", why="show a window")
        check_window()
        self._draw, self._height = draw, height
        self._window: WindowSink | None = None
        self._pictures: dict[str, Image] = {}

    @property
    def closed(self) -> bool:
        """Whether the user pressed q or Esc or closed the window."""
        return self._window is not None and self._window.closed

    def write(self, result: Result) -> None:
        """Show the picture in its camera's place."""
        if self._window is None:
            self._window = WindowSink()
        elif self._window.closed:
            return
        self._pictures[result.frame.camera] = self._draw(result)
        pictures = [self._pictures[camera] for camera in sorted(self._pictures)]
        self._window.write(result.frame, grid(self._cv2, pictures, self._height))

    def close(self) -> None:
        """Close the window."""
        window, self._window = self._window, None
        if window is not None:
            window.close()


def grid(cv2: Any, pictures: list[Image], height: int) -> Image:
    """The pictures in as few rows as columns, each scaled into a cell of the first one's shape."""
    if len(pictures) == 1:
        return pictures[0]
    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    first = pictures[0].shape
    tall = min(height // rows, first[0])
    wide = max(round(tall * first[1] / first[0]), 1)
    canvas = np.zeros((rows * tall, columns * wide, 3), np.uint8)
    for place, picture in enumerate(pictures):
        scale = min(tall / picture.shape[0], wide / picture.shape[1])
        size = (max(int(picture.shape[1] * scale), 1), max(int(picture.shape[0] * scale), 1))
        y, x = place // columns * tall, place % columns * wide
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        canvas[y : y + size[1], x : x + size[0]] = small
    return canvas
