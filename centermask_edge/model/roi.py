"""Scale-adaptive RoI assignment (CenterMask equation 2) and aligned, adaptive RoIAlign.

RoIAlign averages bilinear samples on a regular grid; both the interpolation and the average are
separable in x and y, so a RoI is ``A_y F A_x^T`` with one small weight matrix per axis. That is
two matrix products with exact gradients, and needs no compiled extension.

Shape legend: R RoIs, C channels, H W rows and columns of a level, S output side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from centermask_edge.model import kernel_ops
from centermask_edge.switches import RoiAssignment, RoiRules

MASK_LEVELS = 3  # P3, P4, P5
_FIRST, _LAST = 3, 5
_FARTHEST = 2.0**24  # cells; beyond, float32 positions are more than a cell apart


def assign_levels(boxes: Tensor, image_areas: Tensor) -> Tensor:
    """Pyramid level of each RoI as an index, 0 for P3 to 2 for P5 (CenterMask equation 2).

    Args:
        boxes: float (R, 4) xyxy, unclipped.
        image_areas: float (R,) area of the unpadded resized picture of each RoI.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = torch.ceil(_LAST - torch.log2(image_areas / area + 2.2e-16))
    return level.clamp(_FIRST, _LAST).nan_to_num(_FIRST).long() - _FIRST


def levels_by(rules: RoiRules, boxes: Tensor, image_areas: Tensor) -> Tensor:
    """Pyramid level of each RoI, 3 to 7, int64 (R,); see :func:`assign_levels` for the rest.

    A RoI lies on the highest level whose threshold its area passes (CenterMask equations 1 and 2,
    solved for the area, so that every engine rounds them alike).
    """
    if rules == RoiRules():
        return assign_levels(boxes, image_areas) + _FIRST
    one = 1.0 if rules.original else 0.0
    area = (boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one)
    level = torch.full_like(area, rules.first, dtype=torch.int64)
    for above in rules.levels[1:]:
        threshold = rules.threshold(above)
        if rules.assignment is RoiAssignment.CANONICAL:
            level += area >= threshold
        else:
            level += area > image_areas * threshold
    return level


