"""One connection of a camera in a thread of its own: opened, read, closed, all in there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from centermask_edge.errors import CenterMaskError, SourceError
from centermask_edge.frame import Frame
from centermask_edge.live.capture.faults import SourceFault
from centermask_edge.live.capture.pace import Pace
from centermask_edge.live.capture.progress import Trouble
from centermask_edge.live.health import Fault
from centermask_edge.live.source import Kind, Source

Opener = Callable[[float], Source]
"""Opens the source, at best within the seconds given.

Raises:
    SourceError: it cannot be opened; a :class:`SourceFault` says why.
    CenterMaskError: nor ever will be (a missing package).
"""


class Owner(Protocol):
    """Who started a reader; called from the reader's thread."""

    def opened(self, reader: Reader, source: Source) -> None:
        """The connection stands."""

    def deliver(self, reader: Reader, frame: Frame) -> bool:
        """Takes the frame; False where the reader is no longer wanted."""

    def wait_taken(self, reader: Reader) -> bool:
        """Waits until the last frame is taken; False where the reader is no longer wanted."""

    def ended(self, reader: Reader, trouble: Trouble | None, *, final: bool) -> None:
        """The connection is over and closed; ``final`` where a new one cannot help."""


class Reader:
    """Reads until the source ends, fails, or nobody wants it any more.

    Nothing can interrupt a thread that hangs inside a driver or a library. So a reader that hangs
    is abandoned: it delivers nothing from then on, and closes its source when it comes back.

    Args:
        owner: gets the frames and the end.
        opener: opens the source.
        within_s: handed to the opener.
        name: of the thread.
        live: whether an end is a fault; otherwise frames keep the time of the source.
        every: wait until each frame is taken, and keep no time.
        loop: begin again at the end of a file.
    """

    def __init__(
        self,
        owner: Owner,
        opener: Opener,
        within_s: float,
        *,
        name: str,
        live: bool,
        every: bool = False,
        loop: bool = False,
    ) -> None:
        self._owner = owner
        self._opener = opener
        self._within_s = within_s
        self._live = live
        self._every = every and not live
        self._loop = loop and not live
        self._pace = Pace()
        self._source: Source | None = None
        self._opened = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    @property
    def heard_s(self) -> float | None:
        """When the source last got data; None where it cannot say."""
        return getattr(self._source, "heard_s", None)

    @property
    def left(self) -> bool:
        """Whether it was abandoned."""
        return self._left.is_set()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def abandon(self) -> None:
        """It is no longer wanted; returns at once."""
        self._left.set()
        leave = getattr(self._source, "leave", None)
        if leave is not None:
            leave()

    def join(self, timeout_s: float) -> None:
        """Waits for the end of the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        trouble: Trouble | None = None
        final = not self._live
        try:
            trouble = self._read()
            while trouble is None and self._loop and not self.left:
                self._pace.again()
                trouble = self._read()
        except SourceFault as error:
            trouble = Trouble(error.fault, str(error))
        except SourceError as error:
            trouble = Trouble(Fault.CODEC if self._opened else Fault.UNREACHABLE, str(error))
        except CenterMaskError as error:
            trouble, final = Trouble(Fault.INTERNAL, str(error)), True
        except Exception as error:
            # Whatever a decoder or a driver throws: this camera waits, the others go on.
            trouble = Trouble(Fault.INTERNAL, f"{type(error).__name__}: {error}")
        self._owner.ended(self, trouble, final=final)

    def _read(self) -> Trouble | None:
        """Opens, reads to the end and closes; returns what was wrong with the end."""
        source = self._source = self._opener(self._within_s)
        self._opened = True
        try:
            if self.left:
                return None
            self._owner.opened(self, source)
            every = self._every or source.kind in (Kind.IMAGE, Kind.FOLDER)
            for frame in source:
                if not self._give(frame, every):
                    return None
            return self._ending(source)
        finally:
            source.close()
            # With it go the decoder's memory and threads, however long this reader is kept.
            self._source = None

    def _give(self, frame: Frame, every: bool) -> bool:
        if self.left:
            return False
        if self._live:
            return self._owner.deliver(self, frame)
        stamp_s = self._pace.stamp_s(frame.pts_s)
        if every:
            if not self._owner.wait_taken(self):
                return False
        elif self._left.wait(self._pace.wait_s(stamp_s)):
            return False
        now = self._pace.now()
        return self._owner.deliver(self, replace(frame, pts_s=stamp_s, arrival_s=now))

    def _ending(self, source: Source) -> Trouble | None:
        fault: Fault | None = getattr(source, "fault", None)
        words = source.warnings[-1] if source.warnings else ""
        if self._live:
            return Trouble(fault or Fault.END, words or "the camera ended the stream")
        return Trouble(fault, words) if fault else None
