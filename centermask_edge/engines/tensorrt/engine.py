"""The TensorRT engine: ``run`` as every engine, and whole frames that never leave the GPU between.

>>> import numpy as np
>>> engine = open_tensorrt("person.engine")                           # doctest: +SKIP
>>> with engine:                                                      # doctest: +SKIP
...     detections, placement = engine.segment(np.zeros((720, 1280, 3), np.uint8))
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Detections, Floats, to_detections
from centermask_edge.engines.tensorrt.api import Api
from centermask_edge.engines.tensorrt.buffers import on_device, picture
from centermask_edge.engines.tensorrt.lane import Arrays, GpuTimes, Ticket
from centermask_edge.engines.tensorrt.network import Shape
from centermask_edge.engines.tensorrt.state import DeviceDetections, State
from centermask_edge.engines.tensorrt.thread import GpuThread
from centermask_edge.frame import check_image
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.instances import Instances
from centermask_edge.kernels.library import Library, load_cuda
from centermask_edge.preprocess import Placement, Preprocess

T = TypeVar("T")


class Pending:
    """Detections on their way; :meth:`result` waits for them."""

    def __init__(self, thread: GpuThread, ticket: Ticket, min_score: float) -> None:
        self._thread, self._ticket, self._min_score = thread, ticket, min_score

    def result(self) -> Detections:
        """The detections.

        Raises:
            GpuError: the batch failed on the GPU.
        """
        return to_detections(self.outputs(), self._min_score)

    def outputs(self) -> Arrays:
        """All outputs of the engine by name, in its own types."""
        return self._thread.call(self._ticket.finish)


class TensorRtEngine:
    """An engine file on the GPU; ``open.py`` opens files and checks them.

    May be called from any thread; everything runs on one of its own.

    Args:
        api: TensorRT or TensorRT-RTX.
        path: of the engine, named in errors.
        content: of that file.
        metadata: of the ONNX file it was built from.
        plugins: the plugin library, where the engine needs it.
        min_score: drop detections whose box score is lower.
        graphs: record a CUDA graph for each input shape.
        kernels: loads the kernels for frames and masks.

    Raises:
        GpuError: there is no GPU, or not enough memory.
        ModelFileError: TensorRT cannot read the file, or it is one of something else.
    """

    def __init__(
        self,
        api: Api,
        path: Path,
        content: bytes,
        metadata: ModelMetadata,
        plugins: Path | None = None,
        *,
        min_score: float = 0.0,
        graphs: bool = True,
        kernels: Callable[[], Library] = load_cuda,
    ) -> None:
        self.name = f"{api.flavor.value} {api.version}"
        self.metadata = metadata
        self.min_score = min_score
        self._thread = GpuThread()
        try:
            self._state = self._thread.call(
                lambda: State(api, path, content, plugins, kernels, graphs)
            )
        except BaseException:
            self._thread.close()
            raise
        # Also for an engine that nobody closes: at its end, or at that of the program.
        self._end = weakref.finalize(self, self._thread.close, self._state.close)

    def __enter__(self) -> TensorRtEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finishes what runs and gives everything back. Twice is harmless."""
        self._end()

    def check(self, shape: Shape) -> None:
        """Nothing, if a batch of that shape (N, 3, H, W) fits.

        Raises:
            ConfigError: the engine was not built for it.
        """
        self._state.network.limits.check(shape)

    def run(self, images: Floats, image_sizes: Floats) -> Detections:
        """Detections of a batch; see :class:`centermask_edge.engines.base.Engine`.

        ``images`` may lie on the device, in the engine's own type.
        """
        return self.start(images, image_sizes).result()

    def outputs(self, images: Any, image_sizes: Floats) -> Arrays:
        """As :meth:`run`, every output of the engine by its name, in the engine's own types."""
        return self.start(images, image_sizes).outputs()

    def start(self, images: Any, image_sizes: Floats) -> Pending:
        """As :meth:`run`, without waiting: the next batch may be prepared meanwhile."""
        ticket = self._call(lambda state: state.start_batch(images, image_sizes))
        return Pending(self._thread, ticket, self.min_score)

    def segment(
        self, image: Any, preprocess: PreprocessConfig | None = None
    ) -> tuple[Detections, Placement]:
        """Detections of one frame, preprocessed on the GPU, and how the network saw it.

        Args:
            image: uint8 (H, W, 3) BGR: numpy, or anything on the device that has
                ``__cuda_array_interface__``.
            preprocess: other sizes than the model's own.

        Raises:
            ConfigError: the engine was not built for frames of this size.
            KernelError: the preprocessing kernel cannot be built.
            GpuError: the GPU refuses.
        """
        pending, placement = self.start_segment(image, preprocess)
        return pending.result(), placement

    def start_segment(
        self, image: Any, preprocess: PreprocessConfig | None = None
    ) -> tuple[Pending, Placement]:
        """As :meth:`segment`, without waiting."""
        ticket, placement = self._frame(image, preprocess, True)
        assert isinstance(ticket, Ticket)
        return Pending(self._thread, ticket, self.min_score), placement

    def segment_on_device(
        self, image: Any, preprocess: PreprocessConfig | None = None
    ) -> tuple[DeviceDetections, Placement]:
        """As :meth:`segment`; the detections stay on the device, and nothing is waited for."""
        found, placement = self._frame(image, preprocess, False)
        assert isinstance(found, DeviceDetections)
        return found, placement

    def _frame(
        self, image: Any, preprocess: PreprocessConfig | None, download: bool
    ) -> tuple[Ticket | DeviceDetections, Placement]:
        config = preprocess or self.metadata.preprocess
        placement = Preprocess(config).plan(*_size(image))
        found = self._call(lambda state: state.start_frame(image, placement, config, download))
        return found, placement

    def synchronize(self) -> None:
        """Waits for everything queued; for arrays of libraries that know nothing of our stream."""
        self._call(lambda state: state.gpu.synchronize())

    def draw(
        self,
        image: Any,
        instances: Instances,
        colors: NDArray[np.uint8],
        opacity: float = 0.45,
        outline: int = 1,
    ) -> Any:
        """The frame with every mask drawn on the GPU, the first on top.

        Args:
            image: uint8 (H, W, 3) BGR, in numpy or on the device (changed in place there).
            instances: in pixels of that frame.
            colors: uint8 (K, 3) BGR.
            opacity: of the colour, 0 to 1.
            outline: in pixels; 0 for none.

        Returns:
            A new numpy picture, or the device array that was given.
        """
        size = _size(image)
        return self._call(
            lambda state: state.draw(image, size, instances, colors, (opacity, outline))
        )

    @property
    def gpu_times(self) -> tuple[GpuTimes, ...]:
        """Times of the last batches whose detections were taken, the newest last."""
        return tuple(self._state.times)

    @property
    def graph_states(self) -> dict[Shape, str]:
        """For each input shape in use: ``recorded``, or why no CUDA graph runs it."""
        return self._call(lambda state: state.graph_states())

    def _call(self, work: Callable[[State], T]) -> T:
        state = self._state
        return self._thread.call(lambda: work(state))


def _size(image: Any) -> tuple[int, int]:
    shape = picture(image).shape if on_device(image) else check_image(image).shape
    return int(shape[0]), int(shape[1])
