"""One training step of ours beside the same step of the official code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.checks import (
    Check,
    Table,
    at_most,
    largest_difference,
    match,
    number,
    relative_error,
)
from centermask_edge.model.decode import detect
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.official import to_official_key
from centermask_edge.model.parity import BOX_LIMIT, build_golden, unresized
from centermask_edge.model.reference import Case, Reference
from centermask_edge.model.roi import assign_levels, pyramid_roi_align
from centermask_edge.train.losses import mask_iou_target
from centermask_edge.train.mask_targets import mask_targets, pairwise_iou, sample_foreground
from centermask_edge.train.objective import Objects, training_losses
from centermask_edge.train.targets import assign_cells, make_cells

CONFIG = "lite_V_19"
CASE = f"train.{CONFIG}.s0"
PROPOSALS = 100
NORM_LIMIT = 1e-3
# Official name, ours, relative limit: masks pass through thresholded pixels.
LOSSES = (
    ("loss_fcos_cls", "loss_cls", 1e-4),
    ("loss_fcos_loc", "loss_box", 1e-4),
    ("loss_fcos_ctr", "loss_centerness", 1e-4),
    ("loss_mask", "loss_mask", 1e-3),
    ("loss_maskiou", "loss_mask_iou", 1e-4),
)
_CROP = (slice(20, 220), slice(8, 312))  # rows and columns of the second picture
_ALL = 10_000


@dataclass(frozen=True, slots=True)
class Step:
    """The reference's batch: images float32 (2, 3, H, W), sizes, and the truth per picture."""

    images: Tensor
    sizes: list[tuple[int, int]]
    objects: list[Objects]


def read_step(reference: Reference, case: Case, model: CenterMask) -> Step:
    """The batch of the reference: the small picture, then a crop of it."""
    picture = reference.small_input()
    tensors = [unresized(model.config, p) for p in (picture, picture[_CROP])]
    largest = tensors[0][0].shape
    images = torch.zeros((2, *largest))
    for row, (tensor, _) in zip(images, tensors, strict=True):
        row[:, : tensor.shape[1], : tensor.shape[2]] = torch.from_numpy(tensor)
    objects = []
    for index in range(2):
        polygons = json.loads(case[f"gt{index}.polygons_json"].tobytes())
        objects.append(
            Objects(
                torch.from_numpy(case[f"gt{index}.boxes"]).float(),
                torch.from_numpy(case[f"gt{index}.classes"]),
                torch.zeros(0, 4),
                [[np.asarray(part, np.float64) for part in parts] for parts in polygons],
            )
        )
    return Step(images, [placement.resized_size for _, placement in tensors], objects)


def _loss_checks(losses: dict[str, Tensor], wanted: dict[str, float]) -> list[Check]:
    checks = []
    for official, ours, limit in LOSSES:
        value = float(losses[ours].detach())
        error = abs(value - wanted[official]) / abs(wanted[official])
        cells = (ours, f"{value:.7f}", f"{wanted[official]:.7f}", number(error))
        checks.append(Check(cells, f"{limit:g}", error <= limit))
    return checks


def _counted(name: str, differing: int, of: int) -> Check:
    return Check((name, f"{differing} of {of} differ"), "0", differing == 0)


def _target_checks(step: Step, dense: DensePredictions, case: Case) -> list[Check]:
    """Which cell learns which class and box; the reference lists pictures within each level."""
    sizes = [(x.shape[2], x.shape[3]) for x in dense.logits]
    classes = dense.logits[0].shape[1]
    cells = make_cells(sizes, dense.logits[0].device)
    targets = [assign_cells(cells, o.boxes, o.classes, o.ignore, classes) for o in step.objects]
    counts = [h * w for h, w in sizes]
    labels = [
        torch.cat(parts) for parts in zip(*(t.labels.split(counts) for t in targets), strict=True)
    ]
    reg = [torch.cat(parts) for parts in zip(*(t.reg.split(counts) for t in targets), strict=True)]
    differing, error = 0, 0.0
    for level, (mine, distances) in enumerate(zip(labels, reg, strict=True), start=3):
        wanted = case[f"target.labels.p{level}"]
        differing += int((mine.numpy() != wanted).sum())
        positive = distances[mine < classes].numpy()
        error = max(error, largest_difference(positive, case[f"target.reg_pos.p{level}"]))
    row = at_most("box targets (strides)", [error], 1e-4)
    return [_counted("labels of cells", differing, 2 * sum(counts)), row]


