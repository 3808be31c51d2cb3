"""One client of a camera over RTSP, with pictures between the answers (RFC 2326)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import secrets

from centermask_edge.live.chaos import hostile
from centermask_edge.live.chaos.conditions import Conditions
from centermask_edge.live.chaos.link import HangUpError, Link
from centermask_edge.live.chaos.requests import Request
from centermask_edge.live.chaos.rtp import CLOCK_HZ, PAYLOAD_TYPE, RtpStream, interleaved
from centermask_edge.live.chaos.schedule import Mishap

_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"
_CHANNELS = re.compile(r"RTP/AVP/TCP.*?interleaved=(\d{1,3})(?:-\d{1,3})?", re.ASCII)
_LOST = 0.1  # of the packets
_TIMEOUT_S = 60


class RtspSession:
    """Answers one client's requests, and plays.

    Args:
        link: the connection.
        conditions: of the camera.
    """

    def __init__(self, link: Link, conditions: Conditions) -> None:
        self._link = link
        self._conditions = conditions
        self._id = secrets.token_hex(4)
        self._channel: int | None = None
        self._stream = RtpStream(secrets.randbits(32), secrets.randbits(16))
        self._player: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> None:
        """Answers a request that is granted.

        Raises:
            HangUpError: the client is gone, or was told to go.
        """
        actions = {
            "OPTIONS": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "GET_PARAMETER": self._ok,
            "TEARDOWN": self._teardown,
        }
        action = actions.get(request.method)
        await (self._refuse(request, 501) if action is None else action(request))

    async def end(self) -> None:
        """Stops playing."""
        if self._player is not None:
            self._player.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._player

    async def _refuse(self, request: Request, status: int) -> None:
        await self._link.send(request.answer(status))

    async def _ok(self, request: Request) -> None:
        await self._link.send(request.answer(200, (("Session", self._id),)))

    async def _options(self, request: Request) -> None:
        await self._link.send(request.answer(200, (("Public", _METHODS),)))

    async def _describe(self, request: Request) -> None:
        base = ("Content-Base", request.target.rstrip("/") + "/")
        kind = ("Content-Type", "application/sdp")
        if self._conditions.mishap is Mishap.HUGE_SDP:
            length = ("Content-Length", str(hostile.ANNOUNCED))
            head = request.answer(200, (base, kind, length)) + self._description()
            await hostile.endless(
                self._link, head, b"a=x:" + b"A" * 250 + b"\r\n", self._conditions
            )
            raise HangUpError
        await self._link.send(request.answer(200, (base, kind), self._description()))

    def _description(self) -> bytes:
        """What is sent, in the words of RFC 8866 and 6184, 8.2."""
        reel = self._conditions.reel
        sps, pps = reel.usual.parameters
        sets = ",".join(base64.b64encode(unit).decode() for unit in (sps, pps))
        lines = [
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=centermask-edge fault server",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            "a=control:*",
            f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
            f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
            f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;profile-level-id={sps[1:4].hex().upper()};"
            f"sprop-parameter-sets={sets}",
            f"a=framerate:{reel.rate_hz:g}",
            "a=control:video",
        ]
        return "\r\n".join([*lines, ""]).encode()

    async def _setup(self, request: Request) -> None:
        found = _CHANNELS.search(request.headers.get("transport", ""))
        if found is None or int(found[1]) > 254:
            await self._refuse(request, 461)
            return
        self._channel = int(found[1])
        channels = f"{self._channel}-{self._channel + 1}"
        transport = ("Transport", f"RTP/AVP/TCP;unicast;interleaved={channels}")
        session = ("Session", f"{self._id};timeout={_TIMEOUT_S}")
        await self._link.send(request.answer(200, (transport, session)))

    async def _play(self, request: Request) -> None:
        if self._channel is None:
            await self._refuse(request, 455)
            return
        headers = (("Session", self._id), ("Range", "npt=0.000-"))
        await self._link.send(request.answer(200, headers))
        if self._player is None:
            self._player = asyncio.ensure_future(self._send_frames(self._channel))

    async def _teardown(self, request: Request) -> None:
        await self._ok(request)
        raise HangUpError

    async def _send_frames(self, channel: int) -> None:
        with contextlib.suppress(HangUpError):
            conditions = self._conditions
            footage = conditions.reel.usual
            number = conditions.next_key()
            while True:
                await conditions.due(number)
                if conditions.mishap is Mishap.FREEZE:
                    await conditions.over(Mishap.FREEZE)
                    number = conditions.next_key()
                    continue
                footage = conditions.footage(number, footage)
                await self._link.send(self._packets(footage.frame(number), number, channel))
                number = conditions.next_key() if conditions.behind(number) else number + 1

    def _packets(self, units: tuple[bytes, ...], number: int, channel: int) -> bytes:
        """A frame as it goes over the connection, with what is wrong at the moment."""
        mishap, chance = self._conditions.mishap, self._conditions.chance
        if mishap is Mishap.GARBAGE:
            return hostile.noise(chance, sum(map(len, units)))
        if mishap is Mishap.BAD_H264:
            units = tuple(hostile.damaged(units, chance))
        stamp = round(number * CLOCK_HZ / self._conditions.reel.rate_hz)
        packets = self._stream.packets(units, stamp)
        if mishap is Mishap.LOSS:
            packets = [packet for packet in packets if chance.random() >= _LOST]
        return interleaved(packets, channel)
