"""The parts of a verdict: what changed, multiply-adds, precisions that ran, intervals, times."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import judged_models as models
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from centermask_edge.engines.base import Detections
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.instances import Instances
from centermask_edge.quantize.compare import Change, Kind, PictureChange, compare, mask_iou
from centermask_edge.quantize.coverage_macs import Coverage, LayerCoverage, coverage
from centermask_edge.quantize.interval import jackknife
from centermask_edge.quantize.runtime_graph import openvino_runs
from centermask_edge.quantize.speed import Input, measure_speed

SIZE = (32, 64)
LEFT, RIGHT = (0.0, 0.0, 40.0, 40.0), (60.0, 0.0, 100.0, 40.0)


def found(*rows: tuple[tuple[float, ...], float, int]) -> Instances:
    """Instances of full masks: box, score, class."""
    count = len(rows)
    return Instances(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int64),
        np.ones((count, 28, 28), np.float32),
        (80, 120),
        ("person", "dog"),
    )


def only(change: PictureChange) -> Change:
    (found,) = change.changes
    return found


# --- compare ----------------------------------------------------------------------------------


def test_the_same_instances_have_no_change() -> None:
    before = found((LEFT, 0.9, 0), (RIGHT, 0.6, 1))
    change = compare(before, before, 0.4)
    assert change.loss == (0.0, 0.0) and change.noticed == () and change.partners == (0, 1)
    assert [c.mask_iou for c in change.changes] == [1.0, 1.0]


def test_what_vanished_is_lost_and_what_appeared_is_new() -> None:
    before, after = found((LEFT, 0.9, 0)), found((RIGHT, 0.6, 1))
    change = compare(before, after, 0.4)
    lost, new = change.changes
    assert (lost.kind, lost.after, lost.name) == (Kind.LOST, None, "person")
    assert (new.kind, new.before, new.name) == (Kind.NEW, None, "dog")
    assert (lost.before, new.after) == (float(np.float32(0.9)), float(np.float32(0.6)))
    assert change.partners == (-1,) and change.loss == pytest.approx((0.9, 1.5))


def test_another_class_in_the_same_place_is_another_instance() -> None:
    kinds = [c.kind for c in compare(found((LEFT, 0.9, 0)), found((LEFT, 0.9, 1)), 0.4).changes]
    assert sorted(kinds) == [Kind.LOST, Kind.NEW]


def test_a_drop_below_the_threshold_is_told_from_a_disappearance() -> None:
    change = compare(found((LEFT, 0.5, 0)), found((LEFT, 0.3, 0)), 0.4)
    lost = only(change)
    assert (lost.kind, lost.after, lost.mask_iou) == (Kind.LOST, float(np.float32(0.3)), 1.0)
    assert lost.loss == pytest.approx(0.2)
    assert len(change.before) == 1 and len(change.after) == 0


def test_what_neither_shows_is_no_change() -> None:
    assert compare(found((LEFT, 0.3, 0)), found(), 0.4).changes == ()


def test_masks_and_scores_of_a_pair_are_its_loss() -> None:
    before, after = found((LEFT, 0.9, 0)), found((LEFT, 0.7, 0))
    after.masks[:, :, 14:] = 0
    change = only(compare(before, after, 0.4))
    assert change.kind is Kind.CHANGED and change.mask_iou == pytest.approx(0.5, abs=0.03)
    assert change.loss == pytest.approx(0.5 + 0.2, abs=0.03)


def test_every_instance_has_one_partner_the_closest() -> None:
    near = (2.0, 0.0, 42.0, 40.0)
    before = found((LEFT, 0.9, 0))
    change = compare(before, found((near, 0.9, 0), (LEFT, 0.5, 0)), 0.4)
    assert change.partners == (-1, 0)
    assert sorted(c.kind for c in change.changes) == [Kind.CHANGED, Kind.NEW]


@pytest.mark.parametrize(
    ("before", "objects", "loss"),
    [
        (True, [LEFT], 0.8),  # an object is lost
        (True, [], 0.4),  # a false alarm is gone
        (False, [], 0.8),  # a false alarm is new
        (False, [LEFT], 0.4),  # an object is found
    ],
)
def test_annotations_decide_what_is_harm(
    before: bool, objects: list[tuple[float, ...]], loss: float
) -> None:
    one, none = found((LEFT, 0.8, 0)), found()
    truth = np.array(objects, np.float64).reshape(-1, 4)
    pair = (one, none) if before else (none, one)
    change = only(compare(*pair, 0.4, truth))
    assert change.annotated is bool(objects) and change.loss == pytest.approx(loss)


def test_mask_iou_counts_pixels_of_the_picture() -> None:
    a, b = found((LEFT, 1, 0)), found(((20.0, 0.0, 60.0, 40.0), 1, 0))
    assert mask_iou(a, 0, b, 0) == pytest.approx(20 / 60)
    assert mask_iou(a, 0, found((RIGHT, 1, 0)), 0) == 0.0


def test_a_crowd_of_slight_changes_is_not_the_worst() -> None:
    boxes = [(float(x), 0.0, x + 10.0, 10.0) for x in range(0, 110, 11)]
    crowd = compare(found(*((b, 0.9, 0) for b in boxes)), found(*((b, 0.7, 0) for b in boxes)), 0.4)
    one = compare(found((LEFT, 0.9, 0)), found(), 0.4)
    assert one.loss > crowd.loss and sum(c.loss for c in crowd.changes) > one.loss[1]


# --- coverage ---------------------------------------------------------------------------------


def test_multiply_adds_are_counted_by_hand() -> None:
    found = coverage(models.convolutions(), SIZE)
    assert [(x.name, x.macs, x.int8) for x in found.layers] == [
        ("first", 8 * 16 * 32 * 3 * 9, True),
        ("grouped", 8 * 16 * 32 * 2 * 9, False),
        ("up", 8 * 16 * 32 * 4 * 4, False),
        ("product", 32 * 64 * 5 * 4, True),  # its data is transposed behind the Q/DQ
    ]
    eight = 8 * 16 * 32 * 27 + 32 * 64 * 20
    assert found.share == pytest.approx(eight / sum(x.macs for x in found.layers))


def test_an_activation_in_8_bits_alone_is_not_int8() -> None:
    model = models.convolutions()
    first = next(n for n in model.graph.node if n.name == "first")
    weight = np.zeros((8, 3, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "plain"))
    first.input[1] = "plain"
    assert not coverage(model, SIZE).layers[0].int8


def test_a_model_that_does_not_run_is_refused_in_one_line() -> None:
    model = models.convolutions()
    model.graph.node[4].input[1] = "w1"
    with pytest.raises(ModelFileError, match=r"ONNX Runtime cannot run the model: .*") as caught:
        coverage(model, SIZE)
    assert "\n" not in str(caught.value)


def test_openvino_tells_what_it_runs_in_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "c.onnx"
    onnx.save(models.convolutions(), path)
    asked = coverage(onnx.load(path), SIZE)
    ran = openvino_runs(path, asked)
    assert ran.macs == asked.macs and 0 <= ran.share <= 1
    by_name = {x.name: x for x in ran.layers}
    assert {"first", "grouped"} <= {*by_name} | {*ran.lost} and "first" in by_name
    assert by_name["first"].macs == asked.layers[0].macs
    if platform.machine() in ("x86_64", "AMD64"):
        assert by_name["first"].precision in ("u8", "i8") and ran.share > 0.2
        assert by_name["grouped"].precision == "f32"


def test_a_layer_that_openvino_hides_does_not_count_as_8_bits(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "c.onnx"
    onnx.save(models.convolutions(), path)
    ghost = LayerCoverage(name="ghost", op="Conv", macs=1000, int8=True)
    ran = openvino_runs(path, Coverage(input_size=SIZE, layers=(ghost,)))
    assert ran.lost == ("ghost",) and ran.share == 0.0


# --- interval ---------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    """Of a mean, the jackknife is exact: the standard error of the mean."""
    values = np.random.default_rng(0).standard_normal(20)

    def mean(ids: Sequence[int]) -> float:
        return float(values[list(ids)].mean())

    ends = jackknife(mean, range(20))
    error = values.std(ddof=1) / np.sqrt(20)
    assert ends == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error))


def test_groups_take_turns_over_all_pictures() -> None:
    seen: list[tuple[int, ...]] = []

    def difference(ids: Sequence[int]) -> float:
        seen.append(tuple(ids))
        return 0.0

    assert jackknife(difference, range(7), 3) == (0.0, 0.0)
    left_out = [set(range(7)) - set(ids) for ids in seen[1:]]
    assert left_out == [{0, 3, 6}, {1, 4}, {2, 5}]


@pytest.mark.parametrize(("pictures", "value"), [([1], 0.5), ([1, 2, 3], None)])
def test_too_small_a_set_has_no_interval(pictures: list[int], value: float | None) -> None:
    assert jackknife(lambda ids: value, pictures) is None


# --- speed ------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """An engine that takes as long as it is told."""

    metadata: ModelMetadata

    def __init__(self, name: str, clock: Clock, times: list[float], calls: list[str]) -> None:
        self.name, self._clock, self._times, self._calls = name, clock, times, calls

    def run(self, images: NDArray[np.float32], image_sizes: NDArray[np.float32]) -> Detections:
        self._calls.append(self.name)
        self._clock.now += self._times.pop(0)
        return None  # type: ignore[return-value]


def test_engines_are_timed_in_turns_and_warmed_up() -> None:
    clock, calls = Clock(), list[str]()
    slow = Fake("slow", clock, [9.0, 9.0, 0.010, 0.020, 0.030], calls)
    fast = Fake("fast", clock, [9.0, 9.0, 0.005, 0.005, 0.005], calls)
    image: Input = (np.zeros((1, 3, 32, 64), np.float32), np.zeros((1, 2), np.float32))
    rounds: list[int] = []
    speed = measure_speed(
        {"fp32": slow, "int8": fast}, [image], 3, 2, clock, lambda n: rounds.append(n)
    )
    assert calls[:4] == ["slow", "fast", "fast", "slow"]  # the first in a round changes
    assert [(r.precision, r.engine) for r in speed.rows] == [("fp32", "slow"), ("int8", "fast")]
    first = speed.rows[0]
    assert first.median_ms == pytest.approx(20) and first.best_ms == pytest.approx(10)
    assert first.p95_ms == pytest.approx(29)
    assert speed.gain("int8") == pytest.approx(4) and speed.gain("fp16") is None
    assert (speed.input_size, speed.runs, speed.threads) == ((32, 64), 3, 2)
    assert rounds == [1, 2, 3, 4, 5]
