"""``live --chaos``: the cameras of a run, shown by the fault server and read back over RTSP."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextlib import ExitStack

from centermask_edge.errors import ConfigError
from centermask_edge.live.capture.gst import GST
from centermask_edge.live.chaos.access import Access
from centermask_edge.live.chaos.footage import film_source
from centermask_edge.live.chaos.schedule import Mishap, parse_schedule
from centermask_edge.live.chaos.server import FaultServer
from centermask_edge.live.live_config import LiveConfig, named

_STREAM = re.compile(rf"[a-zA-Z][a-zA-Z0-9+.-]*://|{GST}|\d+$", re.ASCII)
_USER = "chaos"

Report = Callable[[str], None]


def rehearse(config: LiveConfig, text: str, report: Report, stack: ExitStack) -> LiveConfig:
    """The same run with every camera served by a fault server, until the stack is closed.

    Cameras keep their names. The server asks for a password that nobody else knows, so that what
    it shows stays with this run.

    Args:
        config: settings; their cameras are files or computed.
        text: the schedule; see ``parse_schedule``.
        report: told what happens to cameras, from the server's thread.
        stack: what ends with the run.

    Raises:
        ConfigError: the schedule is wrong, or a camera is none that can be served.
        SourceError: a camera cannot be read.
        MissingPackageError: PyAV is not installed.
    """
    cameras = named(config.cameras)
    schedule = parse_schedule(text, len(cameras))
    for camera in cameras:
        if _STREAM.match(camera.address):
            raise ConfigError(
                f"--chaos: {camera.name} is a camera already; wanted files, folders and synthetic: "
                "cameras, which are then served with faults"
            )
    reels = [film_source(camera.address) for camera in cameras]
    server = stack.enter_context(FaultServer())
    served = []
    for number, (camera, reel) in enumerate(zip(cameras, reels, strict=True), 1):
        shown = server.serve(
            reel,
            schedule.changes(number),
            Access(_USER, secrets.token_hex(16)),
            _Teller(camera.name, report),
            number,
        )
        served.append(camera.model_copy(update={"address": shown.address}))
    report(f"chaos: {schedule}, counted from the first connection of each camera")
    return config.model_copy(update={"cameras": tuple(served)})


class _Teller:
    """A line when a mishap begins, and one when it is over."""

    def __init__(self, name: str, report: Report) -> None:
        self._name, self._report = name, report
        self._before: Mishap | None = None

    def __call__(self, mishap: Mishap | None) -> None:
        if mishap is not None:
            self._report(f"chaos: {self._name}: {mishap.value}")
        elif self._before is not None and self._before is not Mishap.RESET:
            self._report(f"chaos: {self._name}: {self._before.value} is over")
        self._before = mishap
