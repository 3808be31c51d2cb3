"""Requests of RTSP and HTTP, read with bounds, and answers to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_BYTES = 16384
_BODY_BYTES = 65536
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
}


class BadRequestError(Exception):
    """What the client sent is no request, or too long; the connection is to be closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks.

    Attributes:
        method: ``DESCRIBE``, ``GET`` and so on.
        target: the address as it was written.
        protocol: ``RTSP/1.0`` or ``HTTP/1.1``.
        headers: by their names in small letters.
    """

    method: str
    target: str
    protocol: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Of the address, without slashes at its ends."""
        return urlsplit(self.target).path.strip("/")

    def answer(
        self, status: int, headers: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> bytes:
        """An answer to it."""
        lines = [f"{self.protocol} {status} {_REASONS[status]}"]
        if "cseq" in self.headers:
            lines.append(f"CSeq: {self.headers['cseq']}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body or self.protocol.startswith("HTTP"):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the end. What a player reports about its stream is left out.

    Raises:
        BadRequestError: it is none, or too long.
    """
    try:
        while (first := await reader.readexactly(1)) == b"$":
            head = await reader.readexactly(3)
            await reader.readexactly(int.from_bytes(head[1:], "big"))
        request = parse_request(first + await reader.readuntil(b"\r\n\r\n"))
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > _BODY_BYTES:
            raise BadRequestError(f"a body of {length} bytes")
        await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise BadRequestError("a head without an end") from None
    return request


def parse_request(head: bytes) -> Request:
    r"""The request in its head.

    Raises:
        BadRequestError: it is none.

    >>> parse_request(b"OPTIONS rtsp://h/live RTSP/1.0\r\nCSeq: 1\r\n\r\n").headers
    {'cseq': '1'}
    """
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith(("RTSP/", "HTTP/")):
        raise BadRequestError("not a request of RTSP or HTTP")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    try:
        urlsplit(words[1])
    except ValueError:
        raise BadRequestError("not an address") from None
    return Request(words[0].upper(), words[1], words[2], headers)
