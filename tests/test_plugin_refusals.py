"""What a plugin cannot do, it refuses: one message with what was found and what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_driver import (
    CHW4,
    CHW32,
    HWC8,
    INT32,
    INT64,
    LINEAR,
    Attributes,
    Outcome,
    Tensor,
    drive,
    tensor,
)

from centermask_edge.kernels.build import build
from centermask_edge.kernels.library import FLOAT16, FLOAT32, INT8
from centermask_edge.kernels.plugin import plugin_recipe
from centermask_edge.kernels.toolchain import find_host_compiler

pytestmark = pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler")

BOOL = 4
DECODE: Attributes = {
    "score_threshold": np.float32(0.05),
    "nms_threshold": np.float32(0.6),
    "pre_nms_topk": np.int32(100),
    "max_detections": np.int32(10),
}
SIDES = (16, 8, 4, 2, 1)


@pytest.fixture(scope="module")
def library(cache: Path) -> Path:
    return build(plugin_recipe(host=True))


def decode_inputs(kind: int = FLOAT32) -> list[Tensor]:
    return [tensor((1, c, s, s), kind) for c in (3, 4, 1) for s in SIDES]


def decode(library: Path, attributes: Attributes, inputs: list[Tensor]) -> Outcome:
    outputs = [
        tensor((1, 10, 4)),
        tensor((1, 10)),
        tensor((1, 10), INT64),
        tensor((1,), INT64),
    ]
    return drive(library, "CMDecodeNMS", attributes, inputs, outputs)


def align(
    library: Path,
    attributes: Attributes | None = None,
    *,
    kind: int = FLOAT32,
    layout: int = LINEAR,
    **changed: Tensor,
) -> Outcome:
    inputs = {f"p{n}": tensor((1, 32, 32 >> n, 32 >> n), kind, layout) for n in (3, 4, 5)}
    inputs |= {"rois": tensor((5, 4)), "roi_image": tensor((5,), INT64)}
    inputs |= {"image_size": tensor((1, 2))}
    output = changed.pop("output", tensor((5, 32, 7, 7), kind, layout))
    found = {"output_size": np.int32(7)} if attributes is None else attributes
    return drive(library, "CMPyramidRoIAlign", found, list((inputs | changed).values()), [output])


def attend(
    library: Path, attributes: Attributes, x: Tensor, y: Tensor | None = None, **weight: Any
) -> Outcome:
    third = weight.get("weight", tensor((1, 2, 3, 3)))
    return drive(library, "CMSpatialAttention", attributes, [x, third], [y or x])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_threshold": None}, "attribute score_threshold is missing"),
        ({"score_threshold": np.float32(1.0)}, "attribute score_threshold is 1; at least 0"),
        ({"nms_threshold": np.float32(np.nan)}, "attribute nms_threshold is "),
        ({"nms_threshold": np.float32(-0.5)}, r"attribute nms_threshold is -0.5; at least 0"),
        ({"pre_nms_topk": np.int32(2049)}, "is 2049; at least 1, at most 2048 is wanted"),
        ({"max_detections": np.int64(1001)}, "is 1001; at least 1, at most 1000 is wanted"),
        ({"max_detections": np.int64(2**40)}, "attribute max_detections is 1.09951e"),
        ({"max_detections": np.int32(0)}, "is 0; at least 1"),
        ({"max_detections": np.float32(10)}, "has field type 1; an integer is wanted"),
        ({"max_detections": np.array([1, 2], np.int32)}, "has 2 values; 1 wanted"),
        ({"max_detections": np.array([], np.int32)}, "has 0 values; 1 wanted"),
        ({"topk": np.int32(5)}, "unknown attribute topk"),
    ],
)
def test_attributes(library: Path, change: Attributes, message: str) -> None:
    attributes = {k: v for k, v in (DECODE | change).items() if v is not None}
    outcome = decode(library, attributes, decode_inputs())
    assert outcome.step == "create"
    assert outcome.heard.startswith("centermask: CMDecodeNMS 'node': ")
    assert message in outcome.heard
    assert outcome.heard.count("\n") == 1


def test_what_the_parser_needs_is_no_unknown_attribute(library: Path) -> None:
    given = {"plugin_version": np.zeros(2, np.uint8), "plugin_namespace": np.zeros(2, np.uint8)}
    assert decode(library, DECODE | given, decode_inputs()).step != "create"


@pytest.mark.parametrize(
    ("index", "wrong", "step", "message"),
    [
        (0, tensor((1, 3, 16, 16), INT8), "types", "logits_3 is int8; float32 or float16"),
        (7, tensor((1, 4, 4, 4), FLOAT16), "types", "reg_5 is float16; float32 is wanted"),
        (14, tensor((1, 1, 1, 1), BOOL), "types", "centerness_7 is bool; float32 is wanted"),
        (1, tensor((1, 3, 8)), "shapes", "logits_4 is [?,3,8]; 4 dimensions"),
        (2, tensor((1, 2, 4, 4)), "shapes", "logits_5 is [?,2,4,4]; 3 is wanted at dimension 1"),
        (5, tensor((1, 3, 16, 16)), "shapes", "reg_3 is [?,3,16,16]; 4 is wanted at dimension 1"),
        (6, tensor((1, 4, 8, 9)), "shapes", "reg_4 is [?,4,8,9]; 8 is wanted at dimension 3"),
        (10, tensor((2, 1, 16, 16)), "shape_change", "centerness_3 is [2,1,16,16]; 1 is wanted at"),
        (1, tensor((1, 3, 8, 8), layout=CHW4), "formats", ""),
    ],
)
def test_decode_inputs(library: Path, index: int, wrong: Tensor, step: str, message: str) -> None:
    inputs = decode_inputs()
    inputs[index] = wrong
    outcome = decode(library, DECODE, inputs)
    assert outcome.step == step, outcome
    assert message in outcome.heard


def test_more_anchors_than_the_kernel_counts(library: Path) -> None:
    inputs = [tensor((1, c, s, s)) for c in (90, 4, 1) for s in (9000, 4500, 2250, 1125, 563)]
    outcome = decode(library, DECODE, inputs)
    assert outcome.step == "configure"
    assert "logits_3 of [1,90,9000,9000] and its levels are more than the kernel" in outcome.heard


@pytest.mark.parametrize(
    ("change", "step", "message"),
    [
        ({"p3": tensor((1, 32, 4, 4), INT64)}, "types", "p3 is int64; float32, float16 or int8"),
        ({"p4": tensor((1, 32, 2, 2), FLOAT16)}, "types", "p4 is float16; float32 is wanted"),
        ({"rois": tensor((5, 4), FLOAT16)}, "types", "rois is float16; float32 is wanted"),
        ({"roi_image": tensor((5,))}, "types", "roi_image is float32; int64 or int32 is wanted"),
        ({"image_size": tensor((1, 2), INT64)}, "types", "image_size is int64; float32"),
        ({"p5": tensor((1, 31, 1, 1))}, "shapes", "p5 is [?,31,1,1]; 32 is wanted at dimension 1"),
        ({"rois": tensor((5, 5))}, "shapes", "rois is [?,5]; 4 is wanted at dimension 1"),
        ({"rois": tensor((5, 4, 1))}, "shapes", "rois is [?,4,1]; 2 dimensions are wanted"),
        ({"roi_image": tensor((6,), INT32)}, "shape_change", "roi_image is [6]; 5 is wanted"),
        ({"image_size": tensor((2, 2))}, "shape_change", "image_size is [2,2]; 1 is wanted"),
        ({"output": tensor((5, 32, 7, 7), layout=CHW32)}, "formats", ""),
    ],
)
def test_align_inputs(library: Path, change: dict[str, Any], step: str, message: str) -> None:
    outcome = align(library, **change)
    assert outcome.step == step, outcome
    assert message in outcome.heard


def test_align_attributes(library: Path) -> None:
    assert "output_size is missing" in align(library, {}).heard
    assert (
        "output_size is 33; at least 1, at most 32"
        in align(library, {"output_size": np.int32(33)}).heard
    )
    two = {"output_size": np.int32(7), "feature_scales": np.ones(2, np.float32)}
    assert "feature_scales has 2 values; 3 wanted" in align(library, two).heard


@pytest.mark.parametrize("layout", [LINEAR, CHW4, CHW32])
def test_int8_needs_its_scales(library: Path, layout: int) -> None:
    side = {"output_size": np.int32(7)}
    scales = {"feature_scales": np.array([0.1, 0.2, 0.3], np.float32)}
    outcome = align(library, side, kind=INT8, layout=layout)
    assert outcome.step == "configure"
    assert "int8 input p3 has no scale; give attribute feature_scales" in outcome.heard
    outcome = align(library, side | scales, kind=INT8, layout=layout)
    assert "int8 output has no scale; give attribute output_scale" in outcome.heard
    whole = side | scales | {"output_scale": np.float32(0.1)}
    assert align(library, whole, kind=INT8, layout=layout).step == "enqueue"  # no memory here
    zero = whole | {"output_scale": np.float32(0)}
    assert "output_scale is 0; above 0" in align(library, zero, kind=INT8).heard
    infinite = whole | {"output_scale": np.float32(np.inf)}
    assert "output_scale is inf; above 0" in align(library, infinite, kind=INT8).heard


def test_scales_of_tensors_count_where_attributes_are_missing(library: Path) -> None:
    def x(scale: float) -> Tensor:
        return tensor((2, 8, 4, 4), INT8, LINEAR, scale=scale)

    for scale in (0.0, -1.0, np.nan, np.inf, 1.0):
        outcome = attend(library, {}, x(scale))
        assert outcome.step == "configure"
        assert "int8 input x has no scale; give attribute x_scale" in outcome.heard
    assert attend(library, {}, x(0.5)).step == "enqueue"
    outcome = attend(library, {"x_scale": np.float32(0.5)}, x(1.0))
    assert "int8 output has no scale; give attribute y_scale" in outcome.heard
    both = {"x_scale": np.float32(1.0), "y_scale": np.float32(1.0)}
    assert attend(library, both, x(1.0)).step == "enqueue"


@pytest.mark.parametrize(
    ("x", "weight", "step", "message"),
    [
        (tensor((2, 8, 4, 4), INT64), None, "types", "x is int64; float32, float16 or int8"),
        (tensor((2, 8, 4)), None, "shapes", "x is [?,8,4]; 4 dimensions are wanted"),
        (tensor((2, 8, 40, 40)), None, "shapes", "x is [?,8,40,40]; at most 1024 cells"),
        (tensor((2, 8, 4, 4)), tensor((1, 2, 3, 3), INT8), "types", "weight is int8; float32 or"),
        (tensor((2, 8, 4, 4)), tensor((1, 1, 3, 3)), "shapes", "weight is [?,1,3,3]; 2 is wanted"),
        (tensor((2, 8, 4, 4)), tensor((2, 2, 3, 3)), "shape_change", "weight is [2,2,3,3]; 1 is"),
        (tensor((2, 8, 4, 4), layout=CHW4), None, "formats", ""),
        (tensor((2, 12, 4, 4), FLOAT16, HWC8), None, "formats", ""),  # 12 channels fill no HWC8
        (tensor((2, 16, 4, 4), INT8, CHW32), None, "formats", ""),
    ],
)
def test_attention_inputs(
    library: Path, x: Tensor, weight: Tensor | None, step: str, message: str
) -> None:
    outcome = attend(library, {}, x, weight=weight or tensor((1, 2, 3, 3)))
    assert outcome.step == step, outcome
    assert message in outcome.heard


def test_x_and_y_have_one_layout(library: Path) -> None:
    x, y = (tensor((2, 32, 4, 4), INT8, layout) for layout in (LINEAR, CHW32))
    scales = {"x_scale": np.float32(0.5), "y_scale": np.float32(0.5)}
    assert attend(library, scales, x, y).step == "formats"
    assert attend(library, scales, y, x).step == "formats"


def test_the_kernel_s_own_refusal_is_told(library: Path) -> None:
    outcome = attend(library, {}, tensor((2, 8, 4, 4)))
    assert outcome.step == "enqueue"
    assert "the kernel answers -4: a required pointer is null" in outcome.heard


@pytest.mark.parametrize("constant", [True, False])
def test_sizes_may_be_known_or_not(library: Path, constant: bool) -> None:
    x = tensor((2, 8, 4, 4))
    outcome = drive(
        library, "CMSpatialAttention", {}, [x, tensor((1, 2, 3, 3))], [x], constant_sizes=constant
    )
    assert outcome.step == "enqueue"


def test_known_sizes_are_compared_early(library: Path) -> None:
    x, weight = tensor((2, 8, 4, 4)), tensor((2, 2, 3, 3))
    for constant, step in ((True, "shapes"), (False, "shape_change")):
        outcome = drive(
            library, "CMSpatialAttention", {}, [x, weight], [x], constant_sizes=constant
        )
        assert outcome.step == step


@pytest.mark.parametrize("versioned", [True, False])
def test_both_shapes_of_a_logger_are_spoken_to(library: Path, versioned: bool) -> None:
    x = tensor((2, 8, 4, 4), INT64)
    inputs = [x, tensor((1, 2, 3, 3))]
    outcome = drive(library, "CMSpatialAttention", {}, inputs, [x], versioned_logger=versioned)
    assert "x is int64" in outcome.heard


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (2, 2)])
def test_a_wrong_number_of_tensors(library: Path, counts: tuple[int, int]) -> None:
    x = tensor((2, 8, 4, 4))
    outcome = drive(library, "CMSpatialAttention", {}, [x] * counts[0], [x] * counts[1])
    assert outcome.step in {"interface", "types"}


def test_an_unknown_plugin_is_not_found(library: Path) -> None:
    assert drive(library, "CMNothing", {}, [], []).step == "find"
