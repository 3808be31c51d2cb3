"""A training forward: the detector's losses by hand, and what does and does not reach the masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain import giou_loss, sigmoid
from torch import Tensor

from centermask_edge.config import PRESETS
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fcos import STRIDES, DensePredictions
from centermask_edge.train import mask_targets, objective
from centermask_edge.train.objective import Objects, detector_losses, training_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def value(loss: Tensor) -> float:
    return float(loss.detach())


def dense(seed: int, classes: int = 2, size: int = 128) -> DensePredictions:
    torch.manual_seed(seed)
    sides = [-(-size // s) for s in STRIDES]
    return DensePredictions(
        [torch.randn(2, classes, n, n).requires_grad_() for n in sides],
        [(torch.rand(2, 4, n, n) * 5).requires_grad_() for n in sides],
        [torch.randn(2, 1, n, n).requires_grad_() for n in sides],
    )


def objects(boxes: list[list[float]], classes: list[int], masked: bool = False) -> Objects:
    corners = [(b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]) for b in boxes]
    polygons = tuple((np.array(c, np.float64),) for c in corners)
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes, dtype=torch.int64),
        torch.zeros((0, 4)),
        polygons if masked else None,
    )


def test_detector_losses_are_normalised_as_stated() -> None:
    # One box whose only positive cells are nine of stride 8 in picture 0.
    predictions = dense(0)
    found = detector_losses(predictions, [objects([[40, 40, 80, 80]], [1]), objects([], [])])
    cells = [(y, x) for y in (6, 7, 8) for x in (6, 7, 8)]  # 52, 60, 68 pixels
    # The centre is 60: of cells 4 + 8 i those within 12 are 52, 60 and 68.
    reg = [predictions.reg[0][0, :, y, x].detach().double().numpy() for y, x in cells]
    ctr = [float(predictions.centerness[0][0, 0, y, x].detach()) for y, x in cells]
    target = [
        np.array([8 * x + 4 - 40, 8 * y + 4 - 40, 80 - 8 * x - 4, 80 - 8 * y - 4]) / 8
        for y, x in cells
    ]
    weight = [
        np.sqrt(min(t[0], t[2]) / max(t[0], t[2]) * min(t[1], t[3]) / max(t[1], t[3]))
        for t in target
    ]
    box = sum(w * giou_loss(r, t) for w, r, t in zip(weight, reg, target, strict=True))
    assert value(found["loss_box"]) == pytest.approx(box / sum(weight), rel=1e-5)
    p = sigmoid(np.array(ctr))
    bce = -(np.array(weight) * np.log(p) + (1 - np.array(weight)) * np.log(1 - p)).sum()
    assert value(found["loss_centerness"]) == pytest.approx(bce / 9, rel=1e-5)
    total = 0.0
    for level, logits in enumerate(predictions.logits):
        for picture in range(2):
            values = sigmoid(logits[picture].detach().double().numpy())
            truth = np.zeros_like(values)
            if level == 0 and picture == 0:
                for y, x in cells:
                    truth[1, y, x] = 1
            total += float(-(truth * 0.25 * (1 - values) ** 2 * np.log(values)).sum())
            total += float(-((1 - truth) * 0.75 * values**2 * np.log(1 - values)).sum())
    assert value(found["loss_cls"]) == pytest.approx(total / 9, rel=1e-5)


def test_pictures_without_objects_train_the_background_only() -> None:
    predictions = dense(1)
    found = detector_losses(predictions, [objects([], []), objects([], [])])
    assert value(found["loss_cls"]) > 0
    assert value(found["loss_box"]) == 0 and value(found["loss_centerness"]) == 0
    torch.stack(list(found.values())).sum().backward()
    for level in (*predictions.logits, *predictions.reg, *predictions.centerness):
        assert level.grad is not None and bool(level.grad.isfinite().all())
    assert predictions.logits[0].grad is not None and predictions.logits[0].grad.any()


@pytest.fixture(scope="module")
def model() -> CenterMask:
    torch.manual_seed(0)
    return CenterMask(PRESETS["person-efficientnet-lite0"]).train()


def forward(model: CenterMask, truth: list[Objects], rois: int = 128) -> dict[str, Tensor]:
    images = torch.randn(len(truth), 3, 64, 96, generator=torch.Generator().manual_seed(0))
    return training_losses(
        model,
        images,
        [(64, 96)] * len(truth),
        truth,
        proposals=5,
        rois_per_image=rois,
        seeds=[0] * len(truth),
    )


FIRST = [[10.0, 10, 50, 40], [60.0, 20, 90, 60]]


def test_boxes_only_pictures_do_not_train_the_mask_branch(model: CenterMask) -> None:
    model.zero_grad()
    found = forward(model, [objects(FIRST, [0, 0])] * 2)
    assert value(found["loss_mask"]) == 0 == value(found["loss_mask_iou"])
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # distributed training waits for each of them
        if name.startswith(("mask_head", "mask_iou_head")):
            assert not parameter.grad.any(), name
    assert model.head.box_pred.weight.grad is not None and model.head.box_pred.weight.grad.any()


def test_a_masked_picture_trains_the_mask_branch(model: CenterMask) -> None:
    model.zero_grad()
    found = forward(model, [objects(FIRST, [0, 0]), objects(FIRST, [0, 0], masked=True)])
    assert set(found) == {
        "loss_cls", "loss_box", "loss_centerness", "loss_mask", "loss_mask_iou",
    }  # fmt: skip
    assert all(bool(v.isfinite()) for v in found.values())
    torch.stack(list(found.values())).sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    for weight in (model.mask_head.predictor.weight, model.mask_head.convs[0].weight):
        assert isinstance(weight.grad, Tensor) and weight.grad.any()
    # The masks of pictures alone and of pictures beside others are the same.
    alone = forward(model, [objects(FIRST, [0, 0], masked=True)])
    both = forward(model, [objects(FIRST, [0, 0], masked=True), objects(FIRST, [0, 0])])
    assert value(alone["loss_mask"]) == pytest.approx(value(both["loss_mask"]), rel=1e-4)


def test_a_masked_picture_without_objects_is_no_masked_picture(model: CenterMask) -> None:
    found = forward(model, [objects([], [], masked=True)])
    assert value(found["loss_mask"]) == 0 and value(found["loss_mask_iou"]) == 0


def test_rounding_the_rois_up_changes_nothing(
    model: CenterMask, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = [objects(FIRST, [0, 0], masked=True)] * 2
    results = []
    for multiple in (1, 16, 5):
        monkeypatch.setattr(objective, "_ROI_MULTIPLE", multiple)
        model.zero_grad()
        found = forward(model, truth)
        (found["loss_mask"] + found["loss_mask_iou"]).backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append(([float(v.detach()) for v in found.values()], gradients))
    for values, gradients in results[1:]:
        assert values == pytest.approx(results[0][0], rel=1e-5)
        for ours, plain in zip(gradients, results[0][1], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-6)


def test_the_number_of_rois_is_limited(model: CenterMask, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = mask_targets.mask_targets

    def counting(polygons: object, boxes: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        seen.append(len(boxes))
        return plain(polygons, boxes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(objective, "mask_targets", counting)
    forward(model, [objects(FIRST, [0, 0], masked=True)] * 2, rois=1)
    assert seen == [1, 1]
