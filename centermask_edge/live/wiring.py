"""From settings to the parts of a run: cameras, engine, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines import open_engine
from centermask_edge.engines.base import Engine
from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.shipped import default_model
from centermask_edge.errors import ConfigError
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.capture.options import CaptureOptions
from centermask_edge.live.live_config import CameraConfig, LiveConfig, named
from centermask_edge.live.outputs.opening import check_outputs, open_outputs
from centermask_edge.live.outputs.outlet import Outlet
from centermask_edge.live.record.recording import Made
from centermask_edge.live.record.replay import Recording, open_recording
from centermask_edge.live.runtime import Parts
from centermask_edge.live.schedule.finish import Follower
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.track.follower import TrackFollower, low_score
from centermask_edge.live.track.place_config import FollowConfig
from centermask_edge.live.track.tracker import TrackerRules

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
    settings = named(config.cameras)
    check_outputs(config.outputs)
    cameras = [open_camera(c.address, _capture(c), name=c.name) for c in settings]
    follows = {camera.name: _follow(camera, config.score) for camera in settings}
    with ExitStack() as stack:
        model, engine = _engine(config, stack, follows)
        made = Made(file_sha256(model), engine.name, config.threads or 0, config.score, follows)
        opened = open_outputs(config.outputs, made, follows, lambda: [c.health() for c in cameras])
        for note in opened.notes:
            report(note)
        return Parts(
            cameras,
            Inference(engine, scaled(engine.metadata.preprocess, config.size)),
            [Outlet(sink, only=only, report=report) for sink, only in opened.sinks],
            config.batch,
            config.score,
            followers=_followers(follows),
            closed=opened.closed,
            last=stack.pop_all(),
        )


def replay_parts(config: LiveConfig, folder: Path, report: Report) -> Parts:
    """What a replay needs; as ``open_parts``, without cameras.

    Raises:
        CenterMaskError: something is missing or wrong, or the recording was made with another
            model.
    """
    if config.cameras:
        raise ConfigError("--replay takes its cameras from the recording; name none")
    if config.outputs.record is not None:
        raise ConfigError("--replay and --record exclude each other")
    check_outputs(config.outputs)
    recording = open_recording(folder)
    with ExitStack() as stack:
        follows = _recorded(recording, config)
        model, engine = _engine(config, stack, follows)
        recording.check_model(model)
        opened = open_outputs(config.outputs, recording.made, follows, list, times=False)
        for note in opened.notes:
            report(note)
        outlets = [Outlet(sink, only=only, report=report) for sink, only in opened.sinks]
        inference = Inference(engine, engine.metadata.preprocess)
        last = stack.pop_all()
        return Parts([], inference, outlets, followers=_followers(follows), last=last)


def _follow(follow: FollowConfig, score: float) -> FollowConfig:
    """The settings of a camera, with a score in any case."""
    own = score if follow.score is None else follow.score
    return FollowConfig(score=own, zones=follow.zones, lines=follow.lines)


def _recorded(recording: Recording, config: LiveConfig) -> dict[str, FollowConfig]:
    """How the cameras of a recording were followed; with another score where one is asked for."""
    made = recording.made
    asked = "score" in config.model_fields_set
    follows = {name: made.cameras.get(name, FollowConfig()) for name in recording.cameras}
    if asked:
        follows = {n: f.model_copy(update={"score": config.score}) for n, f in follows.items()}
    return {name: _follow(follow, made.score) for name, follow in follows.items()}


def _followers(follows: Mapping[str, FollowConfig]) -> dict[str, Follower]:
    rules = {n: TrackerRules(f.score or 0.0) for n, f in follows.items()}
    return {n: TrackFollower(rules[n], f.zones, f.lines) for n, f in follows.items()}


def _capture(camera: CameraConfig) -> CaptureOptions:
    return CaptureOptions(decode=camera.decode, loop=camera.loop)


def _engine(
    config: LiveConfig, stack: ExitStack, follows: Mapping[str, FollowConfig]
) -> tuple[Path, Engine]:
    """The model's file and the engine that runs it, closed with the stack."""
    model = config.model or default_model(config.engine)
    scores = [follow.score or 0.0 for follow in follows.values()]
    least = low_score(min(scores, default=config.score))
    engine = open_engine(model, config.engine, config.threads, least)
    close: Callable[[], None] | None = getattr(engine, "close", None)
    if close is not None:
        stack.callback(close)
    return model, engine
