"""Leaving the masks out, with the shipped model: the same boxes for less time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_fakes import SleepingEngine

from centermask_edge.engines import open_engine
from centermask_edge.engines.openvino import OpenVinoEngine
from centermask_edge.live.governor import Setting
from centermask_edge.live.inference import Inference
from centermask_edge.live.result import Mode
from centermask_edge.live.source import Kind
from centermask_edge.live.video import VideoSource
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
