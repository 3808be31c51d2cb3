"""One connection of a client to the fault server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from centermask_edge.live.chaos.conditions import Conditions
from centermask_edge.live.chaos.requests import Request, read_request
from centermask_edge.live.chaos.schedule import Mishap

_HEARD = 4096
# Of SO_LINGER: what is not sent yet is thrown away, and the peer told so.
_AT_ONCE = struct.pack("ii", 1, 0)


class HangUpError(Exception):
    """The client is gone, or there is nothing more to tell it."""


class Link:
    """What goes over one connection; of the server's thread only.

    Args:
        reader: of asyncio.
        writer: of asyncio.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self) -> Request | None:
        """The next request; None at the end.

        Raises:
            BadRequestError: what came is none.
        """
        return await read_request(self._reader)

    async def send(self, data: bytes) -> None:
        """Sends, at the speed at which the client takes it.

        Raises:
            HangUpError: the client is gone.
        """
        if self._writer.is_closing():
            raise HangUpError
        self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError:
            raise HangUpError from None

    async def thaw(self, conditions: Conditions) -> None:
        """Waits in silence while the camera is frozen; what the client says then is lost.

        Raises:
            HangUpError: the client did not wait.
        """
        while conditions.mishap is Mishap.FREEZE:
            changing = asyncio.ensure_future(conditions.change())
            reading = asyncio.ensure_future(self._reader.read(_HEARD))
            try:
                await asyncio.wait({changing, reading}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and not reading.result():
                    raise HangUpError
            finally:
                changing.cancel()
                reading.cancel()
                # Until it is, nobody else may read.
                await asyncio.gather(changing, reading, return_exceptions=True)

    def abort(self) -> None:
        """Breaks the connection off: the client sees a reset."""
        peer = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Ends the connection; what was sent last still goes out, if the client takes it."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
