"""From model to INT8 model: what is written, what it computes, and that engines run it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import quantize_models as models
from numpy.typing import NDArray
from onnx import numpy_helper

from centermask_edge.engines.openvino import import_openvino
from centermask_edge.graph.export import with_fp16_weights
from centermask_edge.graph.lowering import lower_for_openvino
from centermask_edge.graph.metadata import METADATA_KEY
from centermask_edge.quantize import (
    FixedScales,
    ObservedScales,
    Observer,
    Options,
    Plan,
    QuantizationError,
    collect,
    load_plan,
    max_int8,
    observable,
    prepared,
    quantize_model,
    sites_of,
)
from centermask_edge.quantize.bias import correct_biases
from centermask_edge.quantize.build import int8_record
from centermask_edge.quantize.collect import Activations
from centermask_edge.quantize.equalise import equalised
from centermask_edge.quantize.observers import Histogram
from centermask_edge.quantize.placement import place
from centermask_edge.quantize.qdq import insert_qdq
from centermask_edge.quantize.rewrite import without_deconvolution
from centermask_edge.quantize.weights import rounded, spread, weight_steps, with_fp32_weights
from centermask_edge.quantize.wiring import read_wiring

Arrays = dict[str, NDArray[Any]]
SIZE = np.array([[64, 64]], np.float32)


@pytest.fixture(scope="module")
def seen() -> Activations:
    model = models.exported()
    names = observable(model, [load_plan(name) for name in ("tensorrt", "openvino")])
    return collect(model, names, models.pictures())


@pytest.fixture(scope="module", params=["tensorrt", "openvino"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return load_plan(request.param)


@pytest.fixture(scope="module")
def int8(plan: Plan, seen: Activations) -> onnx.ModelProto:
    return quantize_model(models.exported(), plan, ObservedScales(seen.histograms))


def run(model: onnx.ModelProto, feed: Arrays, outputs: list[str] | None = None) -> Arrays:
    extra = [o for o in outputs or [] if o not in {v.name for v in model.graph.output}]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options)
    names = outputs or [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def image() -> Arrays:
    picture = models.pictures(1)[0].astype(np.float32).transpose(2, 0, 1)[None]
    return {"image": picture - 115, "image_size": SIZE}


def sqnr(exact: NDArray[Any], found: NDArray[Any]) -> float:
    noise = float(np.square(exact - found).sum())
    return 10 * math.log10(float(np.square(exact).sum()) / max(noise, 1e-30))


def layer(weight: NDArray[np.float32], op: str = "Conv", **attributes: int) -> onnx.ModelProto:
    """One layer with a bias, reading ``x``, giving ``y``."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    wide = 1 if op == "Conv" and "group" not in attributes else attributes.get("group", 1)
    channels = weight.shape[1] * wide
    shape = ["N", channels, "H", "W"] if op == "Conv" else ["N", channels]
    node = helper.make_node(op, ["x", "w", "b"], ["y"], "layer")
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    bias = np.linspace(-1, 1, weight.shape[0]).astype(np.float32)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# Weights


def test_rounded_weights_are_within_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)
    weight[2] = 0
    for axis in (0, 1, None):
        steps = weight_steps(weight, axis)
        codes = rounded(weight, steps, axis)
        back = codes * spread(steps, 4, axis)
        assert np.abs(codes).max() == 127
        assert (np.abs(back - weight) <= 0.5001 * spread(steps, 4, axis)).all()
    assert weight_steps(weight, 0)[2] == 1


def test_rounding_rounded_weights_changes_nothing() -> None:
    weight = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    steps = weight_steps(weight, 0)
    back = (rounded(weight, steps, 0) * spread(steps, 2, 0)).astype(np.float32)
    assert np.array_equal(rounded(back, weight_steps(back, 0), 0), rounded(weight, steps, 0))


