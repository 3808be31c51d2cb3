"""One picture through one of our networks, beside what the official code made of it.

Shape legend: K detections, H W rows and columns of a level.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from centermask_edge.config import ModelConfig
from centermask_edge.instances import Instances
from centermask_edge.masks import Rle, decode_rle, paste_full
from centermask_edge.model.centermask import CenterMask, Segmented
from centermask_edge.model.checks import (
    Check,
    at_most,
    largest_difference,
    match,
    number,
    relative_error,
)
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.official import from_official
from centermask_edge.model.predict import TorchDetections
from centermask_edge.model.reference import Case, Reference
from centermask_edge.model.roi import assign_levels, pyramid_roi_align
from centermask_edge.preprocess import Placement, Preprocess

SCORE_LIMIT, BOX_LIMIT = 1e-4, 0.01  # boxes in pixels: fp32 noise at stride 128 is 0.003
LEVELS = range(3, 8)


@dataclass(frozen=True, slots=True)
class Compared:
    """One run beside its reference: a check for each table."""

    dense: list[Check] = field(default_factory=list)
    detections: list[Check] = field(default_factory=list)
    masks: list[Check] = field(default_factory=list)


def build_golden(reference: Reference, config: str, seed: int = 0) -> CenterMask:
    """The network of an official configuration with its deterministic weights."""
    state = {k: torch.from_numpy(v) for k, v in reference.weights(config, seed).items()}
    ours, unknown = from_official(state)
    assert not unknown, unknown[:3]
    with torch.device("meta"):  # every tensor is replaced: none needs to be drawn first
        model = CenterMask(reference.preset(config))
    model.load_state_dict(ours, assign=True)
    return model.eval()


def unresized(
    config: ModelConfig, image: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], Placement]:
    """Network input of a picture that already has its size."""
    height, width = image.shape[:2]
    sides = {"short_side": min(height, width), "long_side": max(height, width)}
    return Preprocess(config.preprocess.model_copy(update=sides))(image)


def _map_error(found: NDArray[np.float32], case: Case, name: str) -> float | None:
    """Relative error of one map: where it is stored, and of its statistics over all channels.

    None where the case holds nothing of it.
    """
    errors = []
    if name in case:
        wanted = case[name]
        errors.append(relative_error(found[:: len(found) // len(wanted)], wanted))
    if f"{name}.stats" in case:
        errors.append(_statistics_error(found, case[f"{name}.stats"]))
    return max(errors, default=None)


def _statistics_error(found: NDArray[np.float32], stats: NDArray[np.float64]) -> float:
    full = found.astype(np.float64)
    mine = [full.mean(), full.std(ddof=1), full.min(), full.max(), np.abs(full).sum()]
    scale = max(abs(stats[2]), abs(stats[3])) or 1.0
    return max(
        largest_difference(np.array(mine[:4]), stats[:4]) / scale,
        relative_error(np.array(mine[4:]), stats[4:]),
    )


def _dense_checks(
    label: str, limit: float, pyramid: list[torch.Tensor], dense: DensePredictions, case: Case
) -> list[Check]:
    maps = {
        "fpn": ("pyramid", pyramid),
        "head.logits": ("class logits", dense.logits),
        "head.reg": ("box distances", dense.reg),
        "head.ctr": ("centre-ness", dense.centerness),
    }
    checks = []
    for name, (words, levels) in maps.items():
        errors = [
            _map_error(levels[level - 3][0].numpy(), case, f"{name}.p{level}") for level in LEVELS
        ]
        known = [error for error in errors if error is not None]
        cells = ["-" if error is None else number(error) for error in errors]
        row = at_most(label, known, limit)
        checks.append(Check((label, words, *cells), row.limit, bool(known) and row.passed))
    return checks


def _detection_check(
    label: str, found: Segmented, levels: NDArray[np.int64], features: float, case: Case
) -> tuple[Check, NDArray[np.int64]]:
    """The check, and which of our detections is each of the reference's."""
    boxes, classes = found.boxes.numpy(), found.classes.numpy()
    order = match(boxes, classes, case["det.boxes"], case["det.classes"])
    here = order >= 0
    mine = order[here]
    lone = int((~here).sum()) + len(boxes) - len(mine)
    probability = 1 / (1 + np.exp(-case["mask.logits"][here]))
    moved = int((levels[mine] != case["roi.level"][here]).sum())
    shift = largest_difference(boxes[mine], case["det.boxes"][here])
    scores = [
        largest_difference(found.scores.numpy()[mine], case["det.scores"][here]),
        largest_difference(found.mask_scores.numpy()[mine], case["roi.mask_scores"][here]),
        largest_difference(found.masks.numpy()[mine], probability),
        features,
    ]
    passed = lone == moved == 0 and shift <= BOX_LIMIT and all(s <= SCORE_LIMIT for s in scores)
    counts = f"{len(boxes)} / {len(here)}"
    cells = (label, counts, str(lone), str(moved), number(shift), *map(number, scores))
    return Check(cells, f"0; 0; {BOX_LIMIT:g}; {SCORE_LIMIT:g}", passed), order


