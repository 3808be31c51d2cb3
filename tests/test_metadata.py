from __future__ import annotations

import json
from pathlib import Path

import pytest

from centermask_edge.config import DecodeConfig, PreprocessConfig
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import METADATA_KEY, ModelMetadata, read_metadata

PATH = Path("some.onnx")
METADATA = ModelMetadata(
    preset="lite-v19",
    classes=("cat", "dog"),
    preprocess=PreprocessConfig(std=(57.375, 57.12, 58.395)),
    decode=DecodeConfig(),
    training={"run": "a"},
)


def test_what_was_written_is_read() -> None:
    assert read_metadata({METADATA_KEY: METADATA.to_json(), "other": "x"}, PATH) == METADATA


def test_an_onnx_of_something_else_is_named() -> None:
    with pytest.raises(ModelFileError, match=r"some\.onnx .*not written by centermask-edge"):
        read_metadata({}, PATH)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"format_version": 2}, "format_version"),
        ({"classes": []}, "classes"),
        ({"preprocess": {"short_side": 3}}, r"preprocess\.short_side"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_record_of_another_version_is_refused(change: dict[str, object], where: str) -> None:
    text = json.dumps({**json.loads(METADATA.to_json()), **change})
    with pytest.raises(ModelFileError, match=where):
        read_metadata({METADATA_KEY: text}, PATH)


def test_a_damaged_record_is_refused() -> None:
    with pytest.raises(ModelFileError, match="cannot read"):
        read_metadata({METADATA_KEY: METADATA.to_json()[:-5]}, PATH)
