"""From settings to the outputs of a run, each checked before the first frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from centermask_edge.errors import SinkError
from centermask_edge.live.health import Health
from centermask_edge.live.live_config import OutputsConfig, parse_listen
from centermask_edge.live.outputs.clips import Clips
from centermask_edge.live.outputs.lines import ResultLines
from centermask_edge.live.outputs.mqtt import Mqtt, parse_broker
from centermask_edge.live.outputs.names import slug
from centermask_edge.live.outputs.overlay import Draw, DrawnOnce, Overlay
from centermask_edge.live.outputs.pictures import VideoFiles, WindowGrid
from centermask_edge.live.outputs.privacy import Privacy
from centermask_edge.live.outputs.privacy_config import PrivacyRules
from centermask_edge.live.outputs.rtsp_push import RtspPush
from centermask_edge.live.outputs.web import WebPictures
from centermask_edge.live.record.recording import Made, Recorder
from centermask_edge.live.result import ResultSink
from centermask_edge.live.track.place_config import FollowConfig


@dataclass(slots=True)
class Opened:
    """The outputs of a run.

    Attributes:
        sinks: without their threads, each with the name of the one camera it is for, or None.
        closed: whether the user closed the window.
        notes: where to find what.
    """

    sinks: list[tuple[ResultSink, str | None]] = field(default_factory=list)
    closed: Callable[[], bool] = lambda: False
    notes: list[str] = field(default_factory=list)


def check_outputs(outputs: OutputsConfig) -> None:
    """Nothing, if the outputs can be opened as far as can be told at once.

    Raises:
        SinkError: a file that cannot be written, two outputs with one name, or two that exclude
            each other.
    """
    if outputs.privacy is not None and outputs.record is not None:
        raise SinkError(
            "--privacy and --record exclude each other: a recording holds the pictures as they "
            "came; leave one out"
        )
    named = (outputs.out, outputs.json_lines, outputs.clips, outputs.record)
    paths = [path for path in named if path is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise SinkError(
            "two of --out, --json, --clips and --record have the same name; give each its own"
        )
    path = outputs.json_lines
    if path is not None and path.is_dir():
        raise SinkError(f"--json {path} is a folder; give the name of a file in it")
    if path is not None and not path.parent.is_dir():
        raise SinkError(f"--json {path}: no folder {path.parent}; make it first")
    if outputs.mqtt is not None:
        parse_broker(outputs.mqtt)


def open_outputs(
    outputs: OutputsConfig,
    made: Made,
    cameras: Mapping[str, FollowConfig],
    healths: Callable[[], Sequence[Health]],
    *,
    times: bool = True,
) -> Opened:
    """Every output of the settings; if one cannot be opened, the others are closed again.

    Args:
        outputs: settings.
        made: with what the results are made, for recordings.
        cameras: how their objects are followed, by name.
        healths: of the cameras, for the page.
        times: see ``ResultLines``.

    Raises:
        MissingPackageError: an output needs a package.
        SinkError: an output cannot be opened.
    """
    opened = Opened()
    with ExitStack() as stack:
        draw = DrawnOnce(_picture(outputs, cameras))
        for sink in _each(outputs, draw, made, healths, times, opened):
            stack.callback(sink.close)
            opened.sinks.append((sink, None))
        for camera in cameras if outputs.rtsp_push is not None else ():
            push = RtspPush(_push_address(outputs, camera, len(cameras)), draw, camera)
            stack.callback(push.close)
            opened.sinks.append((push, camera))
        stack.pop_all()
    return opened


def _picture(outputs: OutputsConfig, cameras: Mapping[str, FollowConfig]) -> Draw:
    """What every output that shows pictures shows."""
    overlay = Overlay(places=cameras)
    if outputs.privacy is None:
        return overlay
    return Privacy(PrivacyRules(outputs.privacy), overlay)


def _each(
    outputs: OutputsConfig,
    draw: Draw,
    made: Made,
    healths: Callable[[], Sequence[Health]],
    times: bool,
    opened: Opened,
) -> Iterator[ResultSink]:
    """One output after the other; the recorder last, as it makes files at once."""
    if outputs.json_lines is not None:
        yield ResultLines(outputs.json_lines, times=times)
    if outputs.out is not None:
        yield VideoFiles(outputs.out, draw)
    if outputs.mqtt is not None:
        yield Mqtt(parse_broker(outputs.mqtt), outputs.mqtt_prefix)
    if outputs.clips is not None:
        yield Clips(outputs.clips, draw)
    if outputs.mjpeg is not None:
        yield _page(outputs, draw, healths, opened)
    if outputs.show:
        window = WindowGrid(draw)
        opened.closed = lambda: window.closed
        yield window
    if outputs.record is not None:
        yield Recorder(outputs.record, made)


def _page(
    outputs: OutputsConfig,
    draw: Draw,
    healths: Callable[[], Sequence[Health]],
    opened: Opened,
) -> WebPictures:
    assert outputs.mjpeg is not None
    host, port = parse_listen(outputs.mjpeg)
    page = WebPictures(draw, host, port, outputs.mjpeg_token, health=healths)
    opened.notes.append(f"pictures: {page.url}")
    return page


def _push_address(outputs: OutputsConfig, camera: str, count: int) -> str:
    """Where a camera is published: its name in the place for it, or at the end of several."""
    address = outputs.rtsp_push or ""
    if "{camera}" in address:
        return address.replace("{camera}", slug(camera))
    return address if count == 1 else f"{address.rstrip('/')}/{slug(camera)}"