def _pasted(found: Segmented, order: NDArray[np.int64], placement: Placement) -> Instances:
    """Our instances of one picture in the order of the reference's detections."""
    raw = TorchDetections(
        found.boxes.numpy()[order][None],
        found.scores.numpy()[order][None],
        found.mask_scores.numpy()[order][None],
        found.classes.numpy()[order][None],
        found.masks.numpy()[order][None],
        np.array([len(order)]),
    )
    return Instances.from_detections(raw, 0, placement)


def _mask_check(label: str, found: Instances, case: Case, masks: list[Rle] | None) -> Check:
    """Pixels that differ, and those of them that no rounding of the 0.5 boundary explains."""
    if len(found) != len(case["final.rows"]):
        counts = f"{len(found)} / {len(case['final.rows'])}"
        return Check((label, counts, "-", "-", "-"), "0", False)
    differing = unexplained = pixels = 0
    for i in range(len(found)):
        exact, least, most = (
            paste_full(found.masks[i] + np.float32(shift), found.boxes[i], *found.source_size)
            for shift in (0, -SCORE_LIMIT, SCORE_LIMIT)
        )
        area = int(case["final.mask_area"][i])
        pixels += area
        if masks is None:
            differing += abs(int(exact.sum()) - area)
            unexplained += max(int(least.sum()) - area, area - int(most.sum()), 0)
        else:
            wanted = decode_rle(masks[i])
            differing += int((exact != wanted).sum())
            unexplained += int(((wanted & ~most) | (least & ~wanted)).sum())
    kind = "area" if masks is None else "pixels"
    cells = (label, f"{len(found)} / {len(found)}", kind, str(pixels), str(differing))
    return Check(cells, "0 away from 0.5", unexplained == 0)


def compare(
    model: CenterMask,
    label: str,
    limit: float,
    case: Case,
    image: NDArray[np.uint8],
    masks: list[Rle] | None,
) -> Compared:
    """One picture through our network beside the reference's outputs for it.

    Args:
        model: with the reference's weights.
        label: of the rows.
        limit: relative error allowed in the dense maps.
        case: the reference's arrays.
        image: uint8 (H, W, 3) BGR, already resized.
        masks: the reference's pasted masks; where None only their areas are compared.
    """
    tensor, placement = unresized(model.config, image)
    if masks:
        size = (masks[0]["size"][0], masks[0]["size"][1])
        placement = Placement(size, placement.resized_size, placement.padded_size)
    sizes = [placement.resized_size]
    with torch.inference_mode():
        pyramid, dense = model.dense(torch.from_numpy(tensor)[None])
        boxes = model.detect(dense, sizes)
        (found,) = model.segment(pyramid, boxes, sizes)
        areas = torch.full((len(found.boxes),), float(sizes[0][0] * sizes[0][1]))
        levels = assign_levels(found.boxes, areas).numpy()
        wanted = torch.from_numpy(case["det.boxes"])
        features = pyramid_roi_align(pyramid, [wanted], sizes)[:, 0].numpy()
    error = relative_error(features, case["roi.feat_ch0"])
    detections, order = _detection_check(label, found, levels, error, case)
    result = Compared(_dense_checks(label, limit, pyramid, dense, case), [detections])
    if (order >= 0).all():
        result.masks.append(_mask_check(label, _pasted(found, order, placement), case, masks))
    else:
        result.masks.append(Check((label, "-", "-", "-", "-"), "same detections", False))
    return result
