"""A crowd of given size in a 1280 x 720 picture, and what its masks and its drawing cost.

The masks are those that the shipped model finds in the bundled clip, the boxes people-sized: 40 to
250 pixels high, as wide as their masks want, anywhere. Fifty hold half a million pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from int8_variants import Picture

from centermask_edge.engines.base import Detections
from centermask_edge.engines.openvino import OpenVinoEngine
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.draw import draw
from centermask_edge.masks import encode_rle, encode_rles, paste_full
from centermask_edge.preprocess import Placement, Preprocess
from centermask_edge.resources import shipped_model

HEIGHT, WIDTH = 720, 1280
ROOM = 50  # instances, as the models have
_LOW, _HIGH = 40, 250  # pixels
_SCORE = 0.35
_WARM_UP = 3

Job = Callable[[], object]


def people(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Masks (P, 28, 28) that the shipped model finds, and the width of each by its height."""
    engine = OpenVinoEngine(shipped_model())
    prepare = Preprocess(engine.metadata.preprocess)
    found = []
    for picture in pictures:
        image, placement = prepare(picture)
        raw = engine.run(image[None], np.asarray([placement.resized_size], np.float32))
        found.append(Instances.from_detections(raw, 0, placement).above(_SCORE))
    sides = np.concatenate([f.boxes[:, 2:] - f.boxes[:, :2] for f in found])
    return np.concatenate([f.masks for f in found]), sides[:, 0] / sides[:, 1]


def crowd(
    masks: np.ndarray, aspects: np.ndarray, count: int, placement: Placement, seed: int = 0
) -> Detections:
    """So many people as an engine would give them, with room for ``ROOM``.

    Args:
        masks: float32 (P, 28, 28), of :func:`people`; repeated where there are fewer.
        aspects: float32 (P,) width by height.
        count: instances.
        placement: of the picture, which is ``HEIGHT`` by ``WIDTH``, in the network's input.
        seed: of the places.
    """
    random = np.random.default_rng(seed)
    picked = random.integers(0, len(masks), ROOM)
    tall = np.exp(random.uniform(np.log(_LOW), np.log(_HIGH), ROOM))
    sides = np.stack([tall * np.clip(aspects[picked], 0.3, 1), tall], axis=1)
    low = random.uniform(0, 1, (ROOM, 2)) * ([WIDTH, HEIGHT] - sides)
    boxes = np.concatenate([low, low + sides], 1)
    boxes *= np.tile([placement.scale_x, placement.scale_y], 2)
    scores = np.linspace(0.95, 0.4, ROOM, dtype=np.float32)
    real = np.arange(ROOM) < count
    return Detections(
        boxes=np.where(real[:, None], boxes, 0).astype(np.float32)[None],
        scores=np.where(real, scores, 0).astype(np.float32)[None],
        mask_scores=np.where(real, scores, 0).astype(np.float32)[None],
        classes=np.zeros((1, ROOM), np.int64),
        masks=np.where(real[:, None, None], masks[picked], 0).astype(np.float32)[None],
        count=np.array([count]),
    )


@contextmanager
def one_core() -> Iterator[None]:
    """This thread stays on one core, and OpenCV in this thread."""
    import cv2

    threads = cv2.getNumThreads()
    pinned = hasattr(os, "sched_setaffinity")
    cores = os.sched_getaffinity(0) if pinned else set()
    try:
        cv2.setNumThreads(1)
        if pinned:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        cv2.setNumThreads(threads)
        if pinned:
            os.sched_setaffinity(0, cores)


def jobs(raw: Detections, picture: Picture) -> dict[str, Job]:
    """What is timed, by name: masks to results, run lengths and drawing."""
    same = Placement((HEIGHT, WIDTH), (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    found = Instances.from_detections(raw, 0, same)
    crops = found.crops()

    def inside() -> object:
        return Instances.from_detections(raw, 0, same).crops()

    def full() -> list[np.ndarray]:
        made = Instances.from_detections(raw, 0, same)
        pairs = zip(made.masks, made.boxes, strict=True)
        return [paste_full(mask, box, HEIGHT, WIDTH) for mask, box in pairs]

    frames = full()
    return {
        "masks, inside their boxes": inside,
        "masks, full frame": full,
        "run lengths, inside their boxes": lambda: encode_rles(crops, HEIGHT, WIDTH),
        "run lengths, full frame": lambda: [encode_rle(f, 0, 0, HEIGHT, WIDTH) for f in frames],
        "drawing": lambda: draw(picture, found, crops),
    }


def in_turns(made: dict[str, Job], rounds: int) -> list[dict[str, Any]]:
    """Wall and processor time of each job in milliseconds; who goes first changes."""
    wall: dict[str, list[float]] = {name: [] for name in made}
    busy: dict[str, list[float]] = {name: [] for name in made}
    order = list(made)
    for turn in range(_WARM_UP + rounds):
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            start, spent = time.perf_counter(), time.thread_time()
            made[name]()
            spent, passed = time.thread_time() - spent, time.perf_counter() - start
            if turn >= _WARM_UP:
                wall[name].append(passed * 1e3)
                busy[name].append(spent * 1e3)
    return [
        {
            "job": name,
            "median_ms": round(float(np.median(wall[name])), 3),
            "p95_ms": round(float(np.percentile(wall[name], 95)), 3),
            "best_ms": round(min(wall[name]), 3),
            "processor_ms": round(float(np.median(busy[name])), 3),
        }
        for name in made
    ]


def sampled(frames: Sequence[Picture], every: int) -> list[Picture]:
    """Every so many of the pictures."""
    return list(islice(frames, 0, None, every))