def _near(start: Tensor, length: Tensor, total: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """First sample and number of samples of every RoI that may lie on the level, int64 (R,).

    A RoI far larger than the picture has millions of samples beyond it, all of them zero.
    """
    start, length = start.double(), length.double()
    spacing = torch.where(total > 0, length / total.clamp(min=1), 1.0)
    margin = 2 + 1e-6 * (start.abs() + length) / spacing  # what float32 positions may be off
    first = ((-1.0 - start) / spacing - margin).floor().clamp(min=0)
    last = ((extent - start) / spacing + margin).ceil().clamp(min=0)
    first, last = torch.minimum(first, total).long(), torch.minimum(last, total).long()
    return first, (last - first).clamp(min=0)


def _axis_weights(
    start: Tensor, length: Tensor, extent: int, side: int, samples: int = 0
) -> Tensor:
    """Weights (R, side, extent) that average one axis of every RoI into its bins.

    start, length: float (R,) in cells of the level. Samples beyond [-1, extent] count as zero,
    those between are clamped to the border (ONNX RoiAlign-16). So many samples a bin, or, where
    0, one for each begun cell.
    """
    placeable = (start.abs() <= _FARTHEST) & (length <= _FARTHEST)  # neither infinite nor NaN
    wanted = length.new_full((), samples) if samples else torch.ceil(length / side).clamp(min=0)
    per_bin = torch.where(placeable, wanted, 0.0).long()
    origin, count = _near(
        torch.where(placeable, start, 0.0),
        torch.where(placeable, length, 0.0),
        per_bin * side,
        extent,
    )
    rois = torch.arange(len(start), device=start.device)
    roi = rois.repeat_interleave(count)
    first = torch.cumsum(count, 0) - count
    sample = torch.arange(int(count.sum()), device=start.device) - (first - origin)[roi]
    in_bin = sample % per_bin[roi]
    bin_index = sample // per_bin[roi]
    bin_size = length / side
    offset = (in_bin.to(start.dtype) + 0.5) * bin_size[roi] / per_bin[roi].to(start.dtype)
    position = start[roi] + bin_index.to(start.dtype) * bin_size[roi] + offset
    valid = (position >= -1.0) & (position <= extent)
    position = position.clamp(0, extent - 1)
    low = position.floor()
    fraction = position - low
    low_index = low.long()
    high_index = (low_index + 1).clamp(max=extent - 1)
    share = valid.to(start.dtype) / per_bin[roi].to(start.dtype)
    row = (roi * side + bin_index) * extent
    weights = torch.zeros(len(start) * side * extent, dtype=start.dtype, device=start.device)
    weights.index_add_(0, row + low_index, (1 - fraction) * share)
    weights.index_add_(0, row + high_index, fraction * share)
    return weights.view(len(start), side, extent)


def roi_align(
    feature: Tensor, boxes: Tensor, scale: float, side: int, *, original: bool = False
) -> Tensor:
    """RoIAlign of one picture at one level, aligned and adaptive: (R, C, side, side).

    Args:
        feature: float (C, H, W).
        boxes: float32 (R, 4) xyxy in input pixels.
        scale: cells per input pixel, 1 / stride.
        side: output side S.
        original: neither: no half-cell shift, two samples a bin and axis, at least a cell.
    """
    channels, height, width = feature.shape
    edges = boxes.float() * scale - (0.0 if original else 0.5)
    size = edges[:, 2:] - edges[:, :2]
    size = size.clamp(min=1.0) if original else size
    samples = 2 if original else 0
    rows = _axis_weights(edges[:, 1], size[:, 1], height, side, samples).to(feature.dtype)
    cols = _axis_weights(edges[:, 0], size[:, 0], width, side, samples).to(feature.dtype)
    by_row = feature.transpose(0, 1).reshape(height, channels * width)
    lines = (rows.reshape(-1, height) @ by_row).view(-1, side, channels, width)
    lines = lines.transpose(1, 2).reshape(-1, channels * side, width)
    return (lines @ cols.transpose(1, 2)).view(-1, channels, side, side)


def pyramid_roi_align(
    pyramid: Sequence[Tensor],
    boxes: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    side: int = 14,
    rules: RoiRules = RoiRules(),  # noqa: B008  (immutable)
) -> Tensor:
    """RoI features (sum of R, C, side, side), pictures in order, each from its own level.

    Args:
        pyramid: P3..P5, or as far as the rules go (more are ignored), float (B, C, H_l, W_l).
        boxes: per picture float (R_i, 4) xyxy in input pixels.
        image_sizes: per picture (height, width) resized, unpadded.
        side: output side.
        rules: how a RoI finds its level, and is sampled there.
    """
    if rules == RoiRules() and kernel_ops.usable(pyramid[0]):
        return roi_align_with_kernel(pyramid, boxes, image_sizes, side)
    channels = pyramid[0].shape[1]
    parts: list[Tensor] = []
    places: list[Tensor] = []
    start = 0
    for image, (rois, (height, width)) in enumerate(zip(boxes, image_sizes, strict=True)):
        areas = rois.new_full((len(rois),), float(height * width))
        levels = levels_by(rules, rois, areas)
        for level in rules.levels:
            index = torch.nonzero(levels == level).flatten()
            if len(index):
                feature, scale = pyramid[level - _FIRST][image], 1.0 / (1 << level)
                aligned = roi_align(feature, rois[index], scale, side, original=rules.original)
                parts.append(aligned)
                places.append(index + start)
        start += len(rois)
    if not parts:
        return pyramid[0].new_zeros((0, channels, side, side))
    return torch.cat(parts)[torch.argsort(torch.cat(places))]


def roi_align_with_kernel(
    pyramid: Sequence[Tensor],
    boxes: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    side: int = 14,
) -> Tensor:
    """As :func:`pyramid_roi_align`, by the CUDA kernel in one launch; no gradients."""
    device = pyramid[0].device
    counts = torch.tensor([len(b) for b in boxes], device=device)
    owner = torch.arange(len(boxes), device=device).repeat_interleave(counts)
    sizes = torch.tensor(image_sizes, dtype=torch.float32, device=device)
    found: Tensor = torch.ops.centermask.pyramid_roi_align(
        *pyramid[:MASK_LEVELS], torch.cat(list(boxes)), owner, sizes, side
    )
    return found
