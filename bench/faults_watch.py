"""One camera of the fault server, watched: what it reports, how soon, and what it misses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from centermask_edge.live.camera import Bell
from centermask_edge.live.capture.camera import LiveCamera
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.chaos.access import Access
from centermask_edge.live.chaos.footage import Reel
from centermask_edge.live.chaos.schedule import Mishap
from centermask_edge.live.chaos.server import FaultServer, ServedCamera
from centermask_edge.live.health import State

LOOK_S = 0.002
_GIVE_UP_S = 60.0


def until(done: Callable[[], bool], within_s: float = _GIVE_UP_S) -> float:
    """Seconds until it is so.

    Raises:
        TimeoutError: it never is.
    """
    start = time.monotonic()
    while not done():
        if time.monotonic() > start + within_s:
            raise TimeoutError("a camera did not do what was waited for")
        time.sleep(LOOK_S)
    return time.monotonic() - start


@dataclass(slots=True)
class Watched:
    """A camera, taken from as fast as it gives, and what was seen of it.

    Attributes:
        served: at the server's end.
        camera: at the reader's end.
        last_s: when the last frame was there.
        gap_s: the longest time without one.
        noticed_s: when it was first seen to be anything but live since ``forget``.
        faults: what it reported since then, in order.
        states: in which it was meanwhile.
        unlive_s: when it was last seen so.
    """

    served: ServedCamera
    camera: LiveCamera
    last_s: float = 0.0
    gap_s: float = 0.0
    noticed_s: float | None = None
    faults: list[str] = field(default_factory=list)
    states: set[str] = field(default_factory=set)
    unlive_s: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def frames(self) -> int:
        """Decoded so far."""
        return self.camera.health().frames

    def missed(self) -> int:
        """Frames that were due and are not there."""
        return self.served.frames_due() - self.frames

    def forget(self) -> None:
        """What was seen so far does not count."""
        self.gap_s, self.noticed_s, self.faults, self.states = 0.0, None, [], set()

    def start(self) -> None:
        """Starts the camera and the thread that watches it."""
        self.camera.start(Bell())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends both."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self.camera.stop()

    def _watch(self) -> None:
        before = 0
        while not self._over.wait(LOOK_S):
            now = time.monotonic()
            health = self.camera.health()
            self.camera.take()
            if health.frames != before:
                before = health.frames
                if self.last_s:
                    self.gap_s = max(self.gap_s, now - self.last_s)
                self.last_s = now
            if health.state is not State.LIVE:
                self.unlive_s = now
                self.states.add(health.state.value)
                self.noticed_s = self.noticed_s or now
                fault = "" if health.fault is None else health.fault.value
                if fault and fault not in self.faults:
                    self.faults.append(fault)


@contextmanager
def watching(
    server: FaultServer, reel: Reel, count: int, options: CaptureOptions
) -> Iterator[list[Watched]]:
    """So many cameras with a password, live; stopped at the end."""
    made = []
    try:
        for number in range(count):
            served = server.serve(reel, access=Access("bench", "s3cret"), seed=number)
            camera = open_camera(served.address, options, rng=random.Random(number))
            made.append(Watched(served, camera))
            made[-1].start()
        until(lambda: all(one.frames > 10 for one in made))
        yield made
    finally:
        for one in made:
            one.stop()


def begin(cameras: list[Watched], mishap: Mishap) -> float:
    """It goes wrong with all of them; returns the moment of the last."""
    return max(one.served.begin(mishap) for one in cameras)


def end(cameras: list[Watched]) -> float:
    """Nothing is wrong any more; returns the moment of the first."""
    return min(one.served.end() for one in cameras)
