"""Small networks of the family, exported once per test run, and pictures for them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from centermask_edge.backbone import Backbone
from centermask_edge.config import DecodeConfig, ModelConfig, PreprocessConfig
from centermask_edge.graph.export import build
from centermask_edge.model.centermask import CenterMask

VOVNET = Backbone.V19_SLIM_DW  # the smallest with one-shot aggregation and channel attention
LITE0 = Backbone.EFFICIENTNET_LITE0


def config(backbone: Backbone, classes: int = 1) -> ModelConfig:
    return ModelConfig(
        name="tiny",
        backbone=backbone,
        classes=tuple(f"class {i}" for i in range(classes)),
        fpn_channels=64,
        mask_iou_fc=16,
        preprocess=PreprocessConfig(short_side=64, long_side=96),
        decode=DecodeConfig(max_detections=6),
    )


@lru_cache
def _exported(backbone: Backbone, classes: int) -> onnx.ModelProto:
    """A network with random weights that finds something in every picture."""
    torch.manual_seed(0)
    network = CenterMask(config(backbone, classes)).eval()
    assert network.head.cls_logits.bias is not None
    nn.init.zeros_(network.head.cls_logits.bias)
    nn.init.normal_(network.mask_head.predictor.weight, std=3.0)  # masks with a shape
    for module in network.backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 2  # or the signal fades, and only biases come out
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
            and module.bias is not None
        ):
            # Biases all zero would be one shared tensor in the file, unlike in any trained model.
            nn.init.uniform_(module.bias, -0.05, 0.05)
    return build(network, {"run": "random"})


def exported(backbone: Backbone = VOVNET, classes: int = 1) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(_exported(backbone, classes))
    return model


def pictures(count: int = 2, side: int = 64) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, side // 8, side // 8, 3), dtype=np.uint8)
    return [np.repeat(np.repeat(p, 8, axis=0), 8, axis=1) for p in coarse]
