"""RoIAlign as OpenVINO gets it: grouped by level, equal to the reference, channels last."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from centermask_edge.engines.agreement import compare_instances, engine_runners
from centermask_edge.engines.openvino import import_openvino
from centermask_edge.graph.functions import DOMAIN, OPSET, PLUGIN_ATTRIBUTES, functions
from centermask_edge.graph.lowering import MIN_SCORE, compact_rois, lower_for_openvino
from centermask_edge.kernels.cases.compare import expect_close
from centermask_edge.kernels.cases.roi_align import KINDS, Case, make_boxes, make_features
from centermask_edge.kernels.library import FLOAT32
from centermask_edge.kernels.reference.roi_align import assign_level, pyramid_roi_align
from centermask_edge.live.sources.opening import open_source
from centermask_edge.resources import shipped_model

Feed = dict[str, NDArray[Any]]
CHANNELS, SIDE = 4, 14  # 4 x 14 x 14 features fill a mask of 28 x 28, which is how they get out


def network(quantized: bool = False) -> onnx.ModelProto:
    """RoIAlign between given RoIs and a mask head that hands its features on.

    The pyramid passes a convolution each, as in a network, so that OpenVINO chooses the layout.
    """
    node, sizes = helper.make_node, ["A", "B", "C"]
    make, kinds = helper.make_tensor_value_info, TensorProto
    nodes = [node("Conv", [f"c{n}", "eye"], [f"p{n}"], f"dense/{n}") for n in (3, 4, 5)]
    inputs = ["p3", "p4", "p5", "rois", "roi_image", "image_size"]
    nodes.append(
        node("CMPyramidRoIAlign", inputs, ["roi_features"], "roi_align", domain=DOMAIN,
             output_size=SIDE, **PLUGIN_ATTRIBUTES)
    )  # fmt: skip
    features = mean_of = "roi_features"
    if quantized:
        nodes.append(node("QuantizeLinear", [features, "step", "zero"], ["codes"], "mask/q"))
        nodes.append(node("DequantizeLinear", ["codes", "step", "zero"], ["held"], "mask/dq"))
        nodes.append(node("DequantizeLinear", ["w", "w_step", "w_zero"], ["weight"], "mask/w"))
        nodes.append(node("Conv", ["held", "weight"], ["read"], "mask/conv"))
        features, mean_of = "read", "held"  # with another reader OpenVINO makes no mistake
    nodes.append(node("Reshape", [features, "mask_shape"], ["roi_masks"], "mask/masks"))
    nodes.append(node("ReduceMean", [mean_of], ["roi_iou"], "mask/iou", axes=[1, 2, 3], keepdims=0))
    weights = {
        "eye": np.eye(CHANNELS, dtype=np.float32)[:, :, None, None],
        "mask_shape": np.array([-1, 28, 28]),
        "step": np.float32(0.03),
        "zero": np.int8(0),
        "w": np.diag([100, 50, -100, 25]).astype(np.int8)[:, :, None, None],
        "w_step": np.float32(0.01),
        "w_zero": np.int8(0),
    }
    graph = helper.make_graph(
        nodes,
        "rois",
        [
            *(make(f"c{n}", kinds.FLOAT, ["N", CHANNELS, f"H{n}", f"W{n}"]) for n in (3, 4, 5)),
            make("rois", kinds.FLOAT, ["R", 4]),
            make("roi_image", kinds.INT64, ["R"]),
            make("roi_classes", kinds.INT64, ["R"]),
            make("image_size", kinds.FLOAT, ["N", 2]),
            make("scores", kinds.FLOAT, ["N", "K"]),
            make("valid", kinds.BOOL, ["N", "K"]),
        ],
        [make("roi_masks", kinds.FLOAT, sizes), make("roi_iou", kinds.FLOAT, ["A"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions())
    model.ir_version = 8
    return model


def feed(case: Case, valid: NDArray[np.bool_] | None = None) -> Feed:
    """Inputs of the network for a case of the kernel's generators."""
    random = np.random.default_rng((len(case.boxes), case.images, case.rois))
    rois = make_boxes(case, random)
    shape = (case.images, case.rois // case.images)
    features = dict(zip(("c3", "c4", "c5"), make_features(case, random), strict=True))
    return {
        **features,
        "rois": rois,
        "roi_image": np.repeat(np.arange(case.images), shape[1]),
        "roi_classes": np.zeros(case.rois, np.int64),
        "image_size": np.array([case.size] * case.images, np.float32),
        "scores": np.linspace(1, 0.1, case.rois, dtype=np.float32).reshape(shape),
        "valid": np.ones(shape, bool) if valid is None else valid,
        MIN_SCORE: np.zeros(1, np.float32),
    }


def reference(values: Feed) -> NDArray[np.float64]:
    """The features of every RoI, zeros where it is not wanted."""
    live = values["valid"] & (values["scores"] >= values[MIN_SCORE])
    live.flat[0] = True  # runs always
    pyramid = [values[name].astype(np.float64) for name in ("c3", "c4", "c5")]
    rois, owner, size = values["rois"], values["roi_image"], values["image_size"]
    return pyramid_roi_align(pyramid, rois, owner, size, SIDE, live.ravel())


def compiled(model: onnx.ModelProto) -> Any:
    """A model in OpenVINO, for any shapes."""
    core = import_openvino().Core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)


