"""JSON lines: what they say, that the schema agrees, that they stay whole."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_results import event, result
from pycocotools import mask as coco  # type: ignore[import-untyped]

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs import lines as module
from centermask_edge.live.outputs.callback import Callback
from centermask_edge.live.outputs.lines import ResultLines
from centermask_edge.live.outputs.schema import ResultLine, json_schema, result_line
from centermask_edge.live.result import Result


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_tells_the_frame_its_objects_and_events(tmp_path: Path) -> None:
    sink = ResultLines(tmp_path / "out.jsonl")
    sink.write(result(3, events=(event(),), batch=9))
    sink.close()
    sink.close()
    (line,) = read(tmp_path / "out.jsonl")
    assert line["schema"] == "centermask-edge/2"
    assert (line["camera"], line["index"], line["pts_s"]) == ("gate", 3, 0.3)
    assert (line["width"], line["height"], line["age_ms"], line["batch"]) == (64, 48, 42.0, 9)
    arrived = datetime.fromisoformat(line["arrival"])
    assert abs((datetime.now(timezone.utc) - arrived).total_seconds()) < 5
    assert line["mode"] == {"stride": 1, "short_side": 384, "masks": True}
    assert [(i["track"], i["class"]) for i in line["instances"]] == [(1, "person"), (2, "dog")]
    assert [(e["kind"], e["place"], e["track"]) for e in line["events"]] == [("enter", "door", 7)]


@pytest.mark.filterwarnings("ignore:__array__")  # pycocotools beside NumPy 2
def test_masks_of_a_line_are_the_instances_own() -> None:
    one = result(0, count=3)
    for i, told in enumerate(result_line(one)["instances"]):
        crop, x, y = one.instances.crop(i)
        assert crop.any() and (told["mask"]["x"], told["mask"]["y"]) == (x, y)
        rle = {"size": told["mask"]["size"], "counts": told["mask"]["counts"].encode()}
        np.testing.assert_array_equal(coco.decode(rle), crop)


def test_every_line_fits_the_schema() -> None:
    for one in (result(0, events=(event(),)), result(1, count=0)):
        for times in (True, False):
            ResultLine.model_validate(result_line(one, times=times))
    with pytest.raises(ValueError, match="extra"):
        ResultLine.model_validate({**result_line(result(0)), "new": 1})
    schema = json_schema()
    assert set(schema["required"]) == set(result_line(result(0), times=False))
    assert set(schema["properties"]) == set(result_line(result(0)))


def test_without_times_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    for name, arrival_s in (("a", 1.0), ("b", 77.7)):
        sink = ResultLines(tmp_path / name, times=False)
        sink.write(result(0, events=(event(),), arrival_s=arrival_s, batch=int(arrival_s)))
        sink.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.jsonl"
    sink = ResultLines(path)
    sink.write(result(0))

    def half(self: ResultLines, file: Any, line: bytes) -> None:
        file.write(line[:50])
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(module.ResultLines, "_write_all", half)
        with pytest.raises(SinkError, match=r"cannot write .*out.jsonl: No space left"):
            sink.write(result(1))
    sink.write(result(2))
    assert [line["index"] for line in read(path)] == [0, 2]
    with monkeypatch.context() as patch:
        patch.setattr(module.ResultLines, "_write_all", half)
        with pytest.raises(SinkError):
            sink.write(result(3))
    sink.close()
    assert [line["index"] for line in read(path)] == [0, 2]


def test_a_number_json_cannot_say_is_refused_before_the_file(tmp_path: Path) -> None:
    one = result(0)
    one.instances.scores[0] = np.nan
    with pytest.raises(ValueError, match="JSON"):
        ResultLines(tmp_path / "out.jsonl").write(one)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"cannot write .*gone/out.jsonl: No such file"):
        ResultLines(tmp_path / "gone" / "out.jsonl").write(result(0))


def test_a_function_gets_the_result() -> None:
    got: list[Result] = []

    def count(result: Result) -> None:
        got.append(result)

    sink = Callback(count)
    one = result(0)
    sink.write(one)
    sink.close()
    assert got == [one] and sink.name == "callback count"
