from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from centermask_edge.boxes import iou
from centermask_edge.config import DecodeConfig
from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases import decode_nms as cases
from centermask_edge.kernels.cases.decode_nms import SMALL, STRIDES, Case
from centermask_edge.kernels.decode_nms import Options, Params, decode_nms
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.reference.decode_nms import pinned_sigmoid
from centermask_edge.model.decode import detect
from centermask_edge.model.fcos import DensePredictions

MUTATIONS: list[tuple[str, str, str]] = [
    # The threshold let through.
    ("decode_nms.cu", "probability > p.score_threshold", "probability >= p.score_threshold"),
    # Of equal products the later cell first.
    ("decode_layout.h", "<< 32 | unsigned(index)", "<< 32 | ~unsigned(index)"),
    # Classes no longer told apart.
    ("decode_suppress.h", "alive && k.label[count] == label", "alive"),
    # Suppression at the threshold itself.
    ("decode_suppress.h", "__fdiv_rn(shared, both) > thr", "__fdiv_rn(shared, both) >= thr"),
    # Half a cell dropped from the centre.
    ("decode_select.h", "* stride + stride / 2);\n  const float y", "* stride);\n  const float y"),
    # One too few taken by the radix selection.
    ("decode_select.h", "s.histogram[digit] < left", "s.histogram[digit] <= left"),
    # Missing barriers: in the selection, in the sort, and between the rounds of NMS.
    (
        "decode_select.h",
        "      *s.prefix = prefix << 8 | digit;\n    }\n    __syncthreads();",
        "      *s.prefix = prefix << 8 | digit;\n    }",
    ),
    ("decode_select.h", "          keys[other] = a;\n        }\n      }\n      __syncthreads();",
     "          keys[other] = a;\n        }\n      }"),
    ("decode_suppress.h", "        alive = false;\n      }\n      __syncthreads();",
     "        alive = false;\n      }"),
    # The merge counts equal keys of another level twice.
    ("decode_suppress.h", "rank += low;", "rank += low > 0 ? low - 1 : 0;"),
]  # fmt: skip

ALL = cases.cases()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_matches_the_reference(host: Library, case: Case) -> None:
    cases.check(host, case)


@pytest.mark.parametrize("order", [1, 2])
def test_no_order_of_threads_changes_a_bit(host: Library, order: int) -> None:
    host.configure_host(order=order)
    try:
        for case in ALL:
            cases.check(host, case)
    finally:
        host.configure_host()


def test_the_sigmoid_is_within_three_ulp_and_rises() -> None:
    x = np.linspace(-86.9, 86.9, 400_001).astype(np.float32)
    true = 1 / (1 + np.exp(-x.astype(np.float64)))
    found = pinned_sigmoid(x)
    ulp = np.spacing(true.astype(np.float32)).astype(np.float64)
    assert (np.abs(found - true) <= 3 * ulp).all()
    assert (np.diff(found) >= 0).all()
    edges = np.array([-np.inf, -90, 90, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(pinned_sigmoid(edges), np.array([0, 0, 1, 1, np.nan], np.float32))


def dense(inputs: tuple[list[Any], list[Any], list[Any]]) -> DensePredictions:
    logits, reg, centerness = ([torch.from_numpy(a) for a in maps] for maps in inputs)
    return DensePredictions(logits, reg, centerness)


@pytest.mark.parametrize("name", ["plain", "persons", "coco", "above topk", "everything"])
def test_agrees_with_the_torch_route(host: Library, name: str) -> None:
    case = next(c for c in ALL if c.name == name)
    inputs = cases.make_inputs(case)
    options = case.options
    config = DecodeConfig(
        score_threshold=options.score_threshold,
        nms_threshold=options.nms_threshold,
        pre_nms_topk=options.pre_nms_topk,
        max_detections=options.max_detections,
    )
    found = decode_nms(host, *inputs, STRIDES, options)
    for image, want in enumerate(detect(dense(inputs), config)):
        count = int(found.count[image])
        assert count == len(want.scores)
        np.testing.assert_array_equal(found.classes[image, :count], want.classes.numpy())
        np.testing.assert_allclose(found.scores[image, :count], want.scores.numpy(), atol=1e-6)
        np.testing.assert_allclose(found.boxes[image, :count], want.boxes.numpy(), atol=1e-4)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="no ONNX Runtime",
)
@pytest.mark.parametrize("name", ["plain", "coco", "odd"])
def test_agrees_with_the_onnx_function(host: Library, tmp_path: Path, name: str) -> None:
    case = next(c for c in ALL if c.name == name)
    inputs = cases.make_inputs(case)
    want = run_function(case.options, inputs, tmp_path / "decode.onnx")
    found = decode_nms(host, *inputs, STRIDES, case.options)
    np.testing.assert_array_equal(found.count, want[3])
    np.testing.assert_array_equal(found.classes, want[2])
    np.testing.assert_allclose(found.scores, want[1], atol=1e-6)
    np.testing.assert_allclose(found.boxes, want[0], atol=1e-4)


def run_function(
    options: Options, inputs: tuple[list[Any], list[Any], list[Any]], path: Path
) -> list[NDArray[Any]]:
    """What ONNX Runtime makes of the CMDecodeNMS function alone."""
    import onnxruntime
    from onnx import TensorProto, helper, save

    from centermask_edge.graph.functions import DOMAIN, OPSET, dense_names, functions

    names = [n for kind in ("logits", "reg", "centerness") for n in dense_names(kind)]
    arrays = [a for maps in inputs for a in maps]
    outputs = ["boxes", "scores", "classes", "count"]
    attributes = {name: getattr(options, name) for name in Options.__slots__}
    node = helper.make_node("CMDecodeNMS", names, outputs, domain=DOMAIN, **attributes)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64)
    graph = helper.make_graph(
        [node],
        "decode",
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
            for n, a in zip(names, arrays, strict=True)
        ],
        [helper.make_tensor_value_info(n, k, None) for n, k in zip(outputs, kinds, strict=True)],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    save(helper.make_model(graph, opset_imports=opsets, functions=functions(), ir_version=8), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: list[NDArray[Any]] = session.run(outputs, dict(zip(names, arrays, strict=True)))
    return answer


@settings(max_examples=30)
@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.floats(0, 0.99),
    st.floats(0, 1, width=32),
    st.integers(1, 50),
    st.integers(1, 30),
)
def test_what_is_kept_is_sorted_and_does_not_overlap(
    host: Library, seed: int, classes: int, score: float, nms: float, topk: int, kept: int
) -> None:
    random = np.random.default_rng(seed)
    logits, reg, centerness = (
        [random.normal(m, 2, (1, c, h, w)).astype(np.float32) for h, w in SMALL]
        for m, c in ((0, classes), (2, 4), (0, 1))
    )
    options = Options(score, nms, topk, kept)
    found = decode_nms(host, logits, [np.abs(r) for r in reg], centerness, STRIDES, options)
    count = int(found.count[0])
    assert count <= kept
    assert (np.diff(found.scores[0, :count]) <= 0).all()
    assert (found.scores[0, :count] ** 2 <= 1).all()
    assert len(set(found.indices[0, :count].tolist())) == count
    overlap = iou(found.boxes[0, :count], found.boxes[0, :count])
    same = found.classes[0, :count, None] == found.classes[0, None, :count]
    assert not (np.triu(overlap * same, 1) > np.float32(nms)).any()
    assert not found.boxes[0, count:].any() and not found.scores[0, count:].any()
    assert (found.indices[0, count:] == -1).all()


