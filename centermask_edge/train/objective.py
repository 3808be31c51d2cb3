"""One training forward: from a batch with its objects to the five losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from centermask_edge.config import DecodeConfig
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.decode import detect
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.roi import pyramid_roi_align
from centermask_edge.train.distill import Teacher
from centermask_edge.train.losses import (
    centerness_target,
    focal_loss,
    giou_loss,
    mask_iou_loss,
    mask_iou_target,
    mask_loss,
)
from centermask_edge.train.mask_targets import Polygons, mask_targets, sample_foreground
from centermask_edge.train.ranks import mean_over_ranks
from centermask_edge.train.targets import Assigner, Cells, CellTargets, make_cells, targets_of

_ROI_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Objects:
    """The truth of one picture in input pixels.

    boxes float32 (G, 4) xyxy; classes int64 (G,); ignore float32 (I, 4) regions without
    background loss; polygons per object, or None where the picture has boxes only: such a
    picture trains the detector and not the mask branch; covers per object: polygons that lie on
    top of it and hide it, empty where nothing does.
    """

    boxes: Tensor
    classes: Tensor
    ignore: Tensor
    polygons: Sequence[Polygons] | None
    covers: Sequence[Polygons] = ()

    def to(self, device: torch.device) -> Objects:
        """The same on another device."""
        boxes, classes, ignore = (x.to(device) for x in (self.boxes, self.classes, self.ignore))
        return Objects(boxes, classes, ignore, self.polygons, self.covers)


@dataclass(frozen=True, slots=True)
class Normalisers:
    """What the detector's losses are divided by, each the mean over all processes and over the
    parts that a step is computed in: number of positive cells, sum of their centre-ness.
    """

    positives: Tensor
    centerness: Tensor


def _normalisers(targets: Sequence[CellTargets], num_classes: int, parts: int) -> Normalisers:
    labels = torch.cat([t.labels for t in targets])
    positive = labels < num_classes
    weight = centerness_target(torch.cat([t.reg for t in targets])[positive])
    sums = torch.stack((positive.sum().float(), weight.sum()))
    count, total = mean_over_ranks(sums / parts)
    return Normalisers(count.clamp(min=1), total.clamp(min=1e-6))


def step_normalisers(
    images: Tensor, objects: Sequence[Objects], num_classes: int, assigner: Assigner, parts: int
) -> Normalisers:
    """Of a whole step, before it is computed part by part: targets depend on the truth alone.

    Args:
        images: float (B, 3, H, W), H and W multiples of 32.
        objects: the truth per picture.
        num_classes: of the model.
        assigner: as in the losses.
        parts: how many forwards the step is split into.
    """
    sizes = [(images.shape[2] // 8, images.shape[3] // 8)]
    while len(sizes) < 5:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    cells = make_cells(sizes, images.device)
    return _normalisers(_targets(cells, objects, num_classes, assigner), num_classes, parts)


def _targets(
    cells: Cells, objects: Sequence[Objects], num_classes: int, assigner: Assigner
) -> list[CellTargets]:
    return [targets_of(assigner, cells, o.boxes, o.classes, o.ignore, num_classes) for o in objects]


def _flat(levels: Sequence[Tensor]) -> Tensor:
    """(B, C, H_l, W_l) of every level as float32 (B, L, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1).float()


def detector_losses(
    dense: DensePredictions,
    objects: Sequence[Objects],
    assigner: Assigner = "fcos",
    normalisers: Normalisers | None = None,
) -> dict[str, Tensor]:
    """loss_cls, loss_box and loss_centerness of a batch.

    Args:
        dense: predictions.
        objects: the truth per picture.
        assigner: which cells learn which object.
        normalisers: of the step; those of this batch where None.
    """
    sizes = [(x.shape[2], x.shape[3]) for x in dense.logits]
    num_classes = dense.logits[0].shape[1]
    targets = _targets(make_cells(sizes, dense.logits[0].device), objects, num_classes, assigner)
    by = normalisers or _normalisers(targets, num_classes, 1)
    labels = torch.cat([t.labels for t in targets])
    valid = ~torch.cat([t.ignore for t in targets])
    positive = torch.nonzero(labels < num_classes).flatten()
    logits = _flat(dense.logits).flatten(0, 1)
    reg = _flat(dense.reg).flatten(0, 1)[positive]
    centerness = _flat(dense.centerness).flatten()[positive]
    reg_target = torch.cat([t.reg for t in targets])[positive]
    loss_cls = focal_loss(logits, labels, valid) / by.positives
    if len(positive) == 0:
        zero = reg.sum() * 0 + centerness.sum() * 0
        return {"loss_cls": loss_cls, "loss_box": zero, "loss_centerness": zero}
    weight = centerness_target(reg_target)
    loss_box = (giou_loss(reg, reg_target) * weight).sum() / by.centerness
    loss_centerness = F.binary_cross_entropy_with_logits(centerness, weight, reduction="sum")
    return {
        "loss_cls": loss_cls,
        "loss_box": loss_box,
        "loss_centerness": loss_centerness / by.positives,
    }


