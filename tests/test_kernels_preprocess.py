from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.config import PRESETS, preset
from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases import preprocess as cases
from centermask_edge.kernels.cases.preprocess import Case
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.preprocess import BT601, NV12, Params, Plan, make_params, preprocess
from centermask_edge.kernels.reference.preprocess import nv12_to_bgr, resize
from centermask_edge.preprocess import Preprocess, resized_size
from centermask_edge.preprocess import resize as training_resize

MUTATIONS: list[tuple[str, str, str]] = [
    # The half pixel dropped, when the weights are made.
    ("preprocess.cu", "const double centre = (x + 0.5) * scale", "const double centre = x * scale"),
    # No antialiasing.
    ("preprocess.cu", "support = scale > 1 ? scale : 1;\n  std::mem", "support = 1;\n  std::mem"),
    # A missing barrier between the passes.
    ("preprocess.cu", "last, shared);\n  __syncthreads();", "last, shared);"),
    # Blue and red exchanged.
    ("preprocess.cu", "p.rgb_output ? 2 - c : c", "p.rgb_output ? c : c"),
    # Cut instead of rounded.
    ("preprocess.cu", "int sum = 1 << (kPrecision - 1);", "int sum = 0;"),
    # The padding keeps what the picture's last column is.
    ("preprocess.cu", "x < p.resized_width && y <", "x <= p.resized_width && y <"),
    # U and V exchanged.
    ("preprocess.cu", "(y + job.yuv[5] * u) >> 16", "(y + job.yuv[5] * v) >> 16"),
    # The chroma plane read with the luma plane's pitch, and with its stride.
    ("preprocess.cu", "row / 2 * p.chroma_pitch", "row / 2 * p.source_pitch"),
    ("preprocess.cu", "image * p.chroma_stride", "image * p.source_stride"),
    # Pictures taken for adjacent.
    ("preprocess.cu", "image * p.source_stride", "image * p.source_height * p.source_pitch"),
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


side = st.integers(1, 120)


@settings(max_examples=60)
@given(side, side, side, side, st.integers(0, 999))
def test_the_resize_is_within_one_level_of_the_training_resize(
    host: Library, height: int, width: int, to_height: int, to_width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    want = training_resize(image, (to_height, to_width))
    plan = Plan((to_height, to_width), (to_height, to_width), mean=(0.0, 0.0, 0.0))
    found = preprocess(host, image[None], plan)[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, resize(image, (to_height, to_width)))
    assert np.abs(found - want.astype(np.float32)).max() <= 1
    # Nothing is left but the order of the passes: on one axis there is none.
    for one in ((height, to_width), (to_height, width)):
        np.testing.assert_array_equal(resize(image, one), training_resize(image, one))


@pytest.mark.parametrize("size", [(120, 160), (108, 192), (192, 108)])
def test_camera_sizes_equal_the_training_resize(host: Library, size: tuple[int, int]) -> None:
    # A fourth of 480 x 640 and a tenth of 1080 x 1920, to the fourth and tenth of 600 and 1000.
    scale = 4 if size[0] == 120 else 10
    to = resized_size(*size, 600 // scale, 1000 // scale)
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = preprocess(host, image[None], Plan(to, to, mean=(0.0, 0.0, 0.0)))[0]
    np.testing.assert_array_equal(found.transpose(1, 2, 0), training_resize(image, to))


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("size", [(120, 213), (97, 61)])
def test_equals_what_training_and_every_engine_use(
    host: Library, name: str, size: tuple[int, int]
) -> None:
    config = preset(name).preprocess.model_copy(update={"short_side": 64, "long_side": 100})
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    want, placement = Preprocess(config)(image)
    plan = Plan(
        placement.resized_size,
        placement.padded_size,
        config.mean,
        config.std,
        config.channel_order == "rgb",
    )
    found = preprocess(host, image[None], plan)[0]
    level = 1 / min(config.std)
    np.testing.assert_allclose(found, want, atol=level * 1.0001)
    assert (found == want).mean() > 0.9


def test_nv12_is_within_one_level_of_opencv() -> None:
    cv2: Any = pytest.importorskip("cv2")
    # Beyond the nominal range, too: cameras give such bytes.
    y, u, v = np.meshgrid(np.arange(256), np.arange(0, 256, 15), np.arange(0, 256, 15))
    luma = y.reshape(-1, 1).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    pairs = np.stack((u.ravel(), v.ravel()), axis=1).astype(np.uint8)
    frame = np.concatenate((luma, pairs))
    found = nv12_to_bgr(frame, BT601, False).astype(int)
    assert np.abs(found - cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12)).max() <= 1


def test_grey_nv12_is_grey() -> None:
    for full, white in ((False, 235), (True, 255)):
        frame = np.full((3, 2), white, np.uint8)
        frame[2] = 128
        for matrix in (0, 1):
            assert (nv12_to_bgr(frame, matrix, full) == 255).all()


PLAN = Plan((30, 40), (32, 64))


@pytest.mark.parametrize(
    ("size", "plan", "message"),
    [
        ((48, 64), replace(PLAN, padded=(16, 64)), "size"),
        ((48, 63), replace(PLAN, source_format=NV12), "size"),
        ((600, 8), replace(PLAN, resized=(2, 8), padded=(32, 32)), "limit"),
        ((48, 64), replace(PLAN, std=(1.0, 0.0, 1.0)), "range"),
        ((48, 64), replace(PLAN, mean=(float("nan"), 0.0, 0.0)), "range"),
        ((48, 64), replace(PLAN, source_format=3), "element type"),
    ],
)
def test_wrong_arguments_are_refused(
    host: Library, size: tuple[int, int], plan: Plan, message: str
) -> None:
    rows = size[0] * 3 // 2 if plan.source_format == NV12 else size[0]
    shape = (1, rows, size[1]) if plan.source_format == NV12 else (1, rows, size[1], 3)
    with pytest.raises(KernelError, match=message):
        preprocess(host, np.zeros(shape, np.uint8), plan)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", 2, "element type"),
        ("matrix", 2, "element type"),
        ("images", 0, "size"),
        ("source_pitch", 100, "size"),
        ("source_width", 1 << 16, "limit"),
        ("source", None, "null"),
        ("tables", None, "null"),
        ("output", None, "null"),
    ],
)
def test_wrong_fields_are_refused(
    host: Library, field: str, value: int | None, message: str
) -> None:
    params: Params = make_params(PLAN, 1, 48, 64)
    params.source = params.tables = params.output = 4096
    params.source_pitch = 3 * 64
    setattr(params, field, value)
    with pytest.raises(KernelError, match=message):
        host.call("preprocess", params)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("source_height", 47, "size"),
        ("source_width", 63, "size"),
        ("source_pitch", 63, "size"),
        ("chroma_pitch", 63, "size"),
        ("chroma", None, "null"),
    ],
)
def test_wrong_fields_of_nv12_are_refused(
    host: Library, field: str, value: int | None, message: str
) -> None:
    params: Params = make_params(replace(PLAN, source_format=NV12), 1, 48, 64)
    params.source = params.chroma = params.tables = params.output = 4096
    params.source_pitch = params.chroma_pitch = 64
    setattr(params, field, value)
    with pytest.raises(KernelError, match=message):
        host.call("preprocess", params)
