"""RTSP push: against a second ffmpeg that listens, and what is said when it goes wrong."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from live_results import result, until

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs import rtsp_push as module
from centermask_edge.live.outputs.outlet import Outlet
from centermask_edge.live.outputs.overlay import Image
from centermask_edge.live.outputs.rtsp_push import RtspPush
from centermask_edge.live.result import Result

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(
    FFMPEG is None or not sys.platform.startswith("linux"),
    reason="no ffmpeg (Debian: apt-get install ffmpeg)",
)


def plain(result: Result) -> Image:
    return result.frame.image


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Without connecting: the listener takes one client only."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


class Receiver:
    """A second ffmpeg: takes one stream and writes it as it comes."""

    def __init__(self, port: int, path: Path) -> None:
        assert FFMPEG is not None
        self.path = path
        address = f"rtsp://127.0.0.1:{port}/live"
        head = [FFMPEG, "-loglevel", "error", "-rtsp_flags", "listen", "-i", address]
        self.process = subprocess.Popen(
            [*head, "-c", "copy", "-flush_packets", "1", "-f", "mpegts", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: listening(port))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def received(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 2000


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    made: list[Receiver] = []
    yield made
    for receiver in made:
        receiver.end()


def play(outlet: Outlet, receiver: Receiver) -> None:
    """Pictures until some came out at the other end."""
    end = time.monotonic() + 20
    index = 0
    while not receiver.received():
        assert time.monotonic() < end, outlet.statistics()
        outlet.submit(result(index % 8, size=(121, 161)))
        index += 1
        time.sleep(0.04)


@needs_ffmpeg
def test_pictures_arrive_and_the_stream_comes_back(
    tmp_path: Path, port: int, receivers: list[Receiver]
) -> None:
    lines: list[str] = []
    receivers.append(Receiver(port, tmp_path / "1.ts"))
    sink = RtspPush(f"rtsp://127.0.0.1:{port}/live", plain, "gate", rate=25)
    outlet = Outlet(sink, only="gate", report=lines.append)
    play(outlet, receivers[0])
    receivers[0].end()
    receivers.append(Receiver(port, tmp_path / "2.ts"))
    play(outlet, receivers[1])
    assert outlet.close()
    assert any("ffmpeg ended" in line for line in lines), lines
    assert any("works again" in line for line in lines), lines
    for path in (tmp_path / "1.ts", tmp_path / "2.ts"):
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
        assert frames and (frames[0].width, frames[0].height) == (162, 122)
        values = {round(float(f.to_ndarray(format="gray").mean()), -1) for f in frames}
        assert values <= {float(40 + 10 * i) for i in range(9)} and len(values) >= 2


@needs_ffmpeg
def test_a_server_that_is_not_there_is_said_without_the_password(port: int) -> None:
    sink = RtspPush(f"rtsp://me:secret@127.0.0.1:{port}/live", plain, "gate")
    with pytest.raises(SinkError) as told:
        for _ in range(200):
            sink.write(result(0, size=(240, 320)))
            time.sleep(0.02)
    assert "ffmpeg ended" in str(told.value) and "refused" in str(told.value)
    assert "secret" not in str(told.value) + sink.name
    sink.close()


@needs_ffmpeg
def test_what_ffmpeg_says_is_kept_without_the_password() -> None:
    sink = RtspPush("rtsp://h/x", plain, "gate")
    said = b"one\n\nrtsp://me:secret@h/x: Unauthorized\n" * 100
    sink._listen(io.BytesIO(said))
    assert sink._last_words() == "one; rtsp://***@h/x: Unauthorized"


@needs_ffmpeg
def test_a_server_that_never_answers_stalls_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("_WRITE_S", 0.05), ("_PATIENCE_S", 0.3), ("_DEAD_S", 0.6)):
        monkeypatch.setattr(module, name, value)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sink = RtspPush(f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live", plain, "gate")
        first = result(0, size=(720, 1280))
        slowest, errors = 0.0, []
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                sink.write(first)
            except SinkError as error:
                errors.append(str(error))
            slowest = max(slowest, time.monotonic() - start)
        assert errors and "has taken no picture for" in errors[0]
        assert slowest < 1.0
        start = time.monotonic()
        sink.close()
        sink.close()
        assert time.monotonic() - start < 2


def test_without_ffmpeg_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SinkError, match="apt-get install ffmpeg"):
        RtspPush("rtsp://h/x", plain, "gate")


def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(SinkError, match=r"http://\*\*\*@h/x is no place to push to"):
        RtspPush("http://me:secret@h/x", plain, "gate")
