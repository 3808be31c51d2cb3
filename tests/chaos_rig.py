"""A small reel for the fault server, and a client over RTSP that shares no code with it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote, urlsplit

from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.chaos.footage import Codec, Reel, film
from centermask_edge.live.synthetic.scene import Look, Scene, SceneSettings

SHORT = CaptureOptions(
    frozen_s=0.4,
    open_s=0.5,
    first_frame_s=1.0,
    retry_s=0.02,
    retry_recent_s=0.05,
    auth_retry_s=0.02,
    auth_retry_max_s=0.05,
)
SCENE = SceneSettings(Look.SHAPES, 320, 240, 60.0, 2, seed=1)
KEY_EVERY, FRAMES = 5, 60
TRANSPORT = "RTP/AVP/TCP;unicast;interleaved=2-3"


@cache
def reel(codec: Codec = Codec.H264) -> Reel:
    """A second at 60 frames/s with a number in each picture, and 12 key frames."""
    scene = Scene(SCENE)
    return film((scene.picture(n) for n in range(FRAMES)), SCENE.fps, codec, KEY_EVERY)


@dataclass(frozen=True, slots=True)
class Packet:
    """Of RTP."""

    sequence: int
    timestamp: int
    marker: bool
    payload: bytes


class RtspClient:
    """Speaks RTSP as the standard says, one request after the other."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self.target = f"rtsp://{parts.hostname}:{parts.port}{parts.path}"
        self._socket = socket.create_connection((str(parts.hostname), parts.port or 554), 3)
        self._file = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> RtspClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def ask(self, method: str, path: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        self._number += 1
        lines = [f"{method} {self.target}{path} RTSP/1.0", f"CSeq: {self._number}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.write("\r\n".join([*lines, "", ""]).encode())
        first = self._file.readline()
        while first[:1] == b"$":  # pictures may come before the answer
            rest = first[1:] + self.read(max(0, 4 - len(first)))
            length = int.from_bytes(rest[1:3], "big")
            self.read(length - (len(rest) - 3))
            first = self._file.readline()
        found = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        assert found["cseq"] == str(self._number)
        return int(first.split()[1]), found, self.read(int(found.get("content-length", 0)))

    def granted(self, method: str, path: str = "", **headers: str) -> dict[str, str]:
        """As ``ask``, with the password; the answer must be 200. The body is under ``body``."""
        status, found, body = self.ask(method, path, **headers)
        if status == 401:
            headers["Authorization"] = self.proof(method, found["www-authenticate"])
            status, found, body = self.ask(method, path, **headers)
        assert status == 200, status
        return {**found, "body": body.decode()}

    def proof(self, method: str, challenge: str) -> str:
        if challenge.startswith("Basic"):
            pair = f"{self._user}:{self._password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        secret = _md5(f"{self._user}:{asked['realm']}:{self._password}")
        response = _md5(f"{secret}:{asked['nonce']}:{_md5(f'{method}:{self.target}')}")
        return (
            f'Digest username="{self._user}", realm="{asked["realm"]}", nonce="{asked["nonce"]}", '
            f'uri="{self.target}", response="{response}"'
        )

    def play(self) -> str:
        """Asks for pictures; returns the description of the stream."""
        text = self.granted("DESCRIBE")["body"]
        session = self.granted("SETUP", "/video", Transport=TRANSPORT)["session"]
        self.granted("PLAY", Session=session.split(";")[0])
        return text

    def packets(self) -> Iterator[Packet]:
        """What comes, until the connection ends."""
        with contextlib.suppress(OSError):
            while (head := self.read(4))[:2] == b"$\x02":
                data = self.read(int.from_bytes(head[2:], "big"))
                assert data[0] == 0x80 and data[1] & 0x7F == 96
                number, stamp = int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:8], "big")
                yield Packet(number, stamp, bool(data[1] & 0x80), data[12:])

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Time stamp and byte stream of each picture."""
        stream = b""
        for packet in self.packets():
            stream += _byte_stream(packet.payload)
            if packet.marker:
                yield packet.timestamp, stream
                stream = b""


def _byte_stream(payload: bytes) -> bytes:
    start = b"\x00\x00\x00\x01"
    if payload[0] & 31 != 28:
        return start + payload
    if payload[1] & 0x80:
        return start + bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) + payload[2:]
    return payload[2:]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
