"""How a camera is: its state, what is wrong with it, and what it has delivered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """Where a live camera stands."""

    CONNECTING = "connecting"
    LIVE = "live"
    FROZEN = "frozen"
    WAITING = "waiting"
    ENDED = "ended"


class Fault(str, Enum):
    """Why a camera is not live, as an operator would look for it.

    ``END`` is the end of a stream that should have none; a file that is over has no fault.
    """

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    AUTH = "auth"
    NOT_FOUND = "not found"
    CODEC = "codec"
    TIMEOUT = "timeout"
    FROZEN = "frozen"
    RESET = "reset"
    END = "end"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Health:
    """A camera at one moment.

    Attributes:
        camera: its name, never with credentials.
        state: where it stands.
        fault: the last thing that went wrong, None before the first; kept while it is live again.
        message: one line for the operator about ``fault``, without credentials.
        frames: decoded so far, over all connections.
        dropped: of these, replaced by a fresher one before anybody took them.
        reconnects: connections made after the first.
        rate_hz: frames decoded a second, over the last few seconds.
        decoder: what decodes, for example ``h264 (FFmpeg, software)``.
        note: why that decoder and not a faster one; empty where there is nothing to say.
    """

    camera: str
    state: State
    fault: Fault | None = None
    message: str = ""
    frames: int = 0
    dropped: int = 0
    reconnects: int = 0
    rate_hz: float = 0.0
    decoder: str = ""
    note: str = ""
