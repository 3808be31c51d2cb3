"""Inference with an engine on a GPU, by a stand-in: who prepares frames, and how many at a time."""

from __future__ import annotations

import numpy as np
import pytest
from live_fakes import SleepingEngine, detections
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Detections
from centermask_edge.errors import ConfigError, KernelError
from centermask_edge.frame import Frame
from centermask_edge.live.result import Mode
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.live.schedule.inference import Inference, Prepared
from centermask_edge.preprocess import Placement, Preprocess

FRAME = Frame(np.zeros((48, 64, 3), np.uint8), 0.0, 0.0, "a", 0)


class GpuEngine(SleepingEngine):
    """Prepares frames itself; was built for batches up to ``most`` and one size."""

    def __init__(self, most: int, short_side: int = 64) -> None:
        super().__init__(0.0)
        self._most, self._short_side = most, short_side
        self.sides: list[int] = []
        self.kernel = True

    def check(self, shape: tuple[int, ...]) -> None:
        if shape[0] > self._most or min(shape[2:]) > self._short_side:
            raise ConfigError("the engine was built for something else")

    def segment(
        self, image: NDArray[np.uint8], preprocess: PreprocessConfig | None = None
    ) -> tuple[Detections, Placement]:
        assert preprocess is not None
        if not self.kernel:
            raise KernelError("no compiler")
        self.sides.append(preprocess.short_side)
        return detections(1), Preprocess(preprocess).plan(*image.shape[:2])


def prepared(inference: Inference, alone: bool, side: int = 64) -> Prepared:
    return inference.prepare(FRAME, Setting(1, side), Mode(1, side), alone)


@pytest.mark.parametrize(("most", "cameras", "batch"), [(1, 4, 1), (4, 3, 3), (4, 9, 4)])
def test_batches_are_as_large_as_the_engine_takes(most: int, cameras: int, batch: int) -> None:
    engine = GpuEngine(most)
    assert Inference(engine, engine.metadata.preprocess).usual_batch(cameras) == batch


def test_on_a_processor_a_batch_is_one_frame() -> None:
    engine = SleepingEngine()
    assert Inference(engine, engine.metadata.preprocess).usual_batch(4) == 1


def test_single_frames_are_prepared_on_the_gpu_and_batches_are_not() -> None:
    engine = GpuEngine(4)
    inference = Inference(engine, engine.metadata.preprocess)
    alone = prepared(inference, alone=True, side=32)
    assert alone.tensor is None
    assert inference.run([alone]).raw.count.tolist() == [2] and engine.sides == [32]
    pair = [prepared(inference, alone=False) for _ in range(2)]
    assert inference.run(pair).raw.count.tolist() == [2, 2]
    assert engine.shapes == [(2, 3, *pair[0].placement.padded_size)]


def test_without_the_kernel_the_processor_prepares() -> None:
    engine = GpuEngine(1)
    engine.kernel = False
    inference = Inference(engine, engine.metadata.preprocess)
    assert inference.run([prepared(inference, alone=True)]).raw.count.tolist() == [2]
    assert inference.note == "frames are prepared on the processor: no compiler"
    assert prepared(inference, alone=True).tensor is not None


def test_sizes_the_engine_was_not_built_for_do_not_fit() -> None:
    engine = GpuEngine(1, short_side=64)
    inference = Inference(engine, engine.metadata.preprocess)
    assert inference.fits(1, 64) and not inference.fits(2, 64) and not inference.fits(1, 128)
