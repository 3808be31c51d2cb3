"""Video files, streams and webcams: what is read, and what is said when it is not."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from centermask_edge.errors import SourceError
from centermask_edge.live.capture import ffmpeg
from centermask_edge.live.health import Fault
from centermask_edge.live.source import Kind, redact
from centermask_edge.live.sources import video
from centermask_edge.live.sources.opening import open_source
from centermask_edge.live.sources.video import VideoSource
from centermask_edge.live.sources.webcam import WebcamSource

FRAMES = 30


def make(path: Path, width: int = 64, height: int = 48, times: list[int] | None = None) -> Path:
    """A video at 10 frames/s whose brightness grows with the frame, bright at the upper left."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        stream.gop_size = 5
        noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
        for index in range(FRAMES):
            pixels = noise + np.uint8(3 * index)
            pixels[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts = times[index] if times else index * 100
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clip") / "clip.mp4")


def test_a_file_gives_every_frame_with_its_time(clip: Path) -> None:
    source = open_source(str(clip))
    assert (source.kind, source.name, source.total) == (Kind.VIDEO, "clip.mp4", FRAMES)
    assert source.rate == 10 and source.paths == [clip]
    frames = list(source)
    source.close()
    assert [f.index for f in frames] == list(range(FRAMES))
    assert [f.pts_s for f in frames] == pytest.approx([i / 10 for i in range(FRAMES)])
    assert {f.image.shape for f in frames} == {(48, 64, 3)}
    assert frames[0].image[40, 50].mean() + 40 < frames[-1].image[40, 50].mean()
    assert source.warnings == []


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [i * 40 + (500 if i > 10 else 0) for i in range(FRAMES)]
    found = [f.pts_s for f in open_source(str(make(tmp_path / "a.mp4", times=times)))]
    assert found == pytest.approx([t / 1000 for t in times], abs=0.002)


def test_a_turned_phone_video_comes_upright(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    at = content.index(b"tkhd") + 44  # the matrix of an mp4's track header
    one, zero, minus = (n.to_bytes(4, "big", signed=True) for n in (65_536, 0, -65_536))
    content[at : at + 24] = zero + one + zero + minus + zero + zero  # a quarter turn clockwise
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content)
    image = next(iter(open_source(str(turned)))).image
    assert image.shape == (64, 48, 3)
    assert image[:28, 28:].min() > 200 and image[36:, :20].max() < 200


def test_a_file_cut_off_gives_what_it_holds_and_says_where(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: int(len(content) * 0.6)])
    source = open_source(str(cut))
    count = sum(1 for _ in source)
    assert 0 < count < FRAMES - 5
    (warning,) = source.warnings
    assert f"breaks off after frame {count}" in warning and "of 3.0 s" in warning


def test_damage_inside_is_left_out_with_a_warning(clip: Path, tmp_path: Path) -> None:
    with av.open(str(clip)) as container:
        packets = [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(clip.read_bytes())
    start, size = packets[10]
    content[start : start + size] = b"\xff" * size
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    source = open_source(str(path))
    count = sum(1 for _ in source)
    assert FRAMES - 5 <= count < FRAMES
    assert source.warnings == ["a damaged packet of damaged.mp4 was left out"]


def test_stopping_early_is_no_damage(clip: Path) -> None:
    source = open_source(str(clip))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert source.warnings == []


def test_a_video_without_one_good_frame_is_an_error(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    path = tmp_path / "head.mp4"
    path.write_bytes(content[: content.index(b"mdat") + 12])
    with pytest.raises(SourceError, match=r"not one frame of head\.mp4 can be decoded"):
        list(open_source(str(path)))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
    with pytest.raises(SourceError, match="holds no video"):
        open_source(str(path))


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code = int(self.path.strip("/"))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers a request for /404 with 404, and so on."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://user:secret@127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (401, "user name or password refused"),
        (403, "access denied"),
        (404, "no such stream"),
        (503, "5XX"),
    ],
)
def test_what_a_server_refuses_is_told_apart(server: str, code: int, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(f"{server}/{code}")
    assert "secret" not in str(caught.value) and "user:" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_says_nothing_is_waited_for_and_no_longer(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "OPEN_TIMEOUT_S", 0.5)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"{scheme}://u:secret@127.0.0.1:{silent.getsockname()[1]}/live"
        with pytest.raises(SourceError, match="no answer within") as caught:
            open_source(address)
    assert "secret" not in str(caught.value)


def test_a_closed_port_refuses() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match="connection refused by 127"):
        open_source(f"rtsp://127.0.0.1:{port}/x")


def test_an_unknown_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = av.error.OSError(5, "Input/output error", "rtsp://u:secret@nowhere.invalid")
    monkeypatch.setattr(ffmpeg, "known", lambda host: host != "nowhere.invalid")
    fault, words = ffmpeg.open_trouble(av, error, "nowhere.invalid", 1, late=False)
    assert fault is Fault.UNREACHABLE and "nowhere.invalid not found" in words
    assert ffmpeg.open_trouble(av, error, "10.0.0.1", 1, late=False)[1] == "input/output error"


@pytest.mark.parametrize("address", ["rtsp://", "http:///path", "rtsp://host:99999/x"])
def test_half_an_address_is_refused(address: str) -> None:
    with pytest.raises(SourceError, match="not a complete address"):
        open_source(address)


def test_a_stream_is_read_like_a_file(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_open_stream", lambda av, address, patience: av.open(str(clip)))
    source = VideoSource("rtsp://me:secret@camera/live?token=abc", Kind.STREAM)
    frames = list(source)
    assert len(frames) == FRAMES and source.paths == []
    assert {f.camera for f in frames} == {"rtsp://***@camera/live?token=***"}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.1/live", "rtsp://10.0.0.1/live"),
        ("rtsp://u:p@10.0.0.1/live", "rtsp://***@10.0.0.1/live"),
        ("rtsp://u:p@ss/w@10.0.0.1/live", "rtsp://***@10.0.0.1/live"),
        ("http://h/x?user=a&pwd=b&channel=1", "http://h/x?user=***&pwd=***&channel=1"),
        ("http://h/x?API_KEY=a#t", "http://h/x?API_KEY=***#t"),
    ],
)
def test_credentials_are_never_shown(address: str, shown: str) -> None:
    assert redact(address) == shown


class _Camera:
    """Stands for cv2.VideoCapture: three pictures, then the plug is pulled."""

    def __init__(self, index: int) -> None:
        self.left = 3
        self.there = index == 0

    def isOpened(self) -> bool:
        return self.there

    def get(self, key: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.zeros((4, 6, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.there = False


def test_a_webcam_gives_frames_until_it_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    source = open_source("0")
    assert isinstance(source, WebcamSource)
    assert (source.kind, source.rate, source.total) == (Kind.WEBCAM, Fraction(30), None)
    frames = list(source)
    assert [f.index for f in frames] == [0, 1, 2] and frames[0].pts_s == 0
    assert frames[2].pts_s > 0 and frames[2].camera == "webcam 0"
    assert source.warnings == ["webcam 0 stopped after frame 3; was it unplugged?"]
    source.close()


def test_a_missing_webcam_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError, match="webcam 97 cannot be opened"):
        open_source("97")
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(cv2, "VideoCapture", _Camera)
    with pytest.raises(SourceError, match="webcam 1 cannot be opened"):
        open_source("1")


@pytest.mark.parametrize("text", ["", "nothing.mp4", "a" * 5000])
def test_a_source_that_is_not_there(text: str) -> None:
    with pytest.raises(SourceError, match="source not found"):
        open_source(text)
