"""The fault server over loopback: every mishap as a camera sees it, and other clients."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from capture_rig import descriptors, running, state, taken, until
from chaos_rig import FRAMES, SCENE, SHORT, TRANSPORT, RtspClient, reel

from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.chaos.access import Access, Scheme
from centermask_edge.live.chaos.footage import Codec
from centermask_edge.live.chaos.schedule import Mishap, parse_schedule
from centermask_edge.live.chaos.server import FaultServer, ServedCamera
from centermask_edge.live.health import Fault, State
from centermask_edge.live.synthetic import time_code

# What a camera may report; none where it goes on.
BROKEN = {Fault.END, Fault.RESET, Fault.CODEC, Fault.TIMEOUT, Fault.FROZEN}
REPORTED = {
    Mishap.FREEZE: {Fault.FROZEN},
    Mishap.RESET: {Fault.END},
    Mishap.REFUSE: {Fault.REFUSED},
    Mishap.UNAUTHORISED: {Fault.AUTH},
    Mishap.NOT_FOUND: {Fault.NOT_FOUND},
    Mishap.GARBAGE: BROKEN - {Fault.RESET},
    Mishap.HUGE_SDP: {Fault.CODEC},
    Mishap.ENDLESS_HEADERS: {Fault.TIMEOUT, Fault.CODEC},
    Mishap.BAD_H264: {Fault.FROZEN, Fault.CODEC},
    Mishap.HUGE_FRAMES: {Fault.CODEC},
}
GOES_ON = set(Mishap) - set(REPORTED)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    before = descriptors()
    with FaultServer() as made:
        yield made
    assert descriptors() <= before


@pytest.fixture
def served(server: FaultServer) -> ServedCamera:
    return server.serve(reel(), access=Access("door", "pass word"))


def number(image: np.ndarray) -> int | None:
    return time_code.read(image)


@pytest.mark.parametrize("mishap", list(REPORTED))
def test_a_camera_reports_it_and_comes_back(mishap: Mishap, served: ServedCamera) -> None:
    camera = open_camera(served.address, SHORT)
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        served.begin(mishap)
        if mishap is Mishap.RESET:
            served.end()
        until(lambda: camera.health().fault in REPORTED[mishap])
        message = camera.health().message
        served.end()
        frames = camera.health().frames
        until(lambda: camera.health().frames > frames + 2 and state(camera) is State.LIVE)
    assert "pass word" not in message and "pass%20word" not in message and message


def test_a_camera_of_which_hardly_a_picture_is_right_is_given_up(served: ServedCamera) -> None:
    camera = open_camera(served.address, replace(SHORT, frozen_s=10.0))
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        served.begin(Mishap.BAD_H264)
        until(lambda: camera.health().fault is Fault.CODEC)
        message = camera.health().message
    assert "is damaged: its last 50 packets gave" in message


def test_a_smaller_picture_and_the_usual_one_again(served: ServedCamera) -> None:
    camera = open_camera(served.address, SHORT)
    with running(camera):
        sizes = []
        for mishap in (None, Mishap.RESOLUTION, None):
            served.end() if mishap is None else served.begin(mishap)
            wanted = SCENE.height // (1 if mishap is None else 2)
            until(lambda w=wanted: taken(camera, 1)[0].image.shape[0] == w)  # type: ignore[misc]
            sizes += [frame.image.shape[:2] for frame in taken(camera, 3)]
        assert camera.health().fault is None and camera.health().reconnects == 0
    whole, half = (SCENE.height, SCENE.width), (SCENE.height // 2, SCENE.width // 2)
    assert sizes == [whole] * 3 + [half] * 3 + [whole] * 3


def test_a_slow_network_makes_frames_late_and_loses_none(served: ServedCamera) -> None:
    with RtspClient(served.address) as client:
        client.play()
        stamps = (stamp for stamp, _ in client.frames())
        next(stamps)
        served.begin(Mishap.LATENCY)
        found = [(stamp, served.frames_due()) for stamp in itertools.islice(stamps, 20)]
    numbers = [stamp // 1500 for stamp, _ in found]
    assert numbers == [numbers[0] + n for n in range(20)]
    # A fifth of a second at 60 frames/s; those before were on their way already.
    assert min(due - stamp // 1500 for stamp, due in found[5:]) >= 11


def test_lost_packets_leave_gaps(served: ServedCamera) -> None:
    def gaps(client: RtspClient) -> int:
        found = [p.sequence for p in itertools.islice(client.packets(), 100)]
        return sum((b - a) % 2**16 != 1 for a, b in itertools.pairwise(found))

    with RtspClient(served.address) as client:
        client.play()
        assert gaps(client) == 0
        served.begin(Mishap.LOSS)
        # One in ten, that is 10; the numbers are drawn with a fixed seed, their moments are not.
        assert 1 <= gaps(client) <= 30


@pytest.mark.parametrize(("scheme", "count"), [(Scheme.BASIC, 8), (Scheme.DIGEST, FRAMES + 8)])
def test_pictures_in_order_over_more_than_a_round(
    scheme: Scheme, count: int, server: FaultServer
) -> None:
    shown = server.serve(reel(), access=Access("a", "b:c/d", scheme))
    decoder = av.CodecContext.create("h264", "r")
    with RtspClient(shown.address) as client:
        text = client.play()
        frames = list(itertools.islice(client.frames(), count))
    assert "a=rtpmap:96 H264/90000" in text and "sprop-parameter-sets=" in text
    stamps = [stamp for stamp, _ in frames]
    assert stamps == [stamps[0] + 1500 * n for n in range(count)]
    pictures = [p for _, data in frames for p in decoder.decode(av.Packet(data))]
    found = [number(p.to_ndarray(format="bgr24")) for p in (*pictures, *decoder.decode(None))]
    assert found == [(found[0] + n) % FRAMES for n in range(count)]  # type: ignore[operator]


def test_what_is_no_part_of_a_conversation(served: ServedCamera) -> None:
    with RtspClient(served.address) as client:
        assert "PLAY" in client.granted("OPTIONS")["public"]
        assert client.ask("DESCRIBE")[0] == 401
        proof = {
            method: client.proof(method, client.ask(method)[1]["www-authenticate"])
            for method in ("PLAY", "SETUP", "RECORD", "GET_PARAMETER", "TEARDOWN")
        }
        asked = [
            client.ask(method, Authorization=proof[method], Transport=transport)[0]
            for method, transport in (
                ("PLAY", ""),
                ("RECORD", ""),
                ("SETUP", "RTP/AVP;unicast;client_port=8000-8001"),
                ("SETUP", TRANSPORT),
                ("GET_PARAMETER", ""),
                ("TEARDOWN", ""),
            )
        ]
        assert asked == [455, 501, 461, 200, 200, 200]
        assert client.read(1) == b""


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01" * 9000, b"hello\r\n\r\n", b"A b RTSP/1.0\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_no_request_ends_the_connection(data: bytes, served: ServedCamera) -> None:
    with RtspClient(served.address) as client:
        client.write(data)
        with suppress(ConnectionResetError):
            assert client.read(1) == b""


def test_the_port_is_kept_while_it_refuses(served: ServedCamera) -> None:
    port = int(served.address.rsplit(":", 1)[1].split("/")[0])
    for _ in range(3):
        served.begin(Mishap.REFUSE)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 3)
        served.end()
        socket.create_connection(("127.0.0.1", port), 3).close()


def test_clients_that_give_up_during_a_freeze_leave_nothing(served: ServedCamera) -> None:
    before = descriptors()
    served.begin(Mishap.FREEZE)
    for _ in range(5):
        with RtspClient(served.address) as client:
            client.write(b"OPTIONS rtsp://h/live RTSP/1.0\r\nCSeq: 1\r\n\r\n")
    until(lambda: served.connections == 5 and descriptors() == before)


def test_mishaps_come_by_the_clock_from_the_first_connection(server: FaultServer) -> None:
    told: list[tuple[float, Mishap | None]] = []
    changes = parse_schedule("loss@0.2+0.3,reset@0.7", 1).changes(1)
    shown = server.serve(
        reel(), changes, told=lambda mishap: told.append((time.monotonic(), mishap))
    )
    time.sleep(0.1)
    assert told == []
    begin = time.monotonic()
    with RtspClient(shown.address) as client:
        client.play()
        assert list(client.packets())  # until the reset
    until(lambda: len(told) == 4)
    assert [mishap for _, mishap in told] == [Mishap.LOSS, None, Mishap.RESET, None]
    late = [at - begin - due for (at, _), due in zip(told, (0.2, 0.5, 0.7, 0.7), strict=True)]
    assert min(late) > -0.02 and max(late) < 1.0


@pytest.mark.parametrize("mishap", [None, Mishap.FREEZE, Mishap.HUGE_SDP, Mishap.HUGE_FRAMES])
def test_pictures_over_http(mishap: Mishap | None, server: FaultServer) -> None:
    shown = server.serve(reel(Codec.MJPEG), access=Access("a", "b"))
    camera = open_camera(shown.address, SHORT)
    with running(camera):
        found = [number(frame.image) for frame in taken(camera, 3)]
        assert None not in found and len(set(found)) == 3
        if mishap is not None:
            shown.begin(mishap)
            until(lambda: camera.health().fault in BROKEN)
            shown.end()
            taken(camera, 3)


def test_opencv_reads_it(served: ServedCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV brings an FFmpeg of its own, not PyAV's."""
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    video = cv2.VideoCapture(served.address, cv2.CAP_FFMPEG)
    try:
        found = [number(video.read()[1]) for _ in range(5)]
    finally:
        video.release()
    assert found == [(found[0] + n) % FRAMES for n in range(5)]  # type: ignore[operator]


