"""CUDA through the driver API: the primary context of one GPU, its stream, memory, events, graphs.

The primary context is the one that torch, CuPy and the CUDA runtime use, so their pointers are
valid here and ours there. It is retained and released, never created: contexts of one's own are
what breaks programs that mix pycuda with anything else.

Everything here belongs to the thread that made the :class:`Gpu`; see ``thread.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from centermask_edge.errors import CenterMaskError, require

NO_GPU = (
    "no NVIDIA GPU with a driver was found; run on the CPU with: "
    "--engine openvino (or --engine onnxruntime)"
)


class GpuError(CenterMaskError):
    """No GPU, or one that refuses: out of memory, a fault in a kernel, a lost device."""


def import_driver() -> Any:
    """The module ``cuda.bindings.driver``.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
    """
    return require("cuda.bindings.driver", extra="tensorrt", why="run a TensorRT engine")


class Gpu:
    """The primary context of a GPU, current on the calling thread, with one stream.

    Every allocation is counted and freed by :meth:`close`, the last one first.

    Args:
        ordinal: which GPU.

    Raises:
        MissingPackageError: cuda-bindings is not installed.
        GpuError: there is no driver, or no such GPU.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._driver = driver = import_driver()
        self._undo: dict[object, Callable[[], Any]] = {}
        self._closed = False
        self._border: Any = None  # between another stream and ours
        _start(driver)
        if ordinal >= self.ask(driver.cuDeviceGetCount()):
            raise GpuError(f"there is no GPU {ordinal}" if ordinal else NO_GPU)
        device = self.ask(driver.cuDeviceGet(ordinal))
        context = self.ask(driver.cuDevicePrimaryCtxRetain(device))
        self._own("context", lambda: driver.cuDevicePrimaryCtxRelease(device))
        try:
            self.ask(driver.cuCtxSetCurrent(context))
            flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self.ask(driver.cuStreamCreate(int(flags)))
            self._own("stream", lambda: driver.cuStreamDestroy(self._stream))
        except BaseException:
            self.close()
            raise

    @property
    def stream(self) -> int:
        """The raw ``cudaStream_t``, as TensorRT and the kernels take it."""
        return int(self._stream)

    @property
    def live(self) -> int:
        """Resources not given back yet: the context, the stream, memory, events, graphs."""
        return len(self._undo)

    def ask(self, answer: tuple[Any, ...]) -> Any:
        """The value of a call of cuda-bindings, which returns the error code before it.

        Raises:
            GpuError: the code is not 0.
        """
        code, *values = answer
        if int(code) != 0:
            raise GpuError(_explain(self._driver, code))
        return values[0] if values else None

    def alloc(self, size: int) -> int:
        """Address of ``size`` bytes of device memory."""
        driver = self._driver
        pointer = self.ask(driver.cuMemAlloc(max(size, 1)))
        self._own(("device", int(pointer)), lambda: driver.cuMemFree(pointer))
        return int(pointer)

    def alloc_pinned(self, size: int) -> int:
        """Address of ``size`` bytes of page-locked CPU memory, which copies run from at once."""
        driver = self._driver
        pointer = int(self.ask(driver.cuMemHostAlloc(max(size, 1), 0)))
        self._own(("pinned", pointer), lambda: driver.cuMemFreeHost(pointer))
        return pointer

    def free(self, address: int) -> None:
        """Gives back memory of :meth:`alloc`."""
        self._release(("device", address))

    def free_pinned(self, address: int) -> None:
        """Gives back memory of :meth:`alloc_pinned`."""
        self._release(("pinned", address))

    def upload(self, device: int, host: int, size: int) -> None:
        """Queues a copy to the device; ``host`` must stay as it is until it has run."""
        self.ask(self._driver.cuMemcpyHtoDAsync(device, host, size, self._stream))

    def download(self, host: int, device: int, size: int) -> None:
        """Queues a copy to the CPU."""
        self.ask(self._driver.cuMemcpyDtoHAsync(host, device, size, self._stream))

    def copy(self, target: int, source: int, size: int) -> None:
        """Queues a copy within the device."""
        self.ask(self._driver.cuMemcpyDtoDAsync(target, source, size, self._stream))

    def synchronize(self) -> None:
        """Waits for everything queued; an error of it is raised here."""
        self.ask(self._driver.cuStreamSynchronize(self._stream))

    def wait_for(self, stream: int) -> None:
        """What is queued from now on runs after everything that is in another stream by now."""
        driver = self._driver
        if self._border is None:
            self._border = self.event()
        self.ask(driver.cuEventRecord(self._border, driver.CUstream(stream)))
        self.ask(driver.cuStreamWaitEvent(self._stream, self._border, 0))

    def event(self) -> Any:
        """A new event that measures time."""
        driver = self._driver
        event = self.ask(driver.cuEventCreate(int(driver.CUevent_flags.CU_EVENT_DEFAULT)))
        self._own(("event", id(event)), lambda: driver.cuEventDestroy(event))
        return event

    def free_event(self, event: Any) -> None:
        """Gives an event back."""
        self._release(("event", id(event)))

    def record(self, event: Any) -> None:
        """Queues the event."""
        self.ask(self._driver.cuEventRecord(event, self._stream))

    def wait(self, event: Any) -> None:
        """Waits until the event has happened."""
        self.ask(self._driver.cuEventSynchronize(event))

    def milliseconds(self, start: Any, end: Any) -> float:
        """Time between two events that have happened."""
        return float(self.ask(self._driver.cuEventElapsedTime(start, end)))

    def capture(self, queue: Callable[[], None]) -> Any:
        """What ``queue`` queues, recorded instead of run: an executable graph.

        Raises:
            GpuError: something in it cannot be recorded; the stream is usable again.
        """
        driver = self._driver
        # Thread-local: another thread's cudaMalloc (torch, say) shall not break the recording.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.ask(driver.cuStreamBeginCapture(self._stream, mode))
        try:
            queue()
        except BaseException:
            driver.cuStreamEndCapture(self._stream)
            raise
        graph = self.ask(driver.cuStreamEndCapture(self._stream))
        try:
            executable = self.ask(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        self._own(("graph", id(executable)), lambda: driver.cuGraphExecDestroy(executable))
        return executable

    def launch(self, graph: Any) -> None:
        """Queues a graph of :meth:`capture`."""
        self.ask(self._driver.cuGraphLaunch(graph, self._stream))

    def free_graph(self, graph: Any) -> None:
        """Gives a graph back."""
        self._release(("graph", id(graph)))

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Gives back what the block allocated, should it fail."""
        before = set(self._undo)
        try:
            yield
        except BaseException:
            for key in reversed([k for k in self._undo if k not in before]):
                self._undo.pop(key)()
            raise

    def close(self) -> None:
        """Waits for the stream, then gives everything back, the context last."""
        if self._closed:
            return
        self._closed = True
        if "stream" in self._undo:
            # A sticky error is no reason to keep the rest.
            self._driver.cuStreamSynchronize(self._stream)
        while self._undo:
            _, undo = self._undo.popitem()
            undo()

    def _own(self, key: object, undo: Callable[[], Any]) -> None:
        self._undo[key] = undo

    def _release(self, key: object) -> None:
        undo = self._undo.pop(key, None)
        if undo is not None:
            self.ask(undo())


def _start(driver: Any) -> None:
    """Initialises the driver.

    Raises:
        GpuError: there is none, or it finds no GPU.
    """
    try:
        code = int(driver.cuInit(0)[0])
    except (ImportError, OSError, RuntimeError):  # how cuda-bindings says: no libcuda.so.1
        raise GpuError(NO_GPU) from None
    if code != 0:
        raise GpuError(NO_GPU)


def _explain(driver: Any, code: Any) -> str:
    name, text = (
        answer[1].decode() if int(answer[0]) == 0 and answer[1] else "?"
        for answer in (driver.cuGetErrorName(code), driver.cuGetErrorString(code))
    )
    advice = {
        "CUDA_ERROR_OUT_OF_MEMORY": "; free GPU memory or use a smaller --size",
        "CUDA_ERROR_ILLEGAL_ADDRESS": "; start again: the GPU's context is lost",
    }.get(name, "")
    return f"the GPU refused with {name} ({text}){advice}"
