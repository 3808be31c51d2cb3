"""Names of cameras as files, addresses and topics can bear them."""

from __future__ import annotations

import re
import threading

_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def slug(text: str) -> str:
    """The text with all but letters, digits, dots and dashes replaced; never empty or hidden.

    >>> slug("rtsp://***@10.0.0.7/live?channel=1")
    'rtsp-10.0.0.7-live-channel-1'
    """
    return _OTHER.sub("-", text)[:_LONGEST].strip("-.") or "camera"


class Slugs:
    """One name for each camera, different even where their slugs are the same."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def __getitem__(self, camera: str) -> str:
        with self._lock:
            if camera not in self._names:
                base = name = slug(camera)
                number = 2
                # File systems that ignore case would take "Door" and "door" for one file.
                while name.lower() in self._taken:
                    name, number = f"{base}-{number}", number + 1
                self._taken.add(name.lower())
                self._names[camera] = name
            return self._names[camera]
