"""GStreamer pipelines: with GStreamer where the system has it, and with a stand-in everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_rig import Scripted, running, some, state, until
from fake_gst import (
    Element,
    FakeGst,
    GError,
    Message,
    MessageType,
    ResourceError,
    Sample,
    StreamError,
    _Codes,
)

from centermask_edge.errors import MissingPackageError, SourceError
from centermask_edge.live.capture.faults import SourceFault
from centermask_edge.live.capture.gst import GstSource
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.capture.options import CaptureOptions, Decode
from centermask_edge.live.capture.pipelines import Codec, jetson_csi, jetson_rtsp
from centermask_edge.live.health import Fault, State

BASICS = ("rtspsrc", "videotestsrc", "videoconvert", "appsink", "parsebin", "nvvidconv")
ADDRESS = "rtsp://admin:s3cret@10.0.0.7/live"
QUICK = CaptureOptions(open_s=0.3, retry_s=0.01, retry_max_s=0.02, auth_retry_s=0.01)


@pytest.fixture
def gst(monkeypatch: pytest.MonkeyPatch) -> FakeGst:
    fake = FakeGst(*BASICS)
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def no_gst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)


def _sample(width: int, height: int, pts: int = 0) -> Sample:
    """A picture whose blue is the column, its rows padded to 4 bytes with 255."""
    stride = (3 * width + 3) // 4 * 4
    rows = np.full((height, stride), 255, np.uint8)
    rows[:, : 3 * width : 3] = np.arange(width)
    return Sample(width, height, pts, rows.tobytes())


@pytest.mark.usefixtures("no_gst")
def test_a_pipeline_without_gstreamer_is_one_clear_line() -> None:
    with pytest.raises(MissingPackageError, match="apt install python3-gi") as caught:
        open_camera(f"gst: rtspsrc location={ADDRESS} ! parsebin")
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_gst")
@pytest.mark.parametrize(
    ("text", "decode"), [(f"gst:{ADDRESS}", Decode.SOFTWARE), (ADDRESS, Decode.HARDWARE)]
)
def test_an_address_falls_back_to_ffmpeg_and_says_why(
    text: str, decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = _note(text, decode, monkeypatch)
    assert note == (
        "hardware decoding needs GStreamer for Python, which is not installed; "
        "FFmpeg decodes in software"
    )


def test_without_the_jetsons_decoder_too(gst: FakeGst, monkeypatch: pytest.MonkeyPatch) -> None:
    note = _note(f"gst:{ADDRESS}", Decode.SOFTWARE, monkeypatch)
    assert note == "GStreamer has no nvv4l2decoder here; FFmpeg decodes in software"
    assert "rtsp addresses only" in _note("http://h/x", Decode.HARDWARE, monkeypatch)
    assert _note("http://h/x", Decode.SOFTWARE, monkeypatch) == ""


def _note(text: str, decode: Decode, patch: pytest.MonkeyPatch) -> str:
    """The note in the health of a camera that FFmpeg was made to open."""
    source = Scripted(some(100, 0.01))
    source.decoder = "h264 (FFmpeg, software)"  # type: ignore[attr-defined]
    patch.setattr(
        "centermask_edge.live.capture.opening.VideoSource", lambda address, kind, patience: source
    )
    camera = open_camera(text, CaptureOptions(decode=decode))
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        assert camera.health().decoder == "h264 (FFmpeg, software)"
        return camera.health().note


def test_an_address_is_decoded_by_the_jetson_where_it_can(gst: FakeGst) -> None:
    gst.known.add("nvv4l2decoder")
    gst.samples = [_sample(5, 4)]
    gst.elements = [Element("nvv4l2decoder", "Codec/Decoder/Video/Hardware")]
    camera = open_camera(f"gst:{ADDRESS}", QUICK)
    with running(camera):
        until(lambda: camera.health().frames > 0)
        health = camera.health()
    assert health.decoder == "nvv4l2decoder (GStreamer, hardware)" and health.note == ""
    assert camera.name == "rtsp://***@10.0.0.7/live"
    assert f'location="{ADDRESS}"' in gst.launched[0]


def test_pictures_come_without_the_padding_of_their_rows(gst: FakeGst) -> None:
    gst.samples = [_sample(5, 4, 2_500_000_000), _sample(7, 3, 2**64 - 1)]
    samples = list(gst.samples)
    source = GstSource("videotestsrc", "test", 1.0, 1000)
    first, second = source
    assert first.image.shape == (4, 5, 3) and second.image.shape == (3, 7, 3)
    assert first.image[2, :, 0].tolist() == list(range(5)) and first.pts_s == 2.5
    assert second.image[1, :, 0].tolist() == list(range(7)) and 0 <= second.pts_s < 1
    assert first.image.flags.writeable and first.image.flags.c_contiguous
    assert all(sample.unmapped for sample in samples)
    source.close()
    assert gst.pipelines[0].states == ["playing", "null"]


def test_a_picture_too_large_is_refused(gst: FakeGst) -> None:
    gst.samples = [_sample(50, 40)]
    with pytest.raises(SourceFault, match="50x40 pixels") as caught:
        list(GstSource("videotestsrc", "test", 1.0, 1999))
    assert caught.value.fault is Fault.CODEC


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (ResourceError.NOT_AUTHORIZED, Fault.AUTH),
        (ResourceError.NOT_FOUND, Fault.NOT_FOUND),
        (ResourceError.OPEN_READ, Fault.UNREACHABLE),
        (ResourceError.READ, Fault.RESET),
        (ResourceError.FAILED, Fault.INTERNAL),
        (StreamError.DECODE, Fault.CODEC),
    ],
)
@pytest.mark.parametrize("frames", [0, 2])
def test_gstreamers_errors_get_names(gst: FakeGst, code: _Codes, fault: Fault, frames: int) -> None:
    gst.samples = [_sample(5, 4)] * frames
    error = GError(f"broken: {ADDRESS} with s3cret", code)
    gst.last = Message(MessageType.ERROR, error)
    camera = open_camera(f"gst: rtspsrc location={ADDRESS} ! parsebin", QUICK)
    with running(camera):
        until(lambda: camera.health().fault is fault)
        health = camera.health()
    assert "broken" in health.message
    assert "s3cret" not in str(health) and "admin" not in str(health)
    assert all(pipeline.states[-1] == "null" for pipeline in gst.pipelines[1:])


def test_no_credentials_in_what_a_pipeline_says_itself(gst: FakeGst) -> None:
    gst.last = Message(MessageType.ERROR, GError(f"broken: {ADDRESS}", ResourceError.READ))
    with pytest.raises(SourceFault, match="broken") as caught:
        GstSource(f"rtspsrc location={ADDRESS}", "gate", 1.0, 1000)
    assert "s3cret" not in str(caught.value) and caught.value.fault is Fault.RESET


def test_silence_of_a_pipeline_is_a_timeout(gst: FakeGst) -> None:
    gst.last = None
    with pytest.raises(SourceFault, match=r"no picture within 0\.01 s") as caught:
        GstSource("videotestsrc", "test", 0.01, 1000)
    assert caught.value.fault is Fault.TIMEOUT and gst.pipelines[0].states[-1] == "null"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gst:", "without a sink"),
        ("gst: videotestsrc ! appsink", "without a sink"),
        (f"gst: nosuchsrc location={ADDRESS}", 'no element "nosuchsrc"'),
    ],
)
def test_what_is_no_pipeline_is_told_at_once(gst: FakeGst, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_camera(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_the_pipelines_of_a_jetson() -> None:
    text = jetson_rtsp('rtsp://u:p"w\\@h/x', Codec.H264, latency_ms=50)
    assert text == (
        'rtspsrc location="rtsp://u:p\\"w\\\\@h/x" protocols=tcp latency=50 ! rtph264depay'
        " ! h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx"
    )
    assert " ! parsebin ! nvv4l2decoder ! " in jetson_rtsp(ADDRESS)
    assert jetson_csi(1, width=1280, height=720, rate=60) == (
        "nvarguscamerasrc sensor-id=1"
        " ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1,format=NV12"
        " ! nvvidconv ! video/x-raw,format=BGRx"
    )


CHILD = """
import json, sys, time
from centermask_edge.errors import CenterMaskError
from centermask_edge.live.camera import Bell
from centermask_edge.live.capture.opening import open_camera
try:
    camera = open_camera(sys.argv[1])
