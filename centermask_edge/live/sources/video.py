"""Video files and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from centermask_edge.errors import SourceError, require
from centermask_edge.frame import Frame
from centermask_edge.live.capture.faults import SourceFault
from centermask_edge.live.capture.ffmpeg import host_of, open_trouble, read_fault, reason
from centermask_edge.live.health import Fault
from centermask_edge.live.source import Kind, redact

SCHEMES = ("rtsp", "rtsps", "http", "https")
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0
# A container's duration may round up by a frame or two; more than this is missing content.
_MISSING_S = 0.5
# A live stream that is damaged and of whose last packets so few give a picture shows what the
# decoder makes up (of pure noise up to one picture in five packets), and would be live by that.
_LAST, _FEWEST = 50, 15


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a stream is waited for, and how large its pictures may be.

    Attributes:
        open_s: seconds to connect, and again as many to learn what is sent.
        read_s: seconds without data.
        max_pixels: of one picture; None for what the memory holds.
        probe_s: seconds of the stream looked at before the first frame is given, and no frames
            counted to learn the rate: over MPEG-TS at 30 frames/s that alone takes 0.7 s. None
            for FFmpeg's own way.
    """

    open_s: float
    read_s: float
    max_pixels: int | None = None
    probe_s: float | None = None

    def options(self) -> dict[str, str]:
        """For FFmpeg."""
        found = {}
        if self.max_pixels is not None:
            found["max_pixels"] = str(self.max_pixels)
        if self.probe_s is not None:
            found |= {"analyzeduration": f"{self.probe_s * 1e6:.0f}", "fpsprobesize": "0"}
        return found


