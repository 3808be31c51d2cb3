"""Annotated pictures of one camera pushed to an RTSP server by the ffmpeg program."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import threading
import time
from collections import deque
from typing import IO

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs.outlet import PICTURES
from centermask_edge.live.outputs.overlay import Draw, Image
from centermask_edge.live.result import Result
from centermask_edge.live.source import redact

# One picture may take so long to go into the pipe; what is left goes with the next one.
_WRITE_S = 0.5
# ffmpeg takes nothing while it connects; later than that, pictures count as lost.
_PATIENCE_S = 3.0
# A program that takes nothing for so long is started anew.
_DEAD_S = 10.0
_CLOSE_S = 1.0
_KEY_FRAME_S = 2


class RtspPush:
    """Publishes to an address such as ``rtsp://USER:PASSWORD@SERVER:8554/NAME``.

    ffmpeg encodes H.264 and connects over TCP; when it ends or stalls, it is started anew with
    the next picture. The address is among its arguments: other users of this machine can see it,
    with its password, in the list of processes.

    Args:
        address: where to publish.
        draw: the picture of a result.
        camera: that is published, for messages; hand the outlet the same name as ``only``.
        rate: frames per second of the stream; pictures are repeated or left out to keep it.
        preset: of x264.

    Raises:
        SinkError: ffmpeg is not installed, or the address is not one of RTSP.
    """

    queue = PICTURES

    def __init__(
        self, address: str, draw: Draw, camera: str, rate: int = 15, preset: str = "superfast"
    ) -> None:
        if not address.lower().startswith(("rtsp://", "rtsps://")):
            raise SinkError(
                f"{redact(address)} is no place to push to; wanted for example "
                "rtsp://192.168.1.10:8554/gate"
            )
        program = shutil.which("ffmpeg")
        if program is None:
            raise SinkError(
                "ffmpeg is not installed and is needed to push RTSP; "
                "install it, on Debian and Ubuntu with: apt-get install ffmpeg"
            )
        self.name = f"rtsp {redact(address)}"
        self._program, self._address, self._draw = program, address, draw
        self._camera, self._rate, self._preset = camera, rate, preset
        self._process: subprocess.Popen[bytes] | None = None
        self._words: deque[str] = deque(maxlen=4)
        self._size = (0, 0)
        self._rest = memoryview(b"")
        self._progress_s = 0.0

    def _command(self, height: int, width: int) -> list[str]:
        return [
            *(self._program, "-hide_banner", "-loglevel", "error", "-nostdin"),
            *("-use_wallclock_as_timestamps", "1", "-f", "rawvideo", "-pix_fmt", "bgr24"),
            *("-s", f"{width}x{height}", "-framerate", str(self._rate), "-i", "pipe:0"),
            # H.264 in 4:2:0 wants even sizes.
            *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-r", str(self._rate), "-an"),
            *("-c:v", "libx264", "-preset", self._preset, "-tune", "zerolatency"),
            *("-pix_fmt", "yuv420p", "-g", str(_KEY_FRAME_S * self._rate)),
            *("-f", "rtsp", "-rtsp_transport", "tcp", self._address),
        ]

    def write(self, result: Result) -> None:
        """One picture.

        Raises:
            SinkError: ffmpeg ended or takes no pictures.
        """
        image = self._draw(result)
        process = self._running(image)
        if self._rest and not self._feed(process):
            self._late()
            return
        self._rest = memoryview(image.tobytes())
        if not self._feed(process):
            self._late()

    def _running(self, image: Image) -> subprocess.Popen[bytes]:
        size = image.shape[0], image.shape[1]
        if self._process is not None and size != self._size:
            self._stop(_CLOSE_S)
        if self._process is None:
            self._size, self._rest = size, memoryview(b"")
            self._words.clear()
            self._process = self._start(*size)
            self._progress_s = time.monotonic()
        return self._process

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                self._command(height, width),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us, who end it in order
            )
        except OSError as error:
            raise SinkError(f"cannot start ffmpeg: {error.strerror}") from None
        assert process.stdin is not None and process.stderr is not None
        os.set_blocking(process.stdin.fileno(), False)
        threading.Thread(target=self._listen, args=(process.stderr,), daemon=True).start()
        return process

    def _listen(self, stream: IO[bytes]) -> None:
        """Keeps the last words, so that the pipe never fills."""
        with stream:
            for line in stream:
                words = redact(line.decode(errors="replace").strip())
                if words:
                    self._words.append(words)

    def _feed(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether all that is left went into the pipe in time."""
        assert process.stdin is not None
        pipe, end_s = process.stdin.fileno(), time.monotonic() + _WRITE_S
        try:
            while self._rest:
                wait_s = end_s - time.monotonic()
                if wait_s <= 0 or not select.select([], [pipe], [], wait_s)[1]:
                    return False
                self._rest = self._rest[os.write(pipe, self._rest) :]
                self._progress_s = time.monotonic()
        except OSError:
            self._stop(0.2)
            raise SinkError(f"ffmpeg ended: {self._last_words()}") from None
        return True

    def _late(self) -> None:
        """Nothing while it may still connect; then an error, at last with an end to it."""
        late_s = time.monotonic() - self._progress_s
        if late_s > _DEAD_S:
            self._stop(0.0)
        if late_s > _PATIENCE_S:
            raise SinkError(f"{redact(self._address)} has taken no picture for {late_s:.0f} s")

    def _last_words(self) -> str:
        return "; ".join(dict.fromkeys(self._words)) or "without a word"

    def _stop(self, wait_s: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        for seconds, harder in ((wait_s, process.terminate), (0.3, process.kill)):
            try:
                process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                harder()
        process.wait()

    def close(self) -> None:
        """Lets ffmpeg say goodbye, or ends it."""
        self._stop(_CLOSE_S)
