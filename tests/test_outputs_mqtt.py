"""MQTT against the broker mosquitto: what arrives, that it comes back, that nothing leaks."""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_results import event, result, until
from mqtt_broker import FakeBroker

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs.mqtt import Broker, Mqtt, parse_broker
from centermask_edge.live.outputs.outlet import Outlet

paho = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_broker = pytest.mark.skipif(
    MOSQUITTO is None, reason="no mosquitto (Debian: apt-get install mosquitto)"
)
SECRET = "pass:w@rd/1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker of our own, which can be stopped and started."""

    def __init__(
        self, folder: Path, *, password: bool = False, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.port = free_port()
        lines = [f"listener {self.port} 127.0.0.1", "persistence false"]
        if tls is not None:
            lines += [f"keyfile {tls[0]}", f"certfile {tls[1]}"]
        if password:
            file = folder / "passwords"
            file.touch(0o600)
            tool = shutil.which("mosquitto_passwd")
            assert tool is not None
            subprocess.run([tool, "-b", str(file), "me", SECRET], check=True, capture_output=True)
            lines.append(f"password_file {file}")
        lines.append(f"allow_anonymous {'false' if password else 'true'}")
        if os.geteuid() == 0:  # else it becomes another user, who cannot read the password file
            lines.append("user root")
        self.config = folder / "mosquitto.conf"
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        quiet = subprocess.DEVNULL
        command = [MOSQUITTO, "-c", str(self.config)]
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        try:
            until(self._answers)
        except AssertionError:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def address(self) -> Broker:
        return Broker("127.0.0.1", self.port)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


class Listener:
    """Another client, which hears everything."""

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: list[tuple[str, Any, bool]] = []
        ready: list[bool] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda c, d, m: self.heard.append(
            (m.topic, json.loads(m.payload), m.retain)
        )
        self.client.on_subscribe = lambda *rest: ready.append(True)
        self.client.on_connect = lambda *rest: self.client.subscribe("#", qos=1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        until(lambda: bool(ready))

    def of(self, topic: str) -> list[Any]:
        return [payload for heard, payload, _ in list(self.heard) if heard == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@needs_broker
def test_events_results_and_status_arrive(mosquitto: Mosquitto) -> None:
    listener = Listener(mosquitto)
    sink = Mqtt(mosquitto.address, "site/7")
    sink.write(result(0, "a/b#+", events=(event(), event("leave"))))
    sink.write(result(1, "hall"))
    until(lambda: len(listener.of("site/7/hall/results")) == 1)
    kinds = [(e["kind"], e["camera"], e["index"]) for e in listener.of("site/7/a-b/events")]
    assert kinds == [("enter", "a/b#+", 0), ("leave", "a/b#+", 0)]
    assert listener.of("site/7/a-b/results")[0]["schema"] == "centermask-edge/2"
    assert listener.of("site/7/status") == [{"state": "online"}]
    sink.close()
    sink.close()
    until(lambda: len(listener.of("site/7/status")) == 2)
    assert listener.of("site/7/status")[1] == {"state": "offline"}
    listener.close()
    late = Listener(mosquitto)
    until(lambda: ("site/7/status", {"state": "offline"}, True) in late.heard)
    late.close()


@needs_broker
def test_the_last_will_says_when_the_process_is_gone(mosquitto: Mosquitto) -> None:
    listener = Listener(mosquitto)
    sink = Mqtt(mosquitto.address, results=False)
    sink.write(result(0))
    until(lambda: listener.of("centermask-edge/status") == [{"state": "online"}])
    sink._client._sock.shutdown(socket.SHUT_RDWR)
    until(lambda: {"state": "offline"} in listener.of("centermask-edge/status"))
    assert listener.of("centermask-edge/gate/results") == []
    sink.close()
    listener.close()


@needs_broker
def test_nothing_is_lost_or_doubled_while_the_broker_is_away(mosquitto: Mosquitto) -> None:
    lines: list[str] = []
    sink = Mqtt(mosquitto.address)
    outlet = Outlet(sink, report=lines.append)
    outlet.submit(result(0))
    until(lambda: outlet.statistics().written == 1)
    mosquitto.stop()
    until(lambda: not sink.connected)
    for index in range(1, 4):
        outlet.submit(result(index, events=(event(track=index),)))
    until(lambda: outlet.statistics().failing)
    assert "connection lost" in lines[0] and str(mosquitto.port) in lines[0]
    mosquitto.start()
    listener = Listener(mosquitto)
    until(lambda: outlet.statistics().written == 4, 20)
    until(lambda: len(listener.of("centermask-edge/gate/results")) == 3)
    assert [e["track"] for e in listener.of("centermask-edge/gate/events")] == [1, 2, 3]
    assert outlet.close() and outlet.statistics().failed == 0
    assert "works again" in lines[1]
    listener.close()


@needs_broker
def test_the_password_is_used_and_never_shown(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, password=True)
    try:
        address = f"mqtt://me:pass%3Aw%40rd%2F1@127.0.0.1:{broker.port}"
        right = Mqtt(parse_broker(address))
        right.write(result(0))
        right.close()
        wrong = Broker("127.0.0.1", broker.port, user="me", password="no-no")
        sink = Mqtt(wrong)
        with pytest.raises(SinkError, match="not authorized; check user, password") as told:
            sink.write(result(0))
        start = time.monotonic()
        sink.close()
        assert time.monotonic() - start < 2
        for text in (str(told.value), sink.name, repr(wrong), str(wrong)):
            assert "no-no" not in text
    finally:
        broker.stop()


def test_what_goes_over_the_wire() -> None:
    with FakeBroker() as broker:
        sink = Mqtt(Broker("127.0.0.1", broker.port, user="me", password="secret"), "site")
        sink.write(result(4, events=(event(),)))
        sink.close()
        sent = [(topic, quality, keep) for topic, _, quality, keep in broker.heard]
        assert sent == [
            ("site/status", 1, True),
            ("site/gate/events", 1, False),
            ("site/gate/results", 0, False),
            ("site/status", 1, True),
        ]
        told = json.loads(broker.heard[1][1])
        assert (told["schema"], told["kind"]) == ("centermask-edge-event/1", "enter")
        assert broker.wills == []


def test_a_broken_connection_leaves_the_will_and_is_made_again() -> None:
    with FakeBroker() as broker:
        sink = Mqtt(Broker("127.0.0.1", broker.port), results=False)
        sink.write(result(0))
        broker.drop()
        until(lambda: not sink.connected)
        assert broker.wills == [("centermask-edge/status", b'{"state":"offline"}')]
        with pytest.raises(SinkError, match="connection lost"):
            sink.write(result(1))
        until(lambda: sink.connected)
        sink.write(result(1, events=(event(),)))
        until(lambda: broker.heard[-1][0] == "centermask-edge/gate/events")
        sink.close()


def test_a_result_tried_again_does_not_double_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBroker() as broker:
        sink = Mqtt(Broker("127.0.0.1", broker.port), results=False)
        sink.write(result(0))
        real, calls = sink._publish, []

        def publish(topic: str, payload: str, qos: int) -> None:
            calls.append(json.loads(payload)["track"])
            if len(calls) == 2:
                raise SinkError("full")
            real(topic, payload, qos)

        monkeypatch.setattr(sink, "_publish", publish)
        one = result(1, events=(event(track=1), event(track=2)))
        with pytest.raises(SinkError, match="full"):
            sink.write(one)
        sink.write(one)
        sink.write(result(2, events=(event(track=3),)))
        assert calls == [1, 2, 2, 3]
        sink.close()


def test_a_refusal_is_told() -> None:
    with FakeBroker(refusal=5) as broker:
        sink = Mqtt(Broker("127.0.0.1", broker.port))
        with pytest.raises(SinkError, match="not authorized; check user, password"):
            sink.write(result(0))
        sink.close()


@needs_broker
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho's own socket
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    broker = Mosquitto(tmp_path, tls=(key, certificate))
    try:
        stranger = Mqtt(parse_broker(f"mqtts://127.0.0.1:{broker.port}"))
        with pytest.raises(
            SinkError, match=r"mqtts://127.0.0.1:\d+: no TLS \(CERTIFICATE_VERIFY_FAILED\)"
        ):
            stranger.write(result(0))
        stranger.close()
        gc.collect()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        sink = Mqtt(parse_broker(f"mqtts://127.0.0.1:{broker.port}"))
        sink.write(result(0))
        sink.close()
    finally:
        broker.stop()


def test_no_broker_is_one_line_and_ends_at_once() -> None:
    sink = Mqtt(Broker("127.0.0.1", free_port()))
    with pytest.raises(SinkError, match="connection refused; check its address"):
        sink.write(result(0))
    start = time.monotonic()
    sink.close()
    assert time.monotonic() - start < 2


def test_a_peer_that_never_answers_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        lines: list[str] = []
        outlet = Outlet(Mqtt(Broker("127.0.0.1", mute.getsockname()[1])), report=lines.append)
        outlet.submit(result(0))
        start = time.monotonic()
        assert outlet.close()
        assert time.monotonic() - start < 2.5 and "no answer yet" in lines[0]


@pytest.mark.parametrize(
    "address",
    ["", "host", "http://host", "mqtt://", "mqtt://u:secret@h:99999", "mqtt://u:secret@h/topic"],
)
def test_addresses_that_are_none_are_refused_without_their_password(address: str) -> None:
    with pytest.raises(SinkError, match="is not the address of a broker") as told:
        parse_broker(address)
    assert "secret" not in str(told.value)


def test_addresses_are_understood() -> None:
    assert parse_broker("mqtts://h") == Broker("h", 8883, True)
    assert parse_broker("mqtt://u:a%40b@h:7") == Broker("h", 7, False, "u", "a@b")
    assert "a@b" not in repr(parse_broker("mqtt://u:a%40b@h:7"))
    for prefix in ("", "/", "a/#", "+/a"):
        with pytest.raises(SinkError, match="MQTT prefix"):
            Mqtt(Broker("h", 1), prefix)
