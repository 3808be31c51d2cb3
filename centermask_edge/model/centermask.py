"""CenterMask as a whole: backbone, pyramid, box head, mask branch, and detection in plain torch.

This is the numerical reference of every engine and the network that training optimises.
Shape legend: B batch, K kept detections, R RoIs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from centermask_edge.model.bodies import build_backbone as build_backbone
from centermask_edge.model.decode import Boxes, detect
from centermask_edge.model.fcos import DensePredictions, FCOSHead
from centermask_edge.model.fpn import FPN
from centermask_edge.model.mask_heads import MaskHead, MaskIoUHead
from centermask_edge.model.original import detect_original
from centermask_edge.model.roi import pyramid_roi_align
from centermask_edge.switches import Rules

if TYPE_CHECKING:
    from centermask_edge.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Segmented:
    """Detections of one picture with their masks, best box score first.

    boxes: float32 (K, 4) xyxy input pixels, unclipped; scores, mask_scores: float32 (K,);
    classes: int64 (K,); masks: float32 (K, 28, 28) probability of the predicted class.
    """

    boxes: Tensor
    scores: Tensor
    mask_scores: Tensor
    classes: Tensor
    masks: Tensor


class CenterMask(nn.Module):
    """FCOS with a spatial attention-guided mask branch (CenterMask, CVPR 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels, classes = config.fpn_channels, config.num_classes
        self.backbone = build_backbone(
            config.backbone, config.channel_attention, residual=config.residual
        )
        self.fpn = FPN(self.backbone.out_channels, channels)
        original = config.rules is Rules.ORIGINAL
        self.head = FCOSHead(channels, config.head_convs, classes, exponential=original)
        self.mask_head = MaskHead(
            channels, config.mask_convs, classes, attention=config.spatial_attention
        )
        self.mask_iou_head: MaskIoUHead | None = None
        if config.mask_scoring:
            self.mask_iou_head = MaskIoUHead(
                channels, config.mask_iou_convs, config.mask_iou_fc, classes
            )

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """P3..P7 from normalised, padded float (B, 3, H, W)."""
        return self.fpn(self.backbone(images))  # type: ignore[no-any-return]

    def dense(self, images: Tensor) -> tuple[list[Tensor], DensePredictions]:
        """Pyramid and dense box predictions of normalised, padded float (B, 3, H, W)."""
        pyramid = self.pyramid(images)
        return pyramid, self.head(pyramid)

    def masks(self, features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Mask probabilities (R, 28, 28) and IoU predictions (R,) of the given classes.

        Without mask scoring every IoU is 1.

        Args:
            features: RoI features (R, C, 14, 14).
            classes: int64 (R,).
        """
        rows = torch.arange(len(classes), device=classes.device)
        probability = self.mask_head(features)[rows, classes].sigmoid()
        if self.mask_iou_head is None:
            return probability, torch.ones_like(rows, dtype=probability.dtype)
        iou = self.mask_iou_head(features, probability[:, None])[rows, classes]
        return probability, iou

    def detect(
        self, dense: DensePredictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Boxes]:
        """Boxes of every picture by the rules of the configuration; see ``forward`` for sizes."""
        if self.config.rules is Rules.ORIGINAL:
            return detect_original(dense, self.config.decode, image_sizes)
        return detect(dense, self.config.decode)

    @torch.no_grad()
    def forward(self, images: Tensor, image_sizes: Sequence[tuple[int, int]]) -> list[Segmented]:
        """Detections with masks for every picture of the batch.

        Args:
            images: float (B, 3, H, W), normalised and padded; H, W multiples of 32.
            image_sizes: per picture (height, width) resized, unpadded.
        """
        pyramid, dense = self.dense(images)
        found = self.detect(dense, image_sizes)
        return self.segment(pyramid, found, image_sizes)

    def segment(
        self,
        pyramid: Sequence[Tensor],
        found: Sequence[Boxes],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Segmented]:
        """Masks and mask scores for given boxes; see ``forward`` for shapes."""
        boxes = [f.boxes for f in found]
        features = pyramid_roi_align(pyramid, boxes, image_sizes, rules=self.config.roi_rules)
        probability, iou = self.masks(features, torch.cat([f.classes for f in found]))
        counts = [len(f.boxes) for f in found]
        return [
            Segmented(f.boxes, f.scores, f.scores * quality, f.classes, masks)
            for f, masks, quality in zip(
                found, probability.split(counts), iou.split(counts), strict=True
            )
        ]
