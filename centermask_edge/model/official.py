"""Names of the official centermask2 checkpoints, to ours and back.

Only key names are translated; no tensor is changed. The official names contain literal slashes,
count OSA blocks from 1 and layers from 0, and spell centre-ness ``ctrness``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from centermask_edge.config import Backbone

T = TypeVar("T")

_UNIT = {
    "conv": "conv",
    "norm": "norm",
    "dw_conv3x3": "depthwise",
    "pw_conv1x1": "pointwise",
    "pw_norm": "norm",
    "conv_offset": "offset",
}
_UNITS = "|".join(_UNIT)
_SEPARABLE = {"conv": "conv", "depthwise": "dw_conv3x3", "pointwise": "pw_conv1x1"}
_SEPARABLE |= {"offset": "conv_offset"}
_TOWERS = {"cls_tower": "cls_tower", "bbox_tower": "box_tower"}
_HEAD = {"cls_logits": "cls_logits", "bbox_pred": "box_pred", "ctrness": "centerness"}
_OFFICIAL_HEAD = {ours: official for official, ours in _HEAD.items()}
_FCOS = "proposal_generator.fcos_head."
_BODY = "backbone.bottom_up."
_RESNETS = (Backbone.R50, Backbone.R101, Backbone.X101)
_MOBILE_ROWS = (1, 2, 3, 4, 3, 3, 1)  # blocks per stage of MobileNetV2


def _mobile_block(feature: int) -> str | None:
    """Our place of the official feature number 1..17; None for another number."""
    index = feature - 1
    for stage, blocks in enumerate(_MOBILE_ROWS):
        if 0 <= index < blocks:
            return f"stages.{stage}.{index}"
        index -= blocks
    return None


def _mobile_unit(feature: int, layer: int) -> str | None:
    names = ("depthwise", "project") if feature == 1 else ("expand", "depthwise", "project")
    # Convolution, norm, activation repeat; the projection has no activation after it.
    unit, part = divmod(layer, 3)
    if unit >= len(names) or part > 1:
        return None
    return f"{names[unit]}.{('conv', 'norm')[part]}"


def _res_leaf(leaf: str) -> str:
    """A ResNet's norm lies inside its convolution there."""
    return leaf if leaf.startswith("norm.") else f"conv.{leaf}"


def _body(key: str) -> str | None:
    """Our name of a key inside ``backbone.bottom_up.``, or None."""
    if m := re.fullmatch(rf"stem\.stem_([1-3])/({_UNITS})\.(\w+)", key):
        return f"stem.{int(m[1]) - 1}.{_UNIT[m[2]]}.{m[3]}"
    if m := re.fullmatch(r"stage(\d)\.OSA\d_(\d+)\.(.+)", key):
        prefix = f"stages.{int(m[1]) - 2}.{int(m[2]) - 1}."
        rest = m[3]
        if n := re.fullmatch(rf"layers\.(\d+)\.OSA\w+/({_UNITS})\.(\w+)", rest):
            return f"{prefix}layers.{n[1]}.{_UNIT[n[2]]}.{n[3]}"
        if n := re.fullmatch(rf"concat\.OSA\w+/({_UNITS})\.(\w+)", rest):
            return f"{prefix}concat.{_UNIT[n[1]]}.{n[2]}"
        if n := re.fullmatch(rf"conv_reduction\.OSA\w+/({_UNITS})\.(\w+)", rest):
            return f"{prefix}reduction.{_UNIT[n[1]]}.{n[2]}"
        if n := re.fullmatch(r"ese\.fc\.(\w+)", rest):
            return f"{prefix}ese.fc.{n[1]}"
    if m := re.fullmatch(r"stem\.conv1\.(norm\.\w+|weight)", key):
        return f"stem.{_res_leaf(m[1])}"
    if m := re.fullmatch(r"res([2-5])\.(\d+)\.(shortcut|conv[123])\.(norm\.\w+|weight)", key):
        return f"stages.{int(m[1]) - 2}.{m[2]}.{m[3]}.{_res_leaf(m[4])}"
    if m := re.fullmatch(r"features\.0\.([01])\.(\w+)", key):
        return f"stem.{('conv', 'norm')[int(m[1])]}.{m[2]}"
    if m := re.fullmatch(r"features\.(\d+)\.conv\.(\d+)\.(\w+)", key):
        unit, block = _mobile_unit(int(m[1]), int(m[2])), _mobile_block(int(m[1]))
        return None if unit is None or block is None else f"{block}.{unit}.{m[3]}"
    return None


