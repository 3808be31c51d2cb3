from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from centermask_edge.errors import KernelError
from centermask_edge.kernels.arrays import Arena
from centermask_edge.kernels.cases import mask_overlay as cases
from centermask_edge.kernels.cases.mask_overlay import Case, Floats
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.mask_overlay import MAX_INSTANCES, Params, mask_overlay
from centermask_edge.live.outputs import draw
from centermask_edge.masks import paste_full

MUTATIONS: list[tuple[str, str, str]] = [
    # Drawn from the first to the last: the worst ends on top.
    ("mask_overlay.cu", "for (int i = boxes; i > 0; --i)", "for (int i = 1; i <= boxes; ++i)"),
    # A missing barrier: the list is read before it is written.
    ("mask_overlay.cu", "list_boxes(p, left, top, list);\n  __syncthreads();",
     "list_boxes(p, left, top, list);"),
    # The half pixel dropped.
    ("mask_overlay.cu", "float(pixel) + 0.5f", "float(pixel)"),
    # Above one half instead of at least.
    ("mask_overlay.cu", "value >= 0.5f", "value > 0.5f"),
    # Cut instead of rounded.
    ("mask_overlay.cu", "value[c] = __float2int_rn(__fadd_rn(old, ink))",
     "value[c] = int(__fadd_rn(old, ink))"),
    # A box that starts in the tile's last column is missed.
    ("mask_overlay.cu", "box[0] < float(left + kColumns)", "box[0] < float(left + kColumns - 1)"),
    # Everything drawn, whatever count says.
    ("mask_overlay.cu", "drawn = drawn < p.instances ? drawn : p.instances",
     "drawn = p.instances"),
]  # fmt: skip

ALL = cases.cases()


@pytest.mark.parametrize("case", ALL, ids=str)
def test_matches_the_reference(host: Library, case: Case) -> None:
    cases.check(host, case)


@pytest.mark.parametrize("order", [1, 2])
def test_no_order_of_threads_changes_a_pixel(host: Library, order: int) -> None:
    host.configure_host(order=order)
    try:
        for case in ALL:
            cases.check(host, case)
    finally:
        host.configure_host()


def probability(mask: Floats, box: Floats, side: int) -> NDArray[np.float64]:
    """The bilinear sample at every pixel of a square frame, in double precision."""
    weights = []
    for low, high in (box[1::2].astype(np.float64), box[0::2].astype(np.float64)):
        cells = (np.arange(side) + 0.5 - low) / (high - low) * len(mask) - 0.5
        weights.append(np.maximum(1 - np.abs(cells[:, None] - np.arange(len(mask))), 0))
    return np.asarray(weights[0] @ mask @ weights[1].T)


coordinate = st.floats(0, 60, width=32)


@settings(max_examples=40)
@example(0.0, 0.0, 1.0, 1e-45, 0)
@given(coordinate, coordinate, coordinate, coordinate, st.integers(0, 99))
def test_a_mask_is_where_the_sinks_paste_it(
    host: Library, x0: float, y0: float, x1: float, y1: float, seed: int
) -> None:
    box = np.array([[min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]], np.float32)
    assume(box[0, 2] > box[0, 0] and box[0, 3] > box[0, 1])
    random = np.random.default_rng(seed)
    mask = random.uniform(0, 1, (1, 28, 28)).astype(np.float32)
    if seed % 2:
        mask = cases.make_masks(Case(instances=1), random)
    want = paste_full(mask[0], box[0], 60, 60)
    ink = np.full((1, 3), 255, np.uint8)
    frame = np.zeros((60, 60, 3), np.uint8)
    drawn, area = mask_overlay(host, frame, mask, box, ink, opacity=1.0)
    # Nearer to one half the order of the additions decides.
    sure = np.abs(probability(mask[0], box[0], 60) - 0.5) >= 1e-4
    assert sure.mean() > 0.98
    np.testing.assert_array_equal((drawn[..., 0] == 255)[sure], want[sure])
    assert area[0] == (drawn[..., 0] == 255).sum()


def test_what_is_under_no_mask_stays(host: Library) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.ones((1, 28, 28), np.float32)
    box = np.array([[10, 10, 30, 20]], np.float32)
    drawn, _ = mask_overlay(host, frame, mask, box, np.zeros((1, 3), np.uint8), outline=3)
    outside = np.ones((40, 60), np.bool_)
    outside[10:20, 10:30] = False
    np.testing.assert_array_equal(drawn[outside], frame[outside])
    assert (drawn[~outside] != frame[~outside]).any()


