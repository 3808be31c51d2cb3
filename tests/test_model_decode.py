"""Decoding against its rules in exact arithmetic: threshold, top-k, NMS, the best K."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from centermask_edge.boxes import nms
from centermask_edge.config import PRESETS, DecodeConfig
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.decode import candidates, detect
from centermask_edge.model.fcos import STRIDES, DensePredictions, level_locations
from centermask_edge.model.predict import run, segment

pytestmark = pytest.mark.usefixtures("one_thread")

Box = tuple[int, int, int, int]


# --- NMS --------------------------------------------------------------------------------------


def overlap(a: Box, b: Box) -> Fraction:
    """IoU of two boxes on whole pixels, exactly; 0 where both are empty."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(w, 0) * max(h, 0)
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - inner
    return Fraction(inner, union) if union else Fraction(0)


def plain_nms(
    boxes: list[Box], scores: list[float], classes: list[int], threshold: Fraction, limit: int
) -> list[int]:
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if all(classes[k] != classes[i] or overlap(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept[:limit]


def call(
    boxes: list[Box], scores: list[float], classes: list[int], threshold: float, limit: int = 100
) -> list[int]:
    found = nms(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        threshold,
        limit,
    )
    assert found.dtype == np.int64
    return [int(i) for i in found]


side = st.integers(0, 6)
box = st.tuples(side, side, side, side).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
row = st.tuples(box, st.sampled_from([0.125, 0.25, 0.5, 0.75]), st.integers(0, 2))


@settings(max_examples=200)
@given(
    st.lists(row, max_size=14),
    st.sampled_from([Fraction(3, 5), Fraction(1, 2), Fraction(3, 10), Fraction(1)]),
    st.integers(1, 15),
)
def test_equal_to_plain_nms(
    rows: list[tuple[Box, float, int]], threshold: Fraction, limit: int
) -> None:
    """On so coarse a grid, ties of scores and overlaps of exactly the threshold are common."""
    boxes, scores, classes = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    wanted = plain_nms(boxes, scores, classes, threshold, limit)
    assert call(boxes, scores, classes, float(threshold), limit) == wanted


def test_equal_scores_keep_their_order() -> None:
    apart: list[Box] = [(20 * i, 0, 20 * i + 10, 10) for i in range(5)]
    assert call(apart, [0.5, 0.9, 0.5, 0.9, 0.5], [0] * 5, 0.6) == [1, 3, 0, 2, 4]
    assert call([(0, 0, 9, 9)] * 3, [0.5] * 3, [0] * 3, 0.6) == [0]
    assert call([(0, 0, 9, 9)] * 3, [0.5] * 3, [0, 1, 0], 0.6) == [0, 1]


def test_an_overlap_of_exactly_the_threshold_is_spared() -> None:
    assert call([(0, 0, 5, 1), (0, 0, 3, 1)], [0.9, 0.8], [0, 0], 0.6) == [0, 1]
    assert call([(0, 0, 5, 1), (0, 0, 3, 1)], [0.9, 0.8], [0, 0], 0.59) == [0]


def test_a_box_that_went_takes_none_with_it() -> None:
    chain: list[Box] = [(0, 0, 10, 1), (2, 0, 12, 1), (4, 0, 14, 1)]  # neighbours overlap by 2/3
    assert call(chain, [0.9, 0.8, 0.7], [0] * 3, 0.6) == [0, 2]


def test_nothing_in_nothing_out() -> None:
    assert call([], [], [], 0.6) == []


# --- candidates -------------------------------------------------------------------------------


def dense(seed: int, batch: int = 1, classes: int = 3, size: int = 64) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    sides = [(-(-size // s), -(-(size + 32) // s)) for s in STRIDES]
    return DensePredictions(
        [torch.randn(batch, classes, h, w, generator=generator) - 1 for h, w in sides],
        [torch.rand(batch, 4, h, w, generator=generator) * 4 for h, w in sides],
        [torch.randn(batch, 1, h, w, generator=generator) for h, w in sides],
    )


def plain_candidates(
    predictions: DensePredictions, image: int, config: DecodeConfig
) -> list[tuple[list[float], float, int]]:
    found = []
    for logits, reg, centerness, stride in zip(
        predictions.logits, predictions.reg, predictions.centerness, STRIDES, strict=True
    ):
        level = []
        for cls, y, x in np.ndindex(*logits[image].shape):
            p = 1 / (1 + np.exp(-float(logits[image, cls, y, x])))
            if p <= config.score_threshold:
                continue
            q = p / (1 + np.exp(-float(centerness[image, 0, y, x])))
            cx, cy = x * stride + stride // 2, y * stride + stride // 2
            left, top, right, bottom = (float(v) * stride for v in reg[image, :, y, x])
            box = [cx - left, cy - top, cx + right, cy + bottom]
            level.append((box, float(np.sqrt(q)), int(cls)))
        level.sort(key=lambda c: -c[1])
        found += level[: config.pre_nms_topk]
    return found


@pytest.mark.parametrize("topk", [7, 1000])
@pytest.mark.parametrize("threshold", [0.05, 0.4])
def test_candidates(topk: int, threshold: float) -> None:
    config = DecodeConfig(score_threshold=threshold, pre_nms_topk=topk)
    predictions = dense(3, batch=2)
    for image in range(2):
        wanted = plain_candidates(predictions, image, config)
        found = candidates(predictions, image, config)
        assert len(found.scores) == len(wanted) > 20
        wanted.sort(key=lambda c: -c[1])
        order = torch.argsort(found.scores, descending=True)
        np.testing.assert_allclose(found.scores[order], [c[1] for c in wanted], rtol=1e-5)
        np.testing.assert_allclose(found.boxes[order], [c[0] for c in wanted], rtol=1e-4, atol=1e-3)
        assert found.classes[order].tolist() == [c[2] for c in wanted]
    assert float(found.boxes.min()) < 0  # they are not clipped


def test_the_threshold_is_on_the_class_alone() -> None:
    predictions = dense(0, classes=1)
    for level in (*predictions.logits, *predictions.centerness):
        level.fill_(-20.0)
    predictions.logits[0][0, 0, 2, 3] = 2.0  # p = 0.88 with a centre-ness of 2e-9
    predictions.logits[1][0, 0, 1, 1] = float(np.log(0.05 / 0.95)) - 1e-3
    found = candidates(predictions, 0, DecodeConfig())
    assert len(found.scores) == 1 and float(found.scores[0]) < 1e-4


def test_locations_are_the_middles_of_the_cells() -> None:
    found = level_locations(2, 3, 16, torch.device("cpu"))
    assert found.tolist() == [[8, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]]


# --- the whole --------------------------------------------------------------------------------


def test_the_best_k_of_every_picture() -> None:
    config = DecodeConfig(max_detections=12)
    predictions = dense(5, batch=3)
    everything = detect(predictions, config.model_copy(update={"max_detections": 1000}))
    for image, (few, many) in enumerate(zip(detect(predictions, config), everything, strict=True)):
        assert len(few.scores) == 12 < len(many.scores)
        assert torch.equal(few.boxes, many.boxes[:12])
        assert torch.equal(few.classes, many.classes[:12])
        assert bool((many.scores.diff() <= 0).all())
        alone = DensePredictions(
            *([level[image : image + 1] for level in part] for part in (
                predictions.logits, predictions.reg, predictions.centerness,
            ))
        )  # fmt: skip
        assert torch.equal(detect(alone, config)[0].boxes, few.boxes)


def test_a_blank_picture_goes_through_the_whole_network() -> None:
    """New weights find nothing; one picture of a batch may, too."""
    torch.manual_seed(0)
    config = PRESETS["person-efficientnet-lite0"]
    model = CenterMask(config).eval()
    images = np.zeros((2, 3, 64, 96), np.float32)
    raw = run(model, images, np.array([[64, 90], [60, 96]], np.float32))
    assert raw.count.tolist() == [0, 0] and raw.boxes.shape == (2, 50, 4)
    assert raw.masks.shape == (2, 50, 28, 28) and not raw.masks.any() and not raw.scores.any()
    assert len(segment(model, np.zeros((40, 60, 3), np.uint8))) == 0
    found = model(torch.zeros(2, 3, 64, 96), [(64, 90), (60, 96)])
    assert [f.masks.shape for f in found] == [(0, 28, 28)] * 2
