"""Live results belong to their frames: the synthetic camera's truth, and a replay to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from synthetic import Kept, Tally, crop_iou, judge, live, replayed, same_bytes

from centermask_edge.live.synthetic.scene import Scene
from centermask_edge.live.synthetic.source import parse_synthetic

ADDRESS = "synthetic:people?width=640&height=360&objects=3&seed=3&fps=6&frames=12"


def test_live_results_fit_their_own_frame_best_and_replay_to_the_bit(tmp_path: Path) -> None:
    kept, outcome = live(ADDRESS, None, tmp_path / "recording")
    assert outcome.stopped_by == 0
    found = judge(kept, ADDRESS)
    assert found["codes_unread"] == found["falls"] == 0
    assert len(kept) >= 3  # a busy machine leaves frames out
    assert found["recall"] > 75
    assert found["precision"] > 75
    own = found["mask_iou_at_shift"]["0"]
    assert own > 75
    assert all(own > iou + 3 for shift, iou in found["mask_iou_at_shift"].items() if shift != "0")
    again = replayed(tmp_path / "recording")
    assert same_bytes(kept, again)
    again[-1].instances.masks[0, 14, 14] += np.float32(1e-6)
    assert not same_bytes(kept, again)
    assert not same_bytes(kept, again[:-1])


def test_the_truth_itself_is_found_whole() -> None:
    scene = Scene(parse_synthetic(ADDRESS).scene)
    truth = scene.truth(5)
    tally = Tally()
    tally.add([t.crop for t in truth], truth, least=0)
    assert tally.figures() == {
        "objects": 3,
        "recall": 100.0,
        "precision": 100.0,
        "mask_iou": 100.0,
    }


def test_missed_surplus_and_hardly_seen() -> None:
    scene = Scene(parse_synthetic(ADDRESS).scene)
    truth = scene.truth(5)
    wrong = np.ones((9, 9), np.bool_), 0, 200
    tally = Tally()
    tally.add([truth[0].crop, truth[0].crop, wrong], truth, least=0)
    assert (len(tally.ious), tally.missed, tally.surplus) == (1, 2, 2)
    # Of too small ones, both to miss and to find is no fault.
    tally = Tally()
    tally.add([truth[0].crop], truth, least=1e9)
    assert (len(tally.ious), tally.missed, tally.surplus) == (0, 0, 0)
    tally.add([], truth, least=0)
    assert tally.missed == 3


def test_crops_apart_share_nothing() -> None:
    square = np.ones((4, 4), np.bool_)
    assert crop_iou((square, 0, 0), (square, 4, 0)) == 0
    assert crop_iou((square & False, 0, 0), (square & False, 0, 0)) == 0
    assert crop_iou((square, 10, 20), (square, 12, 20)) == pytest.approx(8 / 24)


def test_unread_codes_are_counted_and_left_out() -> None:
    kept: list[Kept] = []
    assert judge(kept, ADDRESS)["results"] == 0
    assert synthetic.SHIFTS.count(0) == 1
