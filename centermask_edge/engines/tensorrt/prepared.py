"""The ONNX file read, checked, brought to a precision and lowered, ready to be handed over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from centermask_edge.engines.base import check_model_file, check_signature
from centermask_edge.engines.tensorrt.manifest import Precision, Range, Shapes
from centermask_edge.errors import ModelFileError, require
from centermask_edge.graph.metadata import ModelMetadata, read_metadata

if TYPE_CHECKING:
    import onnx


def load_model(path: Path) -> tuple[onnx.ModelProto, ModelMetadata]:
    """The model of a file and what it says about itself.

    Raises:
        ModelFileError: it is missing, damaged, or not a model of this project.
        MissingPackageError: onnx is not installed.
    """
    check_model_file(path)
    why = "build an engine"
    onnx = require("onnx", extra="tensorrt", why=why)
    protobuf = require("google.protobuf.message", extra="tensorrt", why=why)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except protobuf.DecodeError:
        model = None
    if model is None or not model.graph.output:
        raise ModelFileError(
            f"{path} is not a valid ONNX file (damaged, or another format); "
            "export or download it again"
        )
    metadata = read_metadata({prop.key: prop.value for prop in model.metadata_props}, path)
    inputs = {value.name for value in model.graph.input}
    check_signature(path, inputs, {value.name for value in model.graph.output})
    return model, metadata


def at_precision(model: onnx.ModelProto, precision: Precision, path: Path) -> onnx.ModelProto:
    """The model in that precision, functions kept.

    Args:
        model: float32, with or without Q/DQ.
        precision: wanted.
        path: named in errors.

    Raises:
        ModelFileError: int8 is wanted of a model without Q/DQ, another precision of one with, or
            a weight does not fit fp16.
    """
    from centermask_edge.graph.precision import is_quantized, to_fp16

    quantized = is_quantized(model)
    if precision is Precision.INT8 and not quantized:
        raise ModelFileError(
            f"{path} has no QuantizeLinear, so there is nothing to build in int8; quantize it "
            f"first: centermask-edge quantize {path.name} --calibration FOLDER, or add --calibrate "
            "FOLDER here; a few dozen pictures are enough"
        )
    if precision is not Precision.INT8 and quantized:
        raise ModelFileError(
            f"{path} is quantized and --precision {precision.value} would not change that; "
            "build it with --precision int8, or build the file it was quantized from"
        )
    return model if precision is Precision.FP32 else to_fp16(model)


def lowered(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """The model as TensorRT's parser takes it, for these shapes.

    Raises:
        ModelFileError: it is quantized in a way that TensorRT cannot run.
    """
    from centermask_edge.graph.tensorrt import InputShape, lower_for_tensorrt

    def fixed(size: Range) -> int | None:
        return size.opt if size.fixed else None

    shape = InputShape(fixed(shapes.batch), fixed(shapes.height), fixed(shapes.width))
    return lower_for_tensorrt(model, shape)
