"""How far two ways to run the same model differ on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.segment import Segmenter
from centermask_edge.instances import Instances
from centermask_edge.model.checks import Check, Table, largest_difference, match, number

if TYPE_CHECKING:
    from centermask_edge.model.centermask import CenterMask

SCORE_LIMIT, BOX_LIMIT, MASK_LIMIT = 1e-3, 0.05, 1e-3
ENGINES = (EngineName.ONNXRUNTIME, EngineName.OPENVINO)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Runner:
    """Something that segments pictures, and its name for the tables."""

    name: str
    segment: Callable[[Picture], Instances]


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two sets of instances, and of several such differences the worst.

    Attributes:
        wanted: instances of the one that is compared with.
        found: instances of the other.
        lone: instances that only one of them has.
        box: largest difference in source pixels.
        score: largest difference of box scores.
        mask_score: largest difference of mask scores.
        pixels: mask pixels of the matched instances.
        differing: of them, those that only one has.
    """

    wanted: int = 0
    found: int = 0
    lone: int = 0
    box: float = 0.0
    score: float = 0.0
    mask_score: float = 0.0
    pixels: int = 0
    differing: int = 0

    def __or__(self, other: Difference) -> Difference:
        return Difference(
            self.wanted + other.wanted,
            self.found + other.found,
            self.lone + other.lone,
            max(self.box, other.box),
            max(self.score, other.score),
            max(self.mask_score, other.mask_score),
            self.pixels + other.pixels,
            self.differing + other.differing,
        )

    @property
    def mask(self) -> float:
        """Share of the mask pixels that differ."""
        return self.differing / max(self.pixels, 1)

    @property
    def passed(self) -> bool:
        """Whether the two agree: same detections, and everything else within its limit."""
        return (
            self.wanted > 0
            and self.lone == 0
            and self.box <= BOX_LIMIT
            and max(self.score, self.mask_score) <= SCORE_LIMIT
            and self.mask <= MASK_LIMIT
        )


def compare_instances(wanted: Instances, found: Instances) -> Difference:
    """The difference of two sets of instances of one picture, matched by class and overlap."""
    order = match(found.boxes, found.classes, wanted.boxes, wanted.classes)
    ours, theirs = wanted.select(order >= 0), found.select(order[order >= 0])
    pixels = differing = 0
    for i in range(len(ours)):
        a, b = (_in_common_frame(x, i, ours.boxes[i], theirs.boxes[i]) for x in (ours, theirs))
        pixels += int(a.sum())
        differing += int((a != b).sum())
    return Difference(
        len(wanted),
        len(found),
        len(wanted) + len(found) - 2 * len(ours),
        largest_difference(ours.boxes, theirs.boxes),
        largest_difference(ours.scores, theirs.scores),
        largest_difference(ours.mask_scores, theirs.mask_scores),
        pixels,
        differing,
    )


def _in_common_frame(
    instances: Instances, i: int, *boxes: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """The mask in the smallest frame that holds all the boxes, so that two can be compared."""
    both = np.stack(boxes)
    left, top = np.floor(both[:, :2].min(0)).astype(int)
    right, bottom = np.ceil(both[:, 2:].max(0)).astype(int)
    frame = np.zeros((bottom - top, right - left), np.bool_)
    crop, x, y = instances.crop(i)
    if crop.size:
        frame[y - top : y - top + crop.shape[0], x - left : x - left + crop.shape[1]] = crop
    return frame


def agreement_checks(
    label: str, wanted: Runner, others: Sequence[Runner], pictures: Iterable[Picture]
) -> list[Check]:
    """A check for each of ``others`` against ``wanted``, over all the pictures.

    Args:
        label: of the rows: the model.
        wanted: is compared with.
        others: are compared.
        pictures: uint8 (H, W, 3) BGR.
    """
    worst = [Difference() for _ in others]
    count = 0
    for picture in pictures:
        truth = wanted.segment(picture)
        count += 1
        worst = [
            seen | compare_instances(truth, other.segment(picture))
            for seen, other in zip(worst, others, strict=True)
        ]
    return [
        Check(
            (
                label,
                f"{other.name} / {wanted.name}",
                str(count),
                f"{seen.found} / {seen.wanted}",
                str(seen.lone),
                *map(number, (seen.box, seen.score, seen.mask_score, seen.mask)),
            ),
            f"0; {BOX_LIMIT:g}; {SCORE_LIMIT:g}; {MASK_LIMIT:g}",
            seen.passed,
        )
        for other, seen in zip(others, worst, strict=True)
    ]


def engine_runners(model: Path) -> list[Runner]:
    """Every engine of a CPU with that ONNX file loaded, the reference first."""
    segmenters = [Segmenter(open_engine(model, name)) for name in ENGINES]
    return [Runner(s.engine.name, s) for s in segmenters]


def checkpoint_checks(
    label: str, network: CenterMask, folder: Path, pictures: Sequence[Picture]
) -> list[Check]:
    """Every engine with the network's exported file against the network in torch.

    Args:
        label: of the rows.
        network: in evaluation mode.
        folder: takes the file.
        pictures: uint8 (H, W, 3) BGR.
    """
    from centermask_edge.graph.export import export
    from centermask_edge.model.predict import segment

    path = export(network, folder / "model.onnx", {"run": "parity"})
    wanted = Runner(f"torch {version('torch')}", lambda picture: segment(network, picture))
    return agreement_checks(label, wanted, engine_runners(path), pictures)


def engine_table(checks: Sequence[Check]) -> Table:
    """The checks as a table."""
    return Table(
        "Engines against each other on real pictures",
        "Over all pictures: found / wanted; detections that only one has; then the largest "
        "difference of boxes in pixels, of scores and of mask scores, and the share of mask "
        "pixels that differ. Detections are matched by class and overlap.",
        (
            "model",
            "engines",
            "pictures",
            "found",
            "lone",
            "box",
            "score",
            "mask score",
            "mask pixels",
        ),
        tuple(checks),
    )
