"""As much of an MQTT 3.1.1 broker as a publisher meets, for machines without mosquitto."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from types import TracebackType
from typing import Protocol


class Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writes(Protocol):
    def write(self, content: bytes, /) -> int: ...


class FakeBroker:
    """Accepts publishers, confirms what they ask to be confirmed, and keeps it all.

    Args:
        refusal: code with which every connection is refused (5: not authorized); 0 accepts.
    """

    def __init__(self, refusal: int = 0) -> None:
        self.refusal = refusal
        self.heard: list[tuple[str, bytes, int, bool]] = []
        self.wills: list[tuple[str, bytes]] = []
        self.connections: list[socket.socket] = []
        broker = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                broker.connections.append(self.connection)
                broker.serve(self.rfile, self.wfile)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def drop(self) -> None:
        """Every connection breaks."""
        for connection in self.connections:
            with contextlib.suppress(OSError):  # gone already
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def serve(self, read: Reads, write: Writes) -> None:
        """One client, to its end."""
        will: tuple[str, bytes] | None = None
        try:
            while (packet := _packet(read)) is not None:
                kind, flags, body = packet
                if kind == 1:
                    will = _will(body)
                    write.write(bytes([0x20, 2, 0, self.refusal]))
                    if self.refusal:
                        return
                elif kind == 3:
                    self._publish(flags, body, write)
                elif kind == 12:
                    write.write(b"\xd0\x00")
                elif kind == 14:
                    return
        except OSError:
            pass
        if will is not None:
            self.wills.append(will)

    def _publish(self, flags: int, body: bytes, write: Writes) -> None:
        topic, rest = _text(body)
        quality = flags >> 1 & 3
        number, message = (rest[:2], rest[2:]) if quality else (b"", rest)
        self.heard.append((topic.decode(), message, quality, bool(flags & 1)))
        if quality:  # kept before it is confirmed: who waits for that may look at once
            write.write(b"\x40\x02" + number)


def _packet(read: Reads) -> tuple[int, int, bytes] | None:
    first = read.read(1)
    if not first:
        return None
    length = shift = 0
    while True:
        digit = read.read(1)[0]
        length |= (digit & 127) << shift
        shift += 7
        if digit < 128:
            break
    return first[0] >> 4, first[0] & 15, read.read(length)


def _text(body: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">H", body[:2])
    return body[2 : 2 + length], body[2 + length :]


def _will(body: bytes) -> tuple[str, bytes] | None:
    """Topic and message of the last will in a CONNECT."""
    _, rest = _text(body)
    flags, rest = rest[1], rest[4:]
    _, rest = _text(rest)
    if not flags & 4:
        return None
    topic, rest = _text(rest)
    return topic.decode(), _text(rest)[0]
