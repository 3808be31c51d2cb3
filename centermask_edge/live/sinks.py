"""Where results go: annotated video, images, JSON lines, a window.

Every sink checks that it can write before the model is loaded, and leaves behind a valid file
however the run ends.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from centermask_edge.errors import SinkError, require
from centermask_edge.frame import Frame
from centermask_edge.instances import InstanceJson
from centermask_edge.live.pictures import IMAGE_SUFFIXES
from centermask_edge.live.source import Kind, Source

SCHEMA = "centermask-edge/1"
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
_DEFAULT_RATE = Fraction(25)
_CLOCK = Fraction(1, 90_000)
_KEY_FRAME_S = 2

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
    if any(path.resolve() == read.resolve() for read in source.paths):
        raise SinkError(f"{path} is the source itself; give another name for the output")
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent}; make it first, or write elsewhere")
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}; write elsewhere") from None
    if not existed:
        path.unlink()


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
        self._last = -1

    def _open(self, image: Image) -> None:
        options = {}
        if self._path.suffix.lower() in (".mp4", ".mov"):
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
        """One picture, at the source's time; of another size than the first, it is resized."""
        try:
            if self._container is None:
                self._open(image)
            size = (self._stream.height, self._stream.width)
            picture = self._av.VideoFrame.from_ndarray(_fitted(image, size), format="bgr24")
            # Encoders want strictly growing times; some sources repeat them.
            self._last = max(round(frame.pts_s / _CLOCK), self._last + 1)
            picture.pts, picture.time_base = self._last, _CLOCK
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (self._av.error.FFmpegError, OSError) as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Write what the encoder still holds and the end of the file."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            for packet in self._stream.encode(None):
                container.mux(packet)
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
        try:
            pillow.fromarray(np.ascontiguousarray(image[..., ::-1])).save(target)
        except (OSError, ValueError) as error:
            raise SinkError(f"cannot write {target}: {error}") from None

    def close(self) -> None:
        """Nothing to finish."""


class WindowSink:
    """A window; ``closed`` once the user pressed q or Esc or closed it.

    Raises:
        SinkError: OpenCV has no windows here.
    """

    TITLE = "centermask-edge"

    def __init__(self) -> None:
        cv2: Any = require("cv2", extra="cpu", why="show a window")
        self._cv2 = cv2
        self.closed = False
        try:
            cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL)
        except cv2.error:
            raise SinkError(
                "--show: this OpenCV was built without windows, or there is no display; "
                "use --out FILE, or install opencv-python in place of opencv-python-headless"
            ) from None

    def write(self, frame: Frame, image: Image) -> None:
        """Show one picture."""
        self._cv2.imshow(self.TITLE, image)
        self.closed = self._cv2.waitKey(1) & 0xFF in (ord("q"), 27)

    def close(self) -> None:
        """Close the window."""
        self._cv2.destroyAllWindows()


class JsonLines:
    """One JSON object a frame, written out at once: an interrupted run leaves valid lines.

    Args:
        path: file to write.

    Raises:
        SinkError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"cannot write {path}: {error.strerror}") from None

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
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def picture_sink(path: Path, source: Source) -> PictureSink:
    """What ``--out`` means for this source, checked to be writable.

    Raises:
        SinkError: a name that does not fit the source, or a place that cannot be written.
    """
    suffix = path.suffix.lower()
    if source.kind is Kind.FOLDER:
        if suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) or path.is_file():
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
