"""Records what was segmented, bit for bit, so that the same engine calls can be made again.

A recording is a folder: lossless video a camera, and ``index.jsonl`` with a line a frame that says
when it came, with which others it went into the engine and what the governor had asked.
``live.record.replay`` reads it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from centermask_edge.errors import SinkError, require
from centermask_edge.frame import Frame
from centermask_edge.live.outputs.names import Slugs
from centermask_edge.live.outputs.outlet import RECORDING
from centermask_edge.live.outputs.overlay import Image
from centermask_edge.live.outputs.schema import wall_clock
from centermask_edge.live.result import Result
from centermask_edge.live.track.place_config import FollowConfig

SCHEMA = "centermask-edge-recording/1"
INDEX = "index.jsonl"
_CLOCK = Fraction(1, 1000)
_KEY_FRAMES = 25
# What a killed process loses of each camera at most; Matroska keeps a cluster in memory.
_CLUSTER_MS = 500


@dataclass(frozen=True, slots=True)
class Made:
    """With what a recording's results were made.

    Attributes:
        model_sha256: of the ONNX file; empty where not known.
        engine: its name.
        threads: of the engine; 0 where it chose.
        score: least box score of an instance.
        cameras: how objects are followed, by camera, where that is known.
    """

    model_sha256: str = ""
    engine: str = ""
    threads: int = 0
    score: float = 0.0
    cameras: Mapping[str, FollowConfig] = field(default_factory=dict)


class Recorder:
    """Writes the frames of all results, losslessly, with what is needed to segment them again.

    H.264 of RGB at quantizer 0 where this PyAV can encode it (a third of FFV1's time at the same
    size), else FFV1; both give back every byte.

    Args:
        folder: to make or to fill; must hold no recording.
        made: with what the results are made.

    Raises:
        MissingPackageError: PyAV is not installed.
        SinkError: the folder cannot be made, or holds a recording.
    """

    queue = RECORDING

    def __init__(self, folder: Path, made: Made) -> None:
        self.name = f"recording {folder.name}"
        self._av: Any = require("av", extra="cpu", why="record video")
        self._folder = folder
        self._slugs = Slugs()
        self._films: dict[str, _Film] = {}
        self._parts: dict[str, int] = {}
        self._dropped: list[Result] = []
        self._lock = threading.Lock()
        if (folder / INDEX).exists():
            raise SinkError(f"{folder} holds a recording already; give another folder")
        head = {
            "schema": SCHEMA,
            "model_sha256": made.model_sha256,
            "engine": made.engine,
            "threads": made.threads,
            "score": made.score,
            "cameras": {name: _plain(follow) for name, follow in made.cameras.items()},
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._index: TextIO | None = (folder / INDEX).open("x", encoding="utf-8")
            self._line(head)
        except OSError as error:
            raise SinkError(f"cannot record in {folder}: {error.strerror}") from None

    def dropped(self, result: Result) -> None:
        """Told by the outlet, from another thread: that frame will be missing in its batch."""
        with self._lock:
            self._dropped.append(result)

    def write(self, result: Result) -> None:
        """One frame and its line.

        Raises:
            SinkError: it cannot be written; its batch is marked as incomplete where possible.
        """
        try:
            self._tell_dropped()
            film = self._film(result.frame)
            time_ms = film.write(result.frame)
            self._line(_entry(result, film.path.name, time_ms))
            film.frames += 1
        except (self._av.error.FFmpegError, OSError) as error:
            self.dropped(result)
            self._give_up(result.frame.camera)
            reason = error.strerror or type(error).__name__
            raise SinkError(f"cannot record in {self._folder}: {reason}") from None

    def _give_up(self, camera: str) -> None:
        """The camera's film ends here, perhaps in half a packet; what follows goes into another."""
        film = self._films.pop(camera, None)
        if film is None:
            return
        with contextlib.suppress(self._av.error.FFmpegError, OSError):
            film.close()
        if not film.frames:  # or a disk that stays full would get a file with every attempt
            film.path.unlink(missing_ok=True)
            self._parts[camera] -= 1

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, []
        for result in dropped:
            frame = result.frame
            lost = {"camera": frame.camera, "index": frame.index, "batch": result.batch}
            self._line({"dropped": lost})

    def _film(self, frame: Frame) -> _Film:
        """The file for that frame: a new one where the camera's picture changes its size."""
        film = self._films.get(frame.camera)
        if film is not None and film.size == (frame.height, frame.width):
            return film
        if film is not None:
            film.close()
        part = self._parts.get(frame.camera, -1) + 1
        path = self._folder / f"{self._slugs[frame.camera]}-{part:04d}.mkv"
        film = self._films[frame.camera] = _Film(self._av, path, frame)
        self._parts[frame.camera] = part
        return film

    def _line(self, values: dict[str, Any]) -> None:
        assert self._index is not None, "the recording is closed"
        self._index.write(json.dumps(values, separators=(",", ":")) + "\n")
        self._index.flush()

    def close(self) -> None:
        """Finish every file."""
        index = self._index
        if index is None:
            return
        try:
            for film in self._films.values():
                film.close()
            self._tell_dropped()
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(f"cannot finish {self._folder}: {error.strerror}") from None
        finally:
            self._films.clear()
            self._index = None
            index.close()


