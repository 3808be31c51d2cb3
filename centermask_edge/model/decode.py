"""From dense predictions to boxes: threshold, per-level top-k, class-aware NMS, top K.

The reference for the ONNX function and for the CUDA kernel. Shape legend: K kept detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from centermask_edge.boxes import nms
from centermask_edge.kernels.decode_nms import MAX_DETECTIONS, MAX_TOPK
from centermask_edge.model import kernel_ops
from centermask_edge.model.fcos import STRIDES, DensePredictions, level_locations

if TYPE_CHECKING:
    from centermask_edge.config import DecodeConfig


@dataclass(frozen=True, slots=True)
class Boxes:
    """Detections of one picture, best first.

    boxes: float32 (K, 4) xyxy in input pixels, never clipped; scores: float32 (K,) the root of
    class probability times centre-ness; classes: int64 (K,).
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def candidates(
    dense: DensePredictions, image: int, config: DecodeConfig, *, root: bool = True
) -> Boxes:
    """Everything of one picture above the threshold, at most ``pre_nms_topk`` a level, unsorted.

    The threshold is on the class probability alone; the top-k ranks by its product with
    centre-ness (spec of the official decoder; FCOS section 3.2). The score is the root of that
    product, or, where not ``root``, the product.
    """
    boxes, scores, classes = [], [], []
    for logits, reg, centerness, stride in zip(
        dense.logits, dense.reg, dense.centerness, STRIDES, strict=True
    ):
        height, width = logits.shape[2:]
        probability = logits[image].float().sigmoid().flatten(1).T  # (H * W, classes)
        quality = probability * centerness[image].float().sigmoid().flatten()[:, None]
        location, label = torch.nonzero(probability > config.score_threshold, as_tuple=True)
        quality = quality[location, label]
        if len(quality) > config.pre_nms_topk:
            quality, best = quality.topk(config.pre_nms_topk, sorted=False)
            location, label = location[best], label[best]
        distances = reg[image].float().flatten(1).T[location] * stride
        centre = level_locations(height, width, stride, reg.device)[location]
        boxes.append(torch.cat((centre - distances[:, :2], centre + distances[:, 2:]), dim=1))
        scores.append(quality.sqrt() if root else quality)
        classes.append(label)
    return Boxes(torch.cat(boxes), torch.cat(scores), torch.cat(classes))


def detect(dense: DensePredictions, config: DecodeConfig) -> list[Boxes]:
    """Final boxes of every picture of the batch, at most ``config.max_detections`` each.

    On a GPU the CUDA kernel does all of it (see ``kernel_ops.usable``), within its limits.
    """
    if _within_limits(config) and kernel_ops.usable(dense.logits[0]):
        return detect_with_kernel(dense, config)
    results = []
    for image in range(dense.logits[0].shape[0]):
        found = candidates(dense, image, config)
        keep = torch.from_numpy(
            nms(
                found.boxes.detach().cpu().numpy(),
                found.scores.detach().cpu().numpy(),
                found.classes.cpu().numpy(),
                config.nms_threshold,
                config.max_detections,
            )
        ).to(found.boxes.device)
        results.append(Boxes(found.boxes[keep], found.scores[keep], found.classes[keep]))
    return results


def _within_limits(config: DecodeConfig) -> bool:
    return config.pre_nms_topk <= MAX_TOPK and config.max_detections <= MAX_DETECTIONS


def detect_with_kernel(dense: DensePredictions, config: DecodeConfig) -> list[Boxes]:
    """As :func:`detect`, by the CUDA kernel; waits for the device once, for the counts."""
    boxes, scores, classes, count = torch.ops.centermask.decode_nms(
        dense.logits,
        dense.reg,
        dense.centerness,
        config.score_threshold,
        config.nms_threshold,
        config.pre_nms_topk,
        config.max_detections,
    )
    return [
        Boxes(boxes[n, :found], scores[n, :found], classes[n, :found])
        for n, found in enumerate(count.tolist())
    ]
