"""The training loop: batches in, checkpoints and logs out; resumes by itself.

    centermask-edge train mine/train.json --recipe 48ep --preset lite-v19
    torchrun --nproc-per-node 8 -m centermask_edge train ...

Recipe of the paper: SGD, warm-up, two steps of x0.1, multi-scale, flip (CenterMask section 4).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import CenterMaskError, ConfigError
from centermask_edge.evaluate.coco import Report
from centermask_edge.train.auto_batch import with_fitting_batch
from centermask_edge.train.batches import Batch, batches
from centermask_edge.train.fake_quant import FakeQuantSpec
from centermask_edge.train.journal import Journal
from centermask_edge.train.learner import Learner, shared, train_step
from centermask_edge.train.optim import learning_rate
from centermask_edge.train.ranks import PeerError, Ranks, joined
from centermask_edge.train.run import BEST, LAST, Run, evaluate_run, start_run
from centermask_edge.train.setup import open_output, read_samples
from centermask_edge.train.state import read_state
from centermask_edge.train.stopping import TimeLimit


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished step of how many, its losses, gradient norm, learning rate, seconds."""

    step: int
    steps: int
    losses: dict[str, float]
    grad_norm: float
    lr: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what; in a training of several processes rank 0 alone tells.

    Attributes:
        step: each finished step.
        report: each evaluation, with its step.
        note: a line of anything else worth knowing.
        evaluate: gives the evaluation, as the validation set has it unless another is given.
    """

    step: Callable[[Progress], None] = lambda progress: None
    report: Callable[[int, Report], None] = lambda step, report: None
    note: Callable[[str], None] = lambda line: None
    evaluate: Callable[[Run], Report] | None = None


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_report: Callable[[int, Report], None] = lambda step, report: None,
    spec: FakeQuantSpec | None = None,
    *,
    on_note: Callable[[str], None] = lambda line: None,
    evaluator: Callable[[Run], Report] | None = None,
) -> Path:
    """Train to ``config.steps`` and return the path of the final weights.

    Continues from ``config.output`` where a state lies there. With a spec, the forward pass rounds
    to 8 bits where it says, and weights and ranges are in ``quantized.safetensors`` as well.

    Args:
        model_config: the architecture.
        config: the run.
        on_step: told each finished step.
        on_report: told each evaluation, with its step.
        spec: where to round to 8 bits.
        on_note: told in one line what else is worth knowing, an early end for example.
        evaluator: evaluates the run instead of ``config.val_annotations``.

    Raises:
        ConfigError: settings that cannot be trained with.
        DatasetError: unreadable or empty data.
        ModelFileError: unreadable initial weights or state, or an unwritable output folder.
        PeerError: another process of the same training ended.
    """
    limit = TimeLimit(config.seconds)
    if config.threads:
        torch.set_num_threads(config.threads)
    if evaluator is None and config.val_annotations is not None:
        evaluator = evaluate_run
    with joined(config.device) as ranks:
        watch = Watch(on_step, on_report, on_note, evaluator)
        _train(model_config, config, spec, ranks, watch if ranks.main else Watch(), limit)
    return config.output / LAST


def _train(
    model_config: ModelConfig,
    config: TrainConfig,
    spec: FakeQuantSpec | None,
    ranks: Ranks,
    watch: Watch,
    limit: TimeLimit,
) -> None:
    samples = read_samples(config, model_config.classes)
    config = with_fitting_batch(model_config, config, ranks, watch.note)
    share = ranks.world * config.accumulate
    if config.batch_size % share:
        raise ConfigError(
            f"batch_size {config.batch_size} is no multiple of {share}, the number of processes "
            "times accumulate; give one that is"
        )
    config = _with_steps(config, sum(len(s.boxes) > 0 for s in samples))
    sampler = BatchSampler(samples, config.batch_size, config.masked_share, config.seed)
    run = start_run(model_config, config, ranks, spec)
    if ranks.main:
        open_output(model_config, config)
    if read_state(config.output, run.restore, watch.note):
        sampler.restore(run.sampler_state)
    assert isinstance(run.learner, Learner)
    run.learner = shared(run.learner, ranks)
    with ExitStack() as stack:
        journal = None
        if ranks.main:
            opened = Journal(config.output, run.step, config.tensorboard)
            journal = stack.enter_context(opened)
        stream = batches(samples, sampler, model_config.preprocess, config, ranks)
        stack.callback(stream.close)  # type: ignore[attr-defined]
        _Loop(run, stream, journal, watch, limit).go()


def _with_steps(config: TrainConfig, pictures: int) -> TrainConfig:
    """The settings with the steps that ``epochs`` means, where it is given."""
    if not config.epochs:
        return config
    steps = math.ceil(config.epochs * pictures / config.batch_size)
    return config.model_copy(update={"steps": steps})


class _Loop:
    """Steps until the end, whichever comes first."""

    def __init__(
        self,
        run: Run,
        stream: Iterator[Batch],
        journal: Journal | None,
        watch: Watch,
        limit: TimeLimit,
    ) -> None:
        self.run, self.stream, self.limit = run, stream, limit
        self.journal, self.watch = journal, watch

    def go(self) -> None:
        run, config = self.run, self.run.config
        while run.step < config.steps and not run.judged.ended:
            start = time.perf_counter()
            progress = self._step(start)
            self.limit.took("step", time.perf_counter() - start)
            self.watch.step(progress)
            if self._due(run.step):
                self._evaluate()
            no_time, ended = run.ranks.largest(
                [float(self.limit.over(*self._coming())), float(bool(run.judged.ended))]
            )
            last = run.step == config.steps or ended
            if run.ranks.main and (last or no_time or run.step % config.save_every == 0):
                self._save()
            if no_time and not last:
                self.watch.note(
                    f"stopped after step {run.step} of {config.steps}: {config.seconds:g} seconds "
                    "are nearly over; run the same command again to continue"
                )
                return
            if ended:
                self.watch.note(f"ended after step {run.step}: {run.judged.ended}")
                return

    def _step(self, start: float) -> Progress:
        run = self.run
        batch = self._next()
        lr = learning_rate(run.config, run.step)
        losses, norm = train_step(run, batch)
        run.sampler_state = batch.sampler_state
        run.step += 1
        means = run.ranks.mean([float(v) for v in losses.values()])
        values = dict(zip(losses, means, strict=True))
        progress = Progress(
            run.step, run.config.steps, values, float(norm), lr, time.perf_counter() - start
        )
        if self.journal is not None:
            rest = {"grad_norm": progress.grad_norm, "lr": lr, "seconds": progress.seconds}
            self.journal.step(run.step, {**values, **rest})
        return progress

    def _next(self) -> Batch:
        """The next batch, of which all processes have their part; else all of them end."""
        batch, failure = None, None
        try:
            batch = next(self.stream)
        except CenterMaskError as error:
            failure = error
        (anyone,) = self.run.ranks.largest([float(failure is not None)])
        if failure is not None:
            raise failure
        if anyone or batch is None:
            raise PeerError("another process of this training ended; its own message says why")
        return batch

    def _due(self, step: int) -> bool:
        every = self.run.config.eval_every
        return bool(every) and step % every == 0 and self.watch.evaluate is not None

    def _coming(self) -> tuple[str, ...]:
        return ("step", "evaluation") if self._due(self.run.step + 1) else ("step",)

    def _evaluate(self) -> None:
        run, start = self.run, time.perf_counter()
        assert self.watch.evaluate is not None
        report = self.watch.evaluate(run)
        if run.judged.judge(report, run.config):
            run.save_weights(BEST)
        if self.journal is not None:
            self.journal.report(run.step, report)
        self.watch.report(run.step, report)
        self.limit.took("evaluation", time.perf_counter() - start)

    def _save(self) -> None:
        start = time.perf_counter()
        self.run.save()
        self.limit.took("save", time.perf_counter() - start)
