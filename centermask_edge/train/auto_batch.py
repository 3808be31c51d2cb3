"""The largest batch that fits on the GPU, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import torch

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.preprocess import padded_size, resized_size
from centermask_edge.train.batches import Batch
from centermask_edge.train.learner import train_step
from centermask_edge.train.objective import Objects
from centermask_edge.train.ranks import Ranks
from centermask_edge.train.run import start_run
from centermask_edge.train.setup import earlier_settings

ON_CPU = 8  # pictures per process: a CPU has no limit to find, and more only takes longer
_LARGEST = 1024
_OBJECTS = 20  # per picture: a crowded one


def with_fitting_batch(
    model_config: ModelConfig, config: TrainConfig, ranks: Ranks, note: Callable[[str], None]
) -> TrainConfig:
    """The settings with the batch that fits, where ``auto_batch`` asks for it.

    A run that continues keeps the batch it began with. With several processes the smallest that
    any of them can take counts, times their number.
    """
    if not config.auto_batch:
        return config
    batch = earlier_settings(config.output).get("batch_size")
    if not isinstance(batch, int):
        largest = ON_CPU
        if ranks.device.type == "cuda":
            largest = largest_fitting(lambda size: _fits(model_config, config, ranks, size))
        # The smallest of all: they are told by their negatives.
        (smallest,) = ranks.largest([-float(largest)])
        batch = int(-smallest) * ranks.world * config.accumulate
    note(f"auto batch: {batch} pictures per step")
    return config.model_copy(update={"batch_size": batch})


def largest_fitting(fits: Callable[[int], bool]) -> int:
    """The largest power of two that fits, with a tenth to spare: 1 where nothing larger does.

    >>> largest_fitting(lambda size: size <= 40)
    32
    """
    size = 1
    while size < _LARGEST and fits(size * 2 + size * 2 // 10):
        size *= 2
    return size


def _fits(model_config: ModelConfig, config: TrainConfig, ranks: Ranks, size: int) -> bool:
    """Whether a step with so many pictures of the largest size runs within the memory."""
    trial = config.model_copy(update={"accumulate": 1, "batch_size": size})
    alone = Ranks(device=ranks.device)
    try:
        run = start_run(model_config, trial, alone)
        train_step(run, crowded_batch(trial, size))
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def crowded_batch(config: TrainConfig, size: int) -> Batch:
    """Black pictures of the largest size a run makes, full of objects."""
    short, long = max(config.short_sides), config.long_side
    height, width = resized_size(short, long, short, long)
    images = torch.zeros((size, 3, *padded_size(height, width)))
    x0 = torch.linspace(0, width * 0.7, _OBJECTS)
    boxes = torch.stack((x0, x0 * 0, x0 + width * 0.3, x0 * 0 + height), dim=1)
    corners = boxes.double().numpy()[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    objects = Objects(
        boxes,
        torch.zeros(_OBJECTS, dtype=torch.int64),
        torch.zeros((0, 4)),
        tuple((row,) for row in corners),
    )
    return Batch(images, [(height, width)] * size, [objects] * size, {}, list(range(size)))
