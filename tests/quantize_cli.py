"""What the tests of ``centermask-edge quantize`` share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_pictures import save
from onnx import numpy_helper

from centermask_edge.cli import main
from centermask_edge.graph.metadata import METADATA_KEY
from centermask_edge.quantize.judge import Judgement
from centermask_edge.quantize.verdict import (
    Accuracy,
    Annotations,
    Ap,
    Loss,
    ModelFile,
    Numbers,
    Verdict,
)


def words(model: Path, calibration: Path, out: Path, *more: str) -> list[str]:
    named = ["--calibration", str(calibration), "--out", str(out), "--threads", "1"]
    return ["quantize", str(model), *named, *more]


def refusal(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert main(given) == 2
    *before, shown = capsys.readouterr().err.strip().splitlines()
    assert shown.startswith("error: ") and set(before) <= {"calibrated earlier with these pictures"}
    return shown


def changed(model: Path, path: Path, **preprocess: Any) -> Path:
    """A copy of the model, with other preprocessing or, where none is given, other weights."""
    proto = onnx.load(model)
    if preprocess:
        entry = next(p for p in proto.metadata_props if p.key == METADATA_KEY)
        record = json.loads(entry.value)
        record["preprocess"].update(preprocess)
        entry.value = json.dumps(record)
    else:
        weight = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
        array = numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(proto, path)
    return path


def without_first_layer(model: Path, path: Path) -> Path:
    """A copy of the model whose first convolution gives nothing but zeros."""
    proto = onnx.load(model)
    convolution = next(n for n in proto.graph.node if n.op_type == "Conv")
    for tensor in proto.graph.initializer:
        if tensor.name in convolution.input[1:]:
            zeros = np.zeros_like(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    onnx.save(proto, path)
    return path


def paint_over(manifest: Path, data: Path) -> None:
    """Every picture of a set in one colour, with its new hash in the manifest."""
    record = json.loads(manifest.read_text())
    for index, picture in enumerate(record["pictures"]):
        path = save(data / picture["file"], np.full((64, 96, 3), index, np.uint8))
        picture["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(record))


def files(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()} if path.exists() else set()


def judged(mask: float) -> Judgement:
    """What ``judge`` gives for an INT8 file that loses so much."""
    zeros = "0" * 64
    aps = {
        numbers: Ap(ap=ap, ap50=ap, ap75=ap, small=None, medium=None, large=None)
        for numbers, ap in ((Numbers.FP32, 50.0), (Numbers.INT8, 50.0 - mask))
    }
    file = ModelFile(numbers=Numbers.INT8, name="net-int8.onnx", bytes=1, sha256=zeros)
    verdict = Verdict(
        created="",
        processor="p",
        versions={},
        preset="tiny",
        annotations=Annotations(name="v", sha256=zeros, images=1, of_images=1, objects=1),
        models=(file,),
        accuracy=tuple(
            Accuracy(numbers=numbers, engine="e", box=ap, mask=ap, classes=())
            for numbers, ap in aps.items()
        ),
        losses=(Loss(numbers=Numbers.INT8, box=0, mask=mask),),
        budget=0.3,
        judged=Numbers.INT8,
    )
    return Judgement(verdict, (), 0.4)
