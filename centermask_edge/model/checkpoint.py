"""Checkpoint files: safetensors for ours, .pth read with ``weights_only`` and nothing else.

A safetensors file carries the model's whole configuration, so it needs no second file.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from centermask_edge.config import ModelConfig
from centermask_edge.errors import ModelFileError, require
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.keys import KeyMismatchError, compare_keys

_CONFIG_KEY = "centermask_edge.config"


def save(path: Path, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Write weights and configuration; the file appears whole or not at all.

    Raises:
        ModelFileError: the file cannot be written.
    """
    safetensors = require("safetensors.torch", extra="train", why="write checkpoints")
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    content = {_CONFIG_KEY: config.model_dump_json()}
    _write(path, lambda partial: safetensors.save_file(tensors, partial, content))


def save_pth(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a torch file with the tensors under "model"; it appears whole or not at all.

    Raises:
        ModelFileError: the file cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    _write(path, lambda partial: torch.save({"model": tensors}, partial))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    safetensors = require("safetensors", extra="train", why="write checkpoints")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ModelFileError(f"cannot write the checkpoint {path}: {reason}") from None


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a safetensors file, and our configuration in it as JSON if it carries one.

    Raises:
        ModelFileError: missing, damaged or empty file.
    """
    safetensors = require("safetensors", extra="train", why="read checkpoints")
    _check_exists(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_CONFIG_KEY)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        first = str(error).partition("\n")[0]
        raise ModelFileError(f"{path} is not a readable safetensors file: {first}") from None
    if not state:
        raise ModelFileError(f"{path} holds no tensors")
    return state, text


def load(path: Path) -> CenterMask:
    """The model a safetensors checkpoint describes, with its weights, in evaluation mode.

    Raises:
        ModelFileError: missing or damaged file, or one that was not written by this toolkit.
    """
    state, text = read_safetensors(path)
    if text is None:
        raise ModelFileError(
            f"{path} carries no model configuration; convert a foreign checkpoint first: "
            "centermask-edge convert"
        )
    try:
        config = ModelConfig.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise ModelFileError(
            f"{path} describes a model this version cannot build: {where}: {first['msg']}"
        ) from None
    model = CenterMask(config)
    load_state(model, state, path)
    return model.eval()


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a state dict into a model, every key and shape of which must fit.

    Raises:
        KeyMismatchError: names how many keys are missing, unexpected or of another shape, with one
            example of each; a ModelFileError.
    """
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    difference = compare_keys(wanted, {k: tuple(v.shape) for k, v in state.items()})
    if difference:
        raise KeyMismatchError(
            f"{path} is a checkpoint of another architecture: of {len(wanted)} tensors "
            f"{difference}; choose the preset it was made with",
            difference,
        )
    model.load_state_dict(dict(state))


def start_from(model: CenterMask, path: Path) -> tuple[int, int]:
    """Fill a model with those tensors of a safetensors checkpoint that fit it by name and shape.

    Layers that depend on the number of classes, or that the checkpoint's network lacks, stay as
    they are.

    Returns:
        How many tensors were taken, and how many the model has.

    Raises:
        ModelFileError: unreadable file, or one whose backbone is another.
    """
    state, _ = read_safetensors(path)
    own = model.state_dict()
    taken = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not any(key.startswith("backbone.") for key in taken):
        raise ModelFileError(
            f"no tensor of {path} fits the backbone {model.config.backbone.value}; start from a "
            "checkpoint of this toolkit with the same backbone, or give --init"
        )
    model.load_state_dict(taken, strict=False)
    return len(taken), len(own)


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give the path of a checkpoint file")
    if not path.is_file():
        raise ModelFileError(f"checkpoint not found: {path}; give the path of an existing file")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is empty (0 bytes); it was not written to the end")


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file, from under "model" or "state_dict" where it has one of them.

    Only tensors and plain containers are unpickled (``weights_only=True``).

    Raises:
        ModelFileError: missing, damaged, or holding something other than named tensors.
    """
    _check_exists(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files' odd protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged bytes make the unpickler fail in any way: IndexError, struct.error, AssertionError.
    except Exception:
        raise ModelFileError(
            f"{path} cannot be read as a torch checkpoint of plain tensors; "
            "anything else in such a file could run code and is refused"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} holds a {type(content).__name__}, wanted a state dict")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelFileError(f"{path} holds no tensors")
    return tensors


def init_backbone(model: CenterMask, path: Path) -> None:
    """Fill the backbone from an ImageNet classifier's file.

    Understands the published EfficientNet-Lite0 file and those of timm for the EfficientNets and
    HRNets; files with the official names of a body's tensors, whole or without what stands before
    the body's own part (in all of them the classifier's own layers are dropped); and any
    safetensors checkpoint of this toolkit with the same backbone.

    Raises:
        ModelFileError: the file does not fit the backbone.
    """
    from centermask_edge.model.imagenet import foreign_body_state

    own: str | None = None
    if path.suffix == ".safetensors":
        source, own = read_safetensors(path)
    else:
        source = read_pth(path)
    if own is None:
        state = foreign_body_state(model, source, path)
    else:
        state = load(path).backbone.state_dict()
    load_state(model.backbone, state, path)
