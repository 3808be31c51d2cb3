"""Parity with the official code from the golden copies, and that the comparison can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from centermask_edge.errors import ConfigError
from centermask_edge.masks import Rle, decode_rle, encode_rle
from centermask_edge.model import reference as reference_module
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.checks import Table
from centermask_edge.model.parity import Compared, build_golden, compare
from centermask_edge.model.parity_tables import official_tables
from centermask_edge.model.reference import Reference
from centermask_edge.train.parity import LOSSES, training_tables

GOLDEN = Reference.open(None)
SLIM = "lite_V_19_slim_dw"


def table_errors(table: Table) -> list[list[str]]:
    return [row for row in table.rows() if row[-1] != "pass"]


def test_networks_agree_with_the_official_code() -> None:
    dense, detections, masks = official_tables(GOLDEN)
    for table in (dense, detections, masks):
        assert table_errors(table) == []
    cases = len(list(GOLDEN.root.glob("small.*.npz")))
    assert len(dense.checks) == 4 * cases
    assert len(detections.checks) == len(masks.checks) == cases == 3
    # Every detection was compared, every mask pasted, and no pixel differed.
    assert {check.cells[1] for check in (*detections.checks, *masks.checks)} == {"50 / 50"}


def test_a_training_step_agrees_with_the_official_code() -> None:
    losses, parts = training_tables(GOLDEN)
    assert table_errors(losses) == table_errors(parts) == []
    assert [check.cells[0] for check in losses.checks] == [ours for _, ours, _ in LOSSES]
    assert {check.limit for check in losses.checks} == {"0.0001", "0.001"}


@pytest.fixture(scope="module")
def slim() -> CenterMask:
    return build_golden(GOLDEN, SLIM)


def run(
    model: CenterMask,
    changes: dict[str, NDArray[Any]] | None = None,
    masks: list[Rle] | None = None,
) -> Compared:
    case = {**GOLDEN.case(f"small.{SLIM}.s0"), **(changes or {})}
    return compare(model, "x", 1e-4, case, GOLDEN.small_input(), masks)


def failed(result: Compared) -> tuple[int, int, int]:
    parts = (result.dense, result.detections, result.masks)
    dense, detections, masks = (sum(not c.passed for c in part) for part in parts)
    return dense, detections, masks


@torch.no_grad()
def test_a_changed_weight_is_seen(slim: CenterMask) -> None:
    weight = slim.fpn.output[0].weight
    assert isinstance(weight, torch.Tensor)
    before = weight.clone()
    weight[3] += 0.01 * weight.std()
    try:
        dense, _, _ = failed(run(slim))
    finally:
        weight.copy_(before)
    assert dense > 0


def test_every_recorded_value_counts(slim: CenterMask, monkeypatch: pytest.MonkeyPatch) -> None:
    case = GOLDEN.case(f"small.{SLIM}.s0")
    dense = slim.dense
    seen: list[Any] = []

    def once(images: torch.Tensor) -> Any:
        if not seen:
            seen.append(dense(images))
        return seen[0]

    monkeypatch.setattr(slim, "dense", once)
    assert failed(run(slim)) == (0, 0, 0)
    centerness = {"head.ctr.p5": case["head.ctr.p5"] * 1.001}
    # A change only in a channel that the copies left out is seen in the statistics.
    spread = {"fpn.p3.stats": case["fpn.p3.stats"] * np.array([1, 1.001, 1, 1, 1])}
    assert failed(run(slim, centerness | spread)) == (2, 0, 0)
    for name in ("det.scores", "roi.mask_scores", "mask.logits", "roi.level", "roi.feat_ch0"):
        moved = case[name].copy()
        moved[7] = moved[7] + 1
        assert failed(run(slim, {name: moved})) == (0, 1, 0), name
    assert failed(run(slim, {"final.mask_area": case["final.mask_area"] + 40})) == (0, 0, 1)


def test_a_map_that_was_not_recorded_is_no_difference(
    slim: CenterMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = GOLDEN.case(f"small.{SLIM}.s0")
    kept = {k: v for k, v in case.items() if not k.startswith(("fpn.p3", "head.ctr."))}
    result = compare(slim, "x", 1e-4, kept, GOLDEN.small_input(), None)
    rows = {check.cells[1]: check for check in result.dense}
    assert rows["pyramid"].cells[2] == "-" != rows["pyramid"].cells[3]
    assert rows["pyramid"].passed and not rows["centre-ness"].passed  # of which nothing is known


def test_a_detection_of_another_class_is_a_lone_one(slim: CenterMask) -> None:
    classes = GOLDEN.case(f"small.{SLIM}.s0")["det.classes"].copy()
    classes[0] = (classes[0] + 1) % 80
    result = run(slim, {"det.classes": classes})
    assert failed(result) == (0, 1, 1)
    assert result.detections[0].cells[2] == "2"  # ours without theirs, theirs without ours


def test_a_shifted_mask_is_seen_pixel_by_pixel(slim: CenterMask) -> None:
    masks = GOLDEN.masks(SLIM, "small")
    assert masks is not None
    assert failed(run(slim, masks=masks)) == (0, 0, 0)
    shifted = np.roll(decode_rle(masks[0]), 1, axis=1)
    masks[0] = encode_rle(shifted, 0, 0, *shifted.shape)
    assert failed(run(slim, masks=masks)) == (0, 0, 1)


def test_a_folder_without_reference_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no reference outputs.*--reference"):
        Reference.open(tmp_path)
    with pytest.raises(ConfigError, match=r"holds no train\.npz"):
        GOLDEN.case("train")


def test_an_installed_package_says_where_the_outputs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*parts: str) -> Path:
        raise ConfigError("/".join(parts))

    monkeypatch.setattr(reference_module, "project_file", absent)
    with pytest.raises(ConfigError, match="run this in a checkout, or give --reference"):
        Reference.open(None)


def test_a_whole_folder_is_read_like_the_copies(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "small_input.npy").write_bytes(
        GOLDEN.path("small_input.npy").read_bytes()
    )
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "tiny.keys.json").write_text(
        '{"counts": {"total": {"params": 6}}, "keys": {"a": {"shape": [2, 3]}}}'
    )
    folder = Reference.open(tmp_path)
    assert folder.shapes("tiny") == {"a": (2, 3)}
    assert folder.parameters("tiny") == {"total": 6}
    assert folder.masks("tiny", "small") is None
    np.testing.assert_array_equal(folder.small_input(), GOLDEN.small_input())
