"""A live run on a terminal: a table that renews itself, or a line an event where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from centermask_edge.live.ages import Percentiles
from centermask_edge.live.health import Health, State
from centermask_edge.live.outlet import SinkStatistics
from centermask_edge.live.snapshot import CameraNow, Snapshot
from centermask_edge.measure.stages import Stage

_COLORS = {
    State.LIVE: "green",
    State.ENDED: "dim",
    State.CONNECTING: "cyan",
    State.WAITING: "yellow",
    State.FROZEN: "red",
}
_STAGE_NAMES = {Stage.PREPROCESS: "prepare", Stage.ENGINE: "engine", Stage.MASKS: "results"}
_HZ = 4


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
        self._console.print(text, markup=False, highlight=False, style="dim")


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
        self._console.print(text, markup=False, highlight=False)


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
    parts: list[RenderableType] = [_cameras(now), _stages(now)]
    if now.sinks:
        parts.append(_sinks(now.sinks))
    return Group(*parts)


def _cameras(now: Snapshot) -> Table:
    table = Table(
        title=f"{len(now.cameras)} cameras, {clock(now.elapsed_s)}"
        if len(now.cameras) > 1
        else clock(now.elapsed_s),
        title_justify="left",
        expand=False,
    )
    table.add_column("camera", overflow="ellipsis", no_wrap=True, max_width=28)
    table.add_column("state", no_wrap=True)
    for title in ("fps in", "fps out", "age p50", "p95 ms", "dropped", "reconnects"):
        table.add_column(title, justify="right", no_wrap=True)
    for camera in now.cameras:
        table.add_row(*_camera_row(camera, now.limit_s))
    troubles = [(c.health.camera, _trouble(c)) for c in now.cameras if _trouble(c)]
    if troubles:
        table.caption_justify = "left"
        table.caption = Text("\n").join(
            Text(f"{name}: {trouble}", style="yellow") for name, trouble in troubles
        )
    return table


def _camera_row(camera: CameraNow, limit_s: float | None) -> list[RenderableType]:
    health, age = camera.health, camera.age
    late = limit_s is not None and age.count > 0 and age.p95_s > limit_s
    moving = health.state is State.LIVE
    return [
        Text(health.camera),
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


def _stages(now: Snapshot) -> Text:
    """Each stage and the governor's mode, a line each: they need no table."""
    words = [
        f"{_STAGE_NAMES[stage]} {1000 * p.p50_s:.1f} / {1000 * p.p95_s:.1f}"
        for stage, p in now.stages.items()
        if p.count
    ]
    text = Text()
    if words:
        text.append("stages, p50 / p95 ms:  ", style="dim")
        text.append("   ".join(words) + "\n")
    text.append("asked of frames:  ", style="dim")
    limit = "" if now.limit_s is None else f"  (age kept below {1000 * now.limit_s:.0f} ms)"
    text.append(f"{now.setting}{limit}")
    return text


def _sinks(sinks: Sequence[SinkStatistics]) -> Text:
    text = Text()
    for i, sink in enumerate(sinks):
        text.append("\n" if i else "")
        text.append(f"{sink.name}:  ", style="dim")
        text.append(f"{sink.written} written, {sink.dropped} dropped, {sink.write_ms:.1f} ms each")
        if sink.failing or sink.stuck_s > 1:
            word = sink.last_error if sink.failing else f"no answer for {sink.stuck_s:.0f} s"
            text.append(f"  {word}", style="red")
    return text


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3661.4)
    '1:01:01'
    """
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def summary(now: Snapshot) -> Table:
    """What the run was, camera by camera."""
    table = Table(title=f"whole run, {clock(now.elapsed_s)}", title_justify="left")
    table.add_column("camera", overflow="fold", max_width=40)
    for title in ("frames", "results", "p50", "p95", "p99 ms", "dropped", "reconnects"):
        table.add_column(title, justify="right", no_wrap=True)
    for camera in now.cameras:
        health = camera.health
        table.add_row(
            escape(health.camera),
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
