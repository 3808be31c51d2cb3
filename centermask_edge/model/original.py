"""Decoding by the rules of CenterMask's first release, for weights that were trained with them.

Against ``decode``: boxes are clipped to [0, side - 1] as they are made, the score is class
probability times centre-ness without a root, and overlaps count pixels: a box from 3 to 5 is 3
wide. Not compared with that release: it has no reference outputs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from centermask_edge.boxes import nms
from centermask_edge.model.decode import Boxes, candidates
from centermask_edge.model.fcos import DensePredictions

if TYPE_CHECKING:
    from centermask_edge.config import DecodeConfig


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes float (R, 4) xyxy moved into a picture of (height, width): 0 to side - 1."""
    height, width = size
    limit = boxes.new_tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(boxes.clamp(min=0), limit)


def detect_original(
    dense: DensePredictions, config: DecodeConfig, image_sizes: Sequence[tuple[int, int]]
) -> list[Boxes]:
    """Final boxes of every picture of the batch, at most ``config.max_detections`` each.

    Args:
        dense: predictions of the batch.
        config: thresholds.
        image_sizes: per picture (height, width) resized, unpadded.
    """
    results = []
    for image, size in enumerate(image_sizes):
        found = candidates(dense, image, config, root=False)
        boxes = clipped(found.boxes, size)
        # One pixel more on the right and below makes plain areas those in whole pixels.
        counted = boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        keep = torch.from_numpy(
            nms(
                counted.detach().cpu().numpy(),
                found.scores.detach().cpu().numpy(),
                found.classes.cpu().numpy(),
                config.nms_threshold,
                config.max_detections,
            )
        ).to(boxes.device)
        results.append(Boxes(boxes[keep], found.scores[keep], found.classes[keep]))
    return results
