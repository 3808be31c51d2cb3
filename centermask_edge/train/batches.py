"""Batches of tensors, prepared in a background thread while the network computes.

All randomness comes from the seed, the number of the step and the place in the step's batch. So a
resumed run draws the same views, and several processes draw what one would.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from centermask_edge.config import PreprocessConfig, TrainConfig
from centermask_edge.data.augment import View
from centermask_edge.data.coco import Sample
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.data.views import Views
from centermask_edge.train.objective import Objects
from centermask_edge.train.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Batch:
    """images float32 (B, 3, H, W) padded to the largest; per picture its unpadded (height, width),
    its objects and a seed; the sampler's state after this batch, for resuming.
    """

    images: Tensor
    image_sizes: list[tuple[int, int]]
    objects: list[Objects]
    sampler_state: dict[str, int]
    seeds: list[int]

    def to(self, device: torch.device) -> Batch:
        """The same on a device; itself where it is there."""
        if device.type == "cpu":
            return self
        objects = [o.to(device) for o in self.objects]
        images = self.images.to(device, non_blocking=True)
        return Batch(images, self.image_sizes, objects, self.sampler_state, self.seeds)

    def split(self, parts: int) -> list[Batch]:
        """As many batches of neighbours, of the same size and padding."""
        if parts == 1:
            return [self]
        count = len(self.seeds) // parts
        slices = [slice(n * count, (n + 1) * count) for n in range(parts)]
        return [
            Batch(
                self.images[s],
                self.image_sizes[s],
                self.objects[s],
                self.sampler_state,
                self.seeds[s],
            )
            for s in slices
        ]


def collate(views: Sequence[View], sampler_state: dict[str, int], seeds: Sequence[int]) -> Batch:
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
            v.covers,
        )
        for v in views
    ]
    return Batch(images, [v.image_size for v in views], objects, sampler_state, list(seeds))


def _make(
    views: Views, sampler: BatchSampler, config: TrainConfig, ranks: Ranks, pool: Executor
) -> Batch:
    step = sampler.step
    rng = np.random.default_rng((config.seed, 104729, step))
    short_side = int(rng.choice(config.short_sides))
    indices = sampler.next()
    share = len(indices) // ranks.world
    mine = range(ranks.rank * share, (ranks.rank + 1) * share)

    def make(place: int) -> View:
        chance = np.random.default_rng((config.seed, 104729, step, place))
        return views.make(indices[place], short_side=short_side, rng=chance)

    made = list(pool.map(make, mine))
    seeds = [(config.seed * 1_000_003 + step) * 4096 + place for place in mine]
    return collate(made, sampler.state(), [seed % 2**63 for seed in seeds])


def batches(
    samples: Sequence[Sample],
    sampler: BatchSampler,
    prep: PreprocessConfig,
    config: TrainConfig,
    ranks: Ranks | None = None,
) -> Iterator[Batch]:
    """Endless batches in the sampler's order, this process's part of each; two are made ahead.

    Raises:
        DatasetError: a picture cannot be read; raised to the consumer.
    """
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=2)
    stop = threading.Event()
    views, own = Views(samples, prep, config), ranks or Ranks()

    pool = ThreadPoolExecutor(config.workers, thread_name_prefix="views")

    def produce() -> None:
        while not stop.is_set():
            item: Batch | BaseException
            try:
                item = _make(views, sampler, config, own, pool)
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
        pool.shutdown()
