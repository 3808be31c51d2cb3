"""The pictures and objects that files are judged on, and the AP of any part of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from centermask_edge.data.coco import Sample, category_ids, read_coco
from centermask_edge.errors import ConfigError, DatasetError
from centermask_edge.evaluate.coco import Precision, average_precision

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A COCO set, or pictures evenly spread over it.

    Attributes:
        samples: the pictures.
        of_images: how many the file lists.
        truth: content of the COCO file, of these pictures only.
        ids: COCO category by class index.
    """

    samples: tuple[Sample, ...]
    of_images: int
    truth: dict[str, Any]
    ids: dict[int, int]

    def objects(self, category: int | None = None) -> int:
        """Objects that count, of one category or of all."""
        wanted = set(self.ids.values()) if category is None else {category}
        return sum(
            a["category_id"] in wanted and not a.get("iscrowd") for a in self.truth["annotations"]
        )

    def ap(
        self,
        rows: Sequence[Row],
        *,
        categories: Iterable[int] | None = None,
        images: Iterable[int] | None = None,
    ) -> tuple[Precision, Precision]:
        """Box and mask AP of results, of all pictures and classes or of some.

        Args:
            rows: from ``results_of``.
            categories: COCO ids that count.
            images: COCO ids of the pictures that count.
        """
        chosen = set(self.ids.values()) if categories is None else set(categories)
        truth, kept = self.truth, [r for r in rows if r["category_id"] in chosen]
        if images is not None:
            wanted = set(images)
            truth = _part(truth, wanted)
            kept = [r for r in kept if r["image_id"] in wanted]
        return average_precision(kept, truth, chosen)


def read_set(annotations: Path, classes: Sequence[str], limit: int | None = None) -> JudgedSet:
    """The set of a COCO file.

    Args:
        annotations: pictures are in ``images/`` beside it.
        classes: of the model.
        limit: judge so many pictures at most, evenly spread.

    Raises:
        ConfigError: a limit below 1.
        DatasetError: unreadable, or objects without a mask, or no object at all.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} pictures leaves none to judge; wanted 1 or more")
    samples = read_coco(annotations, classes)
    truth = json.loads(annotations.read_text(encoding="utf-8"))
    indices = category_ids(truth["categories"], classes)
    count = len(samples) if limit is None else min(limit, len(samples))
    chosen = tuple(samples[i * len(samples) // count] for i in range(count))
    ids = {index: coco for coco, index in indices.items()}
    part = _part(truth, {s.image_id for s in chosen})
    found = JudgedSet(chosen, len(samples), part, ids)
    _check(annotations, found)
    return found


def _part(truth: dict[str, Any], images: set[int]) -> dict[str, Any]:
    return {
        **truth,
        "images": [i for i in truth["images"] if i["id"] in images],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in images],
    }


def _check(path: Path, judged: JudgedSet) -> None:
    counted = set(judged.ids.values())
    objects = [
        a
        for a in judged.truth["annotations"]
        if a["category_id"] in counted and not a.get("iscrowd")
    ]
    if not objects:
        raise DatasetError(
            f"{path} has no object of this model's classes in the {len(judged.samples)} pictures "
            "to judge on; AP needs some"
        )
    bare = sum(not a.get("segmentation") for a in objects)
    if bare:
        raise DatasetError(
            f"{path} has no masks for {bare} of its {len(objects)} objects; "
            "a verdict needs a polygon or RLE for each"
        )
