"""One camera of the fault server: a port of its own, its clients, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable

from centermask_edge.errors import SourceError
from centermask_edge.live.chaos import hostile
from centermask_edge.live.chaos.access import Access
from centermask_edge.live.chaos.conditions import Conditions
from centermask_edge.live.chaos.footage import Codec, Reel
from centermask_edge.live.chaos.link import HangUpError, Link
from centermask_edge.live.chaos.mjpeg import serve_pictures
from centermask_edge.live.chaos.requests import HEAD_BYTES, BadRequestError, Request
from centermask_edge.live.chaos.rtsp import RtspSession
from centermask_edge.live.chaos.schedule import Change, Mishap

PATH = "live"
_HOST = "127.0.0.1"
_WAITING = 100  # connections that are not looked at yet
# Those that break the connections there are when they begin, and when they are over.
_BEGIN_NEW = {
    *(Mishap.RESET, Mishap.REFUSE, Mishap.UNAUTHORISED, Mishap.NOT_FOUND),
    *(Mishap.HUGE_SDP, Mishap.ENDLESS_HEADERS),
}
_END_NEW = {Mishap.GARBAGE, Mishap.HUGE_SDP, Mishap.ENDLESS_HEADERS}

Told = Callable[[Mishap | None], None]


class ChaosCamera:
    """A camera; everything in here runs in the server's thread.

    Args:
        reel: what it shows.
        changes: what goes wrong and when, counted from the first connection.
        access: who may see it; None for everybody.
        told: told of each mishap as it begins, and with None when it is over.
        seed: of what is left to chance.
    """

    def __init__(
        self, reel: Reel, changes: Iterable[Change], access: Access | None, told: Told, seed: int
    ) -> None:
        self.conditions = Conditions(reel, seed)
        self.port = 0
        self.connections = 0
        self._changes, self._access, self._told = changes, access, told
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None
        self._timer: asyncio.Task[None] | None = None
        self._over = False

    async def open(self) -> None:
        """Listens on a free port.

        Raises:
            SourceError: there is none.
        """
        try:
            self._socket = _bound(0)
            self.port = int(self._socket.getsockname()[1])
            self._listen()
        except OSError as error:
            raise SourceError(f"the fault server cannot listen: {error.strerror}") from None

    async def close(self) -> None:
        """Breaks off everything."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._tasks.add(self._timer)
        self._unlisten()
        self._break()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def enter(self, mishap: Mishap | None) -> float:
        """From now on this is wrong, or nothing; returns the moment, of ``time.monotonic``."""
        before = self.conditions.mishap
        self.conditions.enter(mishap)
        if mishap in _BEGIN_NEW or before in _END_NEW:
            self._break()
        if mishap is Mishap.REFUSE:
            self._unlisten()
            self._socket = _bound(self.port)
        elif before is Mishap.REFUSE:
            self._listen()
        at_s = time.monotonic()
        self._told(mishap)
        return at_s

    # Not by asyncio's own server, which loses a connection that comes while it is being closed.

    def _listen(self) -> None:
        assert self._socket is not None, "bound"
        self._socket.listen(_WAITING)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _unlisten(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None, "listening"
        try:
            connection, _ = self._socket.accept()
        except OSError:  # the client is gone again
            return
        self.connections += 1
        task = asyncio.ensure_future(self._client(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._timer is None:
            self._timer = asyncio.ensure_future(self._keep_time())

    def _break(self) -> None:
        for link in self._links:
            link.abort()

    async def _client(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        link = Link(*await asyncio.open_connection(sock=connection, limit=HEAD_BYTES))
        self._links.add(link)
        try:
            if not self._over:
                await self._serve(link)
        except (HangUpError, BadRequestError, OSError):
            pass
        finally:
            await link.close()
            self._links.discard(link)

    async def _keep_time(self) -> None:
        begin_s = time.monotonic()
        for at_s, mishap in self._changes:
            await asyncio.sleep(max(0.0, begin_s + at_s - time.monotonic()))
            await self.enter(mishap)

    async def _serve(self, link: Link) -> None:
        session = RtspSession(link, self.conditions)
        try:
            while (request := await link.request()) is not None:
                await link.thaw(self.conditions)
                await self._attack(link)
                status = self._status(request)
                if status != 200:
                    await self._refuse(link, request, status)
                elif request.protocol.startswith("HTTP"):
                    await serve_pictures(link, request, self.conditions)
                    return
                else:
                    await session.answer(request)
        finally:
            await session.end()

    async def _attack(self, link: Link) -> None:
        """Answers that are none.

        Raises:
            HangUpError: after one.
        """
        mishap = self.conditions.mishap
        if mishap is Mishap.RESET:
            link.abort()
            raise HangUpError
        if mishap is Mishap.GARBAGE:
            await hostile.garbage(link, self.conditions)
            raise HangUpError
        if mishap is Mishap.ENDLESS_HEADERS:
            head = b"HTTP/1.0" if self.conditions.reel.codec is Codec.MJPEG else b"RTSP/1.0"
            line = b"X-Header: " + b"A" * 240 + b"\r\n"
            await hostile.endless(link, head + b" 200 OK\r\n", line, self.conditions)
            raise HangUpError

    def _status(self, request: Request) -> int:
        """What the client gets: 200 where the request is granted."""
        mishap = self.conditions.mishap
        if request.method == "OPTIONS":
            return 200
        if mishap is Mishap.UNAUTHORISED:
            return 401
        if self._access is not None and not self._access.granted(request):
            return 401
        http = self.conditions.reel.codec is Codec.MJPEG
        if http is not request.protocol.startswith("HTTP"):
            return 501
        known = request.path.split("/")[0] == PATH and mishap is not Mishap.NOT_FOUND
        return 200 if known else 404

    async def _refuse(self, link: Link, request: Request, status: int) -> None:
        access = self._access or Access("", "")
        await link.send(request.answer(status, access.challenge() if status == 401 else ()))


def _bound(port: int) -> socket.socket:
    """A socket that has the port and does not listen: who connects is refused."""
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind((_HOST, port))
    except OSError:
        made.close()
        raise
    return made