def by_openvino(request: Any, values: Feed) -> NDArray[np.float32]:
    request.infer(values)
    masks: NDArray[np.float32] = request.get_tensor("roi_masks").data.copy()
    return masks.reshape(-1, CHANNELS, SIDE, SIDE)


@pytest.fixture(scope="module")
def lowered() -> onnx.ModelProto:
    return lower_for_openvino(network())


@pytest.fixture(scope="module")
def request_(lowered: onnx.ModelProto) -> Any:
    return compiled(lowered).create_infer_request()


BASE = Case(channels=CHANNELS)
CASES = [
    *(replace(BASE, boxes=b) for b in KINDS if b != "huge"),
    replace(BASE, images=2, rois=12),
    replace(BASE, images=3, rois=9, boxes="outside"),
    replace(BASE, rois=1),
    replace(BASE, rois=40, size=(352, 640)),
    replace(BASE, size=(33, 1000)),
    replace(BASE, size=(8, 8), boxes="outside"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(request_: Any, case: Case) -> None:
    values = feed(case)
    expect_close("features", by_openvino(request_, values), reference(values), FLOAT32)


def levels_of(values: Feed) -> NDArray[np.int64]:
    sizes = values["image_size"][values["roi_image"]]
    return np.array([assign_level(*pair) for pair in zip(values["rois"], sizes, strict=True)])


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_levels_without_rois(request_: Any, kept: tuple[int, ...]) -> None:
    values = feed(replace(BASE, images=2, rois=24))
    chosen = np.flatnonzero(np.isin(levels_of(values), kept))
    index = np.resize(chosen, 24)
    values["rois"] = values["rois"][index]
    assert set(levels_of(values)) == set(kept)
    expect_close("features", by_openvino(request_, values), reference(values), FLOAT32)


def test_boxes_far_beyond_the_picture_and_far_below_a_cell(request_: Any) -> None:
    values = feed(BASE)
    values["rois"][0] = [-900, -700, 1200, 900]
    values["rois"][1] = [-1e4, 20, -9e3, 60]
    values["rois"][2] = [100, 100, 100.001, 100.002]
    values["rois"][3] = [-2000, 5, 3000, 6]
    expect_close("features", by_openvino(request_, values), reference(values), FLOAT32)


@pytest.mark.parametrize("seed", range(4))
def test_only_wanted_rois_are_run_and_each_finds_its_place(request_: Any, seed: int) -> None:
    valid = np.random.default_rng(seed).random((2, 12)) < [0.5, 0.1, 0.9, 0][seed]
    values = feed(replace(BASE, images=2, rois=24), valid)
    values[MIN_SCORE][:] = 0.4
    found = by_openvino(request_, values)
    expect_close("features", found, reference(values), FLOAT32)
    live = valid & (values["scores"] >= 0.4)
    live.flat[0] = True
    assert found.any((1, 2, 3)).tolist() == live.ravel().tolist()
    scores = request_.get_tensor("roi_iou").data
    np.testing.assert_allclose(scores, found.mean((1, 2, 3)), atol=1e-6)


def test_onnxruntime_computes_the_same_from_the_lowered_graph(
    lowered: onnx.ModelProto, request_: Any
) -> None:
    ort = pytest.importorskip("onnxruntime")
    values = feed(replace(BASE, images=2, rois=24))
    session = ort.InferenceSession(lowered.SerializeToString(), providers=["CPUExecutionProvider"])
    masks = session.run(["roi_masks"], values)[0].reshape(-1, CHANNELS, SIDE, SIDE)
    np.testing.assert_allclose(by_openvino(request_, values), masks, atol=1e-5)


def primitives(model: onnx.ModelProto, kind: str) -> list[dict[str, str]]:
    """What OpenVINO tells of its layers of one kind."""
    found = []
    for op in compiled(model).get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        facts = {k: str(info[k].astype(str)) for k in ("layerType", "outputLayouts") if k in info}
        if facts.get("layerType") == kind:
            found.append({"name": op.get_friendly_name(), **facts})
    return found


def test_openvino_aligns_channels_last(lowered: onnx.ModelProto) -> None:
    # The planar kernel takes about 25 times as long.
    rows = primitives(lowered, "ROIAlign")
    assert [row["name"] for row in rows] == [f"roi_align/aligned_{n}" for n in (3, 4, 5)]
    assert {row["outputLayouts"] for row in rows} <= {"acdb", "aBcd8b", "aBcd16b"}


def test_quantized_features_are_read_right() -> None:
    # OpenVINO moves the quantization before a Concat and gets the convolution behind it wrong.
    values = feed(replace(BASE, images=2, rois=24))
    found = by_openvino(compiled(lower_for_openvino(network(True))).create_infer_request(), values)
    codes = np.clip(np.rint(reference(values) / np.float32(0.03)), -128, 127)
    wanted = codes * 0.03 * np.array([1, 0.5, -1, 0.25])[:, None, None]
    # Where the features lie between two codes either may be right.
    assert np.mean(np.abs(found - wanted) > 1e-4) < 1e-3


def test_compaction_alone_keeps_the_order_and_the_operator() -> None:
    compact = compact_rois(network())
    assert [n.name for n in compact.graph.node if n.op_type == "CMPyramidRoIAlign"] == ["roi_align"]
    assert any("found_rois" in n.output for n in compact.graph.node)


def close_up(picture: NDArray[np.uint8], box: NDArray[np.float32], by: float) -> Any:
    """The part of a picture that is ``by`` times as high and wide as a box, around it."""
    centre, half = (box[:2] + box[2:]) / 2, by * (box[2:] - box[:2]) / 2
    left, top = np.maximum(centre - half, 0).astype(int)
    right, bottom = (centre + half).astype(int)
    return np.ascontiguousarray(picture[top:bottom, left:right])


def test_the_shipped_model_sees_the_same_as_in_onnxruntime() -> None:
    pytest.importorskip("av")
    source = open_source(str(shipped_model().parents[1] / "_clips" / "people.mp4"))
    try:
        frame = next(iter(source)).image
    finally:
        source.close()
    reference, lowered = engine_runners(shipped_model())
    boxes = reference.segment(frame).boxes
    largest = boxes[np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1))]
    levels = set()
    for picture in (frame, close_up(frame, largest, 1.2), close_up(frame, largest, 1.7)):
        wanted = reference.segment(picture)
        assert compare_instances(wanted, lowered.segment(picture)).passed
        size = np.array(picture.shape[:2], np.float32)
        levels |= {assign_level(box, size) for box in wanted.boxes}
    assert levels == {0, 1, 2}