except CenterMaskError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
bell = Bell()
camera.start(bell)
found = {"values": [], "shape": None, "contiguous": None}
end = time.monotonic() + 8
while time.monotonic() < end:
    bell.wait(0.2)
    frame = camera.take()
    if frame is not None:
        found["shape"] = frame.image.shape
        found["values"].append(frame.image[0, :: frame.width - 1, :].tolist())
        found["pts_s"] = frame.pts_s
    health = camera.health()
    if health.fault or len(found["values"]) >= 12:
        break
start = time.monotonic()
camera.stop()
found |= {"decoder": health.decoder, "fault": health.fault, "message": health.message}
found |= {"stop_s": time.monotonic() - start, "name": camera.name}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which this Python sees the system's PyGObject and nothing else of it."""
    system = shutil.which("python3", path="/usr/bin")
    if system is None:
        pytest.skip("the system has no Python")
    probe = (
        "import gi; gi.require_version('Gst', '1.0'); import gi.repository.Gst; "
        "print(gi.__path__[0])"
    )
    asked = subprocess.run([system, "-c", probe], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("the system has no GStreamer for Python")
    folder = tmp_path_factory.mktemp("gi")
    (folder / "gi").symlink_to(asked.stdout.strip())
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", probe]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        pytest.skip("the system's PyGObject is not for this version of Python")
    return environment


def _run(text: str, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_real_pipeline_gives_real_pictures(real: dict[str, str]) -> None:
    found = _run(
        "gst: videotestsrc is-live=true pattern=blue"
        " ! video/x-raw,format=I420,width=321,height=239,framerate=30/1",
        real,
    )
    assert found["shape"] == [239, 321, 3] and found["fault"] is None
    # Blue, the first of three, at both ends of the row: neither channels nor padding are mixed up.
    left, right = found["values"][-1]
    assert left[0] > 240 and left[1] < 15 and left[2] < 15
    assert right[0] > 240 and right[1] < 15 and right[2] < 15
    assert 0.2 < found["pts_s"] < 5 and found["stop_s"] < 1
    assert found["name"] == "videotestsrc is-live=true pattern=blue"


def test_a_real_decoder_is_named_and_the_end_is_a_fault(real: dict[str, str]) -> None:
    found = _run("gst: videotestsrc num-buffers=4 is-live=true ! jpegenc ! jpegdec", real)
    assert found["fault"] == Fault.END.value
    assert found["decoder"] == "jpegdec (GStreamer, software)"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("gst: filesrc location=/nowhere/x.jpg ! jpegdec", "fault", Fault.NOT_FOUND.value),
        ("gst: videotestsrc ! nosuchelement", "error", "nosuchelement"),
        ("gst: videotestsrc ! video/x-raw,width=9000,height=2000", "message", "9000x2000"),
    ],
)
def test_real_errors_are_told(real: dict[str, str], text: str, key: str, words: str) -> None:
    assert words in _run(text, real)[key]
