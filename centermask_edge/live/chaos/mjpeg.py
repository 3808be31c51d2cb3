"""One client of a camera over HTTP: JPEG after JPEG, as parts of an answer without an end."""

from __future__ import annotations

from centermask_edge.live.chaos import hostile
from centermask_edge.live.chaos.conditions import Conditions
from centermask_edge.live.chaos.link import Link
from centermask_edge.live.chaos.requests import Request
from centermask_edge.live.chaos.schedule import Mishap

_BOUNDARY = b"picture"
_LOST = 0.1  # of the pictures
_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=%b\r\n\r\n"
_PART = b"--%b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


async def serve_pictures(link: Link, request: Request, conditions: Conditions) -> None:
    """Pictures until the client goes.

    Raises:
        HangUpError: it went, or was told to.
    """
    if request.method != "GET":
        await link.send(request.answer(501))
        return
    await link.send(_HEAD % _BOUNDARY)
    footage = conditions.reel.usual
    number = conditions.number() + 1
    while True:
        await conditions.due(number)
        await link.thaw(conditions)
        if conditions.mishap is Mishap.HUGE_SDP:
            await hostile.endless(link, _part(hostile.ANNOUNCED), b"\xff\xd8" * 512, conditions)
            return
        footage = conditions.footage(number, footage)
        data = _picture(footage.frame(number)[0], conditions)
        if data:
            await link.send(data)
        number = conditions.number() if conditions.behind(number) else number + 1


def _picture(picture: bytes, conditions: Conditions) -> bytes:
    mishap, chance = conditions.mishap, conditions.chance
    if mishap is Mishap.GARBAGE:
        return hostile.noise(chance, len(picture))
    if mishap is Mishap.BAD_H264:
        picture = hostile.noise(chance, len(picture))
    if mishap is Mishap.LOSS and chance.random() < _LOST:
        return b""
    return _part(len(picture)) + picture + b"\r\n"


def _part(length: int) -> bytes:
    return _PART % (_BOUNDARY, length)