def test_fp16_storage_is_undone() -> None:
    exact = models.exported()
    stored = with_fp16_weights(models.exported())
    plain = with_fp32_weights(stored)
    names = {t.name for t in exact.graph.initializer}
    assert {t.name for t in plain.graph.initializer} <= names
    assert not any(t.data_type == onnx.TensorProto.FLOAT16 for t in plain.graph.initializer)
    assert not any(n.name.startswith("cast/") for n in plain.graph.node)
    a, b = (run(m, image(), ["logits_3"])["logits_3"] for m in (stored, plain))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# Q/DQ


def test_a_layer_computes_what_its_codes_say() -> None:
    rng = np.random.default_rng(0)
    model = layer(rng.standard_normal((4, 6)).astype(np.float32), "Gemm", transB=1)
    x = rng.standard_normal((5, 6)).astype(np.float32)
    limit = 1.5  # clips some
    plan = load_plan("base")
    found = run(insert_qdq(model, place(model, plan), {"x": limit}), {"x": x})["y"]
    weight, bias = (numpy_helper.to_array(t) for t in model.graph.initializer)
    step = limit / 127
    codes = np.clip(np.rint(x / step), -128, 127)
    steps = np.abs(weight).max(1) / 127
    wanted = (codes * step) @ (np.rint(weight / steps[:, None]) * steps[:, None]).T + bias
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(found - run(model, {"x": x})["y"]).max() > 1e-3


def test_one_pair_per_tensor_and_one_scale_per_group(
    int8: onnx.ModelProto, plan: Plan, seen: Activations
) -> None:
    sites = sites_of(models.exported(), plan)
    quantizers = [n for n in int8.graph.node if n.op_type == "QuantizeLinear"]
    assert sorted(n.input[0] for n in quantizers) == sorted(sites.tensors)
    scales = {n.input[0]: n.input[1] for n in quantizers}
    values = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    ranges = ObservedScales(seen.histograms).ranges(sites)
    for group, members in sites.members().items():
        assert len({scales[t] for t in members}) == 1
        levels = 255 if members[0] in sites.unsigned else 127
        assert values[scales[members[0]]] == np.float32(ranges[group] / levels)


def test_weights_are_int8_once_and_biases_are_not_quantized(int8: onnx.ModelProto) -> None:
    wiring = read_wiring(int8)
    weights = [n for n in int8.graph.node if n.op_type == "DequantizeLinear"]
    weights = [n for n in weights if n.input[0] in wiring.initializers]
    assert len({n.input[0] for n in weights}) == len(weights) > 20
    for node in weights:
        assert wiring.initializers[node.input[0]].data_type == onnx.TensorProto.INT8
        codes = wiring.constant(node.input[0])
        assert codes is not None and np.abs(codes.astype(int)).max() == 127
    for node in int8.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            assert node.input[2] in wiring.initializers
    assert not any(t.data_type == onnx.TensorProto.INT32 for t in int8.graph.initializer)


def test_uint8_is_for_openvino_only(int8: onnx.ModelProto, plan: Plan) -> None:
    unsigned = [t for t in int8.graph.initializer if t.data_type == onnx.TensorProto.UINT8]
    assert bool(unsigned) == (plan.name == "openvino")


def test_what_the_model_says_about_itself_stays(int8: onnx.ModelProto, plan: Plan) -> None:
    exact = models.exported()
    assert [i.name for i in int8.graph.input] == [i.name for i in exact.graph.input]
    assert [o.name for o in int8.graph.output] == [o.name for o in exact.graph.output]
    assert [f.name for f in int8.functions] == [f.name for f in exact.functions]
    props = {p.key: p.value for p in int8.metadata_props}
    assert props[METADATA_KEY] == {p.key: p.value for p in exact.metadata_props}[METADATA_KEY]
    record = int8_record(int8)
    assert record is not None
    assert Plan.model_validate(record["plan"]) == plan
    assert record["ranges"] == "max"
    assert int8_record(exact) is None


def test_the_file_shrinks(int8: onnx.ModelProto) -> None:
    assert 2.5 * int8.ByteSize() < models.exported().ByteSize()


