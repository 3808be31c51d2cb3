"""The exported file against torch, on ONNX Runtime and OpenVINO, at several sizes and batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from centermask_edge.config import PRESETS, ModelConfig
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.base import Detections
from centermask_edge.errors import ModelFileError
from centermask_edge.graph import simplify
from centermask_edge.graph.export import build, export, weights_digest, with_fp16_weights
from centermask_edge.graph.functions import DOMAIN
from centermask_edge.graph.lowering import MIN_SCORE, lower_for_openvino
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.predict import run
from centermask_edge.resources import CACHE_VARIABLE

Floats = NDArray[np.float32]
ENGINES = [EngineName.ONNXRUNTIME, EngineName.OPENVINO]
SIZES = [(1, 128, 160), (2, 96, 224), (1, 32, 32)]


def make_model(config: ModelConfig) -> CenterMask:
    """Random weights, scaled so that some, but not all, cells become detections."""
    torch.manual_seed(0)
    model = CenterMask(config).eval()
    with torch.no_grad():
        assert model.head.cls_logits.bias is not None and model.head.box_pred.bias is not None
        model.head.cls_logits.weight.mul_(30)
        model.head.cls_logits.bias.fill_(-3.5)
        model.head.box_pred.weight.mul_(5)
        model.head.box_pred.bias.fill_(3.0)
        model.mask_head.predictor.weight.mul_(300)
        assert model.mask_iou_head is not None
        model.mask_iou_head.predictor.weight.mul_(10)
    return model


def pictures(batch: int, height: int, width: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(height)
    images = rng.standard_normal((batch, 3, height, width)).astype(np.float32)
    return images * 2, np.array([[height - 5, width - 9]] * batch, np.float32)


@pytest.fixture(scope="module", params=["person-efficientnet-lite0", "lite-v19-slim-dw"])
def model(request: pytest.FixtureRequest) -> CenterMask:
    return make_model(PRESETS[request.param])


@pytest.fixture(scope="module")
def file(model: CenterMask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("export") / "model.onnx", {"run": "test"})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    yield


def assert_same(found: Any, wanted: Any) -> None:
    """Equal up to rounding, detection by detection; ties in score may swap places."""
    np.testing.assert_array_equal(found.count, wanted.count)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    for i, count in enumerate(wanted.count):
        used: set[int] = set()
        for k in range(count):
            distance = np.abs(found.boxes[i, :count] - wanted.boxes[i, k]).max(1)
            distance[found.classes[i, :count] != wanted.classes[i, k]] = np.inf
            distance[list(used)] = np.inf
            j = int(distance.argmin())
            used.add(j)
            assert distance[j] < 0.02, f"picture {i}, detection {k}: {wanted.boxes[i, k]}"
            assert abs(found.mask_scores[i, j] - wanted.mask_scores[i, k]) < 1e-3
            np.testing.assert_allclose(found.masks[i, j], wanted.masks[i, k], atol=1e-3)
        assert not found.boxes[i, count:].any() and not found.masks[i, count:].any()


@pytest.mark.parametrize("name", ENGINES)
def test_engines_agree_with_torch(model: CenterMask, file: Path, name: EngineName) -> None:
    engine = open_engine(file, name)
    found = 0
    for size in SIZES:
        images, image_sizes = pictures(*size)
        wanted = run(model, images, image_sizes)
        assert_same(engine.run(images, image_sizes), wanted)
        found += int(wanted.count.sum())
    assert found > 10


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_found(model: CenterMask, tmp_path: Path, name: EngineName) -> None:
    blind = make_model(model.config)
    with torch.no_grad():
        assert blind.head.cls_logits.bias is not None
        blind.head.cls_logits.bias.fill_(-50.0)
    engine = open_engine(export(blind, tmp_path / "blind.onnx", {}), name)
    found = engine.run(*pictures(2, 64, 96))
    assert found.count.tolist() == [0, 0]
    assert not found.boxes.any() and not found.scores.any() and not found.masks.any()


@pytest.mark.parametrize("name", ENGINES)
def test_min_score_drops_the_tail_and_changes_nothing_else(file: Path, name: EngineName) -> None:
    images, image_sizes = pictures(2, 128, 160)
    everything = open_engine(file, name).run(images, image_sizes)
    limit = float(np.median(everything.scores[everything.scores > 0]))
    some: Detections = open_engine(file, name, min_score=limit).run(images, image_sizes)
    keep = (everything.scores >= limit).sum(1)
    assert some.count.tolist() == keep.tolist() and 0 < keep.sum() < everything.count.sum()
    for i, count in enumerate(keep):
        np.testing.assert_allclose(some.boxes[i, :count], everything.boxes[i, :count], atol=1e-3)
        np.testing.assert_allclose(some.masks[i, :count], everything.masks[i, :count], atol=1e-4)
        assert not some.masks[i, count:].any() and not some.scores[i, count:].any()


def test_lowering_leaves_standard_operators_only(file: Path) -> None:
    model = onnx.load(str(file))
    lowered = lower_for_openvino(model)
    assert {n.domain for n in model.graph.node} == {"", DOMAIN}
    assert {n.domain for n in lowered.graph.node} == {""}
    assert MIN_SCORE in {i.name for i in lowered.graph.input}
    assert MIN_SCORE not in {i.name for i in model.graph.input}


def test_file_structure(model: CenterMask, file: Path) -> None:
    proto = onnx.load(str(file))
    ops = [n.op_type for n in proto.graph.node if n.domain == DOMAIN]
    assert sorted(ops) == ["CMDecodeNMS", "CMPyramidRoIAlign", "CMSpatialAttention"]
    assert {f.name for f in proto.functions} == set(ops)
    for node in proto.graph.node:
        if node.domain == DOMAIN:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes["plugin_namespace"] == b"centermask"
            assert attributes["plugin_version"] == b"1"
    assert {o.domain: o.version for o in proto.opset_import} == {"": 17, DOMAIN: 1}
    # The head is shared by five levels: its weights are in the file once.
    shape = list(model.head.box_pred.weight.shape)
    assert sum(list(w.dims) == shape for w in proto.graph.initializer) == 1


def test_metadata_describes_model_and_weights(model: CenterMask, file: Path) -> None:
    metadata = open_engine(file, EngineName.ONNXRUNTIME).metadata
    assert metadata.preset == model.config.name
    assert metadata.classes == model.config.classes
    assert metadata.preprocess == model.config.preprocess
    assert metadata.training["run"] == "test"
    assert metadata.training["weights_sha256"] == weights_digest(model)


def test_fp16_weights_halve_the_file_and_keep_the_result(model: CenterMask, tmp_path: Path) -> None:
    whole = export(model, tmp_path / "whole.onnx", {})
    half = export(model, tmp_path / "half.onnx", {}, fp16_weights=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    images, image_sizes = pictures(1, 128, 160)
    a = open_engine(whole, EngineName.ONNXRUNTIME).run(images, image_sizes)
    b = open_engine(half, EngineName.ONNXRUNTIME).run(images, image_sizes)
    assert abs(int(a.count[0]) - int(b.count[0])) <= 2
    np.testing.assert_allclose(a.scores[0, :5], b.scores[0, :5], atol=0.02)


def test_fp16_weights_leave_small_tensors_alone() -> None:
    proto = with_fp16_weights(build(make_model(PRESETS["person-efficientnet-lite0"]), {}))
    half = [w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16]
    assert half and all(np.prod(w.dims) >= 2048 for w in half)


def test_a_simplification_that_changes_a_value_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])

    def graph(op: str) -> onnx.ModelProto:
        node = onnx.helper.make_node(op, ["image"], ["y"])
        opset = [onnx.helper.make_opsetid("", 17)]
        made = onnx.helper.make_graph([node], "g", [x], [y])
        return onnx.helper.make_model(made, opset_imports=opset, ir_version=8)

    assert simplify.equal_outputs(graph("Relu"), graph("Relu"))
    assert not simplify.equal_outputs(graph("Relu"), graph("Abs"))
    onnxsim = pytest.importorskip("onnxsim")
    monkeypatch.setattr(onnxsim, "simplify", lambda model: (graph("Abs"), True))
    assert simplify.simplified(graph("Relu")).graph.node[0].op_type == "Relu"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelFileError, match="cannot write"):
        export(make_model(PRESETS["person-efficientnet-lite0"]), tmp_path / "file" / "m.onnx", {})
