"""Batches of tensors, prepared in a background thread while the network computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from centermask_edge.config import PreprocessConfig, TrainConfig
from centermask_edge.data.augment import View, make_view
from centermask_edge.data.coco import Sample
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.train.objective import Objects


@dataclass(frozen=True, slots=True)
class Batch:
    """images float32 (B, 3, H, W) padded to the largest; per picture its unpadded (height, width)
    and its objects; the sampler's state after this batch, for resuming.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    objects: list[Objects]
    sampler_state: dict[str, int]


def collate(views: Sequence[View], sampler_state: dict[str, int]) -> Batch:
    """One batch from views of different sizes, zero-padded on the right and the bottom."""
    height = max(v.image.shape[1] for v in views)
    width = max(v.image.shape[2] for v in views)
    images = torch.zeros((len(views), 3, height, width))
    for row, view in enumerate(views):
        images[row, :, : view.image.shape[1], : view.image.shape[2]] = torch.from_numpy(view.image)
    objects = [
        Objects(
            torch.from_numpy(v.boxes),
            torch.from_numpy(v.classes),
            torch.from_numpy(v.ignore),
            v.polygons,
        )
        for v in views
    ]
    return Batch(images, [v.image_size for v in views], objects, sampler_state)


def _make(
    samples: Sequence[Sample], sampler: BatchSampler, prep: PreprocessConfig, config: TrainConfig
) -> Batch:
    rng = np.random.default_rng((config.seed, 104729, sampler.step))
    short_side = int(rng.choice(config.short_sides))
    views = [
        make_view(
            samples[index],
            prep,
            short_side=short_side,
            long_side=config.long_side,
            flip=bool(rng.random() < config.flip),
        )
        for index in sampler.next()
    ]
    return collate(views, sampler.state())


def batches(
    samples: Sequence[Sample], sampler: BatchSampler, prep: PreprocessConfig, config: TrainConfig
) -> Iterator[Batch]:
    """Endless batches in the sampler's order; two are prepared ahead.

    Raises:
        DatasetError: a picture cannot be read; raised to the consumer.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            item: Batch | BaseException
            try:
                item = _make(samples, sampler, prep, config)
            except Exception as error:
                item = error
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    thread = threading.Thread(target=produce, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
