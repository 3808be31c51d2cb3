"""One training forward: from a batch with its objects to the five losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
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
from centermask_edge.train.targets import CellTargets, assign_cells, make_cells

_ROI_MULTIPLE = 16


@dataclass(frozen=True, slots=True)
class Objects:
    """The truth of one picture in input pixels.

    boxes float32 (G, 4) xyxy; classes int64 (G,); ignore float32 (I, 4) regions without
    background loss; polygons per object, or None where the picture has boxes only: such a
    picture trains the detector and not the mask branch.
    """

    boxes: Tensor
    classes: Tensor
    ignore: Tensor
    polygons: Sequence[Polygons] | None


def _mean_over_ranks(value: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def _flat(levels: Sequence[Tensor]) -> Tensor:
    """(B, C, H_l, W_l) of every level as float32 (B, L, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1).float()


def detector_losses(dense: DensePredictions, objects: Sequence[Objects]) -> dict[str, Tensor]:
    """loss_cls, loss_box and loss_centerness of a batch."""
    sizes = [(x.shape[2], x.shape[3]) for x in dense.logits]
    device = dense.logits[0].device
    num_classes = dense.logits[0].shape[1]
    cells = make_cells(sizes, device)
    targets: list[CellTargets] = [
        assign_cells(cells, o.boxes, o.classes, o.ignore, num_classes) for o in objects
    ]
    labels = torch.cat([t.labels for t in targets])
    valid = ~torch.cat([t.ignore for t in targets])
    positive = torch.nonzero(labels < num_classes).flatten()
    logits = _flat(dense.logits).flatten(0, 1)
    reg = _flat(dense.reg).flatten(0, 1)[positive]
    centerness = _flat(dense.centerness).flatten()[positive]
    reg_target = torch.cat([t.reg for t in targets])[positive]

    count = _mean_over_ranks(torch.tensor(float(len(positive)), device=device)).clamp(min=1)
    loss_cls = focal_loss(logits, labels, valid) / count
    if len(positive) == 0:
        zero = reg.sum() * 0 + centerness.sum() * 0
        return {"loss_cls": loss_cls, "loss_box": zero, "loss_centerness": zero}
    weight = centerness_target(reg_target)
    total = _mean_over_ranks(weight.sum()).clamp(min=1e-6)
    loss_box = (giou_loss(reg, reg_target) * weight).sum() / total
    loss_centerness = (
        F.binary_cross_entropy_with_logits(centerness, weight, reduction="sum") / count
    )
    return {"loss_cls": loss_cls, "loss_box": loss_box, "loss_centerness": loss_centerness}


def mask_losses(
    model: CenterMask,
    pyramid: Sequence[Tensor],
    rois: Sequence[Tensor],
    matches: Sequence[Tensor],
    objects: Sequence[Objects],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """loss_mask and loss_mask_iou for chosen proposals; see ``sample_foreground``."""
    features = pyramid_roi_align(pyramid, rois, image_sizes)
    classes = torch.cat([o.classes[m] for o, m in zip(objects, matches, strict=True)])
    pairs = [
        mask_targets(o.polygons or (), r, m) for o, r, m in zip(objects, rois, matches, strict=True)
    ]
    target = torch.cat([p[0] for p in pairs])
    visible = torch.cat([p[1] for p in pairs])
    rows = torch.arange(len(classes), device=classes.device)
    # A CPU compiles its convolutions for every new shape: round the number of RoIs up.
    features = F.pad(features, (0, 0, 0, 0, 0, 0, 0, -len(rows) % _ROI_MULTIPLE))
    classes = F.pad(classes, (0, len(features) - len(rows)))
    everything = torch.arange(len(features), device=classes.device)
    logits = model.mask_head(features)[everything, classes]
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
    generator: torch.Generator | None = None,
    teacher: Teacher | None = None,
) -> dict[str, Tensor]:
    """All five losses of a batch, and the teacher's if there is one.

    Args:
        model: the network in training.
        images: float (B, 3, H, W), normalised and padded.
        image_sizes: per picture (height, width) resized, unpadded.
        objects: the truth per picture.
        proposals: boxes kept from the detector for the mask branch, per picture.
        rois_per_image: most proposals per picture that the mask branch learns from.
        generator: source of the random choice among them.
        teacher: whose features are imitated.
    """
    pyramid, dense = model.dense(images)
    losses = detector_losses(dense, objects)
    if teacher is not None:
        losses["loss_teacher"] = teacher.loss(images, pyramid)
    masked = [i for i, o in enumerate(objects) if o.polygons is not None and len(o.boxes)]
    decode: DecodeConfig = model.config.decode.model_copy(update={"max_detections": proposals})
    with torch.no_grad():
        found = detect(_pick(dense, masked), decode) if masked else []
        chosen = [
            sample_foreground(f.boxes, objects[i].boxes, rois_per_image, generator)
            for f, i in zip(found, masked, strict=True)
        ]
    if not masked:
        # Zero times a sum, so that every parameter has a gradient in distributed training.
        unused = [*model.mask_head.parameters(), *model.mask_iou_head.parameters()]
        zero = torch.stack([p.sum() for p in unused]).sum() * 0
        return {**losses, "loss_mask": zero, "loss_mask_iou": zero}
    return {
        **losses,
        **mask_losses(
            model,
            [level[masked] for level in pyramid[:3]],
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
