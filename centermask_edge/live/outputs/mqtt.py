"""Results and events to an MQTT broker.

Topics: ``PREFIX/CAMERA/events`` (one message an event, at least once), ``PREFIX/CAMERA/results``
(one a frame, at most once) and ``PREFIX/status``, retained: ``online``, or ``offline`` as the last
will.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from centermask_edge.errors import SinkError, require
from centermask_edge.live.outputs.names import Slugs
from centermask_edge.live.outputs.outlet import LINES
from centermask_edge.live.outputs.schema import dumps, event_line, result_line, wall_clock
from centermask_edge.live.result import Event, Result
from centermask_edge.live.source import redact

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_CONNECT_S = 3.0
# A first result may come before the connection is there; later ones find it or do not wait.
_FIRST_ANSWER_S = 1.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1, 30
# Messages that the broker has not confirmed; more would only hide that it does not answer.
_MOST_PENDING = 500
_GOODBYE_S = 1.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where an MQTT broker is.

    Attributes:
        host: its name or address.
        port: 1883, or 8883 with TLS, where not given.
        tls: whether the connection is encrypted and its certificate checked.
        user: user name; empty without.
        password: never shown.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


def parse_broker(address: str) -> Broker:
    """The broker of an address such as ``mqtts://USER:PASSWORD@HOST:PORT``.

    Raises:
        SinkError: it is not such an address.

    >>> parse_broker("mqtt://me:secret@10.0.0.2")
    Broker(host='10.0.0.2', port=1883, tls=False, user='me')
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in _PORTS or not host or parts.path not in ("", "/") or parts.query:
        raise SinkError(
            f"{redact(address)} is not the address of a broker; wanted for example "
            "mqtt://192.168.1.10:1883 or mqtts://USER:PASSWORD@HOST"
        )
    return Broker(
        host,
        port or _PORTS[parts.scheme],
        parts.scheme == "mqtts",
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


class Mqtt:
    """Publishes events, and results where asked; connects again by itself.

    While the broker is away, ``write`` raises: results wait in the outlet's queue and go out when
    it is back.

    Args:
        broker: where it is.
        prefix: first part of every topic.
        results: whether frames are published beside events.
        client_id: a broker allows one connection for each; random where empty.

    Raises:
        MissingPackageError: paho-mqtt is not installed.
        SinkError: the prefix cannot be part of a topic.
    """

    queue = LINES

    def __init__(
        self,
        broker: Broker,
        prefix: str = "centermask-edge",
        *,
        results: bool = True,
        client_id: str = "",
    ) -> None:
        mqtt: Any = require("paho.mqtt.client", extra="mqtt", why="publish to an MQTT broker")
        if not prefix.strip("/") or any(sign in prefix for sign in "+#\0"):
            raise SinkError(f"MQTT prefix {prefix!r}: wanted a topic without + and #")
        self.name = f"mqtt {broker.host}:{broker.port}"
        self._broker, self._prefix, self._results = broker, prefix.strip("/"), results
        self._mqtt = mqtt
        self._slugs = Slugs()
        self._trouble = "no answer yet"
        self._connected, self._answered = threading.Event(), threading.Event()
        self._closed = False
        # Of the result that is tried again: how many of its events are out already.
        self._sent: tuple[Result | None, int] = (None, 0)
        self._client = self._open(client_id)

    def _open(self, client_id: str) -> Any:
        broker, mqtt = self._broker, self._mqtt
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.connect_timeout = _CONNECT_S
        client.reconnect_delay_set(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        client.max_queued_messages_set(_MOST_PENDING)
        if broker.user:
            client.username_pw_set(broker.user, broker.password or None)
        if broker.tls:
            client.tls_set()
        client.will_set(f"{self._prefix}/status", self._status("offline"), qos=1, retain=True)
        client.connect_async(broker.host, broker.port, keepalive=20)
        client.loop_start()
        return client

    def _status(self, state: str) -> str:
        return dumps({"state": state})

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure:
            self._trouble = f"{str(reason).lower()}; check user, password and the broker's rules"
            self._answered.set()
            return
        client.publish(f"{self._prefix}/status", self._status("online"), qos=1, retain=True)
        self._connected.set()
        self._answered.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        if was_connected:
            self._trouble = f"connection lost ({str(reason).lower()})"

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        error = sys.exc_info()[1]  # paho calls this while it handles it, and says no more
        if isinstance(error, ssl.SSLError):
            self._trouble = f"no TLS ({error.reason or error}); its certificate must be trusted"
        else:
            reason = getattr(error, "strerror", None) or "no connection"
            self._trouble = f"{reason.lower()}; check its address, and that it is running"
        self._answered.set()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._connected.is_set()

    def write(self, result: Result) -> None:
        """The messages of one result.

        Raises:
            SinkError: the broker is away, refuses, or does not confirm.
        """
        self._answered.wait(_FIRST_ANSWER_S)
        if not self._connected.is_set():
            raise SinkError(f"broker {self._broker}: {self._trouble}")
        topic = f"{self._prefix}/{self._slugs[result.frame.camera]}"
        last, sent = self._sent
        for number, event in enumerate(result.events):
            # Tried again, a result has its events of before: those are not sent twice.
            if last is result and number < sent:
                continue
            self._publish(f"{topic}/events", self._event(result, event), qos=1)
            self._sent = (result, number + 1)
        if self._results:
            self._publish(f"{topic}/results", dumps(result_line(result)), qos=0)
        self._sent = (None, 0)

    def _event(self, result: Result, event: Event) -> str:
        frame = result.frame
        line = {"schema": "centermask-edge-event/1", "camera": frame.camera, "index": frame.index}
        return dumps({**line, "arrival": wall_clock(frame.arrival_s), **event_line(event)})

    def _publish(self, topic: str, payload: str, qos: int) -> None:
        sent = self._client.publish(topic, payload, qos=qos)
        if sent.rc != self._mqtt.MQTT_ERR_SUCCESS:
            words = self._mqtt.error_string(sent.rc).rstrip(".").lower()
            raise SinkError(f"broker {self._broker}: {words}")

    def close(self) -> None:
        """Says goodbye where the broker listens, and ends the connection."""
        if self._closed:
            return
        self._closed = True
        if self._connected.is_set():
            topic = f"{self._prefix}/status"
            sent = self._client.publish(topic, self._status("offline"), qos=1, retain=True)
            # Where the connection goes meanwhile, the last will says it.
            with contextlib.suppress(RuntimeError, ValueError):
                sent.wait_for_publish(_GOODBYE_S)
        self._client.disconnect()
        self._client.loop_stop()
