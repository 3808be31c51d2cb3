"""The plugins in the real TensorRT-RTX: registry, ONNX parser, ahead-of-time builds; no GPU."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugin_models
import pytest
from plugin_models import FLOAT, HALF, INT8

from centermask_edge.kernels.build import build
from centermask_edge.kernels.plugin import plugin_recipe, rtx_alias
from centermask_edge.kernels.toolchain import find_host_compiler

CHILD = Path(__file__).with_name("rtx_child.py")


def _rtx() -> Path | None:
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "libtensorrt_rtx.so.1").is_file():
            return path
    return None


pytestmark = [
    pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler"),
    pytest.mark.skipif(_rtx() is None, reason="no TensorRT-RTX"),
]

Answer = dict[str, Any]


def run(models: list[Path]) -> Answer:
    library = _rtx()
    assert library is not None
    command = [build(plugin_recipe(host=True)), rtx_alias(library), *models]
    done = subprocess.run(
        [sys.executable, CHILD, *command], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def answers(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """Everything that is built below, good and bad, in one process that must survive it."""
    folder = tmp_path_factory.mktemp("models")
    made = []
    for kind, name in ((FLOAT, "fp32"), (HALF, "fp16"), (INT8, "int8")):
        made.append(plugin_models.attention(folder / f"attention_{name}.onnx", kind))
        made.append(plugin_models.align(folder / f"align_{name}.onnx", kind))
        made.append(plugin_models.decode(folder / f"decode_{name}.onnx", kind))
    for name, (model, changed) in BAD.items():
        made.append(getattr(plugin_models, model)(folder / f"{name}.onnx", **changed))
    return run(made)


# name -> model, what is changed; the message is beside the test.
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "channels": ("align", {"channels": (128, 64, 128)}),
    "size": ("align", {"output_size": 40}),
    "no_size": ("align", {"output_size": None}),
    "rois": ("align", {"rois_kind": HALF}),
    "index": ("align", {"index": FLOAT}),
    "scales": ("align", {"kind": INT8, "feature_scales": None}),
    "rank": ("attention", {"shape": ["N", 128, 14]}),
    "integers": ("attention", {"kind": plugin_models.INT64, "weight_kind": FLOAT}),
    "cells": ("attention", {"shape": ["N", 16, 33, 33]}),
    "y_scale": ("attention", {"kind": INT8, "y_scale": None}),
    "reg": ("decode", {"reg_channels": 5}),
    "topk": ("decode", {"pre_nms_topk": 5000}),
    "threshold": ("decode", {"nms_threshold": 1.5}),
}


def test_the_registry_lists_the_creators_and_their_fields(answers: Answer) -> None:
    assert answers["creators"] == {
        "CMDecodeNMS 1": ["score_threshold", "nms_threshold", "pre_nms_topk", "max_detections"],
        "CMPyramidRoIAlign 1": ["output_size", "feature_scales", "output_scale"],
        "CMSpatialAttention 1": ["x_scale", "y_scale"],
    }


def test_the_registry_makes_what_is_right_and_nothing_else(answers: Answer) -> None:
    assert answers["made"] == {
        "output_size=14": True,
        "output_size=33": False,
        "outputsize=14": False,
    }
    told = "\n".join(answers["registry_errors"])
    assert "attribute output_size is 33; at least 1, at most 32 is wanted" in told
    assert "unknown attribute outputsize" in told


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("model", ["attention", "align"])
def test_one_engine_for_three_gpus(answers: Answer, model: str, kind: str) -> None:
    answer = answers["models"][f"{model}_{kind}"]
    assert answer["errors"] == []
    assert answer["size"] > 0
    suffix = "_out" if kind == "int8" else ""
    name, shape = ("y", [-1, 128, 14, 14]) if model == "attention" else ("features", None)
    dtype = "HALF" if kind == "fp16" else "FLOAT"
    assert answer["outputs"] == {name + suffix: [dtype, shape or [-1, 128, 14, 14]]}


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_decoding_gives_int64_classes_and_counts(answers: Answer, kind: str) -> None:
    answer = answers["models"][f"decode_{kind}"]
    assert answer["errors"] == []
    assert answer["size"] > 0
    assert answer["outputs"] == {
        "boxes": ["FLOAT", [-1, 50, 4]],
        "scores": ["FLOAT", [-1, 50]],
        "classes": ["INT64", [-1, 50]],
        "count": ["INT64", [-1]],
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("decode_int8", "CMDecodeNMS 'node': input logits_3 is int8; float32 or float16"),
        ("channels", "input p4 is [?,64,16,20]; 128 is wanted at dimension 1"),
        ("size", "attribute output_size is 40; at least 1, at most 32 is wanted"),
        ("no_size", "attribute output_size is missing"),
        ("rois", "input rois is float16; float32 is wanted"),
        ("index", "input roi_image is float32; int64 or int32 is wanted"),
        ("scales", "int8 input p3 has no scale; give attribute feature_scales"),
        ("rank", "input x is [?,128,14]; 4 dimensions are wanted"),
        ("integers", "input x is int64; float32, float16 or int8 is wanted"),
        ("cells", "input x is [?,16,33,33]; at most 1024 cells a RoI are possible"),
        ("y_scale", "the int8 output has no scale; give attribute y_scale"),
        ("reg", "input reg_3 is [?,5,32,40]; 4 is wanted at dimension 1"),
        ("topk", "attribute pre_nms_topk is 5000; at least 1, at most 2048 is wanted"),
        ("threshold", "attribute nms_threshold is 1.5; at least 0, at most 1 is wanted"),
    ],
)
def test_what_does_not_fit_is_refused_with_our_message(
    answers: Answer, name: str, message: str
) -> None:
    answer = answers["models"][name]
    assert answer["size"] == 0
    ours = [line for line in answer["errors"] if line.startswith("centermask: ")]
    assert any(message in line for line in ours), answer["errors"]


@pytest.mark.parametrize(("kind", "dtype"), [("fp32", "Float"), ("fp16", "Half"), ("int8", "Int8")])
@pytest.mark.parametrize("model", ["attention", "align"])
def test_the_engine_calls_the_plugin_in_its_own_type(
    answers: Answer, model: str, kind: str, dtype: str
) -> None:
    layers = answers["models"][f"{model}_{kind}"]["layers"]
    (plugin,) = [line for line in layers if "LayerType: custom_layer" in line]
    inputs, outputs = plugin.split("Outputs: ")
    first = re.search(r"Datatype: (\w+)", inputs)
    result = re.search(r"Datatype: (\w+)", outputs)
    assert first and result
    assert {first[1], result[1]} == {dtype}
