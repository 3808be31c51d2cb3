"""How much memory FFmpeg takes in one piece, whatever a camera announces.

A peer that announces a description or a picture of 2 GB is otherwise believed: FFmpeg takes the
memory and fills it until a time-out ends the connection. FFmpeg has a limit for this, for the
whole process, but PyAV gives no way to it.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

# A picture of 16 million pixels at 4:4:4 and 10 bits takes 100 MB.
_LEAST = 128 << 20
_BYTES_PER_PIXEL = 8
_MAPS = Path("/proc/self/maps")
_lock = threading.Lock()
_limit = 0


def limit_allocations(max_pixels: int) -> int:
    """The bytes FFmpeg may take in one piece from now on: enough for pictures of that size.

    The limit is one for the process and only grows. Where FFmpeg's library is not found (it is
    looked for among what Linux has loaded), nothing is limited and 0 returned.

    Args:
        max_pixels: of the largest picture.
    """
    global _limit
    with _lock:
        limit = max(_LEAST, _limit, _BYTES_PER_PIXEL * max_pixels)
        found = [_set(path, limit) for path in _loaded()]
        _limit = limit if any(found) else 0
        return _limit


def _loaded() -> set[str]:
    """The files of libavutil in this process; OpenCV may have brought one of its own."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    paths = (line.split(maxsplit=5)[5] for line in lines if "libavutil" in line)
    return {path for path in paths if path.startswith("/")}


def _set(path: str, limit: int) -> bool:
    try:
        library = ctypes.CDLL(path)
        library.av_max_alloc.argtypes = [ctypes.c_size_t]
        library.av_max_alloc.restype = None
        library.av_max_alloc(limit)
    except (OSError, AttributeError):
        return False
    return True
