"""TensorRT's run-time bindings on the CPU: an "engine" is an ONNX file, ONNX Runtime the GPU.

An execution context reads its inputs from the raw addresses it was given and writes its outputs
to others, when the fake stream (``fake_cuda.py``) gets that far. Only names that the real bindings
have; ``test_trt_contract.py`` checks that.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from centermask_edge.engines.tensorrt.api import Api, Flavor
from centermask_edge.engines.tensorrt.buffers import pinned_array

PROFILE = "fake_profile"


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        pass

    def log(self, severity: ILogger.Severity, message: str) -> None:
        raise NotImplementedError


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(float16)": (DataType.HALF, np.float16),
    "tensor(int64)": (DataType.INT64, np.int64),
    "tensor(int32)": (DataType.INT32, np.int32),
    "tensor(double)": (DataType.BF16, np.float64),  # a type that the runtime does not know
}


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            model = onnx.load_model_from_string(serialized_engine)
        except DecodeError:
            model = onnx.ModelProto()
        if not model.graph.output:
            text = "Version tag does not match. Note: Current Version: 239, Serialized Engine: 0"
            self.logger.log(ILogger.Severity.ERROR, text)
            return None
        return ICudaEngine(model, self.logger)


class ICudaEngine:
    def __init__(self, model: onnx.ModelProto, logger: ILogger) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._logger = logger
        props = {p.key: p.value for p in model.metadata_props}
        self._profile = json.loads(
            props.get(PROFILE, "[[1, 3, 32, 32], [1, 3, 64, 96], [8, 3, 2048, 2048]]")
        )
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._outputs = {node.name: node for node in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return str([*self._inputs, *self._outputs][index])

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[{**self._inputs, **self._outputs}[name].type][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        return [list(shape) for shape in self._profile]

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self)


class IExecutionContext:
    """Also says, for tests, how often it ran and what it is to do wrong."""

    driver: fake_cuda.Driver
    made: list[IExecutionContext]
    refuses_capture = False
    refuses_to_run = 0  # how many of the next calls

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        IExecutionContext.made.append(self)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        missing = [n for n in self._engine._inputs if n not in self._shapes]
        if not missing:
            feed = {
                name: np.ones(self._shapes[name], _TYPES[node.type][1])
                for name, node in self._engine._inputs.items()
            }
            names = list(self._engine._outputs)
            for name, value in zip(names, self._engine._session.run(names, feed), strict=True):
                self._shapes[name] = value.shape
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = int(memory)
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        logger, driver = self._engine._logger, IExecutionContext.driver
        if driver.capturing(stream_handle) and IExecutionContext.refuses_capture:
            driver.break_capture(stream_handle)
            logger.log(ILogger.Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        if IExecutionContext.refuses_to_run:
            IExecutionContext.refuses_to_run -= 1
            logger.log(ILogger.Severity.ERROR, "[executionContext.cpp] a broken enqueue")
            return False
        missing = {*self._engine._inputs, *self._engine._outputs} - set(self._addresses)
        assert not missing, f"no address for {missing}"
        return driver.enqueue(stream_handle, self._run)

    def _at(self, name: str, node: Any) -> np.ndarray:
        return pinned_array(self._addresses[name], self._shapes[name], _TYPES[node.type][1])

    def _run(self) -> None:
        engine = self._engine
        feed = {name: self._at(name, node) for name, node in engine._inputs.items()}
        names = list(engine._outputs)
        for name, value in zip(names, engine._session.run(names, feed), strict=True):
            np.copyto(self._at(name, engine._outputs[name]), value)


def api(driver: fake_cuda.Driver, flavor: Flavor = Flavor.TENSORRT) -> Api:
    """This module as bindings, its work done on the driver's streams."""
    import sys

    IExecutionContext.driver, IExecutionContext.made = driver, []
    IExecutionContext.refuses_capture, IExecutionContext.refuses_to_run = False, 0
    return Api(flavor, sys.modules[__name__], "10.16.1.11")


def save_engine(model: onnx.ModelProto, path: Path, profile: list[list[int]] | None = None) -> Path:
    """An "engine" of a model, for input shapes from the first to the third of the profile."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    if profile is not None:
        props = {p.key: p.value for p in copied.metadata_props}
        helper.set_model_props(copied, {**props, PROFILE: json.dumps(profile)})
    path.write_bytes(copied.SerializeToString())
    return path
