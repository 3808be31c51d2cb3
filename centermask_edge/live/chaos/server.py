"""The fault server: cameras on this machine that go wrong when they are told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar
from urllib.parse import quote

from centermask_edge.live.chaos.access import Access
from centermask_edge.live.chaos.camera import PATH, ChaosCamera, Told
from centermask_edge.live.chaos.footage import Codec, Reel
from centermask_edge.live.chaos.schedule import Change, Mishap

T = TypeVar("T")
_ANSWER_S = 5.0


class ServedCamera:
    """A camera of a :class:`FaultServer`, for any thread.

    Attributes:
        address: where it is read, with user name and password where it asks for them.
    """

    def __init__(self, server: FaultServer, camera: ChaosCamera, access: Access | None) -> None:
        self._server, self._camera = server, camera
        scheme = "http" if camera.conditions.reel.codec is Codec.MJPEG else "rtsp"
        user = "" if access is None else f"{_quoted(access.user)}:{_quoted(access.password)}@"
        self.address = f"{scheme}://{user}127.0.0.1:{camera.port}/{PATH}"

    @property
    def connections(self) -> int:
        """Made to it so far."""
        return self._camera.connections

    def begin(self, mishap: Mishap) -> float:
        """From now on this is wrong; returns the moment, of ``time.monotonic``."""
        return self._server.run(self._camera.enter(mishap))

    def end(self) -> float:
        """From now on nothing is wrong; returns the moment, of ``time.monotonic``."""
        return self._server.run(self._camera.enter(None))

    def frames_due(self) -> int:
        """Frames that it has shown since it was made, or would have with nothing wrong."""
        return self._camera.conditions.number()


def _quoted(word: str) -> str:
    return quote(word, safe="")


class FaultServer:
    """Serves cameras over RTSP or HTTP on 127.0.0.1, each on a free port, from one thread.

    It holds frames of its own. It is no proxy: a camera that exists is not made to misbehave.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._cameras: list[ChaosCamera] = []
        self._thread = threading.Thread(target=self._run, name="fault server", daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(
        self,
        reel: Reel,
        changes: Iterable[Change] = (),
        access: Access | None = None,
        told: Told = lambda _: None,
        seed: int = 0,
    ) -> ServedCamera:
        """One camera more.

        Args:
            reel: what it shows, over and over.
            changes: what goes wrong with it and when, counted from the first connection.
            access: who may see it; None for everybody.
            told: told of each mishap as it begins, and with None when it is over, in the server's
                thread.
            seed: of what is left to chance.

        Raises:
            SourceError: there is no free port.
        """
        camera = ChaosCamera(reel, changes, access, told, seed)
        self.run(camera.open())
        self._cameras.append(camera)
        return ServedCamera(self, camera, access)

    def close(self) -> None:
        """Breaks off every connection and lets go of the ports; may be called twice."""
        if self._loop.is_closed():
            return
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, done in the server's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end(self) -> None:
        await asyncio.gather(*(camera.close() for camera in self._cameras))
        self._cameras.clear()