class VideoSource:
    """Frames of a video file or of a network stream.

    What is damaged is left out with a warning, and a source that breaks off ends with one: what
    came before is worth keeping.

    Args:
        address: path or address for FFmpeg.
        kind: ``Kind.VIDEO`` or ``Kind.STREAM``.
        patience: with a stream; without it, ``OPEN_TIMEOUT_S`` and ``READ_TIMEOUT_S``.

    Attributes:
        fault: what ended the frames; None where they ended by themselves.
        heard_s: ``time.monotonic()`` when the last data came.
        decoder: what decodes.
        note: why nothing faster decodes; who opens it may say so.

    Raises:
        MissingPackageError: PyAV is not installed.
        SourceFault: it cannot be opened.
        SourceError: it holds no video.
    """

    def __init__(self, address: str, kind: Kind, patience: Patience | None = None) -> None:
        self.kind = kind
        live = kind is Kind.STREAM
        self.name = redact(address) if live else Path(address).name
        self.paths = [] if live else [Path(address)]
        self.warnings: list[str] = []
        self._av = require("av", extra="cpu", why="read videos and streams")
        self._patience = patience or Patience(OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        self._container = (
            _open_stream(self._av, address, self._patience)
            if live
            else _open_file(self._av, address)
        )
        self.fault: Fault | None = None
        self.note = ""
        self.heard_s = time.monotonic()
        self._left = False
        if not self._container.streams.video:
            self._container.close()
            raise SourceFault(
                Fault.CODEC, f"{self.name} holds no video; give a video, an image or a folder"
            )
        self._stream = self._container.streams.video[0]
        codec = self._stream.codec_context
        if codec is None:
            self._container.close()
            raise SourceFault(Fault.CODEC, f"{self.name} is of a codec that FFmpeg cannot decode")
        self.decoder = f"{codec.name} (FFmpeg, software)"
        if self._patience.max_pixels:
            codec.options = {"max_pixels": str(self._patience.max_pixels)}
        # Frames decoded in parallel come late: worth it for a file, not for a camera.
        self._stream.thread_type = "SLICE" if live else "AUTO"
        self.rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        self.total: int | None = self._stream.frames or None
        self._damaged = 0

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        end_s = 0.0
        broke = ""
        try:
            for decoded in self._decoded():
                frame = self._frame(decoded, index)
                end_s = frame.pts_s
                yield frame
                index += 1
        except self._av.FFmpegError as error:
            self.fault = read_fault(self._av, error)
            broke = reason(self._av, error, self._patience.read_s)
        if self._left:
            return
        if index == 0:
            raise SourceFault(
                self.fault or Fault.CODEC,
                f"not one frame of {self.name} can be decoded"
                f"{f' ({broke})' if broke else ''}; it is damaged, cut off or of an unknown codec",
            )
        if self._damaged:
            self.warnings.append(
                f"{self._damaged} damaged packets of {self.name} were left out"
                if self._damaged > 1
                else f"a damaged packet of {self.name} was left out"
            )
        where = f"{self.name} breaks off after frame {index}, at {end_s:.1f} s"
        if broke:
            self.warnings.append(f"{where}: {broke}")
        elif (length := self._length_s()) is not None:
            step = 1 / self.rate if self.rate else 0
            if end_s + step < length - max(_MISSING_S, 3 * step):
                self.warnings.append(f"{where} of {length:.1f} s; it is cut off or damaged")

    def close(self) -> None:
        """Closes the file or connection."""
        self._container.close()

    def leave(self) -> None:
        """Ends the frames at the next data or time-out; may be called from another thread."""
        self._left = True

    def _decoded(self) -> Iterator[Any]:
        sized = False
        last: deque[int] = deque(maxlen=_LAST)
        # All packets of a camera, so that one which sends nothing but sound can be left.
        chosen = () if self.kind is Kind.STREAM else (self._stream,)
        for packet in self._container.demux(*chosen):
            if self._left:
                return
            if packet.stream.index != self._stream.index:
                continue
            self.heard_s = time.monotonic()
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                self._check_size(self._stream.codec_context)
                # Some decoders forget the size that they have just refused.
                if self._patience.max_pixels and sized and not self._stream.codec_context.width:
                    raise self._too_large("pictures that are damaged or") from None
                if not isinstance(error, self._av.error.InvalidDataError):
                    raise
                self._damaged += 1
                last.append(0)
                if sized and len(last) == _LAST:
                    self._check_damage(sum(last))
                continue
            last.append(len(frames))
            for frame in frames:
                sized = True
                self._check_size(frame)
                yield frame

    def _check_damage(self, pictures: int) -> None:
        """Gives a camera up of which next to nothing can be decoded any more."""
        if self.kind is Kind.STREAM and pictures < _FEWEST:
            raise SourceFault(
                Fault.CODEC,
                f"{self.name} is damaged: its last {_LAST} packets gave {pictures} pictures",
            )

    def _check_size(self, picture: Any) -> None:
        """Refuses a decoded picture, or a codec's announcement of one, that is too large.

        FFmpeg, told the same limit, has not taken memory for it.
        """
        most = self._patience.max_pixels
        if most and picture.width * picture.height > most:
            raise self._too_large(f"pictures of {picture.width}x{picture.height} pixels,")

    def _too_large(self, what: str) -> SourceFault:
        most = (self._patience.max_pixels or 0) / 1e6
        return SourceFault(
            Fault.CODEC, f"{self.name} sends {what} larger than the {most:.3g} million allowed"
        )

    def _frame(self, decoded: Any, index: int) -> Frame:
        if decoded.pts is not None and decoded.time_base is not None:
            pts_s = float(decoded.pts * decoded.time_base)
        else:
            pts_s = float(index / self.rate) if self.rate else float(index)
        image = decoded.to_ndarray(format="bgr24")
        quarter_turns = round(getattr(decoded, "rotation", 0) / 90) % 4
        if quarter_turns:
            image = np.ascontiguousarray(np.rot90(image, quarter_turns))
        return Frame(image, pts_s, time.monotonic(), self.name, index)

    def _length_s(self) -> float | None:
        """Time stamp at which a file promises to end; None where nothing is promised."""
        stream = self._stream
        if self.kind is Kind.STREAM:
            return None
        if stream.duration:
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
        # Matroska keeps it for the whole file, in microseconds, and sound may outlast the video.
        if self._container.duration and len(self._container.streams) == 1:
            return float(self._container.duration / 1e6)
        return None


def _open_file(av: ModuleType, address: str) -> Any:
    path = Path(address)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path} is empty (0 bytes); copy or record it again")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    try:
        return av.open(address)
    except av.FFmpegError as error:
        raise SourceFault(
            Fault.CODEC,
            f"{path} is not a video or image that can be read ({reason(av, error, 0)}); "
            "it is damaged, cut off before its index, or of another kind",
        ) from None


def _open_stream(av: ModuleType, address: str, patience: Patience) -> Any:
    name = redact(address)
    host = host_of(address, name)
    options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    options |= patience.options()
    start = time.monotonic()
    try:
        return av.open(address, options=options, timeout=(patience.open_s, patience.read_s))
    except av.FFmpegError as error:
        late = time.monotonic() - start > 0.9 * patience.open_s
        fault, trouble = open_trouble(av, error, host, patience.open_s, late=late)
    # Not inside the clause: FFmpeg's error, which holds the address, must not travel along.
    raise SourceFault(fault, f"cannot open {name}: {trouble}")
