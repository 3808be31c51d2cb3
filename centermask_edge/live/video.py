"""Video files and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from centermask_edge.errors import SourceError, require
from centermask_edge.frame import Frame
from centermask_edge.live.source import Kind, redact

SCHEMES = ("rtsp", "rtsps", "http", "https")
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0
# A container's duration may round up by a frame or two; more than this is missing content.
_MISSING_S = 0.5


class VideoSource:
    """Frames of a video file or of a network stream.

    What is damaged is left out with a warning, and a source that breaks off ends with one: what
    came before is worth keeping.

    Args:
        address: path or address for FFmpeg.
        kind: ``Kind.VIDEO`` or ``Kind.STREAM``.

    Raises:
        MissingPackageError: PyAV is not installed.
        SourceError: it cannot be opened or holds no video.
    """

    def __init__(self, address: str, kind: Kind) -> None:
        self.kind = kind
        live = kind is Kind.STREAM
        self.name = redact(address) if live else Path(address).name
        self.paths = [] if live else [Path(address)]
        self.warnings: list[str] = []
        self._av = require("av", extra="cpu", why="read videos and streams")
        self._container = _open_stream(self._av, address) if live else _open_file(self._av, address)
        if not self._container.streams.video:
            self._container.close()
            raise SourceError(f"{self.name} holds no video; give a video, an image or a folder")
        self._stream = self._container.streams.video[0]
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
            broke = _reason(self._av, error)
        if index == 0:
            raise SourceError(
                f"not one frame of {self.name} can be decoded"
                f"{f' ({broke})' if broke else ''}; it is damaged, cut off or of an unknown codec"
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

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except self._av.error.InvalidDataError:
                self._damaged += 1
                continue
            yield from frames

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
        raise SourceError(
            f"{path} is not a video or image that can be read ({_reason(av, error)}); "
            "it is damaged, cut off before its index, or of another kind"
        ) from None


def _open_stream(av: ModuleType, address: str) -> Any:
    name = redact(address)
    host = _host(address, name)
    options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    start = time.monotonic()
    try:
        return av.open(address, options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
    except av.FFmpegError as error:
        late = time.monotonic() - start > 0.9 * OPEN_TIMEOUT_S
        trouble = _open_trouble(av, error, host, late)
    raise SourceError(f"cannot open {name}: {trouble}")


def _host(address: str, name: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise SourceError(
            f"{name} is not a complete address; wanted for example rtsp://192.168.1.10:554/stream"
        )
    return host


def _open_trouble(av: ModuleType, error: Any, host: str, late: bool) -> str:
    """What went wrong and what to do, for a stream that does not open."""
    errors = av.error
    if late or isinstance(error, errors.ExitError | errors.TimeoutError):
        return f"no answer within {OPEN_TIMEOUT_S:.0f} s; check that {host} is on and reachable"
    if isinstance(error, errors.ConnectionRefusedError):
        return f"connection refused by {host}; check the port, and that the stream is running"
    if isinstance(error, errors.HTTPUnauthorizedError):
        return "user name or password refused (401); put them in: rtsp://USER:PASSWORD@HOST/..."
    if isinstance(error, errors.HTTPForbiddenError):
        return "access denied (403); check the rights of this user"
    if isinstance(error, errors.HTTPNotFoundError):
        return "the server has no such stream (404); check the path of the address"
    if isinstance(error, OSError) and not _known(host):
        return f"host {host} not found; check the spelling and the network"
    if isinstance(error, errors.InvalidDataError):
        return "what it sends is not a video; check the path of the address"
    return _reason(av, error)


def _known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _reason(av: ModuleType, error: Any) -> str:
    """FFmpeg's words without the address, which may hold a password."""
    if isinstance(error, av.error.ExitError):
        return f"no data for {READ_TIMEOUT_S:.0f} s"
    words = str(error.strerror or type(error).__name__)
    return words[:1].lower() + words[1:]
