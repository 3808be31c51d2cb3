"""cuda-bindings' driver module on the CPU: device memory is CPU memory.

Stricter than a GPU where that finds mistakes: what is queued on a stream runs only when somebody
waits, device memory starts as NaN, copies must stay within live allocations, a page-locked buffer
is not what it was after it was freed, and every call must come from the thread whose context is
current. Only names that the real module has; ``test_trt_contract.py`` checks that.
"""

from __future__ import annotations

import ctypes
import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUstream_flags(enum.IntEnum):
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class CUevent_flags(enum.IntEnum):
    CU_EVENT_DEFAULT = 0
    CU_EVENT_DISABLE_TIMING = 2


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CUstream(int):
    pass


Operation = Callable[[], None]
OK = CUresult.CUDA_SUCCESS


@dataclass
class Event:
    done_s: float | None = None


@dataclass
class Graph:
    operations: list[Operation]


@dataclass
class Stream:
    operations: list[Operation] = field(default_factory=list)
    recording: list[Operation] | None = None
    broken: bool = False


class Driver:
    """One process's driver with one GPU; see the module's docstring.

    Attributes:
        gpus: how many there are.
        calls: how often each function was called.
        live: handles and addresses not given back, by kind.
    """

    def __init__(self, gpus: int = 1) -> None:
        # Here, not in the class: there their names would hide the types.
        self.CUresult, self.CUstream = CUresult, CUstream
        self.CUstream_flags, self.CUevent_flags = CUstream_flags, CUevent_flags
        self.CUstreamCaptureMode = CUstreamCaptureMode
        self.gpus = gpus
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}
        self.kinds: dict[int, str] = {}
        self.streams: dict[int, Stream] = {1: Stream()}
        self.others: Counter[str] = Counter()
        self.contexts = 0
        self.current: set[int] = set()
        self.sticky: CUresult | None = None
        self._fail: dict[str, tuple[int, CUresult]] = {}
        self._next = 0x1000
        self.trace: list[str] = []

    # For tests.

    def fail(self, name: str, code: CUresult, after: int = 0) -> None:
        """Lets one call of a function fail, after so many that do not."""
        self._fail[name] = (self.calls[name] + after + 1, code)

    @property
    def live(self) -> dict[str, int]:
        found = Counter(self.kinds.values()) + self.others
        found["stream"] = len(self.streams) - 1
        found["context"] = self.contexts
        return {kind: count for kind, count in found.items() if count}

    def enqueue(self, stream: int, operation: Operation) -> bool:
        """What a kernel launch does: queued, or recorded. False where that is impossible."""
        found = self.streams[int(stream)]
        if found.recording is not None:
            found.recording.append(operation)
        else:
            found.operations.append(operation)
        return True

    def capturing(self, stream: int) -> bool:
        return self.streams[int(stream)].recording is not None

    def break_capture(self, stream: int) -> None:
        """What a forbidden call does to a recording."""
        self.streams[int(stream)].broken = True

    def _enter(self, name: str, context: bool = True) -> CUresult:
        self.calls[name] += 1
        at, code = self._fail.get(name, (0, OK))
        if at == self.calls[name]:
            return code
        if context and threading.get_ident() not in self.current:
            return CUresult.CUDA_ERROR_INVALID_CONTEXT
        return OK

    def _drain(self, stream: Stream, until: Event | None = None) -> CUresult:
        while stream.operations and (until is None or until.done_s is None):
            operation = stream.operations.pop(0)
            if self.sticky is None or getattr(operation, "event", False):
                operation()
        return self.sticky or OK

    def _place(self, kind: str, size: int, poison: int) -> int:
        block = (ctypes.c_uint8 * (size + 255))()
        address = -(-ctypes.addressof(block) // 256) * 256
        ctypes.memset(address, poison, size)
        self.memory[address] = (block, size)
        self.kinds[address] = kind
        return address

    def _inside(self, address: int, size: int) -> bool:
        return any(
            start <= address and address + size <= start + length
            for start, (_, length) in self.memory.items()
        )

    def _handle(self) -> int:
        self._next += 16
        return self._next

    # The driver.

    def cuInit(self, Flags: int) -> tuple[CUresult]:
        code = self._enter("cuInit", False)
        return (code if self.gpus or code else CUresult.CUDA_ERROR_NO_DEVICE,)

    def cuDeviceGetCount(self) -> tuple[CUresult, int]:
        return self._enter("cuDeviceGetCount", False), self.gpus

    def cuDeviceGet(self, ordinal: int) -> tuple[CUresult, int]:
        return self._enter("cuDeviceGet", False), ordinal

    def cuDevicePrimaryCtxRetain(self, dev: int) -> tuple[CUresult, object]:
        code = self._enter("cuDevicePrimaryCtxRetain", False)
        self.contexts += code == OK
        return code, "primary"

    def cuDevicePrimaryCtxRelease(self, dev: int) -> tuple[CUresult]:
        self.contexts -= 1
        self.trace.append("context")
        return (self._enter("cuDevicePrimaryCtxRelease", False),)

    def cuCtxSetCurrent(self, ctx: object) -> tuple[CUresult]:
        code = self._enter("cuCtxSetCurrent", False)
        self.current.add(threading.get_ident())
        return (code,)

    def cuStreamCreate(self, Flags: int) -> tuple[CUresult, CUstream]:
        code = self._enter("cuStreamCreate")
        handle = self._handle()
        if code == OK:
            self.streams[handle] = Stream()
        return code, CUstream(handle)

    def cuStreamDestroy(self, hStream: int) -> tuple[CUresult]:
        del self.streams[int(hStream)]
        self.trace.append("stream")
        return (self._enter("cuStreamDestroy"),)

    def cuStreamSynchronize(self, hStream: int) -> tuple[CUresult]:
        code = self._enter("cuStreamSynchronize")
        return (code or self._drain(self.streams[int(hStream)]),)

    def cuStreamWaitEvent(self, hStream: int, hEvent: Event, Flags: int) -> tuple[CUresult]:
        code = self._enter("cuStreamWaitEvent")
        self.trace.append("wait event")
        for stream in self.streams.values():
            if any(getattr(o, "event", None) is hEvent for o in stream.operations):
                self._drain(stream, hEvent)
        return (code,)

    def cuMemAlloc(self, bytesize: int) -> tuple[CUresult, int]:
        code = self._enter("cuMemAlloc")
        return code, self._place("device", bytesize, 0xFF) if code == OK else 0

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> tuple[CUresult, int]:
        code = self._enter("cuMemHostAlloc")
        return code, self._place("pinned", bytesize, 0xFF) if code == OK else 0

    def cuMemFree(self, dptr: int) -> tuple[CUresult]:
        return self._free("device", int(dptr))

    def cuMemFreeHost(self, p: int) -> tuple[CUresult]:
        return self._free("pinned", int(p))

    def _free(self, kind: str, address: int) -> tuple[CUresult]:
        code = self._enter(f"free {kind}")
        if self.kinds.get(address) != kind:
            return (CUresult.CUDA_ERROR_INVALID_VALUE,)
        for stream in self.streams.values():
            assert not stream.operations, "memory was freed while something is queued"
        block, size = self.memory.pop(address)
        ctypes.memset(address, 0xDD, size)
        del self.kinds[address], block
        self.trace.append(kind)
        return (code,)

    def _copy(self, name: str, target: int, source: int, size: int, stream: int) -> CUresult:
        code = self._enter(name)
        device = [
            a
            for a, way in (
                (target, name != "cuMemcpyDtoHAsync"),
                (source, name != "cuMemcpyHtoDAsync"),
            )
            if way
        ]
        if not all(self._inside(int(a), size) for a in device):
            return CUresult.CUDA_ERROR_INVALID_VALUE
        if code == OK:
            self.enqueue(stream, lambda: void(ctypes.memmove(int(target), int(source), size)))
        return code

    def cuMemcpyHtoDAsync(
        self, dstDevice: int, srcHost: int, ByteCount: int, hStream: int
    ) -> tuple[CUresult]:
        return (self._copy("cuMemcpyHtoDAsync", dstDevice, srcHost, ByteCount, hStream),)

    def cuMemcpyDtoHAsync(
        self, dstHost: int, srcDevice: int, ByteCount: int, hStream: int
    ) -> tuple[CUresult]:
        return (self._copy("cuMemcpyDtoHAsync", dstHost, srcDevice, ByteCount, hStream),)

    def cuMemcpyDtoDAsync(
        self, dstDevice: int, srcDevice: int, ByteCount: int, hStream: int
    ) -> tuple[CUresult]:
        return (self._copy("cuMemcpyDtoDAsync", dstDevice, srcDevice, ByteCount, hStream),)

    def cuEventCreate(self, Flags: int) -> tuple[CUresult, Event]:
        code = self._enter("cuEventCreate")
        self.others["event"] += code == OK
        return code, Event()

    def cuEventDestroy(self, hEvent: Event) -> tuple[CUresult]:
        self.others["event"] -= 1
        return (self._enter("cuEventDestroy"),)

    def cuEventRecord(self, hEvent: Event, hStream: int) -> tuple[CUresult]:
        code = self._enter("cuEventRecord")
        hEvent.done_s = None

        def happen() -> None:
            hEvent.done_s = time.perf_counter()

        happen.event = hEvent  # type: ignore[attr-defined]
        self.enqueue(hStream, happen)
        return (code,)

    def cuEventSynchronize(self, hEvent: Event) -> tuple[CUresult]:
        code = self._enter("cuEventSynchronize")
        for stream in self.streams.values():
            if any(getattr(o, "event", None) is hEvent for o in stream.operations):
                self._drain(stream, hEvent)
        return (code or self.sticky or OK,)

    def cuEventElapsedTime(self, hStart: Event, hEnd: Event) -> tuple[CUresult, float]:
        code = self._enter("cuEventElapsedTime")
        if hStart.done_s is None or hEnd.done_s is None:
            return CUresult.CUDA_ERROR_INVALID_HANDLE, 0.0
        return code, 1e3 * (hEnd.done_s - hStart.done_s)

    def cuStreamBeginCapture(self, hStream: int, mode: int) -> tuple[CUresult]:
        code = self._enter("cuStreamBeginCapture")
        if code == OK:
            self.streams[int(hStream)].recording = []
        return (code,)

    def cuStreamEndCapture(self, hStream: int) -> tuple[CUresult, Graph | None]:
        code = self._enter("cuStreamEndCapture")
        stream = self.streams[int(hStream)]
        recorded, stream.recording = stream.recording, None
        if stream.broken:
            stream.broken = False
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        self.others["graph"] += 1
        return code, Graph(recorded or [])

    def cuGraphInstantiate(self, hGraph: Graph, flags: int) -> tuple[CUresult, Graph]:
        code = self._enter("cuGraphInstantiate")
        self.others["executable"] += code == OK
        return code, Graph(list(hGraph.operations))

    def cuGraphDestroy(self, hGraph: Graph) -> tuple[CUresult]:
        self.others["graph"] -= 1
        return (self._enter("cuGraphDestroy"),)

    def cuGraphExecDestroy(self, hGraphExec: Graph) -> tuple[CUresult]:
        self.others["executable"] -= 1
        return (self._enter("cuGraphExecDestroy"),)

    def cuGraphLaunch(self, hGraphExec: Graph, hStream: int) -> tuple[CUresult]:
        code = self._enter("cuGraphLaunch")
        for operation in hGraphExec.operations:
            self.enqueue(hStream, operation)
        return (code,)

    def cuGetErrorName(self, error: CUresult) -> tuple[CUresult, bytes]:
        return OK, CUresult(error).name.encode()

    def cuGetErrorString(self, error: CUresult) -> tuple[CUresult, bytes]:
        words = CUresult(error).name.removeprefix("CUDA_ERROR_").lower().replace("_", " ")
        return OK, words.encode()


def void(_: object) -> None:
    pass


@contextmanager
def installed(driver: Driver) -> Iterator[Driver]:
    """The driver in the place of cuda-bindings' module."""
    import pytest

    from centermask_edge.engines.tensorrt import cuda

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "import_driver", lambda: driver)
        yield driver