def from_official_key(key: str) -> str | None:
    """Our name of an official state-dict key; None for a key that no model of ours has.

    >>> from_official_key("backbone.bottom_up.stage3.OSA3_1.layers.0.OSA3_1_0/conv.weight")
    'backbone.stages.1.0.layers.0.conv.weight'
    """
    if key.startswith(_BODY):
        inner = _body(key.removeprefix(_BODY))
        return None if inner is None else f"backbone.{inner}"
    if m := re.fullmatch(r"backbone\.fpn_(lateral|output)([345])\.(\w+)", key):
        return f"fpn.{m[1]}.{int(m[2]) - 3}.{m[3]}"
    if m := re.fullmatch(r"backbone\.top_block\.(p[67])\.(\w+)", key):
        return f"fpn.{m[1]}.{m[2]}"
    if key.startswith(_FCOS):
        return _fcos(key.removeprefix(_FCOS))
    if m := re.fullmatch(r"roi_heads\.(mask|maskiou)_head\.(.+)", key):
        return _roi(m[1], m[2])
    return None


def _fcos(key: str) -> str | None:
    if m := re.fullmatch(r"(cls_tower|bbox_tower)\.(\d+)\.(\w+)", key):
        block, part = divmod(int(m[2]), 3)
        if part > 1:  # an activation
            return None
        return f"head.{_TOWERS[m[1]]}.{block}.{('conv', 'norm')[part]}.{m[3]}"
    if m := re.fullmatch(r"(cls_logits|bbox_pred|ctrness)\.(\w+)", key):
        return f"head.{_HEAD[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"scales\.(\d)\.scale", key):
        return f"head.scales.{m[1]}"
    return None


def _roi(head: str, key: str) -> str | None:
    ours = "mask_head" if head == "mask" else "mask_iou_head"
    if m := re.fullmatch(r"mask(?:iou)?_fcn(\d+)\.(\w+)", key):
        return f"{ours}.convs.{int(m[1]) - 1}.{m[2]}"
    if m := re.fullmatch(r"spatialAtt\.(conv\.weight)", key):
        return f"{ours}.attention.{m[1]}"
    if m := re.fullmatch(r"maskiou_(fc[12])\.(\w+)", key):
        return f"{ours}.{m[1]}.{m[2]}"
    if m := re.fullmatch(r"(?:predictor|maskiou)\.(\w+)", key):
        return f"{ours}.predictor.{m[1]}"
    if m := re.fullmatch(r"deconv\.(\w+)", key):
        return f"{ours}.deconv.{m[1]}"
    return None


def _osa_key(stage: int, block: int, rest: str, separable: bool) -> str:
    name = f"OSA{stage + 2}_{block + 1}"
    prefix = f"{_BODY}stage{stage + 2}.{name}."
    if m := re.fullmatch(r"layers\.(\d+)\.(\w+)\.(\w+)", rest):
        unit = _official_unit(m[2], separable)
        return f"{prefix}layers.{m[1]}.{name}_{m[1]}/{unit}.{m[3]}"
    if m := re.fullmatch(r"concat\.(\w+)\.(\w+)", rest):
        return f"{prefix}concat.{name}_concat/{m[1]}.{m[2]}"
    if m := re.fullmatch(r"reduction\.(\w+)\.(\w+)", rest):
        return f"{prefix}conv_reduction.{name}_reduction_0/{m[1]}.{m[2]}"
    return f"{prefix}{rest}"


def _official_unit(unit: str, separable: bool) -> str:
    return ("pw_norm" if separable else "norm") if unit == "norm" else _SEPARABLE[unit]


def _resnet_key(key: str) -> str:
    """The official name of a key inside our ``backbone.``."""
    key = key.replace("stem.", "stem.conv1.").replace(".conv.weight", ".weight")
    return _BODY + re.sub(r"^stages\.(\d)", lambda m: f"res{int(m[1]) + 2}", key)


