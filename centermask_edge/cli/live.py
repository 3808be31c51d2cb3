"""``centermask-edge live``: many cameras at once, for months."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from centermask_edge.engines.base import EngineName
from centermask_edge.errors import ConfigError
from centermask_edge.live.outputs.privacy_config import Style

if TYPE_CHECKING:
    from rich.console import Console

    from centermask_edge.live.live_config import LiveConfig
    from centermask_edge.live.runtime import Limits, Outcome
    from centermask_edge.live.view.terminal import View

SIGNALLED = 128  # plus the number of the signal, as shells write it
USER_ERROR = 2
LEAK = 3
_FINISH_S = 60.0


def _settings(path: Path | None, cameras: list[str], given: dict[str, Any]) -> LiveConfig:
    """The file's settings, with what was given on the command line in their place.

    Raises:
        ConfigError: a value is wrong; the option is named.
    """
    from pydantic import ValidationError

    from centermask_edge.live.live_config import LiveConfig, load_config

    if "mjpeg" in given and given["mjpeg"] and os.environ.get(_TOKEN):
        given = {**given, "mjpeg_token": os.environ[_TOKEN]}
    base = LiveConfig() if path is None else load_config(path)
    values = base.model_dump(by_alias=True, exclude_unset=True)
    outputs = values.setdefault("outputs", {})
    for name, value in given.items():
        if value is None or value is False:
            continue
        target = outputs if name in _OUTPUTS else values
        target[name] = value
    values["cameras"] = [
        *values.get("cameras", ()),
        *({"address": address} for address in cameras),
    ]
    try:
        return LiveConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = str(first["loc"][-1]) if first["loc"] else ""
        words = first["msg"].removeprefix("Value error, ").replace("Input ", "it ", 1)
        raise ConfigError(f"--{place.replace('_', '-')}: {words}") from None


_OUTPUTS = {
    *("show", "out", "json", "mjpeg", "mjpeg_token", "mqtt", "rtsp_push", "clips", "record"),
    "privacy",
}
_TOKEN = "CENTERMASK_EDGE_TOKEN"  # of viewers; an option would show in the list of processes


def _check_numbers(seconds: float | None, metrics: int | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"--seconds {seconds:g}: wanted more than 0")
    if metrics is not None and not 0 <= metrics <= 65535:
        raise ConfigError(f"--metrics {metrics}: a port is 0 to 65535")


def _view(console: Console, plain: bool) -> View:
    from centermask_edge.live.view.terminal import LineView, TableView

    return TableView(console) if console.is_terminal and not plain else LineView(console)


def _tell(console: Console, outcome: Outcome, config: LiveConfig) -> int:
    """The summary; returns the exit code."""
    from centermask_edge.live.runtime import complaints
    from centermask_edge.live.view.terminal import facts, summary

    console.print(summary(outcome.last), facts(outcome.last))
    for note in outcome.notes:
        console.print(
            f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    _wrote(console, config)
    if outcome.leaks is not None:
        for line in outcome.leaks.lines():
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in complaints(outcome):
        console.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    if outcome.stopped_by:
        return SIGNALLED + outcome.stopped_by
    if outcome.leaks is not None and outcome.leaks.leaks:
        return LEAK
    return USER_ERROR if complaints(outcome) else 0


def command(
    cameras: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CAM",
            help="rtsp:// or http:// addresses, webcam numbers, files, folders.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings of many cameras, YAML or JSON.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open a window; q or Esc ends.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for a video of each camera.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="JSON lines to write, one a result.")
    ] = None,
    mjpeg: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve a page with all cameras; to others only with a token in "
            "CENTERMASK_EDGE_TOKEN.",
        ),
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="mqtt:// broker to publish to.")
    ] = None,
    rtsp_push: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="rtsp:// server to publish to, through ffmpeg."),
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(help="Folder for clips around events of zones and lines.")
    ] = None,
    privacy: Annotated[
        Style | None,
        typer.Option(help="Hide what is found in every picture that leaves.", show_default=False),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Folder for a recording that can be replayed.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Segment a recording again, bit for bit.")
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Keep results younger than this, e.g. 100ms: by fewer "
            "frames, then smaller input, then fewer masks.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Most frames in one engine call.", show_default="1 on a CPU")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="An .onnx file or a TensorRT engine; default: the shipped person model."),
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="What runs the model.", show_default="openvino")
    ] = None,
    score: Annotated[
        float | None, typer.Option(help="Least box score of an instance.", show_default="0.4")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Short side of the network's input in pixels.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads of the engine.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.")] = None,
    soak: Annotated[
        bool, typer.Option("--soak", help="Watch for leaks; exit code 3 if there is one.")
    ] = False,
    chaos: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEDULE",
            help="Serve the files given as cameras that go wrong, e.g. freeze@10+5,reset@20 or "
            "random, and read them back.",
        ),
    ] = None,
    metrics: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Prometheus metrics at http://127.0.0.1:PORT/metrics."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the config file.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="One line an event, no table, also on a terminal.")
    ] = False,
) -> None:
    """Segment many cameras at once, always their freshest frames; a dead one delays none."""
    from rich.console import Console

    from centermask_edge.live import live_config

    if schema:
        typer.echo(json.dumps(live_config.schema(), indent=2))
        return
    _check_numbers(seconds, metrics)
    given = {
        **{"show": show, "out": out, "json": json_path, "mjpeg": mjpeg, "mqtt": mqtt},
        **{
            "rtsp_push": rtsp_push,
            "clips": clips,
            "privacy": privacy,
            "record": record,
            "max_age": max_age,
            "batch": batch,
            "model": model,
        },
        **{"engine": engine, "score": score, "size": size, "threads": threads},
    }
    settings = _settings(config, cameras or [], given)
    console = Console(stderr=True)
    if replay is not None:
        if chaos is not None:
            raise ConfigError("--chaos needs cameras; a replay has none")
        raise typer.Exit(_replay(console, replay, settings))
    limits = _limits(settings, seconds, soak, metrics)
    raise typer.Exit(_live(console, settings, limits, _view(console, plain), chaos))


def _limits(settings: LiveConfig, seconds: float | None, soak: bool, metrics: int | None) -> Limits:
    from centermask_edge.live.live_config import parse_age
    from centermask_edge.live.runtime import Limits

    age = None if settings.max_age is None else parse_age(settings.max_age)
    return Limits(seconds, age, soak, metrics)


def _live(
    console: Console, settings: LiveConfig, limits: Limits, view: View, chaos: str | None
) -> int:
    from centermask_edge.live.runtime import run
    from centermask_edge.live.wiring import Reports, open_parts

    reports = Reports()
    with ExitStack() as stack:
        if chaos is not None:
            from centermask_edge.live.chaos.rehearsal import rehearse

            settings = rehearse(settings, chaos, reports, stack)
        parts = open_parts(settings, reports)
        reports.listen(view.line)
        return _tell(console, run(parts, limits, view), settings)


def _replay(console: Console, folder: Path, settings: LiveConfig) -> int:
    from centermask_edge.live.outputs.outlet import close_all
    from centermask_edge.live.record.rerun import rerun
    from centermask_edge.live.schedule.finish import Rules
    from centermask_edge.live.stopping import stop_signals
    from centermask_edge.live.view.terminal import LineView
    from centermask_edge.live.wiring import replay_parts

    view = LineView(console)
    parts = replay_parts(settings, folder, view.line)
    with parts.last, stop_signals() as stop:
        try:
            rules = Rules(1, parts.score, parts.scores, parts.followers)
            done = rerun(
                folder, parts.inference, rules, parts.outlets, view.line, lambda: bool(stop.signum)
            )
        finally:
            close_all(parts.outlets, _FINISH_S)
    rate = done.frames / max(done.seconds, 1e-9)
    view.line(f"{done.frames} frames, {done.instances} instances, {rate:.1f} frames/s")
    if done.skipped:
        view.line(f"note: {done.skipped} frames of batches recorded in part were left out")
    _wrote(console, settings)
    return SIGNALLED + stop.signum if stop.signum else 0


def _wrote(console: Console, settings: LiveConfig) -> None:
    outputs = settings.outputs
    for path in (outputs.out, outputs.json_lines, outputs.clips, outputs.record):
        if path is not None and path.exists():
            console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
