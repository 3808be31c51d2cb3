"""Where results go: annotated video, images, JSON lines, a window.

Every sink checks that it can write before the model is loaded, and leaves behind a valid file
however the run ends.
"""

from __future__ import annotations

import io
import json
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import SinkError, require
from centermask_edge.frame import Frame
from centermask_edge.instances import InstanceJson
from centermask_edge.live.source import Kind, Source
from centermask_edge.live.sources.pictures import IMAGE_SUFFIXES

SCHEMA = "centermask-edge/1"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
_DEFAULT_RATE = Fraction(25)
_CLOCK = Fraction(1, 90_000)
_KEY_FRAME_S = 2
_SECOND = int(1 / _CLOCK)
_JPEG_QUALITY = 92

Image = npt.NDArray[np.uint8]


class PictureSink(Protocol):
    """Takes annotated pictures."""

    def write(self, frame: Frame, image: Image) -> None:
        """One annotated picture, uint8 (H, W, 3) BGR."""

    def close(self) -> None:
        """Finish the file; may be called twice."""


def check_writable(path: Path, source: Source) -> None:
    """Nothing, if a file can be written there.

    Raises:
        SinkError: no such folder, no permission, or the file is the source itself.
    """
    if any(_same(path, read) for read in source.paths):
        raise SinkError(f"{path} is the source itself; give another name for the output")
    if os.path.isdir(path):  # unlike Path's, it bears a name no file can have
        raise SinkError(f"{path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent}; make it first, or write elsewhere")
    existed = os.path.exists(path)
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}; write elsewhere") from None


def _same(path: Path, read: Path) -> bool:
    try:
        return path.samefile(read)  # sees through links
    except OSError:
        return path.resolve() == read.resolve()


class VideoSink:
    """An annotated video, H.264 where the PyAV build can encode it, else MPEG-4.

    Args:
        path: file to write; its suffix chooses the container.
        rate: frames per second of the source, where known.
    """

    def __init__(self, path: Path, rate: Fraction | None) -> None:
        self._av: Any = require("av", extra="cpu", why="write video")
        self._path = path
        self._rate = (rate or _DEFAULT_RATE).limit_denominator(1001)
        self._container: Any = None
        self._stream: Any = None
        self._start = 0
        self._last = -1

    def _open(self, image: Image) -> None:
        options = {}
        if self._path.suffix.lower() != ".mkv":
            options["movflags"] = _fragmented(self._av)
        self._container = self._av.open(str(self._path), "w", options=options)
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=self._rate)
        self._stream.height = image.shape[0] + image.shape[0] % 2
        self._stream.width = image.shape[1] + image.shape[1] % 2
        self._stream.pix_fmt = "yuv420p"
        # Frames out of order would shift every time stamp of a fragmented file.
        self._stream.codec_context.max_b_frames = 0
        self._stream.codec_context.time_base = _CLOCK
        # What a killed process loses is at most what lies after the last key frame.
        self._stream.gop_size = max(round(self._rate * _KEY_FRAME_S), 1)
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = 8_000_000

    def write(self, frame: Frame, image: Image) -> None:
        """One picture, at the source's time counted from the first; of another size than that
        one, it is resized.
        """
        try:
            if self._container is None:
                self._open(image)
            size = (self._stream.height, self._stream.width)
            picture = self._av.VideoFrame.from_ndarray(_fitted(image, size), format="bgr24")
            picture.pts, picture.time_base = self._ticks(frame.pts_s), _CLOCK
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def _ticks(self, pts_s: float) -> int:
        """Time in the file: strictly growing, as encoders want it, whatever the source does."""
        wanted = round(pts_s / _CLOCK)
        if self._last < 0:
            self._start = wanted
        elif wanted - self._start < self._last - _SECOND:  # the clock of a camera began anew
            self._start = wanted - self._last - round(_SECOND / self._rate)
        self._last = max(wanted - self._start, self._last + 1)
        return self._last

    def close(self) -> None:
        """Write what the encoder still holds and the end of the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            try:
                for packet in self._stream.encode(None):
                    container.mux(packet)
            finally:
                container.close()
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(f"cannot finish {self._path}: {error.strerror}") from None


def _fragmented(av: Any) -> str:
    """Flags that keep an mp4 playable if the process is killed.

    Since FFmpeg 7.1 (libavformat 61.7) such a file becomes an ordinary one when it is closed.
    """
    if tuple(av.library_versions.get("libavformat", (0, 0)))[:2] >= (61, 7):
        return "hybrid_fragmented"
    return "frag_keyframe+empty_moov+default_base_moof"


def _fitted(image: Image, size: tuple[int, int]) -> Image:
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    missing = (size[0] - image.shape[0], size[1] - image.shape[1])
    if all(0 <= m <= 1 for m in missing):  # codecs want even sizes: repeat the last line
        return np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    cv2: Any = require("cv2", extra="cpu", why="resize pictures")
    resized: Image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return resized


class ImageSink:
    """Annotated images: one file, or a folder with the sources' names.

    Args:
        path: image file, or folder where ``folder`` is true.
        folder: whether there will be many.
    """

    def __init__(self, path: Path, folder: bool) -> None:
        self._path, self._folder = path, folder

    def write(self, frame: Frame, image: Image) -> None:
        """One picture."""
        pillow = require("PIL.Image", extra="cpu", why="write images")
        target = self._path / frame.camera if self._folder else self._path
        pillow.init()
        kind = pillow.EXTENSION[target.suffix.lower()]
        memory = io.BytesIO()
        picture = pillow.fromarray(np.ascontiguousarray(image[..., ::-1]))
        try:
            picture.save(memory, kind, quality=_JPEG_QUALITY)
            target.write_bytes(memory.getvalue())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SinkError(f"cannot write {target}: {reason}") from None

    def close(self) -> None:
        """Nothing to finish."""


def check_window() -> None:
    """Nothing, if a window can be opened as far as can be told without opening one.

    Raises:
        SinkError: OpenCV has no windows here, or there is no display.
    """
    cv2: Any = require("cv2", extra="cpu", why="show a window")
    if not _has_windows(cv2.getBuildInformation()):
        raise SinkError(
            "--show: this OpenCV was built without windows; use --out FILE, or install "
            "opencv-python in place of opencv-python-headless"
        )
    if not _has_display():  # OpenCV's own answer may be to end the process
        raise SinkError("--show: there is no display here; use --out FILE")


class WindowSink:
    """A window; ``closed`` once the user pressed q or Esc or closed it.

    Args:
        wait: hold each picture until a key is pressed, where pictures have no time.

    Raises:
        SinkError: OpenCV has no windows here, or there is no display.
    """

    TITLE = "centermask-edge"

    def __init__(self, wait: bool = False) -> None:
        cv2: Any = require("cv2", extra="cpu", why="show a window")
        self._cv2 = cv2
        self._wait = wait
        self.closed = False
        check_window()
        try:
            cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise SinkError(f"--show: no window ({error}); use --out FILE") from None

    def write(self, frame: Frame, image: Image) -> None:
        """Show one picture."""
        self._cv2.imshow(self.TITLE, image)
        while True:
            key = self._cv2.waitKey(50 if self._wait else 1)
            visible = self._cv2.getWindowProperty(self.TITLE, self._cv2.WND_PROP_VISIBLE)
            self.closed = visible < 1 or (key >= 0 and key & 0xFF in (ord("q"), 27))
            if self.closed or key >= 0 or not self._wait:
                break

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()


def _has_windows(build: str) -> bool:
    """Whether OpenCV's description of itself names a toolkit for windows."""
    kinds = [line.split(":", 1)[1].strip() for line in build.splitlines() if "GUI:" in line]
    return kinds != ["NONE"]


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


