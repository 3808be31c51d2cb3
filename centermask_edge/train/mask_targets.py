"""Which proposals train the mask branch, and the masks and IoU ratios they should predict.

Shape legend: R proposals, G ground-truth boxes, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from centermask_edge.data.shapes import filled
from centermask_edge.errors import require

MASK_SIDE = 28
Polygons = Sequence[NDArray[np.float64]]


def _rle() -> Any:
    return require("faster_coco_eval.core.mask", extra="train", why="rasterise polygons")


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of float (R, 4) and (G, 4) xyxy boxes: (R, G); plain areas, 0 where both are empty."""
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    wh = torch.minimum(a[:, None, 2:], b[:, 2:]) - torch.maximum(a[:, None, :2], b[:, :2])
    inter = wh.clamp(min=0).prod(2)
    union = area_a[:, None] + area_b - inter
    return torch.where(inter > 0, inter / union, torch.zeros_like(inter))


def sample_foreground(
    proposals: Tensor, boxes: Tensor, limit: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Proposals for the mask loss and the index of the object each belongs to.

    The ground-truth boxes are added to the proposals; those with IoU >= 0.5 to some object, of
    whatever class, are foreground; of more than ``limit`` a random choice stays.

    Returns:
        float (R, 4) boxes and int64 (R,) indices into ``boxes``.
    """
    everything = torch.cat((proposals, boxes))
    iou, match = pairwise_iou(everything, boxes).max(dim=1)
    foreground = torch.nonzero(iou >= 0.5).flatten()
    if len(foreground) > limit:
        order = torch.randperm(len(foreground), generator=generator)[:limit]
        foreground = foreground[order.to(foreground.device)]
    return everything[foreground], match[foreground]


def rasterise(
    polygons: Polygons, box: NDArray[np.float64], cover: Polygons = ()
) -> NDArray[np.bool_]:
    """The visible part of an object inside a box as bool (28, 28), by COCO's polygon rasteriser.

    Args:
        polygons: parts of one object, each float64 (2 * points,) x, y in input pixels.
        box: float64 (4,) xyxy; it may reach beyond the picture.
        cover: polygons on top of the object.
    """
    width, height = max(box[2] - box[0], 0.1), max(box[3] - box[1], 0.1)
    scale = np.array([MASK_SIDE / width, MASK_SIDE / height])

    def drawn(parts: Polygons) -> NDArray[np.bool_]:
        moved = [((p.reshape(-1, 2) - box[:2]) * scale).ravel() for p in parts]
        return filled(moved, MASK_SIDE, MASK_SIDE)

    return drawn(polygons) & ~drawn(cover) if cover else drawn(polygons)


def polygon_area(polygons: Polygons) -> float:
    """Sum of the parts' shoelace areas in square pixels."""
    total = 0.0
    for part in polygons:
        x, y = part[0::2], part[1::2]
        total += 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    return total


def visible_ratio(polygons: Polygons, box: NDArray[np.float64], cover: Polygons = ()) -> float:
    """Share of the object's visible area that lies inside the box, in [1e-10, 1].

    Needed because the mask-IoU target counts what the proposal cuts off (Mask Scoring R-CNN).
    """
    if cover:
        return _visible_ratio_below(polygons, box, cover)
    rle = _rle()
    full = polygon_area(polygons)
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    if full <= 0 or width < 1 or height < 1:
        return 1e-10
    parts = [(p.reshape(-1, 2) - box[:2]).ravel().tolist() for p in polygons]
    inside = float(np.sum(rle.area(rle.frPyObjects(parts, height, width))))
    return min(max(inside / full, 1e-10), 1.0)


def _visible_ratio_below(polygons: Polygons, box: NDArray[np.float64], cover: Polygons) -> float:
    """The same by pixels, for an object with others on top of it."""
    points = np.concatenate([p.reshape(-1, 2) for p in polygons])
    frame = np.concatenate((points.min(0), points.max(0)))

    def area(window: NDArray[np.float64]) -> float:
        width, height = (int(np.ceil(side)) for side in window[2:] - window[:2])
        if width < 1 or height < 1:
            return 0.0
        own, above = (
            filled([(p.reshape(-1, 2) - window[:2]).ravel() for p in parts], width, height)
            for parts in (polygons, cover)
        )
        return float((own & ~above).sum())

    inside = np.concatenate((np.maximum(frame[:2], box[:2]), np.minimum(frame[2:], box[2:])))
    full = area(frame)
    return min(max(area(inside) / full, 1e-10), 1.0) if full else 1e-10


def mask_targets(
    objects: Sequence[Polygons],
    boxes: Tensor,
    match: Tensor,
    covers: Sequence[Polygons] = (),
) -> tuple[Tensor, Tensor]:
    """Targets of one picture: float32 (R, 28, 28) masks and float64 (R,) visible ratios."""
    masks = np.zeros((len(boxes), MASK_SIDE, MASK_SIDE), dtype=np.float32)
    ratios = np.ones(len(boxes), dtype=np.float64)
    corners = boxes.detach().cpu().numpy().astype(np.float64)
    for row, index in enumerate(match.tolist()):
        cover = covers[index] if covers else ()
        masks[row] = rasterise(objects[index], corners[row], cover)
        ratios[row] = visible_ratio(objects[index], corners[row], cover)
    return torch.from_numpy(masks).to(boxes.device), torch.from_numpy(ratios).to(boxes.device)
