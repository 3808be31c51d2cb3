"""Cameras for the tests of capture: made of Python, or small servers on this machine."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from centermask_edge.frame import Frame
from centermask_edge.live.camera import Bell
from centermask_edge.live.capture.camera import LiveCamera
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.health import Fault, State
from centermask_edge.live.source import Kind

QUICK = CaptureOptions(
    frozen_s=0.15,
    open_s=0.3,
    first_frame_s=0.4,
    retry_s=0.01,
    retry_recent_s=0.02,
    retry_max_s=0.05,
)
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n"


class Scripted:
    """A source that does what it is told: ``script`` yields frames, sleeps or raises."""

    def __init__(
        self, script: Callable[[Scripted], Iterator[Frame]], kind: Kind = Kind.STREAM
    ) -> None:
        self.name = "scripted"
        self.kind = kind
        self.rate: Fraction | None = None
        self.total: int | None = None
        self.paths: list[Path] = []
        self.warnings: list[str] = []
        self.fault: Fault | None = None
        self.closed = threading.Event()
        self._script = script

    def __iter__(self) -> Iterator[Frame]:
        return self._script(self)

    def close(self) -> None:
        self.closed.set()


def picture(value: int = 0, pts_s: float = 0.0) -> Frame:
    """A small picture of one brightness."""
    return Frame(np.full((4, 6, 3), value, np.uint8), pts_s, time.monotonic(), "scripted", value)


def some(count: int, every_s: float = 0.0) -> Callable[[Scripted], Iterator[Frame]]:
    """A script of so many frames."""

    def script(source: Scripted) -> Iterator[Frame]:
        for index in range(count):
            yield picture(index, index * every_s)
            if every_s and source.kind is Kind.STREAM:
                time.sleep(every_s)

    return script


@contextlib.contextmanager
def running(camera: LiveCamera) -> Iterator[Bell]:
    """The camera, started; stopped at the end."""
    bell = Bell()
    camera.start(bell)
    try:
        yield bell
    finally:
        camera.stop()


def until(done: Callable[[], bool], within_s: float = 5.0) -> float:
    """Seconds until it is so; fails where it never is."""
    start = time.monotonic()
    while not done():
        assert time.monotonic() < start + within_s, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - start


def taken(camera: LiveCamera, count: int, within_s: float = 5.0) -> list[Frame]:
    """The next frames."""
    frames: list[Frame] = []

    def enough() -> bool:
        frame = camera.take()
        if frame is not None:
            frames.append(frame)
        return len(frames) >= count

    until(enough, within_s)
    return frames


def state(camera: LiveCamera) -> State:
    return camera.health().state


def descriptors() -> int:
    """Open files and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


def tasks() -> int:
    """Threads of this process, those of libraries included."""
    return len(os.listdir("/proc/self/task"))


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """One part of an MJPEG stream."""
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj420p"
    codec.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="bgr24")
    frame = frame.reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    data = b"".join(bytes(packet) for packet in codec.encode(frame))
    head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n"


def transport_stream(width: int, height: int, count: int) -> bytes:
    """H.264 in an MPEG transport stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = 5
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for index in range(count):
            pixels = np.full((height, width, 3), index * 3 % 250, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class Server:
    """Serves each connection by ``serve(connection, number)`` in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://admin:s3cret@127.0.0.1:{self.port}/live?token=t0ken"

    def close(self) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in (self._thread, *self._threads):
            thread.join(3)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                thread = threading.Thread(
                    target=self._one, args=(connection, self.connections), daemon=True
                )
                self.connections += 1
                self._threads.append(thread)
                thread.start()

    def _one(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            self._serve(connection, number)
