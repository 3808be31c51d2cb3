"""Everything one input shape needs, made once: context, buffers, events, CUDA graph.

A lane runs upload, preprocessing, network and download on the one stream, so each waits for the
one before without the CPU. The page-locked buffers and the events are double: while one batch is
on its way, the next one's input is already being written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.engines.tensorrt.buffers import DeviceArray, pinned_array
from centermask_edge.engines.tensorrt.cuda import Gpu, GpuError
from centermask_edge.engines.tensorrt.network import Network, Shape

Arrays = dict[str, NDArray[Any]]
DEPTH = 2


@dataclass(frozen=True, slots=True)
class GpuTimes:
    """Milliseconds of one batch on the GPU, by CUDA events."""

    upload_ms: float
    preprocess_ms: float
    network_ms: float
    download_ms: float


class Slot:
    """One of the two sets of page-locked buffers, and the events of the batch in it."""

    def __init__(self, gpu: Gpu, index: int, shapes: dict[str, tuple[Shape, Any]]) -> None:
        self.index = index
        self._gpu = gpu
        self.host: Arrays = {}
        for name, (shape, dtype) in shapes.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self.host[name] = pinned_array(gpu.alloc_pinned(size), shape, dtype)
        self.events = [gpu.event() for _ in range(len(GpuTimes.__slots__) + 1)]
        self.pending: Ticket | None = None

    def mark(self, step: int) -> None:
        """Queues the event that ends step ``step`` (and begins the next)."""
        self._gpu.record(self.events[step])

    def free(self) -> None:
        """Gives everything back."""
        for array in self.host.values():
            self._gpu.free_pinned(array.ctypes.data)
        for event in self.events:
            self._gpu.free_event(event)


class Ticket:
    """A batch on its way.

    Args:
        gpu: on which.
        slot: that holds its results until they are taken.
        outputs: names to take.
        done: told the times when it has arrived.
    """

    def __init__(
        self, gpu: Gpu, slot: Slot, outputs: tuple[str, ...], done: Callable[[GpuTimes], None]
    ) -> None:
        self._gpu, self._slot, self._outputs, self._done = gpu, slot, outputs, done
        self._result: Arrays | None = None
        self._error: Exception | None = None

    def finish(self) -> Arrays:
        """The outputs, copied out of the slot, which is then free again. On the GPU's thread.

        Raises:
            GpuError: the batch failed on the GPU.
        """
        if self._result is None and self._error is None:
            self.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def wait(self) -> None:
        """Waits for it and takes its results; an error is kept for :meth:`finish`."""
        slot = self._slot
        slot.pending = None
        try:
            self._gpu.wait(slot.events[-1])
            steps = zip(slot.events, slot.events[1:], strict=False)
            times = GpuTimes(*(self._gpu.milliseconds(a, b) for a, b in steps))
        except GpuError as error:
            self._error = error
            return
        self._result = {name: slot.host[name].copy() for name in self._outputs}
        self._done(times)


class Lane:
    """One input shape of a network. Belongs to the GPU's thread.

    Args:
        gpu: on which.
        network: the engine.
        image: shape (N, 3, H, W) of the input.
        graphs: whether to record a CUDA graph.
        done: told the times of each batch.

    Raises:
        ConfigError: the engine was not built for that shape.
        GpuError: there is not enough memory.
    """

    def __init__(
        self,
        gpu: Gpu,
        network: Network,
        image: Shape,
        graphs: bool,
        done: Callable[[GpuTimes], None],
    ) -> None:
        self._gpu, self._network, self._done = gpu, network, done
        self._context = network.context(image)
        self.device: dict[str, DeviceArray] = {}
        self.slots: list[Slot] = []
        self._graph: Any = None
        self._runs = 0
        self.no_graph = "" if graphs else "switched off"
        self._next = 0
        with gpu.all_or_nothing():
            self._allocate()

    def _allocate(self) -> None:
        gpu, shapes = self._gpu, {}
        for tensor in self._network.tensors:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if min(shape, default=1) < 0:
                raise GpuError(f"the engine leaves the shape of {tensor.name} open: {shape}")
            shapes[tensor.name] = (shape, tensor.dtype)
            size = int(np.prod(shape)) * tensor.dtype.itemsize
            address = gpu.alloc(size)
            self.device[tensor.name] = DeviceArray(address, shape, tensor.dtype, gpu.stream, self)
            if not self._context.set_tensor_address(tensor.name, address):
                raise GpuError(f"the engine refuses memory for {tensor.name}")
        for index in range(DEPTH):
            self.slots.append(Slot(gpu, index, shapes))

    @property
    def graph_state(self) -> str:
        """``recorded``, or why the network is queued kernel by kernel."""
        if self._graph is not None:
            return "recorded"
        return self.no_graph or "not recorded yet"

    def slot(self) -> Slot:
        """The next slot, after what was in it has arrived."""
        slot = self.slots[self._next]
        self._next = (self._next + 1) % DEPTH
        if slot.pending is not None:
            slot.pending.wait()
        return slot

    def upload(self, slot: Slot, name: str) -> None:
        """Queues the copy of an input from the slot."""
        array = self.device[name]
        self._gpu.upload(array.address, slot.host[name].ctypes.data, array.nbytes)

    def infer(self) -> None:
        """Queues the network.

        The first run is never recorded: TensorRT does work in it that a graph must not hold.

        Raises:
            GpuError: TensorRT refuses.
        """
        if self._graph is None and self._runs > 0 and not self.no_graph:
            try:
                self._graph = self._gpu.capture(self._enqueue)
            except GpuError as error:
                self.no_graph = str(error)
        if self._graph is not None:
            self._gpu.launch(self._graph)
        else:
            self._enqueue()
        self._runs += 1

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._gpu.stream):
            raise GpuError(f"TensorRT could not run the network: {self._network.messages.take()}")

    def finish(self, slot: Slot, download: bool = True) -> Ticket:
        """Queues the copies of all outputs into the slot, if wanted, and the end of the batch."""
        names = [t.name for t in self._network.tensors if download and not t.is_input]
        for name in names:
            array = self.device[name]
            self._gpu.download(slot.host[name].ctypes.data, array.address, array.nbytes)
        slot.mark(len(slot.events) - 1)
        slot.pending = Ticket(self._gpu, slot, tuple(names), self._done)
        return slot.pending

    def drain(self) -> None:
        """Waits for what is on its way; its results can still be taken."""
        for slot in self.slots:
            if slot.pending is not None:
                slot.pending.wait()
        self._gpu.synchronize()

    def free(self) -> None:
        """After :meth:`drain`: gives everything back, the context last."""
        self.drain()
        if self._graph is not None:
            self._gpu.free_graph(self._graph)
        for slot in self.slots:
            slot.free()
        for array in self.device.values():
            self._gpu.free(array.address)
        self.slots, self.device, self._graph, self._context = [], {}, None, None