def _proposal_checks(model: CenterMask, dense: DensePredictions, case: Case) -> list[Check]:
    config = model.config.decode.model_copy(update={"max_detections": PROPOSALS})
    lone, shift, scores, total = 0, 0.0, 0.0, 0
    for index, found in enumerate(detect(dense, config)):
        boxes, classes = found.boxes.detach().numpy(), found.classes.numpy()
        wanted = case[f"proposals{index}.boxes"]
        order = match(boxes, classes, wanted, case[f"proposals{index}.classes"])
        here, mine = order >= 0, order[order >= 0]
        lone += len(wanted) + len(boxes) - 2 * len(mine)
        total += len(wanted)
        shift = max(shift, largest_difference(boxes[mine], wanted[here]))
        score = found.scores.detach().numpy()[mine]
        scores = max(scores, largest_difference(score, case[f"proposals{index}.scores"][here]))
    return [
        _counted("proposals", lone, total),
        at_most("boxes of proposals (pixels)", [shift], BOX_LIMIT),
        at_most("scores of proposals", [scores], 1e-4),
    ]


def _foreground(case: Case) -> list[Tensor]:
    counts = [int(n) for n in case["fg.per_image"]]
    return list(torch.from_numpy(case["fg.boxes"]).split(counts))


def _mask_checks(
    model: CenterMask, pyramid: Sequence[Tensor], step: Step, case: Case
) -> list[Check]:
    """The chosen proposals, and what the mask branch is asked and answers for them."""
    foreground = _foreground(case)
    lone, masks, visible, levels = 0, [], [], []
    for index, (rois, truth) in enumerate(zip(foreground, step.objects, strict=True)):
        proposals = torch.from_numpy(case[f"proposals{index}.boxes"])
        chosen = sample_foreground(proposals, truth.boxes, _ALL, None)[0]
        rows = {tuple(row) for row in chosen.tolist()}
        lone += len(rows ^ {tuple(row) for row in rois.tolist()})
        owner = pairwise_iou(rois, truth.boxes).max(1)[1]
        pair = mask_targets(truth.polygons or (), rois, owner)
        masks.append(pair[0])
        visible.append(pair[1])
        area = float(step.sizes[index][0] * step.sizes[index][1])
        levels.append(assign_levels(rois, torch.full((len(rois),), area)))
    wanted = np.unpackbits(case["fg.mask_targets_packed"], axis=1).reshape(-1, 28, 28)
    target = torch.cat(masks)
    truth_iou = mask_iou_target(
        torch.from_numpy(case["fg.mask_logits"]), target, torch.cat(visible)
    ).numpy()
    features = pyramid_roi_align(pyramid, foreground, step.sizes)
    classes = torch.from_numpy(case["fg.classes"])
    logits = model.mask_head(features)[torch.arange(len(classes)), classes].detach().numpy()
    moved = int((torch.cat(levels).numpy() != case["fg.levels"]).sum())
    return [
        _counted("foreground proposals", lone, len(case["fg.boxes"])),
        _counted("levels of foreground", moved, len(case["fg.levels"])),
        _counted("pixels of mask targets", int((target.numpy() != wanted).sum()), wanted.size),
        at_most(
            "targets of mask IoU", [largest_difference(truth_iou, case["fg.maskiou_targets"])], 1e-6
        ),
        at_most("mask logits (relative)", [relative_error(logits, case["fg.mask_logits"])], 1e-4),
    ]


def _gradient_check(model: CenterMask, wanted: dict[str, list[float]]) -> Check:
    norms: list[tuple[float, float]] = []
    for name, parameter in model.named_parameters():
        golden = wanted[to_official_key(name, model.config.backbone)][0]
        assert parameter.grad is not None
        norms.append((float(parameter.grad.double().norm()), golden))
    pairs: NDArray[np.float64] = np.array(norms)
    # A gradient that is zero but for rounding is measured against the typical one.
    scale = np.maximum(pairs[:, 1], 1e-6 * float(np.median(pairs[:, 1])))
    error = float((np.abs(pairs[:, 0] - pairs[:, 1]) / scale).max())
    return at_most(f"gradient norms of {len(pairs)} tensors (relative)", [error], NORM_LIMIT)


def training_tables(reference: Reference) -> list[Table]:
    """The losses of the golden step, and everything they are made of."""
    model = build_golden(reference, CONFIG).train()
    case, wanted = reference.case(CASE), reference.losses(CASE)
    step = read_step(reference, case, model)
    # With gradients on, as in training: the frozen norms then round as the official ones do.
    pyramid, dense = model.dense(step.images)
    parts = [
        *_target_checks(step, dense, case),
        *_proposal_checks(model, dense, case),
        *_mask_checks(model, pyramid, step, case),
    ]
    losses = training_losses(model, step.images, step.sizes, step.objects, proposals=PROPOSALS)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    parts.append(_gradient_check(model, wanted["grad_l2_sum_absmax_first3"]))
    return [
        Table(
            "Losses of a training step against the official code",
            f"{CONFIG}, two pictures; the difference is relative.",
            ("loss", "ours", "official", "difference"),
            tuple(_loss_checks(losses, wanted["losses"])),
        ),
        Table(
            "What the losses are made of",
            "Targets, proposals and gradients of the same step.",
            ("part", "difference"),
            tuple(parts),
        ),
    ]
