"""A small HTTP server that bounds what its clients can cost: number, time, and what they see."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs.feed import Feed
from centermask_edge.live.outputs.web_access import check_token, refused
from centermask_edge.live.outputs.web_page import PAGE, policy

_BOUNDARY = b"picture"
_QUIET_S = 10.0
_LOOK_S = 1.0
# A place is kept so long for a client that does not ask, or not for what it may have.
_ASK_S = 3.0
# More would only hold old pictures on their way to a slow client.
_SEND_BUFFER = 1 << 18


class Site(Protocol):
    """What the server shows."""

    def feed(self, path: str) -> Feed | None:
        """The camera of that name in addresses, or None."""

    def health(self) -> dict[str, Any]:
        """What ``/health`` says."""

    def trouble(self, error: Exception) -> None:
        """Told of what went wrong while a picture was made for a viewer."""


class Server(ThreadingHTTPServer):
    """Serves a site until it is closed.

    Args:
        site: what to show.
        host: address to bind to.
        port: 0 for a free one.
        token: that every request must bear; None on loopback only.
        most: clients at a time; one more is turned away.

    Raises:
        SinkError: the address is taken, not of this machine, or open without a token.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, site: Site, host: str, port: int, token: str | None, most: int) -> None:
        check_token(host, token)
        self.site, self.token = site, token
        self.closing = False
        self._most = most
        # When each came; 0 once it has made a request that was granted.
        self._clients: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SinkError(f"cannot serve on {host}:{port}: {reason}") from None
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.1,), name="web server", daemon=True
        )
        self._thread.start()

    def server_bind(self) -> None:
        """Bind, without the reverse look-up of names that may take half a minute."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def port(self) -> int:
        """The one it serves on."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the client, while there are not too many."""
        with self._lock:
            welcome = len(self._clients) < self._most or self._free_a_place()
            if welcome:
                self._clients[request] = time.monotonic()
        if welcome:
            super().process_request(request, client_address)
        else:
            with contextlib.suppress(OSError):
                request.settimeout(1)
                request.sendall(b"HTTP/1.1 503 Too many viewers\r\nContent-Length: 0\r\n\r\n")
            super().shutdown_request(request)

    def _free_a_place(self) -> bool:
        """Whether a client gave way that has asked for nothing it may have. The lock is held."""
        now = time.monotonic()
        for client, came_s in self._clients.items():
            if came_s and now - came_s > _ASK_S:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                del self._clients[client]
                return True
        return False

    def granted(self, request: Any) -> None:
        """The client may look; it keeps its place."""
        with self._lock:
            if request in self._clients:
                self._clients[request] = 0.0

    def shutdown_request(self, request: Any) -> None:
        """The client is gone."""
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave as they like; nothing to say."""

    def close(self) -> None:
        """Ends every connection and lets go of the port; may be called twice."""
        if self.closing:
            return
        self.closing = True
        self.shutdown()
        self.server_close()
        with self._lock:
            for client in list(self._clients):
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "centermask-edge", ""
    timeout = _QUIET_S
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses may bear the token."""

    def do_GET(self) -> None:
        """One of the five addresses."""
        parts = urlsplit(self.path)
        refusal = refused(self.server.token, parts.query, self.headers)
        if refusal is not None:
            self._send(refusal, "text/plain", refusal.phrase.encode())
            return
        self.server.granted(self.connection)
        name, _, suffix = parts.path.strip("/").rpartition(".")
        feed = self.server.site.feed(name)
        if parts.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.encode())
        elif parts.path == "/health":
            health = json.dumps(self.server.site.health()).encode()
            self._send(HTTPStatus.OK, "application/json", health)
        elif feed is not None and suffix == "jpg":
            self._snapshot(feed)
        elif feed is not None and suffix == "mjpg":
            self._stream(feed)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such camera\n")

    def _headers(self, status: HTTPStatus, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        for name, value in (
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", policy()),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._headers(status, kind, len(content))
        self.wfile.write(content)

    def _picture(self, make: Callable[[], tuple[int, bytes] | None]) -> tuple[int, bytes] | None:
        try:
            return make()
        except Exception as error:  # the picture function is the user's
            self.server.site.trouble(error)
            return None

    def _snapshot(self, feed: Feed) -> None:
        picture = self._picture(lambda: feed.picture(0, 0.0))
        if picture is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"no picture\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", picture[1])

    def _stream(self, feed: Feed) -> None:
        """Pictures as they come and as fast as the client takes them."""
        self.close_connection = True
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
        feed.watch(1)
        try:
            self._headers(HTTPStatus.OK, kind, None)
            self.wfile.write(b"--%s\r\n" % _BOUNDARY)
            number = 0
            while not self.server.closing and not self._gone():
                picture = self._picture(lambda after=number: feed.picture(after, _LOOK_S))  # type: ignore[misc]
                if picture is not None:
                    number, content = picture
                    self._part(content)
        except OSError:  # the client left, or took nothing for too long
            pass
        finally:
            feed.watch(-1)

    def _part(self, content: bytes) -> None:
        head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content)
        # The boundary goes with the picture: browsers show it only once they have seen that.
        self.wfile.write(head + content + b"\r\n--%s\r\n" % _BOUNDARY)

    def _gone(self) -> bool:
        """Whether the client has hung up, also while no picture comes that would tell."""
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)