def test_ffprobe_reads_it(served: ServedCamera) -> None:
    probe = shutil.which("ffprobe")
    if probe is None:
        pytest.skip("the system has no ffprobe")
    words = ["-v", "error", "-rtsp_transport", "tcp", "-show_entries", "stream=codec_name,width"]
    command = [probe, *words, "-of", "csv=p=0", served.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout.strip().rstrip(",") == f"h264,{SCENE.width}", done.stderr


def test_gstreamer_reads_it(served: ServedCamera) -> None:
    launch = shutil.which("gst-launch-1.0")
    if launch is None:
        pytest.skip("the system has no gst-launch-1.0")
    words = ["rtspsrc", f"location={served.address}", "protocols=tcp", "!", "rtph264depay", "!"]
    command = [launch, "-q", *words, "identity", "eos-after=10", "!", "fakesink"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_closing_ends_everything_and_may_be_done_twice() -> None:
    server = FaultServer()
    shown = server.serve(reel())
    with closing(RtspClient(shown.address)._socket) as connection:
        server.close()
        server.close()
        connection.settimeout(3)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_nothing_is_printed_and_no_task_is_lost() -> None:
    """In a process of its own, with asyncio's own checks on."""
    code = (
        "from contextlib import suppress\nfrom chaos_rig import RtspClient, reel\n"
        "from centermask_edge.live.chaos.schedule import Mishap\n"
        "from centermask_edge.live.chaos.server import FaultServer\n"
        "with FaultServer() as server:\n"
        "    shown = server.serve(reel())\n"
        "    for mishap in Mishap:\n"
        "        with RtspClient(shown.address) as one, RtspClient(shown.address) as two:\n"
        "            one.play()\n            shown.begin(mishap)\n"
        "            with suppress(OSError):\n"
        "                two.write(b'DESCRIBE rtsp://h/live RTSP/1.0\\r\\nCSeq: 1\\r\\n\\r\\n')\n"
        "            next(one.packets(), None) if mishap is not Mishap.FREEZE else None\n"
        "        shown.end()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
