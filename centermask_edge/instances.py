"""What was found in one picture: boxes in its pixels and masks that stay inside their boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from centermask_edge import boxes as box_maths
from centermask_edge.masks import Crop, Rle, encode_rles, paste_all
from centermask_edge.preprocess import Placement

Floats = npt.NDArray[np.float32]


class RawDetections(Protocol):
    """The fixed-size outputs of an engine; see ``engines.base.Detections`` for the shapes."""

    @property
    def boxes(self) -> Floats:
        """Boxes in resized pixels."""

    @property
    def scores(self) -> Floats:
        """Box scores."""

    @property
    def mask_scores(self) -> Floats:
        """Box score times predicted mask IoU."""

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Class indices."""

    @property
    def masks(self) -> Floats:
        """Probability maps."""

    @property
    def count(self) -> npt.NDArray[np.int64]:
        """Detections of each picture."""


# "class" is the key in the file, and a keyword of Python: hence the functional form.
InstanceJson = TypedDict(
    "InstanceJson",
    {
        "class": str,
        "class_id": int,
        "score": float,
        "mask_score": float,
        "box": list[float],
        "segmentation": Rle,
    },
)


@dataclass(frozen=True, slots=True)
class Instances:
    """The K instances of one picture, by descending box score.

    Attributes:
        boxes: float32 (K, 4) xyxy source pixels, clipped to the picture, never empty.
        scores: float32 (K,) box scores in 0..1.
        mask_scores: float32 (K,) box score times predicted mask IoU; may leave 0..1.
        classes: int64 (K,) indices into ``names``.
        masks: float32 (K, 28, 28) probabilities inside the box.
        source_size: (height, width) of the picture in pixels.
        names: class names of the model; empty where they are not known.
    """

    boxes: Floats
    scores: Floats
    mask_scores: Floats
    classes: npt.NDArray[np.int64]
    masks: Floats
    source_size: tuple[int, int]
    names: tuple[str, ...] = ()
    # Tracker, zones and every sink ask for the same crops of one frame: a list of them once made.
    _crops: list[list[Crop]] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    @classmethod
    def from_detections(
        cls, raw: RawDetections, i: int, placement: Placement, names: tuple[str, ...] = ()
    ) -> Instances:
        """The instances of picture ``i`` of a batch, in its own pixels.

        Scale, then clip to the picture, then drop boxes without width or height (NaN included).
        The mask belongs to the unclipped box but is kept for the clipped one, as the official
        checkpoints were evaluated.

        Args:
            raw: fixed-size outputs of an engine; boxes in resized pixels.
            i: index in the batch.
            placement: of that picture.
            names: class names of the model.
        """
        count = int(raw.count[i])
        boxes = box_maths.clip(placement.to_source(raw.boxes[i, :count]), *placement.source_size)
        full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return cls(
            boxes[full],
            raw.scores[i, :count][full],
            raw.mask_scores[i, :count][full],
            raw.classes[i, :count][full],
            raw.masks[i, :count][full],
            placement.source_size,
            names,
        )

    def select(self, keep: npt.NDArray[Any]) -> Instances:
        """The instances at those indices (or where that mask is true), in that order."""
        return replace(
            self,
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            mask_scores=self.mask_scores[keep],
            classes=self.classes[keep],
            masks=self.masks[keep],
        )

    def above(self, score: float) -> Instances:
        """The instances whose box score is at least ``score``."""
        return self.select(self.scores >= score)

    def name(self, i: int) -> str:
        """Class name of instance ``i``, or ``class 7`` where names are not known."""
        index = int(self.classes[i])
        return self.names[index] if 0 <= index < len(self.names) else f"class {index}"

    def crop(self, i: int) -> Crop:
        """Mask of instance ``i`` at picture resolution inside its box, with column and row of
        its first pixel; see :func:`centermask_edge.masks.paste_all`.
        """
        return self.crops()[i]

    def crops(self) -> list[Crop]:
        """Every instance's :meth:`crop`, made once and read-only."""
        if not self._crops:
            crops = paste_all(self.masks, self.boxes, *self.source_size)
            for mask, _, _ in crops:
                mask.flags.writeable = False
            self._crops.append(crops)
        return self._crops[0]

    def to_coco(self, crops: list[Crop] | None = None) -> list[InstanceJson]:
        """Plain values for JSON: class, scores, box (xyxy pixels) and compressed COCO RLE.

        Args:
            crops: the result of :meth:`crops`, where the caller already has it.
        """
        rles = encode_rles(self.crops() if crops is None else crops, *self.source_size)
        scores, mask_scores = self.scores.tolist(), self.mask_scores.tolist()
        boxes, classes = self.boxes.tolist(), self.classes.tolist()
        return [
            {
                "class": self.name(i),
                "class_id": classes[i],
                "score": round(scores[i], 5),
                "mask_score": round(mask_scores[i], 5),
                "box": [round(v, 2) for v in boxes[i]],
                "segmentation": rles[i],
            }
            for i in range(len(self))
        ]
