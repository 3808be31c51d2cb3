"""All of an engine that lives on the GPU's thread: lanes, cameras, painters, and their order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import INPUTS, OUTPUTS, Floats
from centermask_edge.engines.tensorrt.api import Api, load_plugins
from centermask_edge.engines.tensorrt.buffers import DeviceArray, on_device, view
from centermask_edge.engines.tensorrt.camera import Camera, Painter
from centermask_edge.engines.tensorrt.cuda import Gpu
from centermask_edge.engines.tensorrt.lane import GpuTimes, Lane, Slot, Ticket
from centermask_edge.engines.tensorrt.network import Network, Shape
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.instances import Instances
from centermask_edge.kernels.library import Library
from centermask_edge.preprocess import Placement

MAX_LANES = 4  # input shapes held at a time; the least recently used one goes
MAX_CAMERAS = 8  # frame sizes likewise
_KEPT_TIMES = 4096


@dataclass(frozen=True, slots=True)
class DeviceDetections:
    """What :class:`centermask_edge.engines.base.Detections` holds, on the device, in the engine's
    own types; valid until the engine runs again.

    Each array has ``__cuda_array_interface__`` with the stream after which it is filled.
    """

    boxes: DeviceArray
    scores: DeviceArray
    mask_scores: DeviceArray
    classes: DeviceArray
    masks: DeviceArray
    count: DeviceArray


class State:
    """All that lives on the GPU's thread."""

    def __init__(
        self,
        api: Api,
        path: Path,
        content: bytes,
        plugins: Path | None,
        kernels: Callable[[], Library],
        graphs: bool,
    ) -> None:
        self.times: deque[GpuTimes] = deque(maxlen=_KEPT_TIMES)
        self._kernels, self._graphs = kernels, graphs
        self._library: Library | None = None
        self._lanes: OrderedDict[Shape, Lane] = OrderedDict()
        self._cameras: OrderedDict[Any, Camera] = OrderedDict()
        self._painters: OrderedDict[Any, Painter] = OrderedDict()
        self.gpu = Gpu()
        try:
            if plugins is not None:
                load_plugins(api, plugins)
            self.network = Network(api, path, content)
            _check_names(path, self.network)
        except BaseException:
            self.gpu.close()
            raise

    @property
    def library(self) -> Library:
        """The kernels for frames and masks, loaded when they are first needed."""
        if self._library is None:
            self._library = self._kernels()
        return self._library

    def lane(self, shape: Shape) -> Lane:
        """What that input shape needs, made if it is new."""
        if shape in self._lanes:
            self._lanes.move_to_end(shape)
            return self._lanes[shape]
        self.network.limits.check(shape)
        if len(self._lanes) >= MAX_LANES:
            old, lane = self._lanes.popitem(last=False)
            lane.drain()
            for key in [k for k in self._cameras if k[0] == old]:
                self._cameras.pop(key).free()
            lane.free()
        lane = Lane(self.gpu, self.network, shape, self._graphs, self.times.append)
        self._lanes[shape] = lane
        return lane

    def camera(self, shape: Shape, placement: Placement, config: PreprocessConfig) -> Camera:
        """What frames of that size need for that input."""
        key = (shape, placement, config)
        if key not in self._cameras:
            if len(self._cameras) >= MAX_CAMERAS:
                self.gpu.synchronize()
                self._cameras.popitem(last=False)[1].free()
            target = self.lane(shape).device["image"]
            self._cameras[key] = Camera(self.gpu, self.library, config, placement, target)
        self._cameras.move_to_end(key)
        return self._cameras[key]

    def painter(self, size: tuple[int, int], side: int) -> Painter:
        """What drawing into frames of that size needs."""
        key = (size, side)
        if key not in self._painters:
            if len(self._painters) >= MAX_LANES:
                self._painters.popitem(last=False)[1].free()
            self._painters[key] = Painter(self.gpu, self.library, size, side)
        self._painters.move_to_end(key)
        return self._painters[key]

    def start_batch(self, images: Any, sizes: Floats) -> Ticket:
        """Queues a normalised batch, from numpy or from the device."""
        lane = self.lane(tuple(images.shape))
        slot = lane.slot()
        slot.mark(0)
        self._put(lane, slot, "image", images)
        self._put(lane, slot, "image_size", sizes)
        slot.mark(1)
        slot.mark(2)
        lane.infer()
        slot.mark(3)
        return lane.finish(slot)

    def _put(self, lane: Lane, slot: Slot, name: str, array: Any) -> None:
        target = lane.device[name]
        if not on_device(array):
            np.copyto(slot.host[name], array, casting="same_kind")
            lane.upload(slot, name)
            return
        found = view(array)
        if found.dtype != target.dtype or found.shape != target.shape or not found.contiguous:
            raise ConfigError(
                f"{name} on the device: {target.dtype} {target.shape}, contiguous, is wanted; got "
                f"{found.dtype} {found.shape}"
            )
        self.gpu.wait_for(found.stream)
        self.gpu.copy(target.address, found.address, target.nbytes)

    def start_frame(
        self, image: Any, placement: Placement, config: PreprocessConfig, download: bool
    ) -> Ticket | DeviceDetections:
        """Queues a frame from its upload to its detections."""
        shape = (1, 3, *placement.padded_size)
        lane, camera = self.lane(shape), self.camera(shape, placement, config)
        slot = lane.slot()
        slot.mark(0)
        camera.upload(image, slot.index)
        slot.host["image_size"][:] = placement.resized_size
        lane.upload(slot, "image_size")
        slot.mark(1)
        camera.preprocess()
        slot.mark(2)
        lane.infer()
        slot.mark(3)
        ticket = lane.finish(slot, download)
        if download:
            return ticket
        return DeviceDetections(*(lane.device[n] for n in DeviceDetections.__slots__))

    def draw(
        self,
        image: Any,
        size: tuple[int, int],
        instances: Instances,
        colors: NDArray[np.uint8],
        look: tuple[float, int],
    ) -> Any:
        """See ``TensorRtEngine.draw``."""
        side = instances.masks.shape[-1]
        return self.painter(size, side).draw(image, instances, colors, *look)

    def graph_states(self) -> dict[Shape, str]:
        """For each input shape, whether a CUDA graph runs it."""
        return {shape: lane.graph_state for shape, lane in self._lanes.items()}

    def close(self) -> None:
        """Waits, then gives everything back in the reverse of the order it was made in."""
        try:
            for lane in self._lanes.values():
                lane.drain()
            for painter in self._painters.values():
                painter.free()
            for camera in self._cameras.values():
                camera.free()
            for lane in self._lanes.values():
                lane.free()
            self.network.close()
        finally:
            self._painters.clear()
            self._cameras.clear()
            self._lanes.clear()
            self.gpu.close()


def _check_names(path: Path, network: Network) -> None:
    names = {(tensor.name, tensor.is_input) for tensor in network.tensors}
    wanted = {(name, True) for name in INPUTS} | {(name, False) for name in OUTPUTS}
    missing = ", ".join(sorted(name for name, _ in wanted - names))
    if missing:
        raise ModelFileError(
            f"{path} is an engine of something else: it has no {missing}; build one from a file "
            "written by centermask-edge export"
        )