class JsonLines:
    """One JSON object a frame, written out at once: an interrupted run leaves valid lines.

    Args:
        path: file to write.

    Raises:
        SinkError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, frame: Frame, instances: list[InstanceJson]) -> None:
        """The line of one frame."""
        line = {
            "schema": SCHEMA,
            "frame": frame.index,
            "pts_s": round(frame.pts_s, 6),
            "camera": frame.camera,
            "width": frame.width,
            "height": frame.height,
            "instances": instances,
        }
        try:
            if self._file is None:  # not before: a run that fails to start keeps the old file
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            raise SinkError(f"cannot finish {self._path}: {error.strerror}") from None


def picture_sink(path: Path, source: Source) -> PictureSink:
    """What ``--out`` means for this source, checked to be writable.

    Raises:
        SinkError: a name that does not fit the source, or a place that cannot be written.
    """
    suffix = path.suffix.lower()
    if source.kind is Kind.FOLDER:
        if suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) or os.path.isfile(path):
            raise SinkError(f"--out {path}: for a folder of images, give a folder to write to")
        if any(path.resolve() == read.resolve().parent for read in source.paths):
            raise SinkError(f"--out {path} is the source itself; give another folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"cannot make the folder {path}: {error.strerror}") from None
        check_writable(path / ".centermask-edge", source)
        return ImageSink(path, folder=True)
    wanted = IMAGE_SUFFIXES if source.kind is Kind.IMAGE else VIDEO_SUFFIXES
    if suffix not in wanted:
        raise SinkError(
            f"--out {path}: for this source, wanted a name ending in one of {', '.join(wanted)}"
        )
    check_writable(path, source)
    if source.kind is Kind.IMAGE:
        return ImageSink(path, folder=False)
    return VideoSink(path, source.rate)
