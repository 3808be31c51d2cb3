"""The loop over frames: decode, preprocess, engine, masks, draw, encode, each timed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Engine
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.draw import draw
from centermask_edge.live.sinks import JsonLines, PictureSink, WindowSink
from centermask_edge.live.source import Source
from centermask_edge.measure.stages import Stage, StageReport, StageTimer
from centermask_edge.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did.

    Attributes:
        stages: times; see ``StageReport``.
        instances: found in all frames.
        source_size: (height, width) of the last frame in pixels, or None where there was none.
        input_size: (height, width) of the network's input for it.
        stopped_by: the signal that ended it, SIGINT (Ctrl-C) or SIGTERM; 0 where none did.
    """

    stages: StageReport
    instances: int
    source_size: tuple[int, int] | None
    input_size: tuple[int, int] | None
    stopped_by: int


@dataclass(slots=True)
class Outputs:
    """Where results go; any may be missing."""

    pictures: Sequence[PictureSink] = ()
    window: WindowSink | None = None
    lines: JsonLines | None = None
    on_frame: Callable[[Frame, Instances], None] = field(default=lambda frame, instances: None)

    def close(self) -> None:
        """Finish every output, also those after one that fails."""
        sinks = [*self.pictures, self.window, self.lines]
        failure: Exception | None = None
        for sink in sinks:
            if sink is not None:
                try:
                    sink.close()
                except Exception as error:  # the others are to be finished, too
                    failure = failure or error
        if failure is not None:
            raise failure


@dataclass(slots=True)
class _Stop:
    """The signal that asked for the end; 0 before it came."""

    signum: int = 0


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """What Ctrl-C and SIGTERM set, so that the current frame is finished first."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.signum:  # asked twice: at once
            raise KeyboardInterrupt
        stop.signum = signum

    old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def process(
    source: Source,
    engine: Engine,
    preprocess: PreprocessConfig,
    outputs: Outputs,
    *,
    score: float,
    max_frames: int | None = None,
) -> RunResult:
    """Segment every frame of a source. Outputs are finished however it ends.

    Args:
        source: frames.
        engine: a loaded model.
        preprocess: how a frame becomes input.
        outputs: where results go.
        score: least box score of an instance.
        max_frames: stop after so many, where given.

    Raises:
        SourceError: nothing can be decoded.
        SinkError: an output cannot be written.
    """
    prepare = Preprocess(preprocess)
    timer = StageTimer()
    frames = iter(source)
    found = done = 0
    source_size = input_size = None
    try:
        with _stop_signals() as stop:
            while not stop.signum and (max_frames is None or done < max_frames):
                with timer.stage(Stage.DECODE):
                    frame = next(frames, None)
                if frame is None:
                    break
                with timer.stage(Stage.PREPROCESS):
                    tensor, placement = prepare(frame.image)
                with timer.stage(Stage.ENGINE):
                    size = np.asarray([placement.resized_size], dtype=np.float32)
                    raw = engine.run(tensor[None], size)
                with timer.stage(Stage.MASKS):
                    names = engine.metadata.classes
                    instances = Instances.from_detections(raw, 0, placement, names).above(score)
                    crops = instances.crops()
                    rows = instances.to_coco(crops) if outputs.lines is not None else []
                if outputs.pictures or outputs.window is not None:
                    with timer.stage(Stage.DRAW):
                        image = draw(frame.image, instances, crops)
                    with timer.stage(Stage.ENCODE):
                        for sink in outputs.pictures:
                            sink.write(frame, image)
                        if outputs.window is not None:
                            outputs.window.write(frame, image)
                if outputs.lines is not None:
                    with timer.stage(Stage.ENCODE):
                        outputs.lines.write(frame, rows)
                timer.end_frame()
                done += 1
                found += len(instances)
                source_size, input_size = placement.source_size, placement.padded_size
                outputs.on_frame(frame, instances)
                if outputs.window is not None and outputs.window.closed:
                    break
    finally:
        source.close()
        outputs.close()
    return RunResult(timer.report(), found, source_size, input_size, stop.signum)
