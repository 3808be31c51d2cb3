from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases import roi_align as cases
from centermask_edge.kernels.cases.roi_align import Case
from centermask_edge.kernels.library import FLOAT16, Library
from centermask_edge.kernels.reference.roi_align import assign_level
from centermask_edge.kernels.roi_align import Params, pyramid_roi_align
from centermask_edge.model import roi as torch_route

MUTATIONS: list[tuple[str, str, str]] = [
    # Off by one in the level: P4 reads P3's features.
    ("roi_align.cu", "half ? 2 : quarter ? 1 : 0", "half ? 2 : quarter ? 0 : 0"),
    ("roi_align.cu", "area > __fmul_rn(picture, 0.5f)", "area >= __fmul_rn(picture, 0.5f)"),
    # The half-pixel shift dropped.
    ("roi_align.cu", "__fsub_rn(__fmul_rn(low, scale), 0.5f)", "__fmul_rn(low, scale)"),
    # A missing barrier: weights are read before others have written them.
    (
        "roi_align.cu",
        "fill_tables(roi, t, p.side);\n  __syncthreads();\n  if (cell",
        "fill_tables(roi, t, p.side);\n  if (cell",
    ),
    # Samples beyond the border count as the border.
    ("roi_align.cu", "where >= -1.0f && where <= float(axis.extent)", "true"),
    # The last row or column wraps to the next cell in memory.
    ("roi_align.cu", "tap.low + 1 < axis.extent ? tap.low + 1 : axis.extent - 1", "tap.low + 1"),
    # Average over one sample too many.
    ("roi_align.cu", "__fdiv_rn(1.0f, axis.samples)", "__fdiv_rn(1.0f, axis.samples + 1.0f)"),
    # Rows and columns exchanged.
    ("roi_align.cu", "wy[y] * wx[x]", "wy[x] * wx[y]"),
]

ALL = cases.cases()


@pytest.fixture
def orders(host: Library) -> Iterator[Callable[[int], None]]:
    yield host.configure_host
    host.configure_host()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_matches_the_reference(host: Library, case: Case) -> None:
    cases.check(host, case)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_order_of_threads_changes_the_result(
    host: Library, orders: Callable[[int], None], order: int
) -> None:
    orders(order)
    for case in ALL[::5]:
        cases.check(host, case)


@pytest.mark.parametrize("boxes", ["ordinary", "outside", "empty", "huge", "thin"])
def test_agrees_with_the_torch_route(host: Library, boxes: str) -> None:
    case = Case(boxes=boxes, rois=9, channels=5)
    random = np.random.default_rng(3)
    rois, features = cases.make_boxes(case, random), cases.make_features(case, random)
    size = np.array([case.size], np.float32)
    found = pyramid_roi_align(host, features, rois, size, rois_per_image=9)
    wanted = torch_route.pyramid_roi_align(
        [torch.from_numpy(f) for f in features], [torch.from_numpy(rois)], [case.size]
    )
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-5)


def test_every_level_is_read() -> None:
    case = Case()
    boxes = cases.make_boxes(case, np.random.default_rng(0))
    assert {assign_level(box, np.array(case.size, np.float32)) for box in boxes} == {0, 1, 2}


box = st.tuples(*[st.floats(-4000, 4000, width=32)] * 4)


@settings(max_examples=40)
@given(st.lists(box, min_size=1, max_size=4), st.integers(1, 30), st.sampled_from([1, 4]))
def test_a_constant_level_gives_at_most_the_constant(
    host: Library, boxes: list[tuple[float, ...]], side: int, pack: int
) -> None:
    features = [np.full((1, 4, 32 >> n, 40 >> n), 2.5, np.float32) for n in range(3)]
    rois = np.array(boxes, np.float32)
    size = np.array([[256, 320]], np.float32)
    found = pyramid_roi_align(
        host, features, rois, size, side=side, rois_per_image=len(rois), pack=pack
    )
    assert (found >= 0).all()
    assert (found <= 2.5 * (1 + 1e-5)).all()
    inside = (rois[:, :2] > 16).all(1) & (rois[:, 2:] < [300, 240]).all(1)
    for r in np.flatnonzero(inside & (rois[:, 2:] - rois[:, :2] > 0.01).all(1)):
        np.testing.assert_allclose(found[r], 2.5, rtol=1e-5)


def test_the_sum_over_a_box_is_linear_in_the_features(host: Library) -> None:
    case = Case(rois=5)
    random = np.random.default_rng(0)
    rois, first, second = (
        cases.make_boxes(case, random),
        cases.make_features(case, random),
        cases.make_features(case, random),
    )
    size = np.array([case.size], np.float32)
    both = [a + 2 * b for a, b in zip(first, second, strict=True)]
    one, two, sum_ = (
        pyramid_roi_align(host, f, rois, size, rois_per_image=5) for f in (first, second, both)
    )
    np.testing.assert_allclose(sum_, one + 2 * two, atol=2e-5)


FEATURES = [np.zeros((1, 8, 8 >> n, 8 >> n), np.float32) for n in range(3)]
ROIS, SIZE = np.zeros((2, 4), np.float32), np.array([[64, 64]], np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 33}, "limit"),
        ({"side": 0}, "size"),
        ({"rois_per_image": 1}, "size"),
        ({"rois_per_image": 0}, "size"),
    ],
)
def test_wrong_arguments_are_refused(host: Library, change: dict[str, int], message: str) -> None:
    with pytest.raises(KernelError, match=f"roi_align failed .*{message}"):
        pyramid_roi_align(host, FEATURES, ROIS, SIZE, **{"rois_per_image": 2, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", 7, "element type"),
        ("pack", 3, "packed"),
        ("pack", 12, "packed"),
        ("channels", 0, "size"),
        ("images", 0, "size"),
        ("rois", None, "null"),
        ("output", None, "null"),
        ("image_size", None, "null"),
    ],
)
def test_wrong_fields_are_refused(
    host: Library, field: str, value: int | None, message: str
) -> None:
    params = _plain(host)
    setattr(params, field, value)
    with pytest.raises(KernelError, match=message):
        host.call("roi_align", params)


def test_an_unaligned_packed_tensor_is_refused(host: Library) -> None:
    params = _plain(host)
    params.pack, params.output = 8, params.output + 4
    with pytest.raises(KernelError, match="aligned"):
        host.call("roi_align", params)


def test_int8_needs_scales(host: Library) -> None:
    features = [f.astype(np.int8) for f in FEATURES]
    for scales, output in (((1.0, 0.0, 1.0), 1.0), ((1.0, 1.0, 1.0), float("nan"))):
        with pytest.raises(KernelError, match="finite"):
            pyramid_roi_align(
                host,
                features,
                ROIS,
                SIZE,
                rois_per_image=2,
                feature_scales=scales,
                output_scale=output,
            )


def _plain(host: Library) -> Params:
    address = (np.zeros(4096).ctypes.data + 15) // 16 * 16
    params = Params(rois=address, image_size=address, output=address)
    for level in range(3):
        params.features[level] = address
        params.height[level] = params.width[level] = 1
    for name in ("images", "rois_count", "rois_per_image", "side", "pack"):
        setattr(params, name, 1)
    params.channels = 8
    return params


def test_half_precision_is_as_good_as_its_last_bit(host: Library) -> None:
    for case in (Case(FLOAT16), dataclasses.replace(Case(FLOAT16), pack=8)):
        cases.check(host, case)