def mask_losses(
    model: CenterMask,
    pyramid: Sequence[Tensor],
    rois: Sequence[Tensor],
    matches: Sequence[Tensor],
    objects: Sequence[Objects],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """loss_mask and loss_mask_iou for chosen proposals; see ``sample_foreground``.

    Without a mask-IoU head there is no loss_mask_iou.
    """
    features = pyramid_roi_align(pyramid, rois, image_sizes, rules=model.config.roi_rules)
    classes = torch.cat([o.classes[m] for o, m in zip(objects, matches, strict=True)])
    pairs = [
        mask_targets(o.polygons or (), r, m, o.covers)
        for o, r, m in zip(objects, rois, matches, strict=True)
    ]
    target = torch.cat([p[0] for p in pairs])
    visible = torch.cat([p[1] for p in pairs])
    rows = torch.arange(len(classes), device=classes.device)
    # A CPU compiles its convolutions for every new shape: round the number of RoIs up.
    features = F.pad(features, (0, 0, 0, 0, 0, 0, 0, -len(rows) % _ROI_MULTIPLE))
    classes = F.pad(classes, (0, len(features) - len(rows)))
    everything = torch.arange(len(features), device=classes.device)
    logits = model.mask_head(features)[everything, classes]
    if model.mask_iou_head is None:
        return {"loss_mask": mask_loss(logits[: len(rows)].float(), target)}
    # Neither the mask nor the RoI features are detached: the IoU loss reaches both.
    iou = model.mask_iou_head(features, logits.sigmoid()[:, None])[everything, classes]
    logits, iou = logits[: len(rows)].float(), iou[: len(rows)]
    truth = mask_iou_target(logits.detach(), target, visible)
    return {
        "loss_mask": mask_loss(logits, target),
        "loss_mask_iou": mask_iou_loss(iou, truth),
    }


def training_losses(
    model: CenterMask,
    images: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    objects: Sequence[Objects],
    *,
    proposals: int = 100,
    rois_per_image: int = 128,
    seeds: Sequence[int] | None = None,
    teacher: Teacher | None = None,
    assigner: Assigner = "fcos",
    normalisers: Normalisers | None = None,
) -> dict[str, Tensor]:
    """All five losses of a batch, and the teacher's if there is one.

    Args:
        model: the network in training.
        images: float (B, 3, H, W), normalised and padded.
        image_sizes: per picture (height, width) resized, unpadded.
        objects: the truth per picture.
        proposals: boxes kept from the detector for the mask branch, per picture.
        rois_per_image: most proposals per picture that the mask branch learns from.
        seeds: of the random choice among them, per picture.
        teacher: whose features and classes are imitated.
        assigner: which cells learn which object.
        normalisers: of the step, where this batch is a part of it.
    """
    pyramid, dense = model.dense(images)
    losses = detector_losses(dense, objects, assigner, normalisers)
    if teacher is not None:
        losses |= teacher.losses(images, pyramid, dense)
    masked = [i for i, o in enumerate(objects) if o.polygons is not None and len(o.boxes)]
    decode: DecodeConfig = model.config.decode.model_copy(update={"max_detections": proposals})
    with torch.no_grad():
        found = detect(_pick(dense, masked), decode) if masked else []
        chosen = [
            sample_foreground(
                f.boxes,
                objects[i].boxes,
                rois_per_image,
                None if seeds is None else torch.Generator().manual_seed(seeds[i]),
            )
            for f, i in zip(found, masked, strict=True)
        ]
    if not masked:
        # Zero times a sum, so that every parameter has a gradient in distributed training.
        heads = {"loss_mask": model.mask_head, "loss_mask_iou": model.mask_iou_head}
        unused = [p for head in heads.values() if head is not None for p in head.parameters()]
        zero = torch.stack([p.sum() for p in unused]).sum() * 0
        return losses | {name: zero for name, head in heads.items() if head is not None}
    return {
        **losses,
        **mask_losses(
            model,
            [level[masked] for level in pyramid[: model.config.roi_levels[1] - 2]],
            [c[0] for c in chosen],
            [c[1] for c in chosen],
            [objects[i] for i in masked],
            [image_sizes[i] for i in masked],
        ),
    }


def _pick(dense: DensePredictions, images: Sequence[int]) -> DensePredictions:
    index = list(images)
    return DensePredictions(
        [x[index].detach() for x in dense.logits],
        [x[index].detach() for x in dense.reg],
        [x[index].detach() for x in dense.centerness],
    )