INPUTS = cases.make_inputs(Case("plain"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(pre_nms_topk=2049), "limit"),
        (Options(max_detections=1001), "limit"),
        (Options(pre_nms_topk=0), "size"),
        (Options(score_threshold=1.0), "range"),
        (Options(score_threshold=float("nan")), "range"),
        (Options(nms_threshold=1.5), "range"),
        (Options(nms_threshold=-0.1), "range"),
    ],
)
def test_options_out_of_range_are_refused(host: Library, options: Options, message: str) -> None:
    with pytest.raises(KernelError, match=f"decode_nms failed .*{message}"):
        decode_nms(host, *INPUTS, STRIDES, options)


def plain(host: Library) -> tuple[Params, NDArray[np.uint8]]:
    """Parameters that the kernel would accept, all in one piece of memory."""
    memory = np.zeros(1 << 16, np.uint8)
    address = (memory.ctypes.data + 15) // 16 * 16
    params = Params(levels=1, images=1, classes=1, index_bytes=8, pre_nms_topk=1, max_detections=1)
    params.logits[0] = params.reg[0] = params.centerness[0] = address
    params.height[0] = params.width[0] = params.stride[0] = 8
    for name in ("boxes", "scores", "classes_out", "count", "workspace"):
        setattr(params, name, address)
    params.workspace_bytes = 1 << 15
    return params, memory


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", 2, "element type"),
        ("index_bytes", 2, "element type"),
        ("levels", 6, "limit"),
        ("levels", 0, "size"),
        ("images", 0, "size"),
        ("images", 70000, "limit"),
        ("classes", 0, "size"),
        ("classes", 1 << 30, "limit"),
        ("boxes", None, "null"),
        ("scores", None, "null"),
        ("classes_out", None, "null"),
        ("count", None, "null"),
        ("workspace", None, "null"),
        ("workspace_bytes", 15, "workspace"),
    ],
)
def test_wrong_fields_are_refused(
    host: Library, field: str, value: int | None, message: str
) -> None:
    params, _ = plain(host)
    setattr(params, field, value)
    with pytest.raises(KernelError, match=message):
        host.call("decode_nms", params)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("height", 0, "size"), ("stride", 0, "size"), ("width", 1 << 22, "limit")],
)
def test_wrong_levels_are_refused(host: Library, field: str, value: int, message: str) -> None:
    params, _ = plain(host)
    getattr(params, field)[0] = value
    with pytest.raises(KernelError, match=message):
        host.call("decode_nms", params)


@pytest.mark.parametrize("name", ["logits", "reg", "centerness"])
def test_a_missing_level_is_refused(host: Library, name: str) -> None:
    params, _ = plain(host)
    getattr(params, name)[0] = None
    with pytest.raises(KernelError, match="null"):
        host.call("decode_nms", params)


def test_an_unaligned_workspace_is_refused(host: Library) -> None:
    params, _ = plain(host)
    params.workspace += 4
    with pytest.raises(KernelError, match="aligned"):
        host.call("decode_nms", params)


def test_the_indices_are_optional(host: Library) -> None:
    params, _ = plain(host)
    host.call("decode_nms", params)
