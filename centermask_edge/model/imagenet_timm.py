"""ImageNet weights by the names of timm's files: HRNetV2 and EfficientNet-Lite0 to -Lite2.

timm itself is not needed. The names of HRNetV2 are those of its authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_LEAVES = {"0": "conv", "1": "norm"}
# Behind the branches; a detector has none of them.
_CLASSIFIER = re.compile(
    r"(incre_modules|downsamp_modules|final_layer|classifier|conv_head)\.|.*num_batches_tracked$"
)
_PLAIN = {"conv_dw": "depthwise", "bn1": "depthwise", "conv_pw": "project", "bn2": "project"}
_EXPANDED = {
    **{"conv_pw": "expand", "bn1": "expand", "conv_dw": "depthwise", "bn2": "depthwise"},
    **{"conv_pwl": "project", "bn3": "project"},
}


def _unit(key: str) -> str:
    """Our name of a block's layer: ``conv2``, ``bn2`` or ``downsample.0`` with its leaf."""
    if m := re.fullmatch(r"(conv|bn)(\d)\.(\w+)", key):
        return f"conv{m[2]}.{'conv' if m[1] == 'conv' else 'norm'}.{m[3]}"
    if m := re.fullmatch(r"downsample\.([01])\.(\w+)", key):
        return f"shortcut.{_LEAVES[m[1]]}.{m[2]}"
    return key


def _hrnet_key(key: str) -> str:
    """Our name of a tensor; its own where there is none, to be refused by it.

    >>> _hrnet_key("stage3.1.fuse_layers.2.0.1.0.weight")
    'stages.1.1.paths.2.0.1.conv.weight'
    """
    if m := re.fullmatch(r"(conv|bn)([12])\.(\w+)", key):
        return f"stem.{int(m[2]) - 1}.{'conv' if m[1] == 'conv' else 'norm'}.{m[3]}"
    if m := re.fullmatch(r"layer1\.(\d+)\.(.+)", key):
        return f"first.{m[1]}.{_unit(m[2])}"
    if m := re.fullmatch(r"transition1\.0\.([01])\.(\w+)", key):
        return f"entries.0.{_LEAVES[m[1]]}.{m[2]}"
    # Only the lowest branch is new in a transition.
    if m := re.fullmatch(r"transition(\d)\.(\d)\.0\.([01])\.(\w+)", key):
        return f"entries.{m[2]}.{_LEAVES[m[3]]}.{m[4]}" if m[1] == m[2] else key
    if m := re.fullmatch(r"stage([234])\.(\d+)\.branches\.(\d)\.(\d)\.(.+)", key):
        return f"stages.{int(m[1]) - 2}.{m[2]}.branches.{m[3]}.{m[4]}.{_unit(m[5])}"
    if m := re.fullmatch(r"stage([234])\.(\d+)\.fuse_layers\.([\d.]+)\.([01])\.(\w+)", key):
        return f"stages.{int(m[1]) - 2}.{m[2]}.paths.{m[3]}.{_LEAVES[m[4]]}.{m[5]}"
    return key


def hrnet_state(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's state dict from the classifier's; its head and counters are dropped."""
    return {_hrnet_key(k): value for k, value in source.items() if not _CLASSIFIER.match(k)}


def _lite_key(key: str) -> str:
    """Our name of a tensor of an EfficientNet-Lite; its own where there is none.

    >>> _lite_key("blocks.1.0.conv_pwl.weight"), _lite_key("blocks.0.0.conv_pw.weight")
    ('stages.1.0.project.conv.weight', 'stages.0.0.project.conv.weight')
    """
    if m := re.fullmatch(r"(conv_stem|bn1)\.(\w+)", key):
        return f"stem.{'norm' if m[1] == 'bn1' else 'conv'}.{m[2]}"
    if m := re.fullmatch(r"blocks\.(\d)\.(\d+)\.(conv_pwl?|conv_dw|bn[123])\.(\w+)", key):
        unit = (_PLAIN if m[1] == "0" else _EXPANDED).get(m[3])
        part = "norm" if m[3].startswith("bn") else "conv"
        return key if unit is None else f"stages.{m[1]}.{m[2]}.{unit}.{part}.{m[4]}"
    return key


def lite_state(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's state dict from the classifier's; its head and counters are dropped."""
    head = re.compile(r"bn2\.")
    kept = {k: v for k, v in source.items() if not _CLASSIFIER.match(k) and not head.match(k)}
    return {_lite_key(k): value for k, value in kept.items()}
