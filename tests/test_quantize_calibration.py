"""Collection and the calibration file: what is counted, what is refused, what survives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import quantize_models as models
from numpy.typing import NDArray
from onnx import numpy_helper

from centermask_edge.graph.lowering import compact_rois
from centermask_edge.graph.metadata import METADATA_KEY, ModelMetadata
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize import Observer, QuantizationError, collect
from centermask_edge.quantize.artefact import (
    CalibrationPicture,
    calibrate,
    graph_hash,
    load_calibration,
    weights_hash,
)
from centermask_edge.quantize.collect import Collector
from centermask_edge.quantize.equalise import equalised
from centermask_edge.quantize.observers import Histogram, threshold

ROI = "mask//mask_head/Relu_output_0"
TENSORS = ("image", "p3", "roi_features", ROI)
BLACK = np.zeros((64, 64, 3), np.uint8)


def items(pictures: Sequence[NDArray[np.uint8]]) -> list[CalibrationPicture]:
    return [
        CalibrationPicture(f"{i}.png", hashlib.sha256(p.tobytes()).hexdigest(), partial(np.copy, p))
        for i, p in enumerate(pictures)
    ]


def same(a: dict[str, Histogram], b: dict[str, Histogram]) -> bool:
    return list(a) == list(b) and all(
        np.array_equal(a[n].counts, b[n].counts)
        and (a[n].width, a[n].zeros, a[n].maximum) == (b[n].width, b[n].zeros, b[n].maximum)
        for n in a
    )


def with_preprocess(model: onnx.ModelProto, **changes: Any) -> onnx.ModelProto:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            metadata = ModelMetadata.model_validate_json(entry.value)
            changed = metadata.preprocess.model_copy(update=changes)
            entry.value = metadata.model_copy(update={"preprocess": changed}).to_json()
    return model


# Collection


def test_what_is_counted_is_what_the_network_computes() -> None:
    model, pictures = models.exported(), models.pictures()
    seen = collect(model, TENSORS, pictures)
    shown = compact_rois(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TENSORS[1:])
    session = onnxruntime.InferenceSession(shown.SerializeToString())
    preprocess = Preprocess(models.config(models.VOVNET).preprocess)
    wanted = {name: Histogram(name) for name in TENSORS}
    means = []
    for picture in pictures:
        image, placement = preprocess(picture)
        feed = {
            "image": image[None],
            "image_size": np.array([placement.resized_size], np.float32),
            "min_score": np.zeros(1, np.float32),
        }
        values = dict(zip(TENSORS[1:], session.run(list(TENSORS[1:]), feed), strict=True))
        for name, value in {"image": image[None], **values}.items():
            wanted[name].add(value)
        means.append(values["p3"].mean((0, 2, 3)))
    assert same(seen.histograms, wanted)
    assert seen.pictures == 2
    found = seen.means("p3")
    assert found is not None
    np.testing.assert_allclose(found, np.mean(means, 0), rtol=1e-4, atol=1e-6)


def shift_logits(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name.endswith("cls_logits.bias"):
            value = numpy_helper.to_array(tensor) + np.float32(by)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def test_the_mask_branch_counts_found_instances_only() -> None:
    model, pictures = models.exported(), models.pictures(1)
    names = [f"logits_{level}" for level in range(3, 8)]
    image, placement = Preprocess(models.config(models.VOVNET).preprocess)(pictures[0])
    feed = {
        "image": image[None],
        "image_size": np.array([placement.resized_size], np.float32),
    }
    shown = models.exported()
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = onnxruntime.InferenceSession(shown.SerializeToString()).run(names, feed)
    best = np.sort(np.concatenate([v.ravel() for v in values]))[::-1]
    # The threshold of 0.05 comes to lie between the second and the third best cell.
    few = shift_logits(model, float(np.log(0.05 / 0.95) - (best[1] + best[2]) / 2))
    seen = collect(few, TENSORS, pictures)
    assert 1 <= seen.instances <= 2
    assert seen.histograms["roi_features"].total == seen.instances * 14 * 14 * 64
    assert seen.histograms[ROI].total == seen.instances * 14 * 14 * 64
    assert seen.histograms["p3"].total == 64 * 8 * 8


def test_little_memory_gives_the_same_counts_in_more_runs() -> None:
    model, pictures = models.exported(), models.pictures()
    whole, parts = Collector(model, TENSORS), Collector(model, TENSORS, budget_bytes=4)
    results = []
    for collector in (whole, parts):
        seen = collector.new()
        for picture in pictures:
            collector.add(picture, seen)
        results.append(seen)
    assert (len(whole._sessions), len(parts._sessions)) == (1, len(TENSORS))
    assert same(results[0].histograms, results[1].histograms)
    assert results[0].instances == results[1].instances


def test_nothing_found_leaves_the_mask_branch_without_a_range() -> None:
    seen = collect(shift_logits(models.exported(), -50), TENSORS, models.pictures())
    assert seen.instances == 0
    with pytest.raises(QuantizationError, match="pictures that hold objects the model finds"):
        threshold(seen.histograms["roi_features"], Observer.MAX)


def test_an_activation_that_is_not_finite_is_refused_by_name() -> None:
    model = models.exported()
    for tensor in model.graph.initializer:
        if "fpn" in tensor.name and len(tensor.dims) == 4:
            value = np.full_like(numpy_helper.to_array(tensor), np.inf)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    with pytest.raises(QuantizationError, match="'p3' holds"):
        collect(model, TENSORS, models.pictures())


@pytest.mark.parametrize("pictures", [[BLACK] * 3, [BLACK + 90, BLACK, *models.pictures(1)]])
def test_a_set_that_shows_nothing_is_refused(pictures: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(QuantizationError, match=r"[23] of 3 calibration pictures are of one"):
        collect(models.exported(), TENSORS[:1], pictures)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(QuantizationError, match="no calibration pictures"):
        collect(models.exported(), TENSORS[:1], [])


def test_pictures_normalised_beforehand_are_refused() -> None:
    wrong = [p.astype(np.float32) / 255 for p in models.pictures()]
    with pytest.raises(QuantizationError, match="normalising is done here"):
        collect(models.exported(), TENSORS[:1], wrong)  # type: ignore[arg-type]


# The file


def test_a_calibration_comes_back_as_it_was(tmp_path: Path) -> None:
    model, pictures = models.exported(), items(models.pictures())
    path = tmp_path / "c.npz"
    steps: list[int] = []
    made = calibrate(model, TENSORS, pictures, path, progress=steps.append)
    assert steps == [0, 1, 2]
    found = load_calibration(path, model, pictures)
    assert found.digest == made.digest
    assert same(found.seen.histograms, made.seen.histograms)
    assert {n: v.tolist() for n, v in found.seen.sums.items()} == {
        n: v.tolist() for n, v in made.seen.sums.items()
    }
    assert found.seen.instances == made.seen.instances
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


class Stopped(Exception):
    pass


def test_an_interrupted_collection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("centermask_edge.quantize.artefact._SAVE_EVERY", 2)
    model, pictures = models.exported(), models.pictures(4)
    path = tmp_path / "c.npz"

    def stop() -> NDArray[np.uint8]:
        raise Stopped

    cut = items(pictures)
    cut[3] = CalibrationPicture(cut[3].name, cut[3].sha256, stop)
    with pytest.raises(Stopped):
        calibrate(model, TENSORS, cut, path)
    assert not path.exists()
    steps: list[int] = []
    resumed = calibrate(model, TENSORS, items(pictures), path, progress=steps.append)
    assert steps == [2, 3, 4]
    assert same(resumed.seen.histograms, collect(model, TENSORS, pictures).histograms)
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_the_state_of_another_collection_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centermask_edge.quantize.artefact._SAVE_EVERY", 1)
    model, path = models.exported(), tmp_path / "c.npz"

    def stop() -> NDArray[np.uint8]:
        raise Stopped

    first = items(models.pictures(2))
    first[1] = CalibrationPicture("1.png", "other", stop)
    with pytest.raises(Stopped):
        calibrate(model, TENSORS, first, path)
    steps: list[int] = []
    calibrate(model, TENSORS, items(models.pictures(2)), path, progress=steps.append)
    assert steps[0] == 0


@pytest.mark.parametrize("field", ["weights", "graph", "preprocess", "pictures"])
def test_what_differs_is_named(tmp_path: Path, field: str) -> None:
    model, pictures = models.exported(), items(models.pictures())
    path = tmp_path / "c.npz"
    calibrate(model, TENSORS, pictures, path)
    if field == "weights":
        tensor = next(t for t in model.graph.initializer if "fpn" in t.name)
        value = numpy_helper.to_array(tensor) + 1
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    elif field == "graph":
        next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Sigmoid"
    elif field == "preprocess":
        with_preprocess(model, mean=(0.0, 0.0, 0.0))
    else:
        pictures = [pictures[0], CalibrationPicture("1.png", "f" * 64, pictures[1].read)]
    with pytest.raises(QuantizationError, match=f"{field} is .+, wanted .+; calibrate again"):
        load_calibration(path, model, pictures)


def test_the_setting_that_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    calibrate(models.exported(), TENSORS[:1], items(models.pictures()), path)
    other = with_preprocess(models.exported(), channel_order="rgb")
    with pytest.raises(QuantizationError, match="channel_order bgr, wanted channel_order rgb"):
        load_calibration(path, other)


def test_an_equalised_model_needs_its_own(tmp_path: Path) -> None:
    model, path = models.exported(), tmp_path / "c.npz"
    calibrate(model, TENSORS[:1], items(models.pictures()), path)
    with pytest.raises(QuantizationError, match="weights is"):
        load_calibration(path, equalised(model))


def test_half_precision_storage_does_not_change_the_hashes() -> None:
    from centermask_edge.graph.export import with_fp16_weights
    from centermask_edge.quantize.weights import with_fp32_weights

    stored = with_fp16_weights(models.exported())
    plain = with_fp32_weights(stored)
    assert weights_hash(stored) == weights_hash(plain) != weights_hash(models.exported())
    assert graph_hash(stored) == graph_hash(plain) == graph_hash(models.exported())


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(QuantizationError, match="is not a calibration file"):
        load_calibration(path, models.exported())


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    calibrate(models.exported(), TENSORS, items(models.pictures()), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(QuantizationError, match="is not a calibration file"):
        load_calibration(path, models.exported())


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"not found.*centermask-edge calibrate"):
        load_calibration(tmp_path / "none.npz", models.exported())


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    target.mkdir()
    with pytest.raises(QuantizationError, match="cannot write"):
        calibrate(models.exported(), TENSORS[:1], items(models.pictures()), target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz"]
