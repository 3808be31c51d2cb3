"""A deserialised engine: its tensors, the input sizes it takes, and execution contexts.

The calls are those that TensorRT 10.3 to 11.4 and TensorRT-RTX 1.7 have in common;
``tests/test_trt_contract.py`` holds them against the real bindings.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from centermask_edge.engines.tensorrt.api import Api, make_logger
from centermask_edge.engines.tensorrt.cuda import GpuError
from centermask_edge.errors import ConfigError, ModelFileError

Shape = tuple[int, ...]

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class Messages:
    """The last warnings and errors that TensorRT logged."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)

    def add(self, severity: str, text: str) -> None:
        """One line of the log; what is only information is dropped."""
        if severity.upper() in {"ERROR", "INTERNAL_ERROR"}:
            self._lines.append(" ".join(text.split()))

    def take(self) -> str:
        """The last error, and none of them from now on."""
        text = self._lines[-1] if self._lines else "TensorRT gave no reason"
        self._lines.clear()
        return text


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: its name, numpy type and direction."""

    name: str
    dtype: np.dtype[Any]
    is_input: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Smallest and largest ``image`` (N, 3, H, W) of the engine's profile."""

    low: Shape
    high: Shape

    def check(self, shape: Shape) -> None:
        """Nothing, if a batch fits.

        Raises:
            ConfigError: it does not.
        """
        sides = zip(self.low, shape, self.high, strict=True)
        if all(low <= own <= high for low, own, high in sides):
            return
        range_ = _size(self.low)
        if self.low != self.high:
            range_ += f" to {_size(self.high)}"
        raise ConfigError(
            f"the engine was built for batches of {range_} (pictures x height x width after "
            f"padding); this one is {_size(shape)}: choose another --size, or build again with "
            "the --size and --batch you need"
        )


class Network:
    """An engine in device memory. Belongs to the GPU's thread.

    Args:
        api: the bindings.
        path: named in errors.
        content: of the engine's file.

    Raises:
        ModelFileError: TensorRT cannot read it.
    """

    def __init__(self, api: Api, path: Path, content: bytes) -> None:
        self._trt = api.trt
        self.messages = Messages()
        self._logger = make_logger(api, self.messages.add)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            reason = self.messages.take()
            raise ModelFileError(
                f"{path} cannot be loaded by {api.flavor.value} {api.version} on this GPU "
                f"({reason}); build it again here: centermask-edge build MODEL.onnx, or --rebuild"
            )
        self.tensors = tuple(self._tensor(i, path) for i in range(self._engine.num_io_tensors))
        low, _, high = self._engine.get_tensor_profile_shape("image", 0)
        self.limits = Limits(tuple(low), tuple(high))

    def _tensor(self, i: int, path: Path) -> Tensor:
        engine, trt = self._engine, self._trt
        name = engine.get_tensor_name(i)
        kind = engine.get_tensor_dtype(name).name
        on_gpu = engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        if kind not in _DTYPES or not on_gpu:
            raise ModelFileError(
                f"{path}: tensor {name} is {kind} {'on the GPU' if on_gpu else 'on the CPU'}, "
                "which this version cannot feed; build the engine with centermask-edge build"
            )
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        return Tensor(name, np.dtype(_DTYPES[kind]), is_input)

    def context(self, image: Shape) -> Any:
        """An execution context for one input shape, which ``limits`` allow.

        Raises:
            ConfigError: the engine refuses it.
            GpuError: there is no memory for it.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise GpuError(
                f"no execution context for {_size(image)}: {self.messages.take()}; free GPU "
                "memory or use a smaller --size"
            )
        for name, shape in (("image", image), ("image_size", (image[0], 2))):
            if not context.set_input_shape(name, shape):
                raise ConfigError(f"the engine refuses {name} {shape}: {self.messages.take()}")
        missing = context.infer_shapes()
        if missing:
            raise GpuError(f"the engine leaves the shapes of {missing} open")
        return context

    def close(self) -> None:
        """Lets go of the engine and then of the runtime; contexts must be gone by now."""
        self._engine = None
        self._runtime = None


def _size(shape: Shape) -> str:
    return f"{shape[0]}x{shape[2]}x{shape[3]}"
