"""Short videos of what happened: from some seconds before an event to some seconds after."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from centermask_edge.errors import SinkError, require
from centermask_edge.frame import Frame
from centermask_edge.live.outputs.feed import jpeg
from centermask_edge.live.outputs.names import Slugs, slug
from centermask_edge.live.outputs.overlay import Draw
from centermask_edge.live.outputs.pictures import VIDEO, make_folder
from centermask_edge.live.outputs.sinks import VideoSink
from centermask_edge.live.result import Event, Result

_QUALITY = 90
# Pictures encoded for each new one, so that the seconds before the event are caught up with
# while new pictures still find room in the queue.
_CATCH_UP = 3
_CATCH_UP_IDLE = 25
# A clip whose camera is gone is finished so long after its last second.
_PATIENCE_S = 2.0
# At the end of the run, all clips together; the outlet waits two seconds.
_LAST_S = 1.2


@dataclass(frozen=True, slots=True)
class ClipTimes:
    """How long a clip is.

    Attributes:
        before_s: seconds before the event.
        after_s: seconds after the last event.
        most_s: seconds of a clip at most, however many events follow each other.
        buffer_bytes: what the seconds before may take in memory for each camera.
    """

    before_s: float = 5.0
    after_s: float = 5.0
    most_s: float = 60.0
    buffer_bytes: int = 48_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture as it waits: JPEG, and ``time.monotonic()`` of its arrival."""

    time_s: float
    content: bytes


class Ring:
    """The last pictures of a camera, bounded in seconds and in bytes."""

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._seconds, self._most = seconds, most_bytes
        self._shots: deque[Shot] = deque()
        self.size = 0

    def add(self, shot: Shot) -> None:
        """A new picture; the oldest go."""
        self._shots.append(shot)
        self.size += len(shot.content)
        first = shot.time_s - self._seconds
        while self._shots and (self._shots[0].time_s < first or self.size > self._most):
            self.size -= len(self._shots.popleft().content)

    def take(self) -> deque[Shot]:
        """All of them; the ring is empty afterwards."""
        shots, self._shots, self.size = self._shots, deque(), 0
        return shots


class Clip:
    """A clip that is being written, under a hidden name until it is whole."""

    def __init__(self, path: Path, shots: deque[Shot], rate: Fraction | None) -> None:
        self.path, self.waiting = path, shots
        self._partial = path.with_name(f".{path.stem}.part{path.suffix}")
        self._video = VideoSink(self._partial, rate)
        self.start_s = self.end_s = 0.0

    def encode(self, most: int | None = None, until_s: float | None = None) -> None:
        """So many of the pictures that wait, all where None, but none after that moment."""
        cv2: Any = require("cv2", extra="cpu", why="decode pictures")
        count = len(self.waiting) if most is None else min(most, len(self.waiting))
        for _ in range(count):
            if until_s is not None and time.monotonic() > until_s:
                return
            shot = self.waiting.popleft()
            image = cv2.imdecode(np.frombuffer(shot.content, np.uint8), cv2.IMREAD_COLOR)
            self._video.write(Frame(image, shot.time_s, shot.time_s, "", 0), image)

    def finish(self) -> None:
        """The file, under its name, on the disk."""
        self._video.close()
        try:
            with self._partial.open("rb+") as file:
                os.fsync(file.fileno())
            self._partial.replace(self.path)
        except OSError as error:
            raise SinkError(f"cannot finish {self.path}: {error.strerror}") from None

    def discard(self) -> None:
        """No file."""
        try:
            self._video.close()
        except SinkError:
            pass
        finally:
            self._partial.unlink(missing_ok=True)


class Clips:
    """Writes ``CAMERA-TIME-EVENT.mp4`` for each event, or for events that follow each other.

    Every picture is drawn and kept as JPEG, event or not: that is what the seconds before cost.

    Args:
        folder: to write to, made where missing.
        draw: the picture of a result.
        times: how long clips are.
        rate: frames per second as written into the file; pictures keep their own times.
        written: told of each finished clip.

    Raises:
        SinkError: the folder cannot be made.
    """

    queue = VIDEO

    def __init__(
        self,
        folder: Path,
        draw: Draw,
        times: ClipTimes | None = None,
        *,
        rate: Fraction | None = None,
        written: Callable[[Path], None] = lambda path: None,
    ) -> None:
        require("av", extra="cpu", why="write video")
        self.name = f"clips {folder.name}"
        self._folder, self._draw, self._rate, self._written = folder, draw, rate, written
        self._times = times or ClipTimes()
        self._rings: dict[str, Ring] = {}
        self._clips: dict[str, Clip] = {}
        self._slugs = Slugs()
        make_folder(folder)

    def write(self, result: Result) -> None:
        """One picture; begins, goes on with or ends a clip of its camera.

        Raises:
            SinkError: a clip cannot be written; it is given up.
        """
        camera, times = result.frame.camera, self._times
        shot = Shot(result.frame.arrival_s, jpeg(self._draw(result), _QUALITY))
        clip = self._clips.get(camera)
        if clip is None:
            ring = self._rings.setdefault(camera, Ring(times.before_s, times.buffer_bytes))
            ring.add(shot)
            if not result.events:
                return
            path = self._path(camera, result.events[0])
            clip = self._clips[camera] = Clip(path, ring.take(), self._rate)
            clip.start_s = shot.time_s
        else:
            clip.waiting.append(shot)
        if result.events:
            clip.end_s = min(shot.time_s + times.after_s, clip.start_s + times.most_s)
        self._go_on(camera, clip, _CATCH_UP, over=shot.time_s >= clip.end_s)

    def tick(self) -> None:
        """A second without pictures: clips catch up, and end where their camera is gone."""
        now = time.monotonic()
        for camera, clip in list(self._clips.items()):
            self._go_on(camera, clip, _CATCH_UP_IDLE, over=now > clip.end_s + _PATIENCE_S)

    def _go_on(self, camera: str, clip: Clip, most: int, *, over: bool) -> None:
        try:
            clip.encode(None if over else most)
            if over:
                clip.finish()
        except SinkError:
            del self._clips[camera]
            clip.discard()
            raise
        if over:
            del self._clips[camera]
            self._written(clip.path)

    def _path(self, camera: str, event: Event) -> Path:
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        what = slug(f"{event.kind}-{event.place}-{event.direction}".rstrip("-"))
        base = f"{self._slugs[camera]}-{stamp}-{what}"
        path = self._folder / f"{base}.mp4"
        number = 2
        while path.exists():
            path, number = self._folder / f"{base}-{number}.mp4", number + 1
        return path

    def close(self) -> None:
        """Finish every clip with what is there."""
        end_s = time.monotonic() + _LAST_S
        failure: SinkError | None = None
        while self._clips:
            _, clip = self._clips.popitem()
            try:
                clip.encode(until_s=end_s)
                clip.finish()
                self._written(clip.path)
            except SinkError as error:
                clip.discard()
                failure = failure or error
        if failure is not None:
            raise failure
