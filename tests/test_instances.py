from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from centermask_edge.engines.base import Detections
from centermask_edge.instances import Instances
from centermask_edge.masks import decode_rle
from centermask_edge.preprocess import Placement

GOLDEN = Path(__file__).parent / "golden" / "instances.npz"


def detections(boxes: list[list[float]], count: int | None = None) -> Detections:
    """One picture's detections with falling scores, full masks, and room for two more."""
    n, k = len(boxes), len(boxes) + 2
    raw = Detections(
        boxes=np.zeros((1, k, 4), np.float32),
        scores=np.zeros((1, k), np.float32),
        mask_scores=np.zeros((1, k), np.float32),
        classes=np.zeros((1, k), np.int64),
        masks=np.zeros((1, k, 28, 28), np.float32),
        count=np.array([n if count is None else count]),
    )
    if n:
        raw.boxes[0, :n] = boxes
    raw.scores[0, :n] = 0.9 - 0.1 * np.arange(n)
    raw.mask_scores[0, :n] = 0.8 - 0.1 * np.arange(n)
    raw.classes[0, :n] = np.arange(n)
    raw.masks[0, :n] = 1
    return raw


SAME = Placement((40, 60), (40, 60), (64, 64))


def test_official_post_processing_box_for_box_and_pixel_for_pixel() -> None:
    with np.load(GOLDEN) as arrays:
        case = {name: arrays[name] for name in arrays.files}
    raw = Detections(
        boxes=case["raw_boxes"][None],
        scores=case["raw_scores"][None],
        mask_scores=case["raw_mask_scores"][None],
        classes=case["raw_classes"][None],
        masks=case["raw_masks"][None],
        count=np.array([len(case["boxes"])]),
    )
    height, width = (int(v) for v in case["source_size"])
    resized = (int(case["resized_size"][0]), int(case["resized_size"][1]))
    found = Instances.from_detections(raw, 0, Placement((height, width), resized, resized))
    np.testing.assert_array_equal(found.boxes, case["boxes"])
    written = [row["segmentation"]["counts"] for row in found.to_coco()]
    assert written == case["rles"].tolist()


def test_scaled_clipped_and_emptied() -> None:
    placement = Placement((40, 60), (80, 240), (96, 256))
    boxes: list[list[float]] = [
        [-40.0, -10, 40, 20],
        [250, 10, 300, 50],  # beyond the right edge: nothing left
        [8, 8, 8, 20],  # no width
        [np.nan, 0, 10, 10],
        [200, 60, 400, 400],
    ]
    found = Instances.from_detections(detections(boxes), 0, placement, ("a", "b"))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [50, 30, 60, 40]]
    assert found.classes.tolist() == [0, 4]
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    np.testing.assert_allclose(found.mask_scores, [0.8, 0.4])
    assert found.masks.shape == (2, 28, 28)
    assert [found.name(0), found.name(1)] == ["a", "class 4"]


def test_what_lies_beyond_count_is_not_looked_at() -> None:
    raw = detections([[0, 0, 5, 5], [1, 1, 9, 9]], count=1)
    assert len(Instances.from_detections(raw, 0, SAME)) == 1


def test_nothing_found() -> None:
    found = Instances.from_detections(detections([]), 0, SAME)
    assert len(found) == 0
    assert found.to_coco() == [] and found.crops() == []
    assert len(found.above(0.5)) == 0


def test_above_keeps_a_score_of_exactly_the_threshold() -> None:
    found = Instances.from_detections(
        detections([[0, 0, 5, 5], [1, 1, 9, 9], [2, 2, 9, 9]]), 0, SAME
    )
    kept = found.above(float(found.scores[1]))
    assert kept.classes.tolist() == [0, 1]
    assert kept.source_size == (40, 60)


def test_json_is_plain_and_in_frame_coordinates() -> None:
    found = Instances.from_detections(detections([[10, 5, 20, 25]]), 0, SAME, ("person",))
    (row,) = json.loads(json.dumps(found.to_coco()))
    mask = decode_rle(row.pop("segmentation"))
    assert row == {
        "class": "person",
        "class_id": 0,
        "score": pytest.approx(0.9),
        "mask_score": pytest.approx(0.8),
        "box": [10.0, 5.0, 20.0, 25.0],
    }
    assert mask.shape == (40, 60) and mask[5:25, 10:20].all() and mask.sum() == 200


def test_crops_are_made_once_and_belong_to_all() -> None:
    found = Instances.from_detections(detections([[0, 0, 5, 5], [1, 1, 9, 9]]), 0, SAME)
    crops = found.crops()
    assert found.crops()[0][0] is crops[0][0] and found.crop(1)[0] is crops[1][0]
    with pytest.raises(ValueError, match="read-only"):
        crops[0][0][:] = False
    best = found.above(0.85)
    assert len(best.crops()) == 1 and len(found.crops()) == 2
