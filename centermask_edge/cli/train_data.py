"""What ``train`` does with the data before the first step: its classes, and a look at it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from centermask_edge.cli.data import summary
from centermask_edge.cli.report import write_text
from centermask_edge.config import COCO_CLASSES, ModelConfig, TrainConfig
from centermask_edge.data.dataset import TRAIN, VAL, class_names

if TYPE_CHECKING:
    from rich.console import Console

PAGE = "data.html"
_DECODED = 200  # pictures of each set that are opened first: a minute of waiting is too much


def with_classes(model: ModelConfig, config: TrainConfig) -> ModelConfig:
    """The model with the classes of the training data.

    A preset for one purpose, such as persons, keeps its classes where the data has one of them;
    so does a whole network that is trained further.

    Raises:
        DatasetError: unreadable data.
    """
    names = dict.fromkeys(n for path in config.annotations for n in class_names(path, TRAIN))
    keeps = config.checkpoint is not None or not names or set(names) == set(model.classes)
    special = model.classes != COCO_CLASSES and not set(names).isdisjoint(model.classes)
    if keeps or special:
        return model
    return model.model_copy(update={"classes": tuple(names)})


def introduce(model: ModelConfig, config: TrainConfig, console: Console) -> None:
    """Print what is in the data and what is wrong with it, and write it as a page into the run.

    Nothing where the run goes on from an earlier one, and in all processes but the first.

    Raises:
        DatasetError: unreadable data.
        SinkError: the page cannot be written.
    """
    if os.environ.get("RANK", "0") != "0" or (config.output / "settings.json").exists():
        return
    from centermask_edge.data.survey import survey
    from centermask_edge.data.survey_page import survey_page

    sets = [(path, TRAIN) for path in config.annotations]
    sets += [(config.val_annotations, VAL)] if config.val_annotations else []
    surveys = [survey(path, split, model.preprocess, _DECODED) for path, split in sets]
    if not surveys:
        return
    for found in surveys:
        for line in summary(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    write_text(config.output / PAGE, survey_page(surveys))
    console.print(f"more about the data: {config.output / PAGE}", highlight=False, soft_wrap=True)
