"""Verification: a sound engine passes, and of a broken one the broken layer is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fake_cuda
import fake_tensorrt
import numpy as np
import onnx
import pytest
from fake_cuda import Driver
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.base import Detections
from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.build import Options, build_engine, layers_path
from centermask_edge.engines.tensorrt.compare import (
    Compared,
    compare_detections,
    compare_tensor,
    limit_for,
    pair,
)
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.engines.tensorrt.layers import from_json
from centermask_edge.engines.tensorrt.manifest import Precision, Range, Shapes
from centermask_edge.engines.tensorrt.taps import (
    Tap,
    depth_of,
    find_taps,
    first_divergence,
    float_types,
    rows_of,
    tapped,
)
from centermask_edge.engines.tensorrt.verify import Sample, load_reference, samples, verify
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import METADATA_KEY, parse_metadata
from centermask_edge.graph.precision import to_fp16, with_plain_weights
from centermask_edge.preprocess import Preprocess
from centermask_edge.resources import shipped_model

Change = Callable[[onnx.ModelProto], onnx.ModelProto]


@pytest.fixture(scope="module")
def person() -> onnx.ModelProto:
    """The shipped model with room for eight objects, so that its masks cost little."""
    model = with_plain_weights(load_reference(shipped_model()))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "max_detections":
                attribute.i = 8
            if attribute.name == "value_ints" and node.name.startswith("glue/"):
                kept = [8 if i == 50 else i for i in attribute.ints]
                attribute.ints[:] = kept[:8] if len(kept) == 50 else kept
    for value in model.graph.output:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value == 50:
                size.dim_value = 8
    return model


@pytest.fixture(scope="module")
def people() -> list[Sample]:
    """Two frames of the bundled clip with somebody in them, small."""
    av = pytest.importorskip("av")
    clip = Path(shipped_model()).parents[1] / "_clips" / "people.mp4"
    with av.open(str(clip)) as container:
        frames = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
    return samples(
        (frames[40], frames[80]), Preprocess(PreprocessConfig(short_side=96, long_side=192))
    )


class Bench:
    """Fake engines of models, each with its fault."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.api = fake_tensorrt.api(driver)
        self.folder = folder
        self.built = 0

    def open(self, model: onnx.ModelProto, change: Change) -> TensorRtEngine:
        self.built += 1
        path = self.folder / f"{self.built}.engine"
        fake_tensorrt.save_engine(change(model), path)
        text = next(p.value for p in model.metadata_props if p.key == METADATA_KEY)
        metadata = parse_metadata(text, path)
        return TensorRtEngine(self.api, path, path.read_bytes(), metadata)


@pytest.fixture()
def bench(tmp_path: Path) -> Iterator[Bench]:
    with fake_cuda.installed(Driver()) as driver:
        yield Bench(driver, tmp_path)
        assert driver.live == {}


def unchanged(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found,) = (node for node in model.graph.node if node.name == name)
    assert isinstance(found, onnx.NodeProto)
    return found


def broken(name: str) -> Change:
    """The model with one convolution's weights negated."""

    def change(model: onnx.ModelProto) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(model)
        weight = node_of(result, name).input[1]
        tensor = next(t for t in result.graph.initializer if t.name == weight)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(-array, weight))
        return result

    return change


def judge(
    bench: Bench,
    model: onnx.ModelProto,
    people: list[Sample],
    change: Change,
    layers: bool = False,
    score: float = 0.4,
) -> tuple[bool, str]:
    """Whether the engine agrees, and the node that is named."""
    with bench.open(model, change) as engine:
        verdict = verify(
            model,
            engine,
            Precision.FP16,
            people,
            lambda marked, shape: bench.open(marked, change),
            layers=layers,
            score=score,
        )
    assert verdict.pictures == len(people)
    if verdict.first is not None:
        assert next(c.name for c in verdict.layers if not c.agrees) == verdict.first.name
    return verdict.agrees, verdict.first.node if verdict.first else ""


def test_an_engine_in_fp16_agrees(
    bench: Bench, person: onnx.ModelProto, people: list[Sample]
) -> None:
    assert judge(bench, person, people, to_fp16) == (True, "")
    assert bench.built == 1, "no layer is looked at where the outputs agree"


