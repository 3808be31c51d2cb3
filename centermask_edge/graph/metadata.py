"""What an ONNX file says about itself: preprocessing, classes, thresholds and its training.

Stored as JSON under one key of the file's ``metadata_props``, so that a model and the numbers
that belong to it cannot be separated. Reading it needs no onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from centermask_edge.config import DecodeConfig, PreprocessConfig
from centermask_edge.errors import ModelFileError

METADATA_KEY = "centermask_edge"


class ModelMetadata(BaseModel):
    """The facts an engine and a reader of its results need.

    Attributes:
        format_version: of this record; a newer one is refused.
        preset: name of the preset the weights were trained with.
        classes: class names by index.
        preprocess: picture to network input.
        decode: thresholds compiled into the graph.
        mask_size: side of the probability maps in cells.
        training: run, commit, weights_sha256 and whatever else the exporter knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    preset: str
    classes: tuple[str, ...] = Field(min_length=1)
    preprocess: PreprocessConfig
    decode: DecodeConfig
    mask_size: int = Field(default=28, ge=1)
    training: dict[str, str] = {}

    def to_json(self) -> str:
        """The text stored in the file."""
        return self.model_dump_json()


def read_metadata(props: Mapping[str, str], path: Path) -> ModelMetadata:
    """The metadata among an ONNX file's properties.

    Args:
        props: the file's ``metadata_props`` as a mapping.
        path: named in errors.

    Raises:
        ModelFileError: the record is missing, damaged or of a newer version.
    """
    text = props.get(METADATA_KEY)
    if text is None:
        raise ModelFileError(
            f"{path} is an ONNX file without {METADATA_KEY!r} metadata, so it was not written by "
            "centermask-edge; export the model with: centermask-edge export"
        )
    return parse_metadata(text, path)


def parse_metadata(text: str, path: Path) -> ModelMetadata:
    """The metadata from its stored text; see :func:`read_metadata`."""
    try:
        return ModelMetadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ModelFileError(
            f"{path} holds metadata this version cannot read ({where}: {first['msg']}); "
            "export the model again, or update centermask-edge"
        ) from None
