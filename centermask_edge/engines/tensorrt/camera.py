"""Camera frames on the GPU: uint8 up, resized and normalised there; masks drawn there.

Both kernels are those of ``centermask_edge.kernels`` and are queued on the engine's own stream.
Buffers are made once for each pair of frame size and input size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.tensorrt.buffers import DeviceArray, on_device, picture, pinned_array
from centermask_edge.engines.tensorrt.cuda import Gpu
from centermask_edge.engines.tensorrt.lane import DEPTH
from centermask_edge.instances import Instances
from centermask_edge.kernels import mask_overlay, preprocess
from centermask_edge.kernels.library import Library
from centermask_edge.preprocess import Placement

Image = NDArray[np.uint8]


class Camera:
    """Frames of one size for one input. Belongs to the GPU's thread.

    Args:
        gpu: on which.
        library: the kernels.
        config: channel order and pixel statistics.
        placement: sizes of frame and input.
        target: the network's input, (1, 3, Hp, Wp).
    """

    def __init__(
        self,
        gpu: Gpu,
        library: Library,
        config: PreprocessConfig,
        placement: Placement,
        target: DeviceArray,
    ) -> None:
        self._gpu, self._library = gpu, library
        self._params = preprocess.make_params(
            preprocess.Plan(
                placement.resized_size,
                placement.padded_size,
                config.mean,
                config.std,
                config.channel_order == "rgb",
                target.dtype.type,
            ),
            1,
            *placement.source_size,
        )
        self._params.output = target.address
        self._shape = (*placement.source_size, 3)
        with gpu.all_or_nothing():
            self._allocate()

    def _allocate(self) -> None:
        gpu, size = self._gpu, int(np.prod(self._shape))
        self._source = gpu.alloc(size)
        self._host = [
            pinned_array(gpu.alloc_pinned(size), self._shape, np.uint8) for _ in range(DEPTH)
        ]
        weights = preprocess.tables(self._library, self._params)
        self._tables = gpu.alloc(weights.nbytes)
        gpu.upload(self._tables, weights.ctypes.data, weights.nbytes)
        gpu.synchronize()  # weights may go now
        self._params.tables = self._tables

    def upload(self, image: Any, slot: int) -> None:
        """Queues the frame's way to the device, if it is not there.

        Args:
            image: uint8 (H, W, 3) BGR, in numpy or on the device.
            slot: which of the page-locked buffers; what was in it has arrived.
        """
        params, height, width = self._params, self._shape[0], self._shape[1]
        if on_device(image):
            found = picture(image)
            self._gpu.wait_for(found.stream)
            params.source, params.source_pitch = found.address, found.strides[0]
        else:
            np.copyto(self._host[slot], image)
            self._gpu.upload(self._source, self._host[slot].ctypes.data, self._host[slot].nbytes)
            params.source, params.source_pitch = self._source, 3 * width
        params.source_stride = height * params.source_pitch

    def preprocess(self) -> None:
        """Queues the kernel that writes the network's input."""
        self._library.call("preprocess", self._params, self._gpu.stream)

    def free(self) -> None:
        """Gives everything back; the stream must have finished."""
        for array in self._host:
            self._gpu.free_pinned(array.ctypes.data)
        self._gpu.free(self._tables)
        self._gpu.free(self._source)
        self._host = []


class Painter:
    """Masks drawn into frames of one size. Belongs to the GPU's thread.

    Args:
        gpu: on which.
        library: the kernels.
        size: (height, width) of the frames.
        side: of the probability maps.
    """

    _capacity = 128  # instances; more are drawn after a larger block was made

    def __init__(self, gpu: Gpu, library: Library, size: tuple[int, int], side: int) -> None:
        self._gpu, self._library, self._size, self._side = gpu, library, size, side
        with gpu.all_or_nothing():
            self._frame = gpu.alloc(3 * size[0] * size[1])
            self._picture = pinned_array(
                gpu.alloc_pinned(3 * size[0] * size[1]), (*size, 3), np.uint8
            )
            self._make_block(self._capacity)

    def _make_block(self, instances: int) -> None:
        self._room = instances
        self._bytes = instances * (4 * self._side**2 + 16 + 3)
        self._block = self._gpu.alloc(self._bytes)
        self._host = pinned_array(self._gpu.alloc_pinned(self._bytes), (self._bytes,), np.uint8)

    def _fill(self, instances: Instances, colors: NDArray[np.uint8]) -> mask_overlay.Params:
        """Masks, boxes and colours queued in one copy; the addresses of each."""
        count = len(instances)
        if count > self._room:
            self._free_block()
            self._make_block(count)
        offset = 0
        places = []
        for array in (instances.masks, instances.boxes, np.ascontiguousarray(colors, np.uint8)):
            part = np.ascontiguousarray(array)
            self._host[offset : offset + part.nbytes] = part.view(np.uint8).reshape(-1)
            places.append(self._block + offset)
            offset += part.nbytes
        if offset:
            self._gpu.upload(self._block, self._host.ctypes.data, offset)
        masks, boxes, paint = places
        return mask_overlay.Params(
            masks=masks, boxes=boxes, colors=paint, instances=count, side=self._side
        )

    def draw(
        self,
        image: Any,
        instances: Instances,
        colors: NDArray[np.uint8],
        opacity: float,
        outline: int,
    ) -> Any:
        """The frame with every mask drawn, the first on top.

        Args:
            image: uint8 (H, W, 3) BGR, in numpy or on the device (changed in place there).
            instances: in pixels of that frame.
            colors: uint8 (K, 3) BGR.
            opacity: of the colour, 0 to 1.
            outline: in pixels; 0 for none.

        Returns:
            A new numpy picture, or the device array that was given.
        """
        gpu, inside = self._gpu, on_device(image)
        params = self._fill(instances, colors)
        params.height, params.width = self._size
        params.opacity, params.outline, params.index_bytes = opacity, outline, 4
        if inside:
            found = picture(image)
            gpu.wait_for(found.stream)
            params.frame, params.pitch = found.address, found.strides[0]
        else:
            np.copyto(self._picture, image)
            gpu.upload(self._frame, self._picture.ctypes.data, self._picture.nbytes)
            params.frame, params.pitch = self._frame, 3 * self._size[1]
        if params.instances:
            self._library.call("mask_overlay", params, gpu.stream)
        if not inside:
            gpu.download(self._picture.ctypes.data, self._frame, self._picture.nbytes)
        gpu.synchronize()
        return image if inside else self._picture.copy()

    def _free_block(self) -> None:
        self._gpu.free_pinned(self._host.ctypes.data)
        self._gpu.free(self._block)

    def free(self) -> None:
        """Gives everything back; the stream must have finished."""
        self._free_block()
        self._gpu.free_pinned(self._picture.ctypes.data)
        self._gpu.free(self._frame)
