"""Official checkpoints to ours and back; what a file is, is told by its names and shapes.

Only names change, never a tensor. Weights of the official code keep their own terms of use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from centermask_edge.config import PRESETS, Backbone, ModelConfig, preset
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.official import from_official, to_official

# Some versions of the official framework stored the pixel statistics; the preset holds them here.
PIXEL_STATISTICS = ("pixel_mean", "pixel_std")

Shapes = dict[str, tuple[int, ...]]


def official_presets() -> dict[str, ModelConfig]:
    """The presets whose networks exist in the official code."""
    return {n: c for n, c in PRESETS.items() if c.backbone is not Backbone.EFFICIENTNET_LITE0}


@cache
def _shapes(name: str) -> Shapes:
    with torch.device("meta"):
        state = CenterMask(PRESETS[name]).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def guess_preset(state: Mapping[str, Tensor], path: Path) -> ModelConfig:
    """The one preset whose tensors are exactly these, by our names and their shapes.

    Args:
        state: tensors by our names.
        path: named in errors.

    Raises:
        ModelFileError: none fits, and then what the nearest one misses; or more than one does.
    """
    found = {key: tuple(value.shape) for key, value in state.items()}
    presets = official_presets()
    fitting = [name for name in presets if _shapes(name) == found]
    if len(fitting) == 1:
        return presets[fitting[0]]
    if fitting:
        raise ModelFileError(
            f"{path} fits more than one preset; choose one with --preset: {', '.join(fitting)}"
        )
    nearest = max(presets, key=lambda name: len(_shapes(name).items() & found.items()))
    with torch.device("meta"):
        model = CenterMask(presets[nearest])
    try:
        checkpoint.load_state(model, state, path)
    except ModelFileError as error:
        reason = str(error).partition(": ")[2].partition("; choose the preset")[0]
        raise ModelFileError(
            f"{path} fits none of the presets {', '.join(presets)}; nearest is {nearest}: {reason}"
        ) from None
    raise AssertionError("a state that loads fits its preset")


def read_official(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by our names from a file with official names, and the keys that were left out.

    Left out are only the pixel statistics. The file is a .pth, or safetensors.

    Raises:
        ModelFileError: missing or damaged, ours already, or holding names of something else.
    """
    if path.suffix == ".safetensors":
        tensors, config = checkpoint.read_safetensors(path)
        if config is not None:
            raise ModelFileError(
                f"{path} is a checkpoint of this toolkit already; "
                "to write official names, add --to official"
            )
    else:
        tensors = checkpoint.read_pth(path)
    state, unknown = from_official(tensors)
    foreign = [key for key in unknown if key not in PIXEL_STATISTICS]
    if not state:
        raise ModelFileError(
            f"{path} has no tensor with an official name: found {unknown[0]} and "
            f"{len(unknown) - 1} more, wanted names like backbone.fpn_lateral3.weight"
        )
    if foreign:
        raise ModelFileError(
            f"{path} holds {len(foreign)} of {len(tensors)} tensors that no supported model has "
            f"(first {foreign[0]}); supported presets: {', '.join(official_presets())}"
        )
    return state, [key for key in unknown if key in PIXEL_STATISTICS]


def to_ours(source: Path, target: Path, name: str | None = None) -> tuple[ModelConfig, list[str]]:
    """Write an official checkpoint as one of ours; its preset and the keys left out.

    Args:
        source: .pth or .safetensors file with official names.
        target: .safetensors file to write.
        name: preset; guessed from the tensors where None.

    Raises:
        ConfigError: unknown preset, or a target of another kind.
        ModelFileError: unreadable or unfitting source, unwritable target.
    """
    _check_suffix(target, ".safetensors")
    chosen = None if name is None else preset(name)
    state, left_out = read_official(source)
    config = guess_preset(state, source) if chosen is None else chosen
    model = CenterMask(config)
    checkpoint.load_state(model, state, source)
    checkpoint.save(target, model.state_dict(), config)
    return config, left_out


def to_official_file(source: Path, target: Path) -> ModelConfig:
    """Write one of our checkpoints as a .pth with official names; its preset.

    Args:
        source: .safetensors file of this toolkit.
        target: .pth file to write.

    Raises:
        ConfigError: a target of another kind.
        ModelFileError: unreadable source, one without an official counterpart, unwritable target.
    """
    _check_suffix(target, ".pth")
    model = checkpoint.load(source)
    backbone = model.config.backbone
    if backbone is Backbone.EFFICIENTNET_LITE0:
        raise ModelFileError(
            f"{source} has the backbone {backbone.value}, which the official code never had; "
            f"wanted a checkpoint of one of: {', '.join(official_presets())}"
        )
    checkpoint.save_pth(target, to_official(model.state_dict(), backbone))
    return model.config


def to_fp16_file(source: Path, target: Path) -> ModelConfig:
    """Write one of our checkpoints in half the space; its preset.

    Convolution and linear weights are rounded to float16; biases and norms stay float32. Loading
    gives float32 again.

    Args:
        source: .safetensors file of this toolkit.
        target: .safetensors file to write.

    Raises:
        ConfigError: a target of another kind.
        ModelFileError: unreadable source, unwritable target.
    """
    _check_suffix(target, ".safetensors")
    model = checkpoint.load(source)
    state = {k: v.half() if v.ndim > 1 else v for k, v in model.state_dict().items()}
    checkpoint.save(target, state, model.config)
    return model.config


def _check_suffix(path: Path, wanted: str) -> None:
    if path.suffix != wanted:
        raise ConfigError(f"output {path} ends in {path.suffix or 'nothing'}, wanted {wanted}")
