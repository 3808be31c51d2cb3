"""A camera that is read by one thread, watched by another, and tried again for ever."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from centermask_edge.frame import Frame
from centermask_edge.live.camera import Bell
from centermask_edge.live.capture.faults import Secrets
from centermask_edge.live.capture.latest import Latest
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.capture.progress import Phase, Progress, Trouble
from centermask_edge.live.capture.reader import Opener, Reader
from centermask_edge.live.capture.retry import Retry
from centermask_edge.live.health import Fault, Health
from centermask_edge.live.source import Kind, Source

# Readers that hang inside a driver. With more, only threads would be gained.
_MAX_HANGING = 4
_HANGING_POLL_S = 0.25
# A reader that waits for a slow camera is not waited for: many cameras stop one after the other.
_STOP_S = 0.5


class LiveCamera:
    """A ``Camera`` over anything that opens to a ``Source``.

    The reader hangs where the camera hangs, so it cannot watch itself: a second thread, which
    never touches the source, keeps the time, abandons a reader that is late and starts the next.

    Args:
        name: unique among the cameras of a run, without credentials.
        opener: opens the source; see ``reader.Opener``.
        options: how patient, how often, how large.
        live: whether its end is a fault and its silence too; False for a file, which ends.
        secrets: what is taken out of every message.
        rng: draws the waits before new attempts.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        options: CaptureOptions | None = None,
        *,
        live: bool = True,
        secrets: Secrets | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._opener = opener
        self._options = options or CaptureOptions()
        self._live = live
        self._secrets = secrets or Secrets()
        self._clock = clock
        self._slot = Latest()
        retry = Retry(self._options, rng or random.Random())
        self._progress = Progress(name, self._options, retry, live=live)
        self._changed = threading.Condition()
        self._bell = Bell()
        self._reader: Reader | None = None
        self._hanging: list[Reader] = []
        self._stopped = False
        self._watch = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)

    @property
    def name(self) -> str:
        """Without credentials."""
        return self._name

    @property
    def done(self) -> bool:
        """Whether no frame will come any more and the last one was taken."""
        return self._progress.over and self._slot.empty

    def start(self, bell: Bell) -> None:
        """Starts the threads; the bell rings for each frame and each change of state."""
        self._bell = bell
        self._watch.start()

    def take(self) -> Frame | None:
        """The freshest frame that nobody took yet, or None."""
        return self._slot.take()

    def health(self) -> Health:
        """How it is now."""
        with self._changed:
            return self._progress.health(self._clock(), self._slot.dropped)

    def stop(self) -> None:
        """Ends the camera within a second; may be called twice.

        A reader that waits inside FFmpeg at that moment closes its connection when the read times
        out, up to ``frozen_s`` later.
        """
        end = time.monotonic() + _STOP_S
        with self._changed:
            self._stopped = True
            reader = self._reader
            self._leave_reader()
            self._progress.end()
            self._changed.notify_all()
        for thread in (self._watch if self._watch.is_alive() else None, reader):
            if thread is not None:
                thread.join(max(0.0, end - time.monotonic()))

    # The watching thread.

    def _run(self) -> None:
        with self._changed:
            while not self._stopped and not self._progress.over:
                self._changed.wait(self._step(self._clock()))

    def _step(self, now: float) -> float | None:
        """Does what is due; returns the seconds until it must look again."""
        progress = self._progress
        if self._reader is not None:
            trouble = progress.late(now, self._reader.heard_s)
            if trouble is not None:
                self._leave_reader()
                self._fail(trouble, now)
        elif progress.phase is Phase.RETRY and now >= progress.retry_at_s:
            self._hanging = [reader for reader in self._hanging if reader.alive]
            if len(self._hanging) >= _MAX_HANGING:
                return _HANGING_POLL_S
            self._connect(now)
        return progress.look_again_s(now, self._reader.heard_s if self._reader else None)

    def _connect(self, now: float) -> None:
        self._reader = Reader(
            self,
            self._opener,
            self._progress.attempt(now),
            name=f"read {self._name}",
            live=self._live,
            every=self._options.every,
            loop=self._options.loop,
        )
        try:
            self._reader.start()
        except RuntimeError:
            self._reader = None
            self._fail(Trouble(Fault.INTERNAL, "the system gives no thread for it"), now)
        self._bell.ring()

    def _leave_reader(self) -> None:
        if self._reader is not None:
            self._reader.abandon()
            self._hanging.append(self._reader)
            self._reader = None

    def _fail(self, trouble: Trouble, now: float) -> None:
        self._progress.failed(self._clean(trouble), now)
        self._bell.ring()

    def _clean(self, trouble: Trouble) -> Trouble:
        return replace(trouble, message=self._secrets.scrub(trouble.message))

    # What the reader calls, from its own thread. One that was abandoned is not listened to.

    def opened(self, reader: Reader, source: Source) -> None:
        """The connection stands; see ``reader.Owner``."""
        with self._changed:
            if reader is self._reader:
                self._progress.opened(self._clock())
                self._progress.decoding(*_decoding(source))
                self._changed.notify_all()

    def deliver(self, reader: Reader, frame: Frame) -> bool:
        """Takes a frame into the slot; see ``reader.Owner``."""
        with self._changed:
            if reader is not self._reader:
                return False
            index = self._progress.frames
            if self._progress.frame(self._clock()):
                self._changed.notify_all()
            self._slot.put(replace(frame, camera=self._name, index=index))
        self._bell.ring()
        return True

    def wait_taken(self, reader: Reader) -> bool:
        """Waits until the slot is empty; see ``reader.Owner``."""
        while not self._slot.wait_empty(0.2):
            if reader.left:
                return False
        return not reader.left

    def ended(self, reader: Reader, trouble: Trouble | None, *, final: bool) -> None:
        """A connection is over; see ``reader.Owner``."""
        with self._changed:
            if reader is not self._reader:
                return
            self._reader = None
            if final:
                self._progress.end(self._clean(trouble) if trouble else None)
                self._bell.ring()
            else:
                self._fail(trouble or Trouble(Fault.END, "the stream ended"), self._clock())
            self._changed.notify_all()


def _decoding(source: Source) -> tuple[str, str]:
    told = str(getattr(source, "decoder", ""))
    if not told and source.kind is Kind.WEBCAM:
        told = "OpenCV"
    return told, str(getattr(source, "note", ""))
