"""Recipes: the settings of a run as a json file, one of the package's by name or the user's own.

``{"preset": NAME, "train": {SETTING: VALUE, ...}}``, both parts optional. What a recipe does not
say is the default of ``TrainConfig``; what the command line says comes on top.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from centermask_edge.config import ModelConfig, PreprocessConfig, TrainConfig, preset
from centermask_edge.errors import ConfigError
from centermask_edge.resources import recipe_file

_FULL = 800  # short side of the models whose training pictures are 640 to 800 pixels
_LITE_RATIO = 580 / 600  # the smaller of a Lite model's two short sides, to the larger


def read_recipe(name: str) -> dict[str, Any]:
    """The content of a shipped recipe or a json file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    path = recipe_file(name)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the recipe {path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or set(content) - {"preset", "train"}:
        raise ConfigError(f'the recipe {path} may hold "preset" and "train" and nothing else')
    return content


def settings(
    recipe: str | None, name: str | None, given: dict[str, Any]
) -> tuple[ModelConfig, TrainConfig]:
    """Model and run from a recipe, with the values given on the command line on top.

    Raises:
        ConfigError: unknown recipe or preset, or a value out of its range.
        ModelFileError: the checkpoint to start from cannot be read.
    """
    content = {} if recipe is None else read_recipe(recipe)
    chosen, start = name or content.get("preset"), given.get("start")
    if chosen is not None:
        model = preset(chosen)
    elif start is not None:
        model = _model_of(start)
    else:
        raise ConfigError(
            "no model named; give --preset NAME, a --recipe that names one, or --start FILE"
        )
    values = {**training_sizes(model.preprocess), **content.get("train", {})}
    return model, run_settings(values, given)


def _model_of(path: Path) -> ModelConfig:
    from centermask_edge.model.checkpoint import load  # torch, which the other commands do without

    return load(path).config


def training_sizes(preprocess: PreprocessConfig) -> dict[str, Any]:
    """Sizes of training pictures for a model: the paper's for its two sizes, alike for others.

    >>> training_sizes(PreprocessConfig())
    {'short_sides': (580, 600), 'long_side': 1000}
    """
    side = preprocess.short_side
    sides = tuple(range(640, 801, 32)) if side == _FULL else (round(side * _LITE_RATIO), side)
    return {"short_sides": sides, "long_side": preprocess.long_side}


def run_settings(recipe: dict[str, Any], given: dict[str, Any]) -> TrainConfig:
    """A run from the values of a recipe, with those that are given on top.

    Raises:
        ConfigError: a value out of its range.
    """
    values = {**recipe, **{k: v for k, v in given.items() if v is not None}}
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:
            reason = str(first["msg"]).removeprefix("Value error, ")
            raise ConfigError(f"training settings: {reason}") from None
        raise ConfigError(
            f"training setting {where}: {first['msg']}; got {first['input']!r}"
        ) from None