def _plain(follow: FollowConfig) -> dict[str, Any]:
    # Of a camera's settings only these: its address may hold a password.
    return follow.model_dump(mode="json", include=set(FollowConfig.model_fields))


def _entry(result: Result, file: str, time_ms: int) -> dict[str, Any]:
    frame, mode = result.frame, result.mode
    return {
        "camera": frame.camera,
        "index": frame.index,
        "pts_s": frame.pts_s,
        "arrival_s": frame.arrival_s,
        "arrival": wall_clock(frame.arrival_s),
        "batch": result.batch,
        "stride": mode.stride,
        "short_side": mode.short_side,
        "masks": mode.masks,
        "file": file,
        "time_ms": time_ms,
    }


class _Film:
    """Lossless video of one camera at one size, at the frames' times of arrival."""

    def __init__(self, av: Any, path: Path, first: Frame) -> None:
        self.path, self.size = path, (first.height, first.width)
        self._start_s, self._last_ms, self.frames = first.arrival_s, -1, 0
        options = {"cluster_time_limit": str(_CLUSTER_MS), "flush_packets": "1"}
        self._av = av
        self._container: Any = av.open(str(path), "w", options=options)
        h264 = "libx264rgb" in av.codecs_available
        stream = self._container.add_stream("libx264rgb" if h264 else "ffv1", rate=25)
        stream.height, stream.width = self.size
        stream.pix_fmt = "bgr24" if h264 else "bgr0"
        stream.codec_context.time_base = _CLOCK
        stream.codec_context.max_b_frames = 0
        stream.gop_size = _KEY_FRAMES if h264 else 1
        stream.options = (
            # Without zerolatency, 40 frames would wait in the encoder when the process is killed.
            {"qp": "0", "preset": "ultrafast", "tune": "zerolatency"}
            if h264
            else {"level": "3", "slices": "4", "coder": "0"}
        )
        self._stream = stream

    def write(self, frame: Frame) -> int:
        """The frame's time in the file in milliseconds, different for each."""
        wanted = round(1000 * (frame.arrival_s - self._start_s))
        self._last_ms = max(wanted, self._last_ms + 1)
        picture = self._av.VideoFrame.from_ndarray(_packed(frame.image), format="bgr24")
        picture.pts, picture.time_base = self._last_ms, _CLOCK
        for packet in self._stream.encode(picture):
            self._container.mux(packet)
        return self._last_ms

    def close(self) -> None:
        """Write the end of the file."""
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        finally:
            self._container.close()


def _packed(image: Image) -> Image:
    return np.ascontiguousarray(image)
