"""The loop over frames: decode, preprocess, engine, masks, draw, encode, each timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Detections, Engine, FrameEngine
from centermask_edge.errors import KernelError
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.colors import ColorMemory
from centermask_edge.live.outputs.draw import draw
from centermask_edge.live.outputs.sinks import JsonLines, PictureSink, WindowSink
from centermask_edge.live.source import Source
from centermask_edge.live.stopping import stop_signals
from centermask_edge.masks import Bools
from centermask_edge.measure.stages import Stage, StageReport, StageTimer
from centermask_edge.preprocess import Placement, Preprocess


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did.

    Attributes:
        stages: times; see ``StageReport``.
        instances: found in all frames.
        source_size: (height, width) of the last frame in pixels, or None where there was none.
        input_size: (height, width) of the network's input for it.
        stopped_by: the signal that ended it, SIGINT (Ctrl-C) or SIGTERM; 0 where none did.
        note: why frames were prepared on the processor although the engine has a GPU.
    """

    stages: StageReport
    instances: int
    source_size: tuple[int, int] | None
    input_size: tuple[int, int] | None
    stopped_by: int
    note: str = ""


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


class _Segmentation:
    """The two halves of the work on a frame, each stage timed."""

    def __init__(
        self, engine: Engine, preprocess: PreprocessConfig, outputs: Outputs, score: float
    ) -> None:
        self.timer = StageTimer()
        self._engine, self._outputs, self._score = engine, outputs, score
        self._prepare = Preprocess(preprocess)
        self._on_gpu = engine if isinstance(engine, FrameEngine) else None
        self.note = ""
        self._colors = ColorMemory()

    def find(self, frame: Frame) -> tuple[Instances, Placement]:
        """What is in the frame, and how the network saw it."""
        raw, placement = self._detect_on_gpu(frame) or self._detect(frame)
        with self.timer.stage(Stage.MASKS):
            names = self._engine.metadata.classes
            found = Instances.from_detections(raw, 0, placement, names).above(self._score)
        return found, placement

    def _detect(self, frame: Frame) -> tuple[Detections, Placement]:
        with self.timer.stage(Stage.PREPROCESS):
            tensor, placement = self._prepare(frame.image)
        with self.timer.stage(Stage.ENGINE):
            size = np.asarray([placement.resized_size], dtype=np.float32)
            return self._engine.run(tensor[None], size), placement

    def _detect_on_gpu(self, frame: Frame) -> tuple[Detections, Placement] | None:
        """None where the engine does not prepare frames, or this machine cannot build the kernel
        that does: then the processor prepares them, from the next frame on without asking.
        """
        if self._on_gpu is None:
            return None
        try:
            with self.timer.stage(Stage.ENGINE):
                return self._on_gpu.segment(frame.image, self._prepare.config)
        except KernelError as error:
            self._on_gpu, self.note = None, f"frames are prepared on the processor: {error}"
            return None

    def write(self, frame: Frame, instances: Instances) -> None:
        """Gives the frame and what is in it to the outputs."""
        outputs, lines = self._outputs, self._outputs.lines
        with self.timer.stage(Stage.MASKS):
            crops = instances.crops()
            rows = instances.to_coco(crops) if lines is not None else []
        if outputs.pictures or outputs.window is not None:
            self._show(frame, instances, crops)
        if lines is not None:
            with self.timer.stage(Stage.ENCODE):
                lines.write(frame, rows)

    def _show(
        self, frame: Frame, instances: Instances, crops: list[tuple[Bools, int, int]]
    ) -> None:
        with self.timer.stage(Stage.DRAW):
            colors = self._colors.assign(instances)
            image = draw(frame.image, instances, crops, colors)
        with self.timer.stage(Stage.ENCODE):
            for sink in self._outputs.pictures:
                sink.write(frame, image)
            if self._outputs.window is not None:
                self._outputs.window.write(frame, image)


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
    work = _Segmentation(engine, preprocess, outputs, score)
    found = done = 0
    source_size = input_size = None
    with stop_signals() as stop:
        try:
            frames = iter(source)
            while not stop.signum and (max_frames is None or done < max_frames):
                with work.timer.stage(Stage.DECODE):
                    frame = next(frames, None)
                if frame is None:
                    break
                instances, placement = work.find(frame)
                work.write(frame, instances)
                work.timer.end_frame()
                done += 1
                found += len(instances)
                source_size, input_size = placement.source_size, placement.padded_size
                outputs.on_frame(frame, instances)
                if outputs.window is not None and outputs.window.closed:
                    break
        finally:
            try:
                source.close()
            finally:
                outputs.close()
    return RunResult(work.timer.report(), found, source_size, input_size, stop.signum, work.note)
