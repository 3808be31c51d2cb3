"""One model quantized in several ways: by this project's plans and by other quantizers.

The others are peers to compare with, not dependencies: ONNX Runtime's quantizer comes with a
package that is here anyway; nvidia-modelopt takes part where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from centermask_edge.config import PreprocessConfig
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize.build import observable, prepared, quantize_model
from centermask_edge.quantize.collect import collect, metadata_of
from centermask_edge.quantize.observers import Observer
from centermask_edge.quantize.plan import load_plan
from centermask_edge.quantize.scales import ObservedScales

Picture = NDArray[np.uint8]
Feed = dict[str, NDArray[np.float32]]

PLANS = ("openvino", "tensorrt")


def feeds(config: PreprocessConfig, pictures: Sequence[Picture], inputs: set[str]) -> list[Feed]:
    """What a model takes for each picture."""
    prepare = Preprocess(config)
    found = []
    for picture in pictures:
        image, placement = prepare(picture)
        size = np.asarray([placement.resized_size], np.float32)
        feed = {"image": image[None], "image_size": size}
        found.append({k: v for k, v in feed.items() if k in inputs})
    return found


def padded(rows: list[Feed]) -> list[Feed]:
    """The same feeds with images of one size, zeros at the right and below as in any batch."""
    height, width = np.max([row["image"].shape[2:] for row in rows], axis=0)
    found = []
    for row in rows:
        image = np.zeros((1, 3, height, width), np.float32)
        image[:, :, : row["image"].shape[2], : row["image"].shape[3]] = row["image"]
        found.append({**row, "image": image})
    return found


def ours(
    model: onnx.ModelProto, pictures: Sequence[Picture], observer: Observer = Observer.MSE
) -> dict[str, onnx.ModelProto]:
    """By every plan of ours, from one calibration."""
    plain = prepared(model)
    plans = [load_plan(name) for name in PLANS]
    seen = collect(plain, observable(plain, plans), pictures)
    scales = ObservedScales(seen.histograms, observer)
    return {f"ours, {p.name} plan": quantize_model(plain, p, scales) for p in plans}


def by_onnxruntime(model: onnx.ModelProto, pictures: Sequence[Picture]) -> onnx.ModelProto:
    """By ONNX Runtime's static quantizer as its documents advise for x86: QDQ, signed 8 bits."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    plain = prepared(model)
    names = {value.name for value in plain.graph.input}
    rows = iter(feeds(metadata_of(model).preprocess, pictures, names))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Feed | None:
            return next(rows, None)

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(plain, str(source))
        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "Add", "Concat", "MaxPool", "Resize", "Relu"],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        return onnx.load(str(out))


def by_modelopt(model: onnx.ModelProto, pictures: Sequence[Picture]) -> onnx.ModelProto:
    """By nvidia-modelopt's ONNX quantizer with its default placement (entropy).

    It wants all calibration images in one array, and loses functions that a file brings. It runs in
    a process of its own, because it changes ONNX Runtime's quantizer for all who come after it.
    """
    plain = onnx.inliner.inline_local_functions(prepared(model))
    names = {value.name for value in plain.graph.input}
    rows = padded(feeds(metadata_of(model).preprocess, pictures, names))
    stacked = {name: np.concatenate([row[name] for row in rows]) for name in names}
    alone = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, alone) as process:
        source, out = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
        onnx.save(plain, str(source))
        process.submit(_modelopt, str(source), str(out), stacked).result()
        found = onnx.load(str(out))
    del found.metadata_props[:]  # it drops ours, without which nothing of ours runs the file
    found.metadata_props.extend(model.metadata_props)
    return found


def _modelopt(source: str, out: str, stacked: Feed) -> None:
    quantize = importlib.import_module("modelopt.onnx.quantization").quantize
    quantize(
        source,
        quantize_mode="int8",
        calibration_data=stacked,
        calibration_method="entropy",
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=out,
    )


def peers() -> Iterator[tuple[str, Callable[[onnx.ModelProto, Sequence[Picture]], Any]]]:
    """Other quantizers that are installed."""
    yield "onnxruntime quantizer", by_onnxruntime
    if importlib.util.find_spec("modelopt") is not None:
        yield "nvidia-modelopt", by_modelopt