def test_all_layers_of_an_engine_in_fp16_agree(
    bench: Bench, person: onnx.ModelProto, people: list[Sample]
) -> None:
    assert judge(bench, person, people[:1], to_fp16, layers=True) == (True, "")
    assert bench.built > 2


@pytest.mark.parametrize("name", ["dense/head/box_pred_1/Conv", "mask/mask_head/convs.1/Conv"])
def test_the_broken_layer_is_named(
    name: str, bench: Bench, person: onnx.ModelProto, people: list[Sample]
) -> None:
    # Of a level on which nothing was found, the outputs show nothing.
    layers = name == "dense/head/box_pred_1/Conv"
    assert judge(bench, person, people[:1], broken(name), layers=layers) == (False, name)
    assert bench.built <= 6, "a few builds, not one a layer"


def test_where_nothing_is_found_the_layers_decide(
    bench: Bench, person: onnx.ModelProto, people: list[Sample]
) -> None:
    assert judge(bench, person, people[:1], unchanged, score=1.0) == (True, "")
    assert bench.built > 2


def test_nan_is_a_difference() -> None:
    wanted = np.ones((2, 3), np.float32)
    found = wanted.copy()
    found[1, 2] = np.nan
    row = compare_tensor("x", found, wanted, 0.1)
    assert not row.agrees and row.at == (1, 2) and row.wanted == 1
    assert math.isnan(row.found)
    assert row.worse(Compared("x", 0.01, 0.1)) is row
    assert Compared("x", 0.01, 0.1).worse(row) is row


def test_the_place_of_the_largest_difference() -> None:
    wanted = np.zeros((4, 5), np.float32)
    wanted[:] = 2
    found = wanted.copy()
    found[3, 1] = 5
    row = compare_tensor("x", found, wanted, 0.5)
    assert (row.at, row.found, row.wanted) == ((3, 1), 5, 2)
    assert row.error == pytest.approx(3 / math.sqrt(20) / 2)
    assert not compare_tensor("x", found[:3], wanted, 0.5).agrees
    assert compare_tensor("x", found[:0], wanted[:0], 0.5).agrees


def detections(scores: list[float], shift: float = 0.0, extra: float = 0.0) -> Detections:
    k = 6
    scores = [*scores, *([extra] if extra else [])]
    n = len(scores)
    boxes = np.zeros((1, k, 4), np.float32)
    for i in range(n):
        boxes[0, i] = [40 * i + shift, 10, 40 * i + 30, 50]
    row = np.zeros((1, k), np.float32)
    row[0, :n] = scores
    masks = np.full((1, k, 28, 28), 0.5, np.float32)
    count = np.array([n], np.int64)
    return Detections(boxes, row, row.copy(), np.zeros((1, k), np.int64), masks, count)


def test_detections_are_compared_object_by_object() -> None:
    wanted = detections([0.9, 0.7, 0.5])
    order = [1, 0, 2, 3, 4, 5]
    turned = {n: getattr(wanted, n)[:, order] for n in Detections.__slots__ if n != "count"}
    swapped = replace(wanted, **turned)
    assert all(row.agrees for row in compare_detections(swapped, wanted, 0.01, 0.4))
    moved = {
        r.name: r for r in compare_detections(detections([0.9, 0.7, 0.5], 2), wanted, 0.01, 0.4)
    }
    assert not moved["boxes"].agrees and moved["scores"].agrees
    missing = {r.name: r for r in compare_detections(detections([0.9, 0.7]), wanted, 0.01, 0.4)}
    assert missing["count"].error == 1 and not missing["count"].agrees
    extra = {
        r.name: r
        for r in compare_detections(detections([0.9, 0.7, 0.5], extra=0.45), wanted, 0.01, 0.4)
    }
    assert extra["count"].error == 1


def test_a_detection_at_the_threshold_may_be_on_either_side() -> None:
    wanted, found = detections([0.9, 0.401]), detections([0.9, 0.399])
    assert pair(found, wanted, 0, 0.4, 0.01).lone == 0
    assert pair(wanted, found, 0, 0.4, 0.01).lone == 0
    assert pair(detections([0.9, 0.3]), wanted, 0, 0.4, 0.01).lone == 1


def chain(count: int) -> list[Tap]:
    return [
        Tap(f"t{i}", f"n{i}", "Conv", before=frozenset(f"t{k}" for k in range(i)))
        for i in range(count)
    ]


