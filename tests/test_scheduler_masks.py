"""Leaving the masks out, with the shipped model: the same boxes for less time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_fakes import SleepingEngine

from centermask_edge.engines import open_engine
from centermask_edge.engines.openvino import OpenVinoEngine
from centermask_edge.frame import Frame
from centermask_edge.instances import Instances
from centermask_edge.live.result import Mode
from centermask_edge.live.schedule.governor import Setting
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.source import Kind
from centermask_edge.live.sources.video import VideoSource
from centermask_edge.live.track.follower import TrackFollower
from centermask_edge.resources import shipped_model

CLIP = Path(__file__).parents[1] / "centermask_edge" / "_clips" / "people.mp4"


@pytest.fixture(scope="module")
def inference() -> Inference:
    engine = open_engine(shipped_model(), threads=1, min_score=0.05)
    assert isinstance(engine, OpenVinoEngine)
    return Inference(engine, engine.metadata.preprocess)


def test_boxes_without_masks_are_those_with_them(inference: Inference) -> None:
    source = VideoSource(str(CLIP), Kind.VIDEO)
    frame = next(iter(source))
    source.close()
    setting = Setting(1, inference.base.short_side)
    raws = []
    for masks in (True, False):
        mode = Mode(1, setting.short_side, masks)
        raws.append(inference.run([inference.prepare(frame, setting, mode, True)]).raw)
    with_masks, without = raws
    assert with_masks.count[0] >= 2
    np.testing.assert_array_equal(without.count, with_masks.count)
    np.testing.assert_allclose(without.boxes, with_masks.boxes, atol=1e-4)
    np.testing.assert_allclose(without.scores, with_masks.scores, atol=1e-6)
    count = int(with_masks.count[0])
    assert with_masks.masks[0, 1:count].max() > 0.5
    assert without.masks[0, 1:count].max() == 0  # the branch runs on one instance, not on none


def test_engines_say_whether_they_can(inference: Inference) -> None:
    assert inference.can_skip_masks
    plain = SleepingEngine()
    assert not Inference(plain, plain.metadata.preprocess).can_skip_masks


def instances(boxes: list[list[float]], level: float, classes: list[int]) -> Instances:
    count = len(boxes)
    masks = np.full((count, 28, 28), level, np.float32) * np.arange(1, count + 1)[:, None, None]
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    places = np.array(boxes, np.float32).reshape(-1, 4)
    return Instances(places, scores, scores, np.array(classes), masks.astype(np.float32), (90, 90))


def test_masks_move_with_their_boxes_until_they_are_computed_again() -> None:
    follow = TrackFollower()
    frames = [Frame(np.zeros((90, 90, 3), np.uint8), k / 10, k / 10, "a", k) for k in range(3)]
    key = instances([[0, 0, 20, 20], [40, 40, 60, 60], [40, 41, 60, 61]], 0.25, [0, 0, 1])
    np.testing.assert_array_equal(follow(frames[0], key, True).instances.masks, key.masks)
    # The first two have changed places in the order, the third is of another class, one is new.
    empty = instances([[42, 42, 62, 62], [3, 0, 23, 20], [70, 0, 80, 10]], 0.0, [0, 0, 0])
    for frame in frames[1:]:
        moved = follow(frame, empty, False).instances
        np.testing.assert_array_equal(moved.masks[0], key.masks[1])
        np.testing.assert_array_equal(moved.masks[1], key.masks[0])
        assert moved.masks[2].max() == 0 and moved.mask_scores[2] == 0
        np.testing.assert_array_equal(moved.boxes, empty.boxes)
    assert TrackFollower()(frames[0], empty, False).instances.masks.max() == 0
    nothing = instances([], 0.0, [])
    assert len(follow(frames[2], nothing, False).instances) == 0
