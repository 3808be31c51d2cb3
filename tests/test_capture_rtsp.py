"""RTSP against a server that is not ours: GStreamer's, where the system has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from capture_rig import running, state, until

from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.health import Fault, State

SERVER = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
if Gst.ElementFactory.find("x264enc"):
    coded = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay"
else:
    coded = "jpegenc ! rtpjpegpay"
picture = "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1"
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( {picture} ! {coded} name=pay0 pt=96 )")
factory.set_shared(True)
server = GstRtspServer.RTSPServer()
server.set_service(sys.argv[1])
server.set_address("127.0.0.1")
auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
auth.add_basic(GstRtspServer.RTSPAuth.make_basic("admin", "s3cret"), token)
server.set_auth(auth)
rights = GstRtspServer.RTSPPermissions()
for right in ("access", "construct"):
    rights.add_permission_for_role("user", f"media.factory.{right}", True)
factory.set_permissions(rights)
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


class _Rtsp:
    """The server in a process of its own, which can be stopped, continued and killed."""

    def __init__(self, python: str) -> None:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self._command = [python, "-c", SERVER, str(self.port)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.ready = self._process.stdout.readline() == "ready\n"

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def address(self, password: str = "s3cret", path: str = "live") -> str:
        return f"rtsp://admin:{password}@127.0.0.1:{self.port}/{path}"


@pytest.fixture(scope="module")
def rtsp() -> Iterator[_Rtsp]:
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("the system has no Python")
    server = _Rtsp(python)
    if not server.ready:
        server.kill()
        pytest.skip("the system has no GStreamer RTSP server (gir1.2-gst-rtsp-server-1.0)")
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("password", "path", "fault"),
    [("wr0ng", "live", Fault.AUTH), ("s3cret", "nowhere", Fault.NOT_FOUND)],
)
def test_what_a_server_refuses(rtsp: _Rtsp, password: str, path: str, fault: Fault) -> None:
    camera = open_camera(rtsp.address(password, path))
    with running(camera):
        until(lambda: camera.health().fault is fault)
        health = camera.health()
    assert password not in str(health) and "admin" not in str(health)


def test_frozen_and_back_and_gone_and_back(rtsp: _Rtsp) -> None:
    camera = open_camera(rtsp.address())
    with running(camera):
        until(lambda: state(camera) is State.LIVE)
        time.sleep(0.5)
        rtsp.send(signal.SIGSTOP)
        noticed = until(lambda: state(camera) is State.FROZEN)
        time.sleep(0.5)
        frames = camera.health().frames
        rtsp.send(signal.SIGCONT)
        thawed = until(lambda: camera.health().frames > frames)

        rtsp.kill()
        gone = until(lambda: state(camera) is State.WAITING)
        until(lambda: camera.health().fault is Fault.REFUSED)
        frames = camera.health().frames
        rtsp.start()
        back = until(lambda: camera.health().frames > frames)
        health = camera.health()
    assert noticed <= 2.0 and thawed <= 3.0 and gone <= 2.0 and back <= 3.0
    assert "(FFmpeg, software)" in health.decoder and health.reconnects >= 1
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("read")])