@given(st.integers(1, 200), st.data(), st.integers(3, 20))
def test_the_search_finds_the_first_that_diverges(
    count: int, data: st.DataObject, width: int
) -> None:
    bad = data.draw(st.integers(0, count))
    rounds = 0

    def measure(chosen: list[Tap]) -> dict[str, Compared]:
        nonlocal rounds
        rounds += 1
        assert len(chosen) <= width
        return {t.name: Compared(t.name, float(int(t.name[1:]) >= bad), 0.5) for t in chosen}

    first, seen = first_divergence(chain(count), measure, width)
    assert (first.name if first else None) == (f"t{bad}" if bad < count else None)
    assert first is None or not seen[first.name].agrees
    assert rounds <= 2 + math.ceil(math.log(count, width))


@given(st.data())
def test_the_search_in_any_graph_ends_at_a_node_whose_inputs_agree(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    parents = [
        data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)
    ]
    culprit = data.draw(st.integers(0, count - 1))
    before: list[set[int]] = []
    for own in parents:
        before.append(own.union(*(before[p] for p in own)) if own else set())
    taps = [
        Tap(f"t{i}", f"n{i}", "Conv", before=frozenset(f"t{k}" for k in before[i]))
        for i in range(count)
    ]
    wrong = {f"t{i}" for i in range(count) if i == culprit or culprit in before[i]}

    def measure(chosen: list[Tap]) -> dict[str, Compared]:
        return {t.name: Compared(t.name, float(t.name in wrong), 0.5) for t in chosen}

    first, _ = first_divergence(taps, measure, 4)
    assert first is not None and first.name == f"t{culprit}"


def test_taps_of_the_shipped_model(person: onnx.ModelProto) -> None:
    taps = find_taps(person)
    names = [tap.node for tap in taps]
    assert names[0].startswith("dense/") and len(taps) > 150
    by_name = {tap.name: tap for tap in taps}
    assert by_name["roi_features"].per_object
    assert not by_name["p3"].per_object
    assert not {tap.op for tap in taps} & {"Cast", "Reshape", "Shape", "CMDecodeNMS"}
    assert 20 < depth_of(person) < 96


def test_a_model_with_marked_layers_builds_in_the_real_thing(
    person: onnx.ModelProto, tmp_path: Path
) -> None:
    """Ahead of time, in fp16: every marked tensor is an output of the engine."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    taps = find_taps(person)
    types = float_types(person, taps)
    chosen = [tap for tap in taps if tap.name in types][::20]
    path = tmp_path / "marked.onnx"
    path.write_bytes(tapped(person, chosen, types).SerializeToString())
    batch, height, width = (Range(min=n, opt=n, max=n) for n in (1, 96, 192))
    shapes = Shapes(batch=batch, height=height, width=width)
    options = Options(Precision.FP16, shapes, targets=(86,), flavor=Flavor.RTX)
    built = build_engine(path, tmp_path, options)
    outputs = {t.name for layer in from_json(layers_path(built.engine).read_text())
               for t in layer.outputs}  # fmt: skip
    assert {tap.output for tap in chosen} <= outputs


def test_limits_follow_precision_and_depth() -> None:
    shallow, deep = limit_for(Precision.FP16, 1), limit_for(Precision.FP16, 100)
    assert deep == pytest.approx(10 * shallow)
    assert limit_for(Precision.INT8, 49) > 3 * limit_for(Precision.FP16, 49)
    assert limit_for(Precision.INT8, 49) < 0.3, "a wrong layer is an error of about 1"


def test_rows_of_tensors_of_objects() -> None:
    rows = np.array([2, 0])
    flat = np.arange(12 * 3).reshape(12, 3)
    np.testing.assert_array_equal(rows_of(flat, rows, 6, 1), flat[[8, 6]])
    square = flat.reshape(2, 6, 3)
    np.testing.assert_array_equal(rows_of(square, rows, 6, 1), square[1][[2, 0]])
    assert rows_of(np.zeros((7, 3)), rows, 6) is None


def test_a_reference_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is not there: .*gone\.onnx.*centermask-edge build"):
        load_reference(tmp_path / "gone.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff\xff not protobuf")
    with pytest.raises(ModelFileError, match="not a valid ONNX file"):
        load_reference(damaged)
