"""What no camera should send: noise, announcements that fill memory, heads without an end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from centermask_edge.live.chaos.conditions import Conditions
from centermask_edge.live.chaos.link import Link
from centermask_edge.live.chaos.schedule import Mishap

ANNOUNCED = 10**9  # bytes
# Together 13 MB a second: enough to fill a client's memory, and bearable for its processor.
_PIECE = 65536
_PAUSE_S = 0.005


def noise(chance: random.Random, count: int) -> bytes:
    """So many bytes of noise."""
    return chance.randbytes(count)


def damaged(units: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """The NAL units with noise behind their first byte, so that each still says what it is."""
    return [unit[:1] + chance.randbytes(len(unit) - 1) for unit in units]


async def garbage(link: Link, conditions: Conditions) -> None:
    """Noise in place of an answer, while it lasts."""
    while conditions.mishap is Mishap.GARBAGE:
        await link.send(noise(conditions.chance, _PIECE))
        await asyncio.sleep(_PAUSE_S)


async def endless(link: Link, head: bytes, piece: bytes, conditions: Conditions) -> None:
    """A head, and then the same piece over and over, while it lasts.

    Args:
        link: the connection.
        head: sent once.
        piece: sent again and again.
        conditions: of the camera.
    """
    mishap = conditions.mishap
    await link.send(head)
    many = piece * max(1, _PIECE // len(piece))
    while conditions.mishap is mishap:
        await link.send(many)
        await asyncio.sleep(_PAUSE_S)
