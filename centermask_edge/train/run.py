"""Everything one training run holds between steps, and how it comes from and goes to files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.evaluate.coco import Report, evaluate
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.predict import segment
from centermask_edge.train.distill import open_teacher
from centermask_edge.train.fake_quant import FakeQuantSpec
from centermask_edge.train.learner import Learner, make_scaler
from centermask_edge.train.optim import Ema, make_optimizer
from centermask_edge.train.qat import QuantizedCenterMask, network_state, save_quantized
from centermask_edge.train.ranks import Ranks
from centermask_edge.train.setup import build_model
from centermask_edge.train.state import write_state
from centermask_edge.train.stopping import Judged

LAST, BEST = "last.safetensors", "best.safetensors"


@dataclass(slots=True)
class Run:
    """A run between two steps.

    Attributes:
        model: in training.
        config: of the run.
        learner: the model with its losses; the same behind DistributedDataParallel where there
            are several processes.
        adapters: learnt beside the model for a teacher; mostly none.
        optimizer: of all that is learnt.
        scaler: of the loss; at work with fp16 only.
        ema: the averaged weights, if any are kept.
        ranks: this process among those of the training.
        judged: what evaluations have shown.
        step: finished steps.
        sampler_state: of the order of pictures, after the last step.
    """

    model: CenterMask
    config: TrainConfig
    learner: nn.Module
    adapters: nn.ModuleList
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    ranks: Ranks
    judged: Judged = field(default_factory=Judged)
    step: int = 0
    sampler_state: dict[str, int] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights where an average is kept, else the present ones."""
        return self.model.state_dict() if self.ema is None else self.ema.state(self.model)

    def content(self) -> dict[str, Any]:
        """All that decides how the run goes on."""
        ema = None if self.ema is None else {"steps": self.ema.steps, "shadow": self.ema.shadow}
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "adapters": self.adapters.state_dict(),
            "ema": ema,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sampler": self.sampler_state,
            "judged": self.judged.state(),
            "batch_size": self.config.batch_size,
            "random": torch.get_rng_state(),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Continue from a ``content()``.

        Raises:
            ValueError: it is of a run with another batch.
            Exception: it is of another model, or of another kind altogether.
        """
        if content["batch_size"] != self.config.batch_size:
            raise ValueError(
                f"batch_size was {content['batch_size']}, now it is {self.config.batch_size}"
            )
        self.model.load_state_dict(content["model"])
        self.adapters.load_state_dict(content["adapters"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        if self.ema is not None and content["ema"] is not None:
            self.ema.steps = content["ema"]["steps"]
            for name, value in content["ema"]["shadow"].items():
                self.ema.shadow[name].copy_(value)
        self.sampler_state = dict(content["sampler"])
        self.judged = Judged(**content["judged"])
        self.step = int(content["step"])
        torch.set_rng_state(content["random"])

    def save(self) -> None:
        """Write the weights, then the training state: a kill between them loses nothing."""
        self.save_weights(LAST)
        write_state(self.config.output, self.content())

    def save_weights(self, name: str) -> None:
        """Write the weights as a checkpoint of that name.

        Raises:
            ModelFileError: the file cannot be written.
        """
        weights, folder = self.weights(), self.config.output
        if isinstance(self.model, QuantizedCenterMask) and name == LAST:
            save_quantized(folder, weights, self.model)
        checkpoint.save(folder / name, network_state(weights), self.model.config)


def start_run(
    model_config: ModelConfig,
    config: TrainConfig,
    ranks: Ranks | None = None,
    spec: FakeQuantSpec | None = None,
) -> Run:
    """A run before its first step, on the device of this process.

    Raises:
        ConfigError: settings that cannot be trained with.
        ModelFileError: unreadable initial weights.
    """
    ranks = ranks or Ranks()
    scaler = make_scaler(config, ranks.device)
    model = build_model(model_config, config, spec).train()
    teacher = open_teacher(model, config)
    if teacher is not None:
        teacher.model.to(ranks.device)
    learner = Learner(model, config, teacher).to(ranks.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(model, config.ema_decay) if config.ema_decay else None
    optimizer = make_optimizer(model, config, learner.adapters)
    return Run(model, config, learner, learner.adapters, optimizer, scaler, ema, ranks)


def evaluate_run(run: Run) -> Report:
    """Box and mask AP of the run's weights on its validation set."""
    assert run.config.val_annotations is not None
    model = evaluated_model(run)
    return evaluate(
        lambda image: segment(model, image), run.config.val_annotations, model.config.classes
    )


def evaluated_model(run: Run) -> CenterMask:
    """A copy of the network with the run's weights, in evaluation mode on the same device."""
    if isinstance(run.model, QuantizedCenterMask):
        model: CenterMask = run.model.twin(run.weights())
    else:
        model = CenterMask(run.model.config)
        model.load_state_dict(run.weights())
    return model.to(run.ranks.device).eval()