def test_onnxruntime_agrees_with_float(int8: onnx.ModelProto) -> None:
    names = ["logits_3", "logits_5", "reg_3", "centerness_4", "p3", "boxes", "masks", "count"]
    exact, found = (run(m, image(), names) for m in (models.exported(), int8))
    for name in names[:5]:
        assert sqnr(exact[name], found[name]) > 15, name
    assert found["masks"].shape == exact["masks"].shape
    assert np.isfinite(found["masks"]).all()


def lower(model: onnx.ModelProto) -> Any:
    """The model compiled for OpenVINO with static shapes."""
    ov = import_openvino()
    core = ov.Core()
    read = core.read_model(lower_for_openvino(model).SerializeToString())
    read.reshape({"image": [1, 3, 64, 64], "image_size": [1, 2]})
    return core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def kernels(compiled: Any) -> list[tuple[str, str, str]]:
    """Layer type, precision and name of everything that OpenVINO executes."""
    rows = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        kind, precision = (
            value if isinstance(value, str) else value.astype(str)
            for value in (info["layerType"], info["runtimePrecision"])
        )
        rows.append((kind, precision, op.get_friendly_name()))
    return rows


def test_openvino_runs_every_layer_in_8_bits(int8: onnx.ModelProto, plan: Plan) -> None:
    compiled = lower(int8)
    layers = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
    rows = [r for r in kernels(compiled) if r[0] in layers]
    floats = [n for _, precision, n in rows if precision not in ("i8", "u8")]
    # The gates of channel attention, the convolution inside spatial attention.
    allowed = [n for n in floats if "/ese/" in n or n.startswith("response")]
    rest = [n for n in floats if n not in allowed]
    assert len(rows) > 40
    assert len(allowed) == 5
    if plan.name == "openvino":
        assert rest == []
    request = compiled.create_infer_request()
    request.infer({**image(), "min_score": np.zeros(1, np.float32)})
    found = {n: request.get_tensor(n).data for n in ("boxes", "scores", "masks")}
    wanted = run(int8, image(), list(found))
    assert sqnr(wanted["scores"], found["scores"]) > 25


def test_a_range_is_needed_for_every_group(seen: Activations) -> None:
    plan = load_plan("tensorrt")
    lost = dict(seen.histograms)
    del lost["image"]
    with pytest.raises(QuantizationError, match="no range for the activation 'image'"):
        quantize_model(models.exported(), plan, ObservedScales(lost))


def test_fixed_ranges_are_taken_as_they_are(seen: Activations) -> None:
    plan, model = load_plan("tensorrt"), models.exported()
    observed = ObservedScales(seen.histograms, Observer.MSE)
    sites = sites_of(model, plan)
    groups = observed.ranges(sites)
    fixed = FixedScales({t: groups[sites.groups[t]] for t in sites.tensors}, "trained")
    a, b = (quantize_model(model, plan, scales) for scales in (observed, fixed))
    assert a.graph == b.graph
    record = int8_record(b)
    assert record is not None and record["ranges"] == "trained"


def test_max_int8_is_one_call() -> None:
    result = max_int8(models.exported(), models.pictures())
    assert sum(n.op_type == "QuantizeLinear" for n in result.graph.node) > 40
    record = int8_record(result)
    assert record is not None and record["plan"]["name"] == "tensorrt"


def test_a_model_with_many_classes_and_inverted_bottlenecks() -> None:
    model = models.exported(models.LITE0, 5)
    for name in ("tensorrt", "openvino"):
        result = max_int8(model, models.pictures(), name)
        names = ["p3", "logits_3", "masks"]
        exact, found = (run(m, image(), names) for m in (model, result))
        assert sqnr(exact["p3"], found["p3"]) > 10, name
        assert found["masks"].shape == exact["masks"].shape


# Rewriting