def test_the_first_is_on_top(host: Library) -> None:
    frame = np.zeros((20, 20, 3), np.uint8)
    masks, boxes = (
        np.ones((2, 28, 28), np.float32),
        np.tile(np.array([0, 0, 20, 20], np.float32), (2, 1)),
    )
    colors = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    drawn, area = mask_overlay(host, frame, masks, boxes, colors, opacity=1.0)
    assert drawn[10, 10].tolist() == [255, 0, 0]
    assert area[0] == area[1] > 300


def test_colours_blend_as_the_drawing_does(host: Library) -> None:
    # Row r is under one mask of grey r; column x has value x: every pair there is.
    values = np.arange(256)
    frame = np.broadcast_to(values[None, :, None], (256, 256, 3)).astype(np.uint8)
    boxes = np.stack((0 * values, values, 0 * values + 256, values + 1), 1).astype(np.float32)
    colors = np.repeat(values[:, None], 3, axis=1).astype(np.uint8)
    masks, opacity = np.ones((256, 28, 28), np.float32), draw._OPACITY
    found, area = mask_overlay(host, frame, masks, boxes, colors, opacity=opacity)
    assert (area == 256).all()
    want = np.concatenate([draw._tint((int(c), int(c), int(c))) for c in values])
    assert np.abs(found.astype(int) - want).max() <= 1
    # Half way between two levels the last bit decides: that of 0.45 differs in double and float.
    exact = values[None] * (1 - opacity) + values[:, None] * opacity
    tie = np.abs(exact % 1 - 0.5) < 1e-4
    np.testing.assert_array_equal(found[~tie], want[~tie])


def test_as_many_instances_as_the_kernel_takes(host: Library) -> None:
    frame = np.zeros((8, 32, 3), np.uint8)
    masks = np.ones((MAX_INSTANCES, 2, 2), np.float32)
    boxes = np.tile(np.array([0, 0, 32, 8], np.float32), (MAX_INSTANCES, 1))
    colors = np.random.default_rng(0).integers(1, 256, (MAX_INSTANCES, 3), dtype=np.uint8)
    drawn, area = mask_overlay(host, frame, masks, boxes, colors, opacity=1.0)
    assert area[0] > 0
    assert (area == area[0]).all()
    assert (drawn == colors[0]).all(axis=2).sum() == area[0]


def test_areas_need_not_be_wanted(host: Library) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    masks, colors = np.ones((1, 28, 28), np.float32), np.full((1, 3), 9, np.uint8)
    boxes = np.array([[3, 2, 37, 15]], np.float32)
    want, _ = mask_overlay(host, frame, masks, boxes, colors)
    with Arena(host) as arena:
        params = Params(frame=arena.put(frame), masks=arena.put(masks), boxes=arena.put(boxes))
        params.colors, params.opacity = arena.put(colors), 0.45
        params.pitch, params.height, params.width = 120, 20, 40
        params.instances, params.side = 1, 28
        host.call("mask_overlay", params)
        np.testing.assert_array_equal(arena.get(params.frame, frame.shape, np.uint8), want)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("height", 0, "size"),
        ("side", 0, "size"),
        ("instances", -1, "size"),
        ("instances", 1025, "limit"),
        ("outline", -1, "size"),
        ("outline", 5000, "limit"),
        ("pitch", 2, "size"),
        ("opacity", 1.5, "range"),
        ("opacity", float("nan"), "range"),
        ("frame", None, "null"),
        ("masks", None, "null"),
        ("boxes", None, "null"),
        ("colors", None, "null"),
    ],
)
def test_wrong_fields_are_refused(
    host: Library, field: str, value: float | None, message: str
) -> None:
    params = Params(frame=4096, masks=4096, boxes=4096, colors=4096, pitch=3, opacity=0.5)
    for name in ("height", "width", "instances", "side"):
        setattr(params, name, 1)
    setattr(params, field, value)
    with pytest.raises(KernelError, match=f"mask_overlay failed .*{message}"):
        host.call("mask_overlay", params)


def test_a_count_has_four_or_eight_bytes(host: Library) -> None:
    params = Params(frame=4096, masks=4096, boxes=4096, colors=4096, pitch=3, count=4096)
    for name in ("height", "width", "instances", "side"):
        setattr(params, name, 1)
    with pytest.raises(KernelError, match="element type"):
        host.call("mask_overlay", params)
