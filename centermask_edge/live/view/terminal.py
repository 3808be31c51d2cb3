"""A live run on a terminal: a table that renews itself, or a line an event where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from centermask_edge.live.health import Health, State
from centermask_edge.live.outputs.outlet import SinkStatistics
from centermask_edge.live.schedule.ages import Percentiles
from centermask_edge.live.view.snapshot import CameraNow, Snapshot
from centermask_edge.measure.stages import Stage

_COLORS = {
    State.LIVE: "green",
    State.ENDED: "dim",
    State.CONNECTING: "cyan",
    State.WAITING: "yellow",
    State.FROZEN: "red",
}
_STAGE_NAMES = {Stage.PREPROCESS: "prepare", Stage.ENGINE: "engine", Stage.MASKS: "results"}
_NAME = 23  # characters of a camera's name in a table
_SLOW_S = 1.0  # an output that takes longer for one result is told of


class View(Protocol):
    """Shows a run while it lasts."""

    def __enter__(self) -> View:
        """Begins."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends; the terminal is as it was."""

    def update(self, now: Snapshot) -> None:
        """The newest figures."""

    def line(self, text: str) -> None:
        """Something happened; from any thread."""


class TableView:
    """A table at the bottom of the terminal; what happens scrolls by above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> TableView:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def update(self, now: Snapshot) -> None:
        """The newest figures."""
        self._live.update(render(now), refresh=True)

    def line(self, text: str) -> None:
        """Something happened."""
        self._console.print(text, markup=False, highlight=False, style="dim", soft_wrap=True)


class LineView:
    """One line an event, for logs: states of cameras, decisions, outputs that fail."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def update(self, now: Snapshot) -> None:
        """Figures are for tables; here only events are told."""

    def line(self, text: str) -> None:
        """Something happened."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Changes:
    """What to tell of cameras: each change of state once."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[State, str]] = {}

    def of(self, healths: Iterable[Health]) -> list[str]:
        """One line a camera whose state is not what it was."""
        lines = []
        for health in healths:
            failing = health.state in (State.WAITING, State.FROZEN)
            now = (health.state, health.message if failing else "")
            if self._states.get(health.camera) == now:
                continue
            known = health.camera in self._states
            self._states[health.camera] = now
            if known or health.state is not State.CONNECTING:
                lines.append(_change(health))
        return lines


def _change(health: Health) -> str:
    words = f"{health.camera}: {health.state.value}"
    if health.state is State.LIVE and health.decoder:
        note = f"; {health.note}" if health.note else ""
        return f"{words}, {health.decoder}{note}"
    if health.state is State.LIVE or not health.message:
        return words
    return f"{words}, {health.message}"


def render(now: Snapshot) -> RenderableType:
    """The tables of a moment."""
    return Group(_cameras(now), "", facts(now))


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    """An airy table that fits 80 columns, as long as names are shortened."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    table.caption_justify, table.caption_style = "left", ""
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cameras(now: Snapshot) -> Table:
    count = len(now.cameras)
    title = f"{count} camera{'s' if count > 1 else ''}, {clock(now.elapsed_s)}; ages in ms"
    columns = ("fps\nin", "fps\nout", "age\np50", "age\np95", "dropped", "recon-\nnects")
    table = _table(title, "camera", ("state", *columns))
    table.columns[1].justify = "left"
    for camera in now.cameras:
        table.add_row(*_camera_row(camera, now.limit_s))
    troubles = [(c.health.camera, _trouble(c)) for c in now.cameras if _trouble(c)]
    if troubles:
        lines = (Text(f"{name}: {trouble}", style="yellow") for name, trouble in troubles)
        table.caption = Text("\n").join(lines)
    return table


def _camera_row(camera: CameraNow, limit_s: float | None) -> list[RenderableType]:
    health, age = camera.health, camera.age
    late = limit_s is not None and age.count > 0 and age.p95_s > limit_s
    moving = health.state is State.LIVE
    return [
        Text(short(health.camera)),
        Text(health.state.value, style=_COLORS[health.state]),
        f"{health.rate_hz:.1f}" if moving else "-",
        f"{camera.result_hz:.1f}" if age.count else "-",
        _ms(age.p50_s, age),
        Text(_ms(age.p95_s, age), style="red" if late else ""),
        str(health.dropped + camera.skipped),
        str(health.reconnects),
    ]


def _trouble(camera: CameraNow) -> str:
    """What the operator should read now; old faults of a camera that works again are not."""
    if camera.health.state in (State.LIVE, State.ENDED):
        return camera.trouble
    return camera.health.message or camera.trouble


def _ms(seconds: float, of: Percentiles) -> str:
    return f"{1000 * seconds:.0f}" if of.count else "-"


def facts(now: Snapshot) -> Table:
    """Stages, the governor's mode and the outputs, a line each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    words = [
        f"{_STAGE_NAMES[stage]} {1000 * p.p50_s:.1f} / {1000 * p.p95_s:.1f}"
        for stage, p in now.stages.items()
        if p.count
    ]
    if words:
        grid.add_row("ms p50 / p95", "   ".join(words))
    limit = "" if now.limit_s is None else f", to keep the age below {1000 * now.limit_s:.0f} ms"
    grid.add_row("mode", f"{now.setting}{limit}")
    for sink in now.sinks:
        grid.add_row(Text(short(sink.name)), _sink(sink))
    return grid


def _sink(sink: SinkStatistics) -> Text:
    text = Text(f"{sink.written} written, {sink.dropped} dropped, {sink.write_ms:.1f} ms each")
    if sink.failing or sink.stuck_s > _SLOW_S:
        word = sink.last_error if sink.failing else f"no answer for {sink.stuck_s:.0f} s"
        text.append(f"; {word}", style="red")
    return text


def short(name: str, most: int = _NAME) -> str:
    """A name without its middle, where it is long: ends are what tells cameras apart.

    >>> short("10.0.0.7/Streaming/Channels/101")
    '10.0.0.7/St…hannels/101'
    """
    if len(name) <= most:
        return name
    tail = most // 2
    return f"{name[: most - tail - 1]}…{name[-tail:]}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3661.4)
    '1:01:01'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def summary(now: Snapshot) -> Table:
    """What the run was, camera by camera."""
    ages = ("age\np50", "age\np95", "age\np99")
    columns = ("frames", "results", *ages, "dropped", "recon-\nnects")
    table = _table(f"whole run, {clock(now.elapsed_s)}; ages in ms", "camera", columns)
    for camera in now.cameras:
        health = camera.health
        table.add_row(
            Text(short(health.camera)),
            str(health.frames),
            str(camera.results),
            *_three(camera.age_run.read()),
            str(health.dropped + camera.skipped),
            str(health.reconnects),
        )
    if len(now.cameras) > 1:
        table.add_section()
        healths = [camera.health for camera in now.cameras]
        table.add_row(
            "all",
            str(sum(h.frames for h in healths)),
            str(sum(c.results for c in now.cameras)),
            *_three(now.age_run.read()),
            str(sum(c.health.dropped + c.skipped for c in now.cameras)),
            str(sum(h.reconnects for h in healths)),
        )
    return table


def _three(age: Percentiles) -> list[str]:
    return [_ms(value, age) for value in (age.p50_s, age.p95_s, age.p99_s)]