@pytest.mark.parametrize(("backbone", "classes"), [(models.VOVNET, 1), (models.LITE0, 5)])
def test_a_split_deconvolution_gives_the_same_masks(backbone: Any, classes: int) -> None:
    model = models.exported(backbone, classes)
    split = without_deconvolution(model)
    onnx.checker.check_model(split)
    ops = [n.op_type for n in split.graph.node]
    assert "ConvTranspose" not in ops and ops.count("DepthToSpace") == 1
    names = ["masks", "mask_scores"]
    exact, found = (run(m, image(), names) for m in (model, split))
    assert np.ptp(exact["masks"]) > 0.01
    for name in names:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-4, atol=1e-5)


def test_a_deconvolution_that_overlaps_is_left_alone() -> None:
    model = models.exported()
    node = next(n for n in model.graph.node if n.op_type == "ConvTranspose")
    for attribute in node.attribute:
        if attribute.name == "strides":
            attribute.ints[:] = [1, 1]
    assert any(n.op_type == "ConvTranspose" for n in without_deconvolution(model).graph.node)


# Bias correction and equalisation


@pytest.mark.parametrize("group", [1, 4])
def test_bias_correction_takes_the_mean_shift_back(group: int) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((8, 8 // group, 1, 1)) * 0.3).astype(np.float32)
    weight[:, 0] += 3  # so that the rest is rounded coarsely
    model = layer(weight, group=group)
    x = (rng.random((2, 8, 20, 20)) + np.arange(8).reshape(1, 8, 1, 1)).astype(np.float32)
    sites = place(model, load_plan("base"))
    seen = Activations({"x": Histogram("x")})
    seen.add("x", x)
    limit = {"x": float(np.abs(x).max())}

    def shift(start: onnx.ModelProto) -> float:
        exact, found = (
            run(model, {"x": x})["y"],
            run(insert_qdq(start, sites, limit), {"x": x})["y"],
        )
        return float(np.abs((found - exact).mean((0, 2, 3))).max())

    assert shift(correct_biases(model, sites, seen)) < 0.1 * shift(model)


def test_bias_correction_of_the_network_changes_only_biases(seen: Activations) -> None:
    model, plan = models.exported(), load_plan("openvino")
    scales = ObservedScales(seen.histograms)
    plain = quantize_model(model, plan, scales)
    corrected = quantize_model(model, plan, scales, Options(bias_correction=seen))
    a, b = (
        {t.name: t.SerializeToString() for t in m.graph.initializer} for m in (plain, corrected)
    )
    quantized = {n for n in a if n.endswith(("/quantized", "/scale", "/zero"))}
    assert all(a[n] == b[n] for n in quantized)
    new = set(b) - set(a)
    assert len(new) > 30 and all(n.endswith("/bias") for n in new)


def test_equalised_weights_give_the_same_results() -> None:
    model = models.exported()
    result = prepared(model, equalise=True)
    onnx.checker.check_model(result)
    changed = {t.name for t in result.graph.initializer} - {t.name for t in model.graph.initializer}
    assert len(changed) >= 8
    names = ["p3", "logits_3", "masks", "mask_scores"]
    exact, found = (run(m, image(), names) for m in (model, result))
    for name in names:
        np.testing.assert_allclose(found[name], exact[name], rtol=2e-3, atol=2e-3)


def test_equalisation_evens_out_a_bad_channel() -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    first[1] *= 1000
    second[:, 1] /= 1000
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"], "one", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "b"], ["y"], "two", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 4])],
        [helper.make_tensor_value_info("y", kind, ["N", 4])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = equalised(model)
    weights = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    rows, columns = np.abs(weights["one/weight"]).max(1), np.abs(weights["two/weight"]).max(0)
    np.testing.assert_allclose(rows, columns, rtol=1e-3)
    x = {"x": rng.standard_normal((3, 4)).astype(np.float32)}
    np.testing.assert_allclose(run(result, x)["y"], run(model, x)["y"], rtol=1e-4, atol=1e-4)


def test_relu6_is_not_equalised() -> None:
    model = models.exported(models.LITE0, 5)
    changed = {t.name for t in equalised(with_fp32_weights(model)).graph.initializer}
    assert not any("depthwise" in name and name.endswith("/weight") for name in changed)
