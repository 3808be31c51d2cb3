"""From settings to the parts of a run: cameras, engine, outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines import open_engine
from centermask_edge.engines.base import Engine
from centermask_edge.engines.shipped import default_model
from centermask_edge.errors import ConfigError, SinkError
from centermask_edge.live.capture.camera import LiveCamera
from centermask_edge.live.capture.faults import Secrets
from centermask_edge.live.inference import Inference
from centermask_edge.live.live_config import CameraConfig, LiveConfig, OutputsConfig, named
from centermask_edge.live.outlet import Outlet
from centermask_edge.live.outputs.lines import ResultLines
from centermask_edge.live.outputs.overlay import DrawnOnce, Overlay
from centermask_edge.live.outputs.pictures import VideoFiles, WindowGrid
from centermask_edge.live.result import ResultSink
from centermask_edge.live.runtime import Parts
from centermask_edge.live.sources import open_source

Report = Callable[[str], None]
_KEPT_LINES = 100


@dataclass(slots=True)
class Reports:
    """Lines of outputs and cameras: kept until there is somebody to show them."""

    listener: Report | None = None
    _early: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        """One line for the operator, from any thread."""
        if self.listener is not None:
            self.listener(line)
        elif len(self._early) < _KEPT_LINES:
            self._early.append(line)

    def listen(self, listener: Report) -> None:
        """From now on lines go there, those from before first."""
        self.listener, early, self._early = listener, self._early, []
        for line in early:
            listener(line)


def scaled(config: PreprocessConfig, size: int | None) -> PreprocessConfig:
    """The preprocessing at another short side, in pixels."""
    if size is None:
        return config
    long_side = round(config.long_side * size / config.short_side)
    return config.model_copy(update={"short_side": size, "long_side": long_side})


def open_camera(camera: CameraConfig) -> LiveCamera:
    """A camera of the settings, not yet started."""
    address = camera.address
    return LiveCamera(
        camera.name,
        lambda within_s: open_source(address),
        live="://" in address or address.isdigit(),
        secrets=Secrets.of(address),
    )


def _sinks(outputs: OutputsConfig) -> tuple[list[ResultSink], Callable[[], bool]]:
    """Every output of the settings, and whether the user closed the window."""
    draw = DrawnOnce(Overlay())
    sinks: list[ResultSink] = []
    if outputs.json_lines is not None:
        _check_file(outputs.json_lines)
        sinks.append(ResultLines(outputs.json_lines))
    if outputs.out is not None:
        sinks.append(VideoFiles(outputs.out, draw))
    if outputs.show:
        window = WindowGrid(draw)
        return [*sinks, window], lambda: window.closed
    return sinks, lambda: False


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"{path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent}; make it first, or write elsewhere")


def open_parts(config: LiveConfig, report: Report) -> Parts:
    """Everything a run needs, opened and checked, so that nothing fails after hours.

    Args:
        config: settings.
        report: told what happens to outputs, from any thread.

    Raises:
        CenterMaskError: something is missing or wrong.
    """
    if not config.cameras:
        raise ConfigError("no cameras; name some: centermask-edge live CAM..., or --config FILE")
    cameras = named(config.cameras)
    last = ExitStack()
    try:
        sinks, closed = _sinks(config.outputs)
        engine = _engine(config)
        close: Callable[[], None] | None = getattr(engine, "close", None)
        if close is not None:
            last.callback(close)
        outlets = [Outlet(sink, report=report) for sink in sinks]
        preprocess = scaled(engine.metadata.preprocess, config.size)
        return Parts(
            [open_camera(camera) for camera in cameras],
            Inference(engine, preprocess),
            outlets,
            config.batch,
            config.score,
            {c.name: c.score for c in cameras if c.score is not None},
            closed=closed,
            last=last,
        )
    except BaseException:
        last.close()
        raise


def _engine(config: LiveConfig) -> Engine:
    model = config.model or default_model(config.engine)
    least = min([config.score, *(c.score for c in config.cameras if c.score is not None)])
    return open_engine(model, config.engine, config.threads, least)
