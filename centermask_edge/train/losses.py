"""The five losses of CenterMask, all with weight 1 (FCOS section 3; CenterMask section 3.4).

Shape legend: P positive cells, R mask proposals.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


def focal_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Summed sigmoid focal loss (RetinaNet equation 5) of (L, classes) logits.

    Args:
        logits: float (L, classes).
        labels: int64 (L,); ``classes`` means background.
        valid: bool (L,); other cells have no loss.
    """
    target = torch.zeros_like(logits)
    positive = torch.nonzero(labels < logits.shape[1]).flatten()
    target[positive, labels[positive]] = 1.0
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    miss = 1 - (p * target + (1 - p) * (1 - target))
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    loss = alpha * ce * miss**FOCAL_GAMMA
    return (loss * valid[:, None]).sum()


def centerness_target(reg: Tensor) -> Tensor:
    """Centre-ness (FCOS equation 3) of float (P, 4) left, top, right, bottom: (P,)."""
    lr, tb = reg[:, 0::2], reg[:, 1::2]
    ratio = (lr.amin(1) / lr.amax(1)) * (tb.amin(1) / tb.amax(1))
    return ratio.sqrt()


def giou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Per cell ``1 - GIoU`` of boxes given as distances in strides: (P, 4), (P, 4) -> (P,).

    One is added to intersection and union, as the official training does.
    """
    area_p = (pred[:, 0] + pred[:, 2]) * (pred[:, 1] + pred[:, 3])
    area_t = (target[:, 0] + target[:, 2]) * (target[:, 1] + target[:, 3])
    low, high = torch.minimum(pred, target), torch.maximum(pred, target)
    inter = (low[:, 0] + low[:, 2]) * (low[:, 1] + low[:, 3])
    hull = (high[:, 0] + high[:, 2]) * (high[:, 1] + high[:, 3])
    union = area_p + area_t - inter
    giou = (inter + 1.0) / (union + 1.0) - (hull - union) / hull
    return 1 - giou


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross entropy of (R, 28, 28) logits of the true class; 0 without proposals."""
    if len(logits) == 0:
        return logits.sum() * 0
    return F.binary_cross_entropy_with_logits(logits, target)


def mask_iou_target(logits: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """True IoU of the thresholded prediction with the whole object: float64 (R,).

    Args:
        logits: float (R, 28, 28); positive means inside.
        target: float (R, 28, 28) of 0 and 1.
        visible: float64 (R,) share of the object inside the proposal.
    """
    predicted = (logits > 0).double()
    target = target.double()
    overlap = (predicted * target).sum((1, 2))
    full = target.sum((1, 2)) / visible
    return overlap / (predicted.sum((1, 2)) + full - overlap).clamp(min=1)


def mask_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Half squared error over the proposals whose true IoU is above zero, averaged over them."""
    counts = target > 0
    if not bool(counts.any()):
        return predicted.sum() * 0
    error = predicted.double()[counts] - target[counts]
    return (0.5 * error**2).sum() / counts.sum()
