"""The network with outputs of a fixed size: no host synchronisation, so a CUDA graph can hold it.

The same six outputs as the ONNX file, through the operators of ``kernel_ops``.
Shape legend: N pictures, K detections kept at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from centermask_edge.errors import ConfigError
from centermask_edge.model import kernel_ops as _registered  # noqa: F401  (defines the operators)
from centermask_edge.model.centermask import CenterMask
from centermask_edge.switches import RoiRules


@dataclass(frozen=True, slots=True)
class FixedDetections:
    """Zero beyond ``count``, best box score first.

    boxes: float32 (N, K, 4) xyxy resized pixels, unclipped; scores, mask_scores: float32 (N, K);
    classes: int64 (N, K); masks: float32 (N, K, 28, 28); count: int64 (N,).
    """

    boxes: Tensor
    scores: Tensor
    mask_scores: Tensor
    classes: Tensor
    masks: Tensor
    count: Tensor


class FixedCenterMask(nn.Module):
    """CenterMask whose every tensor has a size known beforehand.

    Args:
        model: the network; its weights are shared.

    Raises:
        ConfigError: the kernels do not know the rules of this model.
    """

    def __init__(self, model: CenterMask) -> None:
        super().__init__()
        if model.config.roi_rules != RoiRules():
            raise ConfigError(
                f"the CUDA kernels know the RoIs of equation 2 on P3 to P5 under the rules of "
                f"centermask2; {model.config.name} has others: run it through onnxruntime or torch"
            )
        self.model = model

    @torch.no_grad()
    def forward(self, images: Tensor, image_sizes: Tensor) -> FixedDetections:
        """Detections of a batch.

        Args:
            images: float32 or float16 (N, 3, H, W), normalised and padded.
            image_sizes: float32 (N, 2) resized, unpadded height and width, on the same device.
        """
        config = self.model.config.decode
        pyramid, dense = self.model.dense(images)
        boxes, scores, classes, count = torch.ops.centermask.decode_nms(
            dense.logits,
            dense.reg,
            dense.centerness,
            config.score_threshold,
            config.nms_threshold,
            config.pre_nms_topk,
            config.max_detections,
        )
        kept = config.max_detections
        owner = torch.arange(len(images), device=images.device).repeat_interleave(
            kept, output_size=len(images) * kept
        )
        features = torch.ops.centermask.pyramid_roi_align(
            *pyramid[:3], boxes.flatten(0, 1), owner, image_sizes, 14
        )
        probability, iou = self.model.masks(features, classes.flatten())
        live = torch.arange(kept, device=images.device) < count[:, None]
        masks = probability.reshape(-1, kept, *probability.shape[1:]).float()
        quality = torch.where(live, scores * iou.reshape(-1, kept).float(), 0.0)
        masks = torch.where(live[..., None, None], masks, 0.0)
        return FixedDetections(boxes, scores, quality, classes, masks, count)
