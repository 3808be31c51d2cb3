"""The two dense halves of the network as ONNX graphs, traced by torch.

Between them stand our own ops, which ``graph.export`` writes by name: so the file's structure
does not depend on how torch prints an operator. Shape legend: N pictures, R RoIs, D channels.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from centermask_edge.graph.functions import DOMAIN, OPSET, PLUGIN_ATTRIBUTES, dense_names
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.layers import FrozenBatchNorm2d

if TYPE_CHECKING:
    import onnx

    from centermask_edge.config import ModelConfig

_PREDICTIONS = [*dense_names("logits"), *dense_names("reg"), *dense_names("centerness")]
DENSE_OUTPUTS = ["p3", "p4", "p5", *_PREDICTIONS]


def dense_outputs(config: ModelConfig) -> list[str]:
    """Names of the levels that RoIs are taken from, and of the dense predictions."""
    return [*(f"p{level}" for level in config.roi_rules.levels), *_PREDICTIONS]


class _AttentionOp(torch.autograd.Function):
    """Leaves one ``CMSpatialAttention`` node in the graph instead of its standard ops."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * torch.sigmoid(F.conv2d(pooled, weight, padding=1))

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any) -> Any:
        attributes = {f"{k}_s": v for k, v in PLUGIN_ATTRIBUTES.items()}
        return g.op(f"{DOMAIN}::CMSpatialAttention", x, weight, **attributes).setType(x.type())


class _Attention(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return _AttentionOp.apply(x, self.weight)  # type: ignore[no-any-return, no-untyped-call]


class _Dense(nn.Module):
    """image (N, 3, H, W) to the levels of RoIs and the dense predictions of P3..P7."""

    def __init__(self, model: CenterMask) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pyramid, dense = self.model.dense(image)
        first, last = self.model.config.roi_levels
        return (*pyramid[first - 3 : last - 2], *dense.logits, *dense.reg, *dense.centerness)


class _Masks(nn.Module):
    """RoI features (R, D, 14, 14) and classes (R,) to masks (R, 28, 28) and IoU (R,)."""

    def __init__(self, model: CenterMask) -> None:
        super().__init__()
        self.mask_head = model.mask_head
        self.mask_iou_head = model.mask_iou_head
        self.one_class = model.config.num_classes == 1

    def forward(self, features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.mask_head(features)
        if not self.one_class:
            index = classes.view(-1, 1, 1, 1).expand(-1, 1, logits.shape[2], logits.shape[3])
            logits = logits.gather(1, index)
        probability = logits.sigmoid()
        if self.mask_iou_head is None:
            # Ones, as many as RoIs and of the masks' type, whatever that will be: none is above 1.
            return probability.reshape(-1, 28, 28), probability[:, 0, 0, 0].clamp(min=1.0)
        iou = self.mask_iou_head(features, probability)
        if not self.one_class:
            iou = iou.gather(1, classes.view(-1, 1))
        return probability.reshape(-1, 28, 28), iou.reshape(-1)


def _plain_norms(module: nn.Module) -> None:
    """Replace frozen norms by torch's own, which the exporter folds into the convolutions."""
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            norm = nn.BatchNorm2d(child.weight.shape[0], eps=child.eps).eval()
            norm.load_state_dict(child.state_dict(), strict=False)
            setattr(module, name, norm)
        else:
            _plain_norms(child)


def _export(
    module: nn.Module,
    args: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
) -> onnx.ModelProto:
    import onnx

    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The scripted exporter is announced as legacy; it is the one that writes opset 17 with
        # a custom op and needs no further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            args,
            buffer,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _pad_instead_of_ceil(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the ceiling-mode pooling of even sizes as a pooling padded by one at the end.

    The two are equal on even sizes, and ours are multiples of 32; but OpenVINO refuses a 3 x 3
    window on 2 x 2 cells in ceiling mode.
    """
    from onnx import helper

    for node in model.graph.node:
        if node.op_type == "MaxPool":
            values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if values.get("ceil_mode"):
                assert values["kernel_shape"] == [3, 3] and values["strides"] == [2, 2], node.name
                assert not any(values.get("pads", ())), node.name
                kept = [a for a in node.attribute if a.name not in ("ceil_mode", "pads")]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute("pads", [0, 0, 1, 1])])
    return model


def trace_dense(model: CenterMask) -> onnx.ModelProto:
    """Backbone, pyramid and head: input ``image``, outputs of ``dense_outputs``."""
    outputs = dense_outputs(model.config)
    dense = _Dense(copy.deepcopy(model).cpu().eval())
    _plain_norms(dense)
    axes = {"image": {0: "N", 2: "H", 3: "W"}}
    for name in outputs:
        axes[name] = {0: "N", 2: f"H_{name[-1]}", 3: f"W_{name[-1]}"}
    image = torch.zeros(1, 3, 128, 160)
    return _pad_instead_of_ceil(_export(dense, (image,), ["image"], outputs, axes))


def trace_masks(model: CenterMask) -> onnx.ModelProto:
    """Mask and mask-IoU heads: ``roi_features``, ``roi_classes`` to ``roi_masks``, ``roi_iou``."""
    masks = _Masks(copy.deepcopy(model).cpu().eval())
    attention = masks.mask_head.attention
    if attention is not None:
        masks.mask_head.attention = _Attention(attention.conv.weight)  # type: ignore[assignment]
    features = torch.zeros(3, model.config.fpn_channels, 14, 14)
    classes = torch.zeros(3, dtype=torch.int64)
    names = ["roi_features", "roi_classes", "roi_masks", "roi_iou"]
    return _export(
        masks, (features, classes), names[:2], names[2:], {name: {0: "R"} for name in names}
    )
