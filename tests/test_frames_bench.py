"""The bench of whole frames: given boxes are what masks are made for, and no stage is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import frames
import numpy as np
import onnx
import pytest
from frames_crowd import HEIGHT, ROOM, WIDTH, crowd, in_turns, jobs, one_core
from frames_models import ForcedEngine

from centermask_edge.engines.base import Detections
from centermask_edge.engines.openvino import OpenVinoEngine
from centermask_edge.instances import Instances
from centermask_edge.live.sources.opening import open_source
from centermask_edge.masks import decode_rle
from centermask_edge.preprocess import Preprocess
from centermask_edge.resources import shipped_model

MASKS = np.random.default_rng(0).random((3, 28, 28)).astype(np.float32)
ASPECTS = np.array([0.4, 0.5, 2.0], np.float32)


@pytest.fixture(scope="module")
def forced() -> ForcedEngine:
    return ForcedEngine(onnx.load(str(shipped_model())), threads=1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    source = open_source(str(frames.CLIP))
    try:
        return next(iter(source)).image
    finally:
        source.close()


@pytest.fixture
def network_input(
    forced: ForcedEngine, picture: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Detections]:
    """The picture as the network takes it, its size, and what the shipped model finds in it."""
    image, placement = Preprocess(forced.preprocess)(picture)
    size = np.asarray([placement.resized_size], np.float32)
    plain = OpenVinoEngine(shipped_model(), threads=1).run(image[None], size)
    return image[None], size, plain


def test_a_forced_network_that_is_given_what_it_finds_finds_the_same(
    forced: ForcedEngine, network_input: tuple[np.ndarray, np.ndarray, Detections]
) -> None:
    image, size, plain = network_input
    assert int(plain.count[0]) > 2
    again = forced.run(image, size, plain)
    np.testing.assert_array_equal(again.boxes, plain.boxes)
    np.testing.assert_allclose(again.masks, plain.masks, atol=1e-4)
    np.testing.assert_allclose(again.mask_scores, plain.mask_scores, atol=1e-4)
    assert forced.run_dense(image, size) == int(plain.count[0])


@pytest.mark.parametrize("count", [1, 10, 50])
def test_a_forced_network_makes_as_many_masks_as_it_is_told(
    forced: ForcedEngine,
    network_input: tuple[np.ndarray, np.ndarray, Detections],
    picture: np.ndarray,
    count: int,
) -> None:
    image, size, plain = network_input
    placement = Preprocess(forced.preprocess).plan(HEIGHT, WIDTH)
    given = crowd(MASKS, ASPECTS, count, placement)
    made = forced.run(image, size, given)
    assert int(made.count[0]) == count
    assert made.masks[0, :count].std(axis=(1, 2)).min() > 0  # of a network, not of zeros
    assert not made.masks[0, count:].any()
    # What it found itself does not depend on that.
    assert forced.run_dense(image, size) == int(plain.count[0])


@pytest.mark.parametrize("count", [1, 10, 50])
def test_a_crowd_lies_in_the_picture_and_smaller_ones_are_its_first(count: int) -> None:
    placement = Preprocess(OpenVinoEngine(shipped_model()).metadata.preprocess).plan(HEIGHT, WIDTH)
    found = Instances.from_detections(crowd(MASKS, ASPECTS, count, placement), 0, placement)
    all_of_them = Instances.from_detections(crowd(MASKS, ASPECTS, ROOM, placement), 0, placement)
    assert len(found) == count
    np.testing.assert_array_equal(found.boxes, all_of_them.boxes[:count])
    height = found.boxes[:, 3] - found.boxes[:, 1]
    assert height.min() > 39 and height.max() < 251
    assert (found.boxes >= 0).all() and (found.boxes <= [WIDTH, HEIGHT] * 2).all()


def test_both_ways_that_are_timed_give_the_same_masks() -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    made: dict[str, Any] = dict(jobs(crowd(MASKS, ASPECTS, 10, frames.SAME), black))
    inside, full = made["masks, inside their boxes"](), made["masks, full frame"]()
    runs = made["run lengths, inside their boxes"]()
    assert len(inside) == len(full) == len(runs) == 10
    assert runs == made["run lengths, full frame"]()
    for (crop, x, y), frame, rle in zip(inside, full, runs, strict=True):
        assert frame.sum() == crop.sum() > 0
        np.testing.assert_array_equal(frame[y:, x:][: crop.shape[0], : crop.shape[1]], crop)
        np.testing.assert_array_equal(decode_rle(rle), frame)
    assert made["drawing"]().any() and not black.any()
    again = made["masks, inside their boxes"]()
    assert again[0][0] is not inside[0][0]  # made anew, not kept from the run before


def test_one_core_is_given_back() -> None:
    threads = cv2.getNumThreads()
    with one_core():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == threads


def test_jobs_take_turns_and_warm_up() -> None:
    order: list[str] = []
    rows = in_turns({name: lambda name=name: order.append(name) for name in "ab"}, 4)  # type: ignore[misc]
    assert [row["job"] for row in rows] == ["a", "b"]
    assert "".join(order) == "abba" * 3 + "ab"


class _Network:
    """An engine that gives back what it is given."""

    def run(self, image: np.ndarray, size: np.ndarray, given: Detections) -> Detections:
        return replace(given, masks=np.zeros_like(given.masks))

    def run_dense(self, image: np.ndarray, size: np.ndarray) -> int:
        return 0


def test_every_stage_of_every_row_is_measured(tmp_path: Path, picture: np.ndarray) -> None:
    clip = tmp_path / "clip.mp4"
    frames.enlarge(frames.CLIP, clip, frames=3)
    prepare = Preprocess(OpenVinoEngine(shipped_model()).metadata.preprocess)
    placement = prepare.plan(HEIGHT, WIDTH)
    runs = [
        frames.Run("fake", _Network(), crowd(MASKS, ASPECTS, n, placement), prepare)  # type: ignore[arg-type]
        for n in (1, 10)
    ]
    rows = frames.whole_frames(runs, clip, rounds=2)
    assert [row["instances"] for row in rows] == [1, 10]
    for run, row in zip(runs, rows, strict=True):
        assert {len(run.times[s]) for s in (*frames.STAGES, "dense")} == {8}
        total = np.sum([run.times[s] for s in frames.STAGES], axis=0)
        assert row["total_ms"] == pytest.approx(float(np.median(total)), abs=0.01)
        assert row["mask_branch_ms"] == pytest.approx(row["engine_ms"] - row["dense_ms"], abs=0.02)
        assert row["draw_ms"] > 0 and row["decode_ms"] > 0
    text = frames.table(rows, ["model", "instances", "total_ms"]).splitlines()
    assert len(text) == 3 and len({len(line) for line in text}) == 1
    json.dumps(rows)


def test_what_is_drawn_are_the_masks_of_the_crowd(picture: np.ndarray) -> None:
    prepare = Preprocess(OpenVinoEngine(shipped_model()).metadata.preprocess)
    placement = prepare.plan(HEIGHT, WIDTH)
    given = crowd(np.ones((1, 28, 28), np.float32), ASPECTS[:1], 1, placement)
    run = frames.Run("fake", _Network(), given, prepare)  # type: ignore[arg-type]
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = run.frame(iter([black]))
    box = Instances.from_detections(given, 0, placement).boxes[0]
    inside = drawn[int(box[1]) + 5 : int(box[3]) - 5, int(box[0]) + 5 : int(box[2]) - 5]
    assert (inside != 0).any(2).mean() > 0.9


def test_the_clip_starts_again(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    frames.enlarge(frames.CLIP, clip, frames=2)
    endless: Iterator[np.ndarray] = frames.pictures(clip)
    shown = list(islice(endless, 5))
    assert shown[0].shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(shown[0], shown[2])
    np.testing.assert_array_equal(shown[1], shown[3])