def _mobile_key(stage: int, block: int, unit: str, part: str, leaf: str) -> str:
    feature = 1 + sum(_MOBILE_ROWS[:stage]) + block
    names = ("depthwise", "project") if feature == 1 else ("expand", "depthwise", "project")
    layer = names.index(unit) * 3 + ("conv", "norm").index(part)
    return f"{_BODY}features.{feature}.conv.{layer}.{leaf}"


def to_official_key(key: str, backbone: Backbone) -> str:
    """The official name of one of our state-dict keys.

    Raises:
        KeyError: a key that no official model has (as EfficientNet and HRNet were none).

    >>> to_official_key("head.centerness.bias", Backbone.V19)
    'proposal_generator.fcos_head.ctrness.bias'
    """
    if not backbone.is_official:
        raise KeyError(key)
    if backbone in _RESNETS and key.startswith("backbone."):
        return _resnet_key(key.removeprefix("backbone."))
    mobile = backbone is Backbone.MOBILENET_V2
    separable = backbone in (Backbone.V19_DW, Backbone.V19_SLIM_DW)
    if m := re.fullmatch(r"backbone\.stem\.(\d)\.(\w+)\.(\w+)", key):
        unit = _official_unit(m[2], separable and m[1] != "0")
        return f"{_BODY}stem.stem_{int(m[1]) + 1}/{unit}.{m[3]}"
    if mobile and (m := re.fullmatch(r"backbone\.stem\.(conv|norm)\.(\w+)", key)):
        return f"{_BODY}features.0.{('conv', 'norm').index(m[1])}.{m[2]}"
    if m := re.fullmatch(r"backbone\.stages\.(\d)\.(\d+)\.(.+)", key):
        if mobile:
            return _mobile_key(int(m[1]), int(m[2]), *m[3].split("."))
        return _osa_key(int(m[1]), int(m[2]), m[3], separable)
    if m := re.fullmatch(r"fpn\.(lateral|output)\.(\d)\.(\w+)", key):
        return f"backbone.fpn_{m[1]}{int(m[2]) + 3}.{m[3]}"
    if m := re.fullmatch(r"fpn\.(p[67]\.\w+)", key):
        return f"backbone.top_block.{m[1]}"
    if m := re.fullmatch(r"head\.(cls_tower|box_tower)\.(\d+)\.(conv|norm)\.(\w+)", key):
        tower = "bbox_tower" if m[1] == "box_tower" else m[1]
        return f"{_FCOS}{tower}.{int(m[2]) * 3 + ('conv', 'norm').index(m[3])}.{m[4]}"
    if m := re.fullmatch(r"head\.scales\.(\d)", key):
        return f"{_FCOS}scales.{m[1]}.scale"
    if m := re.fullmatch(r"head\.(\w+)\.(\w+)", key):
        return f"{_FCOS}{_OFFICIAL_HEAD[m[1]]}.{m[2]}"
    if m := re.fullmatch(r"(mask|mask_iou)_head\.(.+)", key):
        return _official_roi(m[1].replace("_", ""), m[2])
    raise KeyError(key)


def _official_roi(head: str, key: str) -> str:
    prefix = f"roi_heads.{head}_head."
    if m := re.fullmatch(r"convs\.(\d+)\.(\w+)", key):
        return f"{prefix}{head}_fcn{int(m[1]) + 1}.{m[2]}"
    if key.startswith("attention."):
        return f"{prefix}spatialAtt.{key.removeprefix('attention.')}"
    if key.startswith("fc"):
        return f"{prefix}maskiou_{key}"
    if head == "maskiou" and key.startswith("predictor."):
        return f"{prefix}maskiou.{key.removeprefix('predictor.')}"
    return f"{prefix}{key}"


def from_official(state: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """Our state dict from an official one, and the keys that were not understood."""
    ours: dict[str, T] = {}
    unknown: list[str] = []
    for key, value in state.items():
        name = from_official_key(key)
        if name is None:
            unknown.append(key)
        else:
            ours[name] = value
    return ours, unknown


def to_official(state: Mapping[str, T], backbone: Backbone) -> dict[str, T]:
    """An official state dict from ours.

    Raises:
        KeyError: a key that no official model has.
    """
    return {to_official_key(key, backbone): value for key, value in state.items()}
