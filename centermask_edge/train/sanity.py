"""Does training work here at all? A handful of pictures, learnt by heart.

    centermask-edge train mine/train.json --preset lite-v19-slim-dw --sanity

A network that cannot reproduce eight pictures it has seen a hundred times has wrong annotations,
wrong settings or a broken installation; minutes on two cores tell before days on a GPU are spent.

Masks of 28 x 28 do not follow every outline: even the true ones, drawn as the network would, miss
some of the AP. So mask AP is counted as a share of what those reach on the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from centermask_edge.config import ModelConfig, TrainConfig
from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import Sample
from centermask_edge.errors import DatasetError
from centermask_edge.evaluate.coco import Report, average_precision, results_of
from centermask_edge.instances import Instances
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.predict import segment
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.mask_targets import polygon_area, rasterise
from centermask_edge.train.run import Run, evaluated_model
from centermask_edge.train.setup import read_samples


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation on the learnt pictures: the step, the summed loss, both AP in percent."""

    step: int
    loss: float
    box_ap: float
    mask_ap: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the pictures were learnt.

    Attributes:
        reached: box AP is at least ``wanted``, and mask AP that share of ``ceiling``.
        wanted: AP in percent.
        ceiling: mask AP of the true masks at 28 x 28.
        pictures: how many.
        curve: every evaluation.
    """

    reached: bool
    wanted: float
    ceiling: float
    pictures: int
    curve: tuple[Point, ...]

    def __str__(self) -> str:
        """One line."""
        last = self.curve[-1]
        possible = f"{self.ceiling:.1f} that masks of 28 x 28 can reach"
        found = (
            f"box AP {last.box_ap:.1f} and mask AP {last.mask_ap:.1f} of the {possible}, "
            f"on {self.pictures} pictures"
        )
        if self.reached:
            return f"training works: {found} after {last.step} steps"
        return (
            f"training does not work: {found} after {last.step} steps, wanted {self.wanted:g} % "
            "of both; look at the annotations first (centermask-edge data), then at the settings"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def truth_of(samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, Any]:
    """The samples as the content of a COCO file; category ids are class indices plus one."""
    annotations = [
        {
            "id": 0,
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": polygon_area(parts),
            "iscrowd": 0,
            "segmentation": [part.tolist() for part in parts],
        }
        for number, sample in enumerate(samples)
        for box, label, parts in zip(
            sample.boxes.tolist(), sample.classes, sample.polygons or (), strict=True
        )
    ]
    images = [{"id": n, "width": s.width, "height": s.height} for n, s in enumerate(samples)]
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def evaluate_on(model: CenterMask, samples: Sequence[Sample]) -> Report:
    """Box and mask AP on pictures whose objects all have polygons."""
    classes = model.config.classes
    ids = {index: index + 1 for index in range(len(classes))}
    rows = [
        row
        for number, sample in enumerate(samples)
        for row in results_of(segment(model, read_bgr(sample)), number, ids)
    ]
    box, mask = average_precision(rows, truth_of(samples, classes), ids.values())
    return Report(len(samples), sum(len(s.boxes) for s in samples), box, mask)


def mask_ceiling(samples: Sequence[Sample], classes: Sequence[str]) -> float:
    """Mask AP of the true masks, drawn at 28 x 28 in their true boxes."""
    rows = [
        row
        for number, sample in enumerate(samples)
        for row in results_of(_true(sample), number, {i: i + 1 for i in range(len(classes))})
    ]
    ids = range(1, len(classes) + 1)
    return average_precision(rows, truth_of(samples, classes), ids)[1].ap


def _true(sample: Sample) -> Instances:
    """The objects of a picture as the network would give them if it knew everything."""
    pairs = zip(sample.polygons or (), sample.boxes, strict=True)
    masks = np.stack([rasterise(parts, box) for parts, box in pairs]).astype(np.float32)
    sure, size = np.ones(len(masks), np.float32), (sample.height, sample.width)
    return Instances(sample.boxes.astype(np.float32), sure, sure, sample.classes, masks, size)


def sized(model: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The model with the size it is trained at as the size it works at."""
    sides = {"short_side": max(config.short_sides), "long_side": config.long_side}
    return model.model_copy(update={"preprocess": model.preprocess.model_copy(update=sides)})


def overfit(
    model_config: ModelConfig,
    config: TrainConfig,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_report: Callable[[int, Report], None] = lambda step, report: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Learn ``config.pictures`` pictures by heart, to ``config.stop_at_ap`` or to the end.

    Args:
        model_config: the architecture; its picture size becomes that of the training.
        config: the run, with ``pictures``, ``eval_every`` and ``stop_at_ap``.
        on_step: told each finished step.
        on_report: told each evaluation.
        on_note: told anything else in one line.

    Raises:
        DatasetError: the pictures have no masks, and what :func:`train` raises.
    """
    samples = read_samples(config, model_config.classes)
    bare = sum(s.polygons is None for s in samples)
    if bare:
        raise DatasetError(
            f"{bare} of the {len(samples)} pictures to learn by heart have objects without masks; "
            "give a set in which each object has a polygon"
        )
    ceiling = mask_ceiling(samples, model_config.classes)
    curve: list[Point] = []
    losses: list[float] = [float("nan")]

    def step(progress: Progress) -> None:
        losses[0] = sum(progress.losses.values())
        on_step(progress)

    def judge(run: Run) -> Report:
        report = evaluate_on(evaluated_model(run), samples)
        curve.append(Point(run.step, losses[0], report.box.ap, report.mask.ap))
        on_report(run.step, report)
        return replace(report, mask=replace(report.mask, ap=share(report.mask.ap)))

    def share(mask_ap: float) -> float:
        return 100 * mask_ap / max(ceiling, 1e-6)

    sizes = sized(model_config, config)
    train(sizes, config, step, on_note=on_note, evaluator=judge)
    last = curve[-1] if curve else Point(config.steps, losses[0], 0.0, 0.0)
    reached = min(last.box_ap, share(last.mask_ap)) >= config.stop_at_ap
    return Verdict(reached, config.stop_at_ap, ceiling, len(samples), tuple(curve or [last]))
