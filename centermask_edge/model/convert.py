"""Official checkpoints to ours and back; what a file is, is told by its names and shapes.

Only names change, never a tensor; what else a file of the first release needs is in
``first_release``. Weights of the official code keep their own terms of use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from centermask_edge.config import PRESETS, ModelConfig, preset, with_original_rules
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.first_release import from_first_release, is_first_release
from centermask_edge.model.keys import KeyMismatchError, compare_keys, unexpected
from centermask_edge.model.official import from_official, to_official
from centermask_edge.switches import ChannelAttention, Rules

# Some versions of the official framework stored the pixel statistics; the preset holds them here.
PIXEL_STATISTICS = ("pixel_mean", "pixel_std")

Shapes = dict[str, tuple[int, ...]]


def official_presets() -> dict[str, ModelConfig]:
    """The presets whose networks exist in the official code."""
    return {n: c for n, c in PRESETS.items() if c.backbone.is_official}


@cache
def _shapes(name: str, scoring: bool = True) -> Shapes:
    with torch.device("meta"):
        state = CenterMask(_scored(PRESETS[name], scoring)).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def _scored(config: ModelConfig, scoring: bool) -> ModelConfig:
    return config if scoring else config.model_copy(update={"mask_scoring": False})


def _has_scoring(state: Mapping[str, Tensor]) -> bool:
    """Both formats leave the whole mask-IoU head out where a model was trained without."""
    return any(key.startswith("mask_iou_head.") for key in state)


def guess_preset(state: Mapping[str, Tensor], path: Path) -> ModelConfig:
    """The one preset whose tensors are exactly these, by our names and their shapes.

    Without any tensor of the mask-IoU head, it is the preset without mask scoring.

    Args:
        state: tensors by our names.
        path: named in errors.

    Raises:
        KeyMismatchError: none fits, and then what the nearest one misses.
        ModelFileError: more than one fits.
    """
    found = {key: tuple(value.shape) for key, value in state.items()}
    presets, scoring = official_presets(), _has_scoring(state)
    fitting = [name for name in presets if _shapes(name, scoring) == found]
    if len(fitting) == 1:
        return _scored(presets[fitting[0]], scoring)
    if fitting:
        raise ModelFileError(
            f"{path} fits more than one preset; choose one with --preset: {', '.join(fitting)}"
        )
    nearest = max(presets, key=lambda name: len(_shapes(name).items() & found.items()))
    difference = compare_keys(_shapes(nearest), found)
    raise KeyMismatchError(
        f"{path} fits none of the {len(presets)} official presets; nearest is {nearest}: of "
        f"{difference.total} tensors {difference}",
        difference,
    )


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """Tensors of an official file by our names.

    Attributes:
        state: the tensors.
        left_out: keys that mean nothing here: the pixel statistics.
        first_release: whether the format and the rules are those of the first release.
    """

    state: dict[str, Tensor]
    left_out: list[str]
    first_release: bool


def read_official(path: Path) -> OfficialFile:
    """Tensors by our names from a file with the names of centermask2 or of the first release.

    The file is a .pth, or safetensors.

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
    first_release = is_first_release(tensors)
    state, unknown = from_first_release(tensors) if first_release else from_official(tensors)
    foreign = [key for key in unknown if key not in PIXEL_STATISTICS]
    if not state:
        raise ModelFileError(
            f"{path} has no tensor with an official name: found {unknown[0]} and "
            f"{len(unknown) - 1} more, wanted names like backbone.fpn_lateral3.weight"
        )
    if foreign:
        raise KeyMismatchError(
            f"{path} holds {len(foreign)} of {len(tensors)} tensors that no supported model has "
            f"(first {foreign[0]}); centermask-edge models lists the supported ones",
            unexpected(foreign),
        )
    return OfficialFile(state, [key for key in unknown if key in PIXEL_STATISTICS], first_release)


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
    file = read_official(source)
    if chosen is None:
        config = guess_preset(file.state, source)
    else:
        config = _scored(chosen, _has_scoring(file.state))
    model = CenterMask(with_original_rules(config) if file.first_release else config)
    checkpoint.load_state(model, file.state, source)
    checkpoint.save(target, model.state_dict(), model.config)
    return model.config, file.left_out


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
    if reason := _no_counterpart(model.config):
        raise ModelFileError(
            f"{source} has {reason}, which the official code never had; only official models have "
            "official names: centermask-edge models"
        )
    checkpoint.save_pth(target, to_official(model.state_dict(), backbone))
    return model.config


def _no_counterpart(config: ModelConfig) -> str | None:
    """What of a model centermask2 could not hold, if anything."""
    if not config.backbone.is_official:
        return f"the backbone {config.backbone.value}"
    if config.channel_attention is ChannelAttention.SE:
        return "SE blocks"
    if config.rules is Rules.ORIGINAL:
        return "weights for the rules of the first release"
    return None


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
