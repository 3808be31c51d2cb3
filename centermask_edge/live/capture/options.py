"""How patient a camera is waited for, how it is tried again, and what it may send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Decode(str, Enum):
    """What should decode a network stream."""

    SOFTWARE = "software"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """All of a camera's settings; times in seconds.

    Attributes:
        frozen_s: without a frame for so long, a live camera is frozen. Below 2, so that what it
            takes to notice stays below 2.
        open_s: for a connection to be made, when nothing is known of how long it takes.
        first_frame_s: from the connection to the first frame, while data comes (a camera may wait
            seconds for its next key frame).
        retry_s: upper bound of the first wait before a new connection; each further one doubles.
        retry_recent_s: the bound stops growing here for a camera that gave frames in the last
            ``recent_s``, so that one which is back is seen within 3 s.
        retry_max_s: and here for every other.
        recent_s: see ``retry_recent_s``; long enough for a camera to be restarted.
        auth_retry_s: least wait after a refused password. Cameras lock an account after a few.
        auth_retry_max_s: the longest such wait.
        max_pixels: of one picture; a camera that sends a larger one is closed. The default holds
            4096 x 4096.
        every: give each frame of a file or folder, however long the taking takes, and without
            keeping its time. For a live camera it means nothing.
        loop: begin a file again at its end.
        decode: what should decode an rtsp address.
    """

    frozen_s: float = 1.8
    open_s: float = 5.0
    first_frame_s: float = 10.0
    retry_s: float = 0.25
    retry_recent_s: float = 1.0
    retry_max_s: float = 30.0
    recent_s: float = 300.0
    auth_retry_s: float = 30.0
    auth_retry_max_s: float = 300.0
    max_pixels: int = 4096 * 4096
    every: bool = False
    loop: bool = False
    decode: Decode = Decode.SOFTWARE
