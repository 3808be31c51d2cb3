"""Pictures over HTTP: who may look, what they see, and that no viewer costs the others anything."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, find_browser
from live_results import result, until
from PIL import Image as Pillow

from centermask_edge.errors import SinkError
from centermask_edge.live.health import Fault, Health, State
from centermask_edge.live.outputs import web_server as server
from centermask_edge.live.outputs.overlay import Image, annotate
from centermask_edge.live.outputs.web import WebPictures
from centermask_edge.live.result import Result

TOKEN = "sixteen-letters-and-more"
BROWSER = find_browser()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LOOK_S", 0.1)


def plain(result: Result) -> Image:
    return result.frame.image


@pytest.fixture
def web() -> Iterator[WebPictures]:
    sink = WebPictures(plain, port=0)
    yield sink
    sink.close()


def port(web: WebPictures) -> int:
    return int(web.url.rsplit(":", 1)[1].rstrip("/"))


def get(web: WebPictures, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port(web), timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


class Viewer:
    """A client of a stream."""

    def __init__(self, web: WebPictures, path: str = "/gate.mjpg") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port(web)), timeout=10)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.file = self.socket.makefile("rb")
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def read(self) -> bytes:
        assert self.file.readline() == b"--picture\r\n"
        assert self.file.readline() == b"Content-Type: image/jpeg\r\n"
        length = int(self.file.readline().split(b":")[1])
        assert self.file.readline() == b"\r\n"
        content = self.file.read(length)
        assert self.file.readline() == b"\r\n"
        return content

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def brightness(content: bytes) -> int:
    """Of the picture: 40 + 10 * index."""
    with Pillow.open(io.BytesIO(content)) as picture:
        value = picture.convert("L").getpixel((5, 5))
    assert isinstance(value, int)
    return value


def test_a_picture_is_encoded_once_and_only_when_wanted(web: WebPictures) -> None:
    for index in range(5):
        web.write(result(index))
    feed = web.feed("gate")
    assert feed is not None and feed.encodings == 0
    for _ in range(3):
        status, content, headers = get(web, "/gate.jpg")
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        assert abs(brightness(content) - 80) <= 2
    assert feed.encodings == 1


def test_many_viewers_share_one_encoding(web: WebPictures) -> None:
    web.write(result(0))
    feed = web.feed("gate")
    assert feed is not None
    viewers = [Viewer(web) for _ in range(8)]
    for index in range(1, 4):
        assert len({viewer.read() for viewer in viewers}) == 1
        web.write(result(index))
    assert feed.encodings <= 4 and feed.watchers == 8
    for viewer in viewers:
        viewer.close()
    until(lambda: feed.watchers == 0)


def test_a_viewer_who_leaves_is_noticed_though_no_picture_comes(web: WebPictures) -> None:
    web.write(result(0))
    feed = web.feed("gate")
    viewer = Viewer(web)
    viewer.read()
    assert feed is not None and feed.watchers == 1
    viewer.close()
    until(lambda: feed.watchers == 0, 3)


def test_a_slow_viewer_gets_fewer_pictures_and_blocks_nobody(web: WebPictures) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    web.write(result(0, image=noise))
    slow, fast = Viewer(web), Viewer(web)
    slow.read()
    longest = 0.0
    for index in range(40):
        start = time.perf_counter()
        web.write(result(index, image=noise))
        longest = max(longest, time.perf_counter() - start)
        fast.read()
    assert longest < 0.5  # blocked, it would be seconds
    fast.close()
    web.close()
    got = 1
    with pytest.raises(AssertionError):  # the stream ends
        while slow.read():
            got += 1
    slow.close()
    assert got < 30


def test_this_machine_only_unless_there_is_a_token() -> None:
    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(SinkError, match="could be seen by anyone in the network"):
            WebPictures(plain, host, 0)
    with pytest.raises(SinkError, match="the token has 5 characters; give at least 16"):
        WebPictures(plain, "0.0.0.0", 0, "short")


def test_a_stranger_gets_nothing_without_the_token() -> None:
    web = WebPictures(plain, "0.0.0.0", 0, TOKEN)
    web.write(result(0))
    try:
        for path in ("/", "/health", "/gate.jpg", "/gate.mjpg", "/other.jpg"):
            for query, headers in (
                ("", {}),
                ("?token=", {}),
                (f"?token={TOKEN}x", {}),
                ("?token=%ff%00", {}),
                ("", {"Authorization": "Bearer nonsense-nonsense"}),
                ("", {"Authorization": f"Basic {TOKEN}"}),
                (f"?token={TOKEN}", {"Authorization": "Bearer wrong"}),
            ):
                status, content, _ = get(web, path + query, **headers)
                assert (status, content) == (401, b"Unauthorized"), (path, query)
        assert get(web, f"/gate.jpg?token={TOKEN}")[0] == 200
        assert get(web, "/health", Authorization=f"Bearer {TOKEN}", Host="camera.lan")[0] == 200
    finally:
        web.close()


def test_a_name_of_another_machine_is_refused_on_loopback(web: WebPictures) -> None:
    web.write(result(0))
    assert get(web, "/gate.jpg", Host="evil.example")[0] == 403
    assert get(web, "/gate.jpg", Host=f"localhost:{port(web)}")[0] == 200
    assert get(web, "/gate.jpg", Host="[::1]:1")[0] == 200


def test_health_tells_each_camera() -> None:
    seen = Health("gate", State.WAITING, Fault.AUTH, "rtsp://u:secret@h/ refused")
    web = WebPictures(plain, port=0, health=lambda: [seen])
    try:
        for index in range(3):
            web.write(result(index, arrival_s=time.monotonic() + index / 10))
        web.write(result(0, "a/b"))
        status, content, _ = get(web, "/health")
        gate, other = json.loads(content)["cameras"]
        assert status == 200 and (gate["camera"], gate["frames"]) == ("gate", 3)
        assert gate["rate_hz"] == pytest.approx(10, abs=0.5) and gate["age_ms"] == 42.0
        assert (gate["state"], gate["fault"]) == ("waiting", "auth")
        assert "secret" not in gate["message"]
        assert (other["camera"], other["path"]) == ("a/b", "a-b") and "state" not in other
    finally:
        web.close()


def test_what_is_not_there_is_said(web: WebPictures) -> None:
    for path in ("/gate.jpg", "/nothing", "/../../etc/passwd", "/gate.png", "/%00.jpg"):
        assert get(web, path)[0] == 404, path


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x16\x03\x01\x00\xa5garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
    ],
)
def test_nonsense_harms_only_its_sender(web: WebPictures, request_line: bytes) -> None:
    web.write(result(0))
    with socket.create_connection(("127.0.0.1", port(web)), timeout=5) as client:
        answer = b""
        with contextlib.suppress(OSError):  # the server may hang up before everything is sent
            client.sendall(request_line)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                answer += part
    assert b" 200 " not in answer
    assert get(web, "/gate.jpg")[0] == 200


def test_one_client_too_many_is_turned_away() -> None:
    web = WebPictures(plain, port=0, most_clients=2)
    web.write(result(0))
    viewers = [Viewer(web), Viewer(web)]
    try:
        for viewer in viewers:
            viewer.read()
        assert get(web, "/gate.jpg")[0] == 503
        viewers.pop().close()
        until(lambda: get(web, "/gate.jpg")[0] == 200, 5)
    finally:
        for viewer in viewers:
            viewer.close()
        web.close()


def test_clients_that_never_ask_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_ASK_S", 0.1)
    web = WebPictures(plain, port=0, most_clients=3)
    web.write(result(0))
    viewer = Viewer(web)
    viewer.read()
    idle = [socket.create_connection(("127.0.0.1", port(web))) for _ in range(2)]
    try:
        idle[0].sendall(b"GET / HTTP/1.1\r\nX: slo")
        time.sleep(0.2)
        assert get(web, "/gate.jpg")[0] == 200
        web.write(result(1))
        viewer.read()
    finally:
        viewer.close()
        for client in idle:
            client.close()
        web.close()


def test_a_picture_that_cannot_be_drawn_is_told_to_the_outlet() -> None:
    def broken(result: Result) -> Image:
        raise ZeroDivisionError("division by zero")

    web = WebPictures(broken, port=0)
    try:
        web.write(result(0))
        assert get(web, "/gate.jpg")[0] == 503
        with pytest.raises(SinkError, match="cannot be drawn: ZeroDivisionError"):
            web.write(result(1))
        web.write(result(2))
    finally:
        web.close()


def test_a_port_that_is_taken_is_named(web: WebPictures) -> None:
    with pytest.raises(SinkError, match=rf"cannot serve on 127.0.0.1:{port(web)}: Address already"):
        WebPictures(plain, port=port(web))
    with pytest.raises(SinkError, match=r"cannot serve on 127\.0\.0\.1:99999"):
        WebPictures(plain, port=99999)


def test_closing_ends_viewers_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    web = WebPictures(plain, port=0)
    web.write(result(0))
    viewers = [Viewer(web) for _ in range(3)]
    idle = socket.create_connection(("127.0.0.1", port(web)))
    for viewer in viewers:
        viewer.read()
    start = time.monotonic()
    web.close()
    web.close()
    assert time.monotonic() - start < 1
    until(lambda: set(threading.enumerate()) <= before, 3)
    idle.close()
    for viewer in viewers:
        viewer.close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium (Debian: apt-get install chromium)")
def test_the_page_shows_every_camera_in_a_browser(tmp_path: Path) -> None:
    assert BROWSER is not None
    web = WebPictures(annotate, "0.0.0.0", 0, TOKEN)
    stop = threading.Event()

    def play() -> None:
        index = 0
        while not stop.wait(0.05):
            index += 1
            for camera in ("gate", "<b>hall</b>"):
                web.write(result(index, camera, size=(240, 320)))

    player = threading.Thread(target=play)
    player.start()
    try:
        with Browser(BROWSER, tmp_path / "profile") as browser:
            browser.call("Page.navigate", url=f"http://127.0.0.1:{port(web)}/?token={TOKEN}")
            widths = "[...document.images].map((i) => i.naturalWidth)"
            until(lambda: _run(browser, widths) == [320, 320], 30)
            names = browser.run("[...document.querySelectorAll('b')].map((b) => b.textContent)")
            assert names == ["gate", "<b>hall</b>"]
            words = "document.querySelector('figcaption span').textContent"
            until(lambda: "Hz" in str(browser.run(words)), 5)
            assert not browser.run("document.querySelector('.late') !== null")
            assert browser.errors == []
    finally:
        stop.set()
        player.join()
        web.close()


def _run(browser: Browser, script: str) -> Any:
    try:
        return browser.run(script)
    except AssertionError:  # between two pages
        return None
