"""Our networks against the official code, case by case, as tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from centermask_edge.errors import require
from centermask_edge.model.checks import Table
from centermask_edge.model.parity import Compared, build_golden, compare
from centermask_edge.model.reference import OFFICIAL_CONFIGS, Reference

PICTURES = {"coffee": "coffee.png", "rocket": "rocket.jpg"}  # name in the mask files
DENSE_LIMIT = 1e-4
# The official network's own distance from double precision is 30 times the other bodies'.
_WIDER = {"lite_Mv2": 1e-3}


def _read_rgb(reference: Reference, name: str) -> NDArray[np.uint8]:
    pillow = require("PIL.Image", extra="train", why="read reference pictures")
    with pillow.open(reference.path(f"{name}_600.png")) as picture:
        rgb = np.asarray(picture.convert("RGB"))
    return np.ascontiguousarray(rgb[..., ::-1])


def cases(reference: Reference) -> Iterator[Compared]:
    """Every comparison the folder allows: each configuration and seed that the small picture was
    run with, and real pictures where it has them.
    """
    for config in OFFICIAL_CONFIGS:
        for seed in reference.seeds(config):
            yield from _cases(reference, config, seed)


def _cases(reference: Reference, config: str, seed: int) -> Iterator[Compared]:
    model, limit = build_golden(reference, config, seed), _WIDER.get(config, DENSE_LIMIT)
    label = config if seed == 0 else f"{config} seed {seed}"
    masks = reference.masks(config, "small", seed)
    case = reference.case(f"small.{config}.s{seed}")
    yield compare(model, f"{label}, small", limit, case, reference.small_input(), masks)
    for picture, file in PICTURES.items():
        name = f"img_{picture}.{config}.s{seed}"
        if reference.find(f"{name}.npz") is not None:
            image, case = _read_rgb(reference, picture), reference.case(name)
            masks = reference.masks(config, file, seed)
            yield compare(model, f"{label}, {picture}", limit, case, image, masks)


def official_tables(reference: Reference) -> list[Table]:
    """Dense maps, detections and pasted masks of our networks against the official code's."""
    results = list(cases(reference))
    dense = tuple(check for result in results for check in result.dense)
    found = tuple(check for result in results for check in result.detections)
    masks = tuple(check for result in results for check in result.masks)
    return [
        Table(
            "Dense maps against the official code",
            "Largest difference as a share of the largest value, per level.",
            ("network, picture", "map", "P3", "P4", "P5", "P6", "P7"),
            dense,
        ),
        Table(
            "Detections against the official code",
            "Found / wanted; detections that only one has; RoIs pooled from another level; then "
            "the largest difference of boxes in pixels, of scores, mask scores and mask "
            "probabilities, and of pooled features relative to the largest.",
            (
                "network, picture", "found", "lone", "level", "box", "score", "mask score",
                "mask", "features",
            ),
            found,
        ),
        Table(
            "Pasted masks against the official code",
            "All masks at picture size. A pixel whose value lies within 1e-4 of the 0.5 boundary "
            "may fall either way; every other one must be equal.",
            ("network, picture", "instances", "compared", "mask pixels", "differing"),
            masks,
        ),
    ]  # fmt: skip
