"""A training step of networks whose switches are not the default ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from centermask_edge.config import PRESETS, ModelConfig
from centermask_edge.model.centermask import CenterMask
from centermask_edge.train.objective import Objects, training_losses

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = PRESETS["lite-v19-slim-dw"].model_dump() | {
    "fpn_channels": 32,
    "classes": ("a", "b"),
    "mask_iou_fc": 8,
}
VARIANTS: dict[str, dict[str, object]] = {
    "equation 1, P3 to P7, SE": {
        "roi_assignment": "canonical",
        "roi_levels": (3, 7),
        "channel_attention": "se",
    },
    "no SAM, no scores, no attention": {
        "spatial_attention": False,
        "mask_scoring": False,
        "channel_attention": "none",
    },
    "deformable": {"backbone": "v39-dcn"},
    "the first release": {"rules": "original"},
}


def objects(masks: bool) -> Objects:
    boxes = torch.tensor([[10.0, 12, 90, 100], [60, 20, 120, 90]])
    corners = [(x0, y0, x1, y0, x1, y1, x0, y1) for x0, y0, x1, y1 in boxes.tolist()]
    polygons = [[np.array(c, np.float64)] for c in corners] if masks else None
    return Objects(boxes, torch.tensor([0, 1]), torch.zeros(0, 4), polygons)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("masks", [True, False])
def test_every_parameter_learns(name: str, masks: bool) -> None:
    torch.manual_seed(0)
    model = CenterMask(ModelConfig.model_validate({**SMALL, **VARIANTS[name]})).train()
    losses = training_losses(
        model, torch.randn(1, 3, 160, 160) * 50, [(150, 160)], [objects(masks)]
    )
    scored = {"loss_mask_iou"} if model.mask_iou_head is not None else set()
    detector = {"loss_cls", "loss_box", "loss_centerness"}
    assert losses.keys() == detector | {"loss_mask"} | scored
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert bool(torch.isfinite(total))
    # The scales of levels without objects and what feeds nothing have a gradient of zero, not none.
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
