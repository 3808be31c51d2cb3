from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.errors import KernelError
from centermask_edge.kernels.cases import spatial_attention as cases
from centermask_edge.kernels.cases.spatial_attention import Case
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.spatial_attention import Params, spatial_attention
from centermask_edge.model.mask_heads import SpatialAttention

MUTATIONS: list[tuple[str, str, str]] = [
    # Mean and maximum exchanged.
    (
        "spatial_attention.cu",
        "weight_at(p, 9 + tap) * m.high[near]",
        "weight_at(p, 9 + tap) * m.sum[near]",
    ),
    # A missing barrier between loading the RoI and pooling it.
    ("spatial_attention.cu", "    x = tile;\n    __syncthreads();", "    x = tile;"),
    # ... between pooling and the gates, and between the gates and the product.
    (
        "spatial_attention.cu",
        "  __syncthreads();\n  open_gates(p, m, cells);",
        "  open_gates(p, m, cells);",
    ),
    (
        "spatial_attention.cu",
        "  __syncthreads();\n  multiply<T",
        "  multiply<T",
    ),
    # The border is padded with the next row instead of zeros.
    ("spatial_attention.cu", "|| x + dx >= p.width", "|| cell + dx >= cells"),
    # One lane too few in the reduction over channels.
    ("spatial_attention.cu", "gap > 0; gap /= 2", "gap > 1; gap /= 2"),
    # The maximum starts from zero: wrong where all channels are negative.
    ("spatial_attention.cu", "return {0.0f, -INFINITY};", "return {0.0f, 0.0f};"),
    # The next plane is never reached.
    ("spatial_attention.cu", "place -= p.pack) plane += step;", "place -= p.pack) plane += 0;"),
    # The mean over all channels but one.
    (
        "spatial_attention.cu",
        "m.sum[cell] = sum / float(p.channels);",
        "m.sum[cell] = sum / float(p.channels - 1);",
    ),
]

ALL = cases.cases()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_matches_the_reference(host: Library, case: Case) -> None:
    cases.check(host, case)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_order_of_threads_changes_the_result(host: Library, order: int) -> None:
    host.configure_host(order=order)
    try:
        for case in ALL[::4]:
            cases.check(host, case)
    finally:
        host.configure_host()


def test_a_roi_that_does_not_fit_is_read_twice(host: Library) -> None:
    # Turing has 64 KB: fp32 of 128 x 14 x 14 does not fit, fp16 does.
    host.configure_host(shared_bytes=64 * 1024)
    try:
        for case in ALL:
            cases.check(host, case)
    finally:
        host.configure_host()


def test_agrees_with_the_torch_module(host: Library) -> None:
    module = SpatialAttention()
    x = torch.randn(4, 128, 14, 14)
    found = spatial_attention(host, x.numpy(), module.conv.weight.detach().numpy())
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)


@settings(max_examples=30)
@given(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1, 4]),
    st.integers(0, 99),
)
def test_the_result_is_never_larger_than_x(
    host: Library, rois: int, channels: int, height: int, width: int, pack: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    channels *= pack
    x = random.normal(0, 3, (rois, channels, height, width)).astype(np.float32)
    weight = random.normal(0, 1, (1, 2, 3, 3)).astype(np.float32)
    y = spatial_attention(host, x, weight, pack=pack)
    assert (np.abs(y) <= np.abs(x)).all()
    assert (y * x >= 0).all()
    # One gate for all channels of a cell.
    largest = np.abs(x).argmax(1)[:, None]
    gate = np.take_along_axis(y, largest, 1) / np.take_along_axis(x, largest, 1)
    np.testing.assert_allclose(y, x * gate, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", 3, "element type"),
        ("weight_type", 2, "element type"),
        ("pack", 5, "packed"),
        ("pack", 0, "packed"),
        ("height", 0, "size"),
        ("rois", -1, "size"),
        ("width", 2000, "limit"),
        ("x", None, "null"),
        ("weight", None, "null"),
        ("y", None, "null"),
    ],
)
def test_wrong_fields_are_refused(
    host: Library, field: str, value: int | None, message: str
) -> None:
    address = np.zeros(64).ctypes.data
    params = Params(x=address, weight=address, y=address)
    for name in ("rois", "channels", "height", "width", "pack"):
        setattr(params, name, 1)
    setattr(params, field, value)
    with pytest.raises(KernelError, match=f"spatial_attention failed .*{message}"):
        host.call("spatial_attention", params)


def test_int8_needs_scales(host: Library) -> None:
    x, weight = np.zeros((1, 4, 2, 2), np.int8), np.zeros((1, 2, 3, 3), np.float32)
    for scales in ((0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0)):
        with pytest.raises(KernelError, match="finite"):
            spatial_attention(host, x, weight, scales=scales)
