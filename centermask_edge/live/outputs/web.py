"""Annotated pictures for browsers: MJPEG over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from centermask_edge.errors import SinkError, require
from centermask_edge.live.health import Health
from centermask_edge.live.outputs.feed import Feed
from centermask_edge.live.outputs.names import Slugs
from centermask_edge.live.outputs.outlet import PICTURES
from centermask_edge.live.outputs.overlay import Draw
from centermask_edge.live.outputs.web_server import Server
from centermask_edge.live.result import Result
from centermask_edge.live.source import redact

_QUALITY = 80
_MOST_CLIENTS = 32


class WebPictures:
    """A page with all cameras, and each as ``/CAMERA.mjpg`` and ``/CAMERA.jpg``.

    Pictures are drawn and encoded when somebody looks, once for all who do. It serves this
    machine only, unless a token is given.

    Args:
        draw: the picture of a result.
        host: address to bind to.
        port: 0 for a free one.
        token: that requests must bear, as ``?token=`` or ``Authorization: Bearer``.
        health: of the cameras, shown beside them.
        quality: of the JPEG, 1 to 100.
        most_clients: at a time.

    Raises:
        SinkError: the address is taken, or open to others without a token.
    """

    queue = PICTURES
    name = "web"

    def __init__(
        self,
        draw: Draw,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        *,
        health: Callable[[], Sequence[Health]] = tuple,
        quality: int = _QUALITY,
        most_clients: int = _MOST_CLIENTS,
    ) -> None:
        require("cv2", extra="cpu", why="encode pictures")
        self._draw, self._quality, self._health = draw, quality, health
        self._slugs = Slugs()
        self._feeds: dict[str, Feed] = {}
        self._cameras: dict[str, str] = {}
        self._lock = threading.Lock()
        self._trouble = ""
        self._server = Server(self, host, port, token, most_clients)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.port}/"

    def write(self, result: Result) -> None:
        """The picture to show from now on.

        Raises:
            SinkError: the last one could not be drawn for a viewer.
        """
        camera = result.frame.camera
        path = self._slugs[camera]
        with self._lock:
            if path not in self._feeds:
                self._feeds[path] = Feed(self._draw, self._quality)
                self._cameras[path] = camera
            feed = self._feeds[path]
            trouble, self._trouble = self._trouble, ""
        feed.put(result)
        if trouble:
            raise SinkError(trouble)

    def feed(self, path: str) -> Feed | None:
        """The camera of that name in addresses, or None."""
        with self._lock:
            return self._feeds.get(path)

    def trouble(self, error: Exception) -> None:
        """Told with the next result, to whoever writes it."""
        with self._lock:
            self._trouble = f"a picture cannot be drawn: {type(error).__name__}: {error}"

    def health(self) -> dict[str, Any]:
        """How each camera is, by its name in addresses."""
        with self._lock:
            feeds = [(path, self._cameras[path], feed) for path, feed in self._feeds.items()]
        known = {health.camera: health for health in self._health()}
        rows = []
        for path, camera, feed in feeds:
            row = {"camera": camera, "path": path, **feed.figures()}
            if camera in known:
                seen = known[camera]
                row["state"] = seen.state.value
                row["fault"] = seen.fault.value if seen.fault else None
                row["message"] = redact(seen.message)
            rows.append(row)
        return {"cameras": rows}

    def close(self) -> None:
        """End every connection."""
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.close()
        self._server.close()
