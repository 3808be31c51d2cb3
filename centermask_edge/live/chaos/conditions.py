"""What is wrong with a camera at the moment, and which frame it would show."""

from __future__ import annotations

import asyncio
import random
import time

from centermask_edge.live.chaos.footage import Footage, Reel
from centermask_edge.live.chaos.schedule import Mishap

# A frame late by at most so much is still sent; with more, a camera goes on with a key frame.
_LATE_S = 1.0
_LATENCY_S = (0.2, 0.8)


class Conditions:
    """A camera's clock, what it shows and its present mishap; of the server's thread only.

    Args:
        reel: what it shows.
        seed: of everything left to chance.
    """

    def __init__(self, reel: Reel, seed: int) -> None:
        self.reel = reel
        self.chance = random.Random(seed)
        self.mishap: Mishap | None = None
        self._began_s = time.monotonic()
        self._changed = asyncio.Event()

    def enter(self, mishap: Mishap | None) -> None:
        """From now on this is wrong; None for nothing."""
        self.mishap = mishap
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Waits until something else is wrong, or nothing."""
        await self._changed.wait()

    async def over(self, mishap: Mishap) -> None:
        """Waits until this is not wrong any more."""
        while self.mishap is mishap:
            await self.change()

    def number(self) -> int:
        """Of the frame that is due now; counts on without end."""
        return int((time.monotonic() - self._began_s) * self.reel.rate_hz)

    def next_key(self) -> int:
        """Of the next frame that can be shown without those before it."""
        step = self.reel.usual.key_every
        return (self.number() // step + 1) * step

    def behind(self, number: int) -> bool:
        """Whether the frame is so late that it is better left out."""
        return self.number() - number > max(1.0, _LATE_S * self.reel.rate_hz)

    async def due(self, number: int) -> None:
        """Waits for the moment of the frame; of its arrival, where the network is slow."""
        at_s = self._began_s + number / self.reel.rate_hz
        if self.mishap is Mishap.LATENCY:
            at_s += self.chance.uniform(*_LATENCY_S)
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))

    def footage(self, number: int, current: Footage) -> Footage:
        """Where the frame of that number comes from; another footage begins with a key frame."""
        if number % self.reel.usual.key_every:
            return current
        if self.mishap is Mishap.RESOLUTION:
            return self.reel.small
        return self.reel.huge if self.mishap is Mishap.HUGE_FRAMES else self.reel.usual
