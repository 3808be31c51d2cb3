"""Checkpoints of CenterMask's first release (on maskrcnn-benchmark) to our names and values.

Against the later format: other names; a background class in front of every map of the mask and
mask-IoU heads, which nothing reads; norms without an epsilon, which is taken off the variances
here because ours add it. Weights of the first release need its rules of inference, too
(``config.with_original_rules``). Not compared with the first release itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from centermask_edge.model.official import from_official_key

NORM_EPS = 1e-5
_HEAD = {"cls_logits": "cls_logits", "bbox_pred": "bbox_pred", "centerness": "ctrness"}
_WITH_BACKGROUND = ("mask_head.predictor.", "mask_iou_head.predictor.")
_MASK = {
    "feature_extractor.": "",
    "predictor.conv5_mask": "deconv",
    "predictor.mask_fcn_logits": "predictor",
    "predictor.maskiou": "maskiou",
}


def is_first_release(names: Iterable[str]) -> bool:
    """Whether a file's names are those of the first release.

    >>> is_first_release(["module.rpn.head.scales.0.scale"]), is_first_release(["fc.weight"])
    (True, False)
    """
    start = re.compile(r"(module\.)?(rpn\.head|backbone\.body|roi_heads\.mask(iou)?)\.")
    return any(start.match(name) for name in names)


def _resnet(key: str) -> str | None:
    """The later name of a ResNet's tensor, whose norms were modules of their own."""
    if m := re.fullmatch(r"stem\.(conv|bn)1\.(\w+)", key):
        return f"stem.conv1.{'norm.' if m[1] == 'bn' else ''}{m[2]}"
    if m := re.fullmatch(r"layer([1-4])\.(\d+)\.(conv|bn)([123])\.(\w+)", key):
        norm = "norm." if m[3] == "bn" else ""
        return f"res{int(m[1]) + 1}.{m[2]}.conv{m[4]}.{norm}{m[5]}"
    if m := re.fullmatch(r"layer([1-4])\.(\d+)\.downsample\.([01])\.(\w+)", key):
        norm = "norm." if m[3] == "1" else ""
        return f"res{int(m[1]) + 1}.{m[2]}.shortcut.{norm}{m[4]}"
    return None


def later_key(key: str) -> str | None:
    """The name that centermask2 has for a tensor of the first release; None for a foreign one.

    >>> later_key("backbone.fpn.fpn_inner2.weight")
    'backbone.fpn_lateral3.weight'
    """
    key = key.removeprefix("module.")
    if m := re.fullmatch(r"backbone\.body\.(.+)", key):
        return f"backbone.bottom_up.{_resnet(m[1]) or m[1]}"
    if m := re.fullmatch(r"backbone\.fpn\.fpn_(inner|layer)([234])\.(\w+)", key):
        kind = "lateral" if m[1] == "inner" else "output"
        return f"backbone.fpn_{kind}{int(m[2]) + 1}.{m[3]}"
    if m := re.fullmatch(r"backbone\.fpn\.top_blocks\.(p[67]\.\w+)", key):
        return f"backbone.top_block.{m[1]}"
    if m := re.fullmatch(r"rpn\.head\.(\w+)(\..+)", key):
        return f"proposal_generator.fcos_head.{_HEAD.get(m[1], m[1])}{m[2]}"
    if m := re.fullmatch(r"roi_heads\.(mask|maskiou)\.(.+)", key):
        for before, after in _MASK.items():
            if m[2].startswith(before):
                return f"roi_heads.{m[1]}_head.{after}{m[2].removeprefix(before)}"
    return None


def from_first_release(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Our state dict from one of the first release, and the keys that were not understood."""
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in state.items():
        later = later_key(key)
        name = None if later is None else from_official_key(later)
        if name is None:
            unknown.append(key)
        elif name.startswith(_WITH_BACKGROUND):
            ours[name] = value[1:].clone()
        elif name.endswith("running_var"):
            ours[name] = (value.double() - NORM_EPS).to(value.dtype)
        else:
            ours[name] = value
    return ours, unknown
