"""The torch network behind the same fixed-size interface as every engine.

Shape legend: N pictures, K detections kept at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from centermask_edge.instances import Instances
from centermask_edge.model.centermask import CenterMask
from centermask_edge.preprocess import Preprocess

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TorchDetections:
    """Outputs for N pictures, zero beyond ``count``.

    boxes float32 (N, K, 4) xyxy in resized pixels, not clipped; scores, mask_scores float32
    (N, K); classes int64 (N, K); masks float32 (N, K, 28, 28); count int64 (N,).
    """

    boxes: Floats
    scores: Floats
    mask_scores: Floats
    classes: NDArray[np.int64]
    masks: Floats
    count: NDArray[np.int64]


def run(model: CenterMask, images: Floats, image_sizes: Floats) -> TorchDetections:
    """Detections of a batch: float32 (N, 3, H, W) pictures, float32 (N, 2) height and width."""
    sizes = [(int(h), int(w)) for h, w in image_sizes]
    device = next(model.parameters()).device
    with torch.inference_mode():
        found = model(torch.from_numpy(images).to(device), sizes)
    room = model.config.decode.max_detections

    def pad(name: str, dtype: Any) -> NDArray[Any]:
        rows = []
        for result in found:
            value = getattr(result, name).cpu().numpy().astype(dtype)
            rows.append(np.zeros((room, *value.shape[1:]), dtype=dtype))
            rows[-1][: len(value)] = value
        return np.stack(rows)

    return TorchDetections(
        pad("boxes", np.float32),
        pad("scores", np.float32),
        pad("mask_scores", np.float32),
        pad("classes", np.int64),
        pad("masks", np.float32),
        np.array([len(f.boxes) for f in found], dtype=np.int64),
    )


def segment(model: CenterMask, image: NDArray[np.uint8]) -> Instances:
    """Instances of one picture, uint8 (H, W, 3) BGR, preprocessed as the model's config says."""
    tensor, placement = Preprocess(model.config.preprocess)(image)
    size = np.asarray([placement.resized_size], dtype=np.float32)
    raw = run(model, tensor[None], size)
    return Instances.from_detections(raw, 0, placement, model.config.classes)
