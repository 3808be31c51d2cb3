"""The rules of the first release, each against a plain statement of it in numpy.

No outputs of that release are at hand, so these statements are all that the rules are held to.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from centermask_edge.config import PRESETS, DecodeConfig, with_original_rules
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fcos import STRIDES, DensePredictions, FCOSHead
from centermask_edge.model.original import detect_original
from centermask_edge.model.roi import levels_by, roi_align
from centermask_edge.switches import RoiAssignment, RoiRules, Rules

pytestmark = pytest.mark.usefixtures("one_thread")
Box = list[float]
ORIGINAL = RoiRules(original=True)


@torch.no_grad()
def test_distances_are_exponential_and_in_pixels() -> None:
    torch.manual_seed(0)
    head = FCOSHead(32, 1, 2, exponential=True)
    pyramid = [torch.randn(1, 32, n, n) for n in (8, 6, 4, 3, 2)]
    for level, scale in enumerate((0.5, 1.0, 1.5, 2.0, 2.5)):
        head.scales[level].fill_(scale)
    found = head(pyramid)
    for level, (feature, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
        raw = head.box_pred(head.box_tower(feature)).numpy()
        pixels = np.exp(raw * (0.5 + 0.5 * level))
        np.testing.assert_allclose(found.reg[level].numpy() * stride, pixels, rtol=1e-6)


# --- decoding ---------------------------------------------------------------------------------


def dense(seed: int) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    sides = [(-(-64 // s), -(-96 // s)) for s in STRIDES]
    return DensePredictions(
        [torch.randn(2, 3, h, w, generator=generator) - 2 for h, w in sides],
        [torch.rand(2, 4, h, w, generator=generator) * 4 for h, w in sides],
        [torch.randn(2, 1, h, w, generator=generator) for h, w in sides],
    )


def overlap(a: Box, b: Box) -> float:
    """IoU in whole pixels: a box from 3 to 5 is 3 wide."""
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    inner = max(w, 0.0) * max(h, 0.0)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return inner / (sum(areas) - inner)


def plain_detect(
    maps: DensePredictions, image: int, size: tuple[int, int], threshold: float, keep: int
) -> list[tuple[float, Box, int]]:
    found = []
    for logits, reg, centerness, s in zip(
        maps.logits, maps.reg, maps.centerness, STRIDES, strict=True
    ):
        for cls, y, x in np.ndindex(*logits[image].shape):
            p = 1 / (1 + math.exp(-float(logits[image, cls, y, x])))
            if p <= threshold:
                continue
            left, top, right, bottom = (float(v) * s for v in reg[image, :, y, x])
            cx, cy = x * s + s // 2, y * s + s // 2
            box = [cx - left, cy - top, cx + right, cy + bottom]
            limits = (size[1] - 1, size[0] - 1) * 2
            box = [min(max(v, 0.0), limit) for v, limit in zip(box, limits, strict=True)]
            score = p / (1 + math.exp(-float(centerness[image, 0, y, x])))
            found.append((score, box, cls))
    kept: list[tuple[float, Box, int]] = []
    for row in sorted(found, key=lambda r: -r[0]):
        if all(k[2] != row[2] or overlap(k[1], row[1]) <= 0.6 for k in kept):
            kept.append(row)
    return kept[:keep]


def test_decoding() -> None:
    maps, sizes = dense(3), [(60, 90), (64, 96)]
    config = DecodeConfig(score_threshold=0.2, max_detections=30)
    for image, found in enumerate(detect_original(maps, config, sizes)):
        wanted = plain_detect(maps, image, sizes[image], 0.2, 30)
        assert len(wanted) == 30
        np.testing.assert_allclose(found.scores, [w[0] for w in wanted], rtol=1e-5)
        np.testing.assert_allclose(found.boxes, [w[1] for w in wanted], atol=1e-3)
        assert found.classes.tolist() == [w[2] for w in wanted]
        height, width = sizes[image]
        assert float(found.boxes.min()) == 0
        assert float(found.boxes[:, 2].max()) == width - 1
        assert float(found.boxes[:, 3].max()) == height - 1


def test_overlaps_count_whole_pixels() -> None:
    """Plain areas overlap by 0.5, areas in whole pixels by 8 / 13."""
    maps = DensePredictions(
        [torch.full((1, 1, 1, n), -20.0) for n in (2, 1, 1, 1, 1)],
        [torch.zeros(1, 4, 1, n) for n in (2, 1, 1, 1, 1)],
        [torch.full((1, 1, 1, n), 20.0) for n in (2, 1, 1, 1, 1)],
    )
    maps.logits[0][0, 0, 0] = torch.tensor([3.0, 2.0])
    # From x 0 to 9 and from 3 to 12, one row high.
    maps.reg[0][0, :, 0, 0] = torch.tensor([4.0, 0.0, 5.0, 0.0]) / 8
    maps.reg[0][0, :, 0, 1] = torch.tensor([9.0, 0.0, 0.0, 0.0]) / 8
    (found,) = detect_original(maps, DecodeConfig(nms_threshold=0.53), [(32, 64)])
    assert found.boxes.tolist() == [[0, 4, 9, 4]]
    (found,) = detect_original(maps, DecodeConfig(nms_threshold=0.55), [(32, 64)])
    assert found.boxes.tolist() == [[0, 4, 9, 4], [3, 4, 12, 4]]


# --- RoIs -------------------------------------------------------------------------------------


def test_levels_count_whole_pixels() -> None:
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 200, (500, 2)), rng.uniform(0, 400, (500, 2))
    boxes = np.concatenate((corner, corner + size), 1).astype(np.float32)
    areas = np.full(500, 300.0 * 400.0, np.float32)
    pixels = (boxes[:, 2] - boxes[:, 0] + 1.0) * (boxes[:, 3] - boxes[:, 1] + 1.0)
    wanted = np.ceil(5 - np.log2(areas / pixels + 1e-6)).clip(3, 5)
    found = levels_by(ORIGINAL, torch.from_numpy(boxes), torch.from_numpy(areas)).numpy()
    np.testing.assert_array_equal(found, wanted)
    assert set(wanted) == {3, 4, 5}
    # A box of 199 x 149 pixels by its corners is 200 x 150: half of 200 x 300.
    box, area = torch.tensor([[0.0, 0, 199.01, 149.01]]), torch.tensor([60000.0])
    assert levels_by(ORIGINAL, box, area).tolist() == [5]
    assert levels_by(RoiRules(), box, area).tolist() == [4]


def plain_roi_align(
    feature: NDArray[np.float64], box: Box, scale: float, side: int
) -> NDArray[np.float64]:
    """No shift, two samples a bin and axis, at least one cell wide and high."""
    channels, height, width = feature.shape
    x0, y0 = box[0] * scale, box[1] * scale
    bin_w = max(box[2] * scale - x0, 1.0) / side
    bin_h = max(box[3] * scale - y0, 1.0) / side
    out = np.zeros((channels, side, side))
    for i, j, a, b in np.ndindex(side, side, 2, 2):
        y, x = y0 + (i + (a + 0.5) / 2) * bin_h, x0 + (j + (b + 0.5) / 2) * bin_w
        if not (-1 <= y <= height and -1 <= x <= width):
            continue
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        low_y, low_x = int(y), int(x)
        for cy, cx in (
            (low_y, low_x),
            (low_y, low_x + 1),
            (low_y + 1, low_x),
            (low_y + 1, low_x + 1),
        ):
            share = (1 - abs(y - cy)) * (1 - abs(x - cx)) / 4
            if share > 0:
                out[:, i, j] += share * feature[:, cy, cx]
    return out


@pytest.mark.parametrize(
    "box",
    [
        [3.3, 5.1, 70.2, 64.9],
        [0, 0, 95, 71],
        [10, 10, 10, 10],
        [40.5, 20, 41, 60],
        [90, 60, 95, 71],
    ],
)
def test_features_of_a_roi(box: Box) -> None:
    feature = np.random.default_rng(1).standard_normal((3, 9, 12))
    wanted = plain_roi_align(feature, box, 1 / 8, 14)
    found = roi_align(
        torch.from_numpy(feature).float(), torch.tensor([box]), 1 / 8, 14, original=True
    )
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-5)
    plain = roi_align(torch.from_numpy(feature).float(), torch.tensor([box]), 1 / 8, 14)
    assert not np.allclose(plain[0].numpy(), wanted, atol=1e-2)


def test_the_preset_has_its_numbers() -> None:
    config = with_original_rules(PRESETS["x101"])
    assert config.rules is Rules.ORIGINAL
    assert config.roi_rules == RoiRules(3, 5, RoiAssignment.ADAPTIVE, original=True)
    assert config.decode == DecodeConfig(score_threshold=0.03)
    pixels = config.preprocess
    assert (pixels.mean, pixels.std) == ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    assert (pixels.short_side, pixels.long_side) == (800, 1333)


@torch.no_grad()
def test_the_network_puts_its_rules_together() -> None:
    """Boxes clipped and scored its way, RoIs pooled its way, and mask scores from both."""
    torch.manual_seed(0)
    base = PRESETS["lite-v19-slim-dw"].model_copy(
        update={"fpn_channels": 32, "classes": ("a", "b"), "mask_iou_fc": 8}
    )
    model = CenterMask(with_original_rules(base)).eval()
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.3)
    images, sizes = torch.randn(1, 3, 160, 192), [(150, 190)]
    (found,) = model(images, sizes)
    pyramid, maps = model.dense(images)
    (boxes,) = detect_original(maps, model.config.decode, sizes)
    assert len(boxes.scores) > 5 and torch.equal(found.scores, boxes.scores)
    area = torch.full((len(boxes.boxes),), 150.0 * 190.0)
    for k, level in enumerate(levels_by(ORIGINAL, boxes.boxes, area).tolist()):
        feature = pyramid[level - 3][0].double().numpy()
        pooled = plain_roi_align(feature, boxes.boxes[k].tolist(), 1 / 2**level, 14)
        roi = torch.from_numpy(pooled).float()[None]
        probability, iou = model.masks(roi, boxes.classes[k : k + 1])
        torch.testing.assert_close(found.masks[k : k + 1], probability, atol=1e-4, rtol=1e-4)
        wanted = boxes.scores[k] * iou[0]
        torch.testing.assert_close(found.mask_scores[k], wanted, atol=1e-4, rtol=1e-3)
