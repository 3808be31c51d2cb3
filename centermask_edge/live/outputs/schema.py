"""The line of JSON that a live result becomes, and its JSON Schema."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from centermask_edge.instances import Instances
from centermask_edge.live.result import Event, Result, Tally
from centermask_edge.masks import encode_rle

SCHEMA = "centermask-edge/2"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MaskLine(_Closed):
    """A mask inside its box: COCO's compressed run lengths of the crop, and where that lies."""

    x: Annotated[int, Field(ge=0, description="column of the crop's first pixel in the picture")]
    y: Annotated[int, Field(ge=0, description="row of the crop's first pixel in the picture")]
    size: Annotated[tuple[int, int], Field(description="height and width of the crop in pixels")]
    counts: Annotated[str, Field(description="COCO compressed run lengths, column by column")]


class InstanceLine(_Closed):
    """One object."""

    track: Annotated[int, Field(ge=0, description="identity in this camera; 0: none yet")]
    class_name: Annotated[str, Field(alias="class")]
    class_id: int
    score: float
    mask_score: float
    box: Annotated[tuple[float, float, float, float], Field(description="x0, y0, x1, y1 in pixels")]
    mask: MaskLine


class EventLine(_Closed):
    """Something a zone or a line saw."""

    kind: Annotated[str, Field(description="enter, leave or cross")]
    place: str
    track: int
    class_name: Annotated[str, Field(alias="class")]
    direction: Annotated[str, Field(description="in or out for a line, empty for a zone")]
    time: Annotated[str | None, Field(description="wall clock, ISO 8601 in UTC")] = None


class PlaceLine(_Closed):
    """What a zone or a line has counted since the start."""

    place: str
    inside: Annotated[
        int | None, Field(ge=0, description="objects in the zone now; null for a line")
    ]
    ins: Annotated[int, Field(alias="in", ge=0, description="entries, or crossings in")]
    outs: Annotated[int, Field(alias="out", ge=0, description="those who left, or crossings out")]


class ModeLine(_Closed):
    """What the governor asked of the frame."""

    stride: int
    short_side: int
    masks: Annotated[bool, Field(description="false: masks of an earlier frame, moved")]


class ResultLine(_Closed):
    """One segmented frame of one camera."""

    schema_name: Annotated[Literal["centermask-edge/2"], Field(alias="schema")]
    camera: str
    index: Annotated[int, Field(ge=0, description="of the frame in its source, from 0")]
    pts_s: Annotated[float, Field(description="time of the source in seconds")]
    width: int
    height: int
    arrival: Annotated[
        str | None, Field(description="when the decoded frame was there: ISO 8601 in UTC")
    ] = None
    age_ms: Annotated[float | None, Field(description="from arrival to result")] = None
    batch: Annotated[int | None, Field(description="number of the engine's call")] = None
    mode: ModeLine
    instances: list[InstanceLine]
    events: list[EventLine]
    places: list[PlaceLine]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a line.

    >>> json_schema()["properties"]["schema"]["const"]
    'centermask-edge/2'
    """
    return ResultLine.model_json_schema(by_alias=True)


def wall_clock(monotonic_s: float) -> str:
    """A ``time.monotonic()`` of this process as ISO 8601 in UTC, to the millisecond."""
    seconds = time.time() - time.monotonic() + monotonic_s
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def result_line(result: Result, *, times: bool = True) -> dict[str, Any]:
    """The plain values of one result; see ``ResultLine``.

    Args:
        result: of the live pipeline.
        times: without, nothing is in it that differs when the same frames are segmented again:
            arrival, age, times of events, number of the engine's call.
    """
    frame, mode = result.frame, result.mode
    line: dict[str, Any] = {
        "schema": SCHEMA,
        "camera": frame.camera,
        "index": frame.index,
        "pts_s": round(frame.pts_s, 6),
        "width": frame.width,
        "height": frame.height,
    }
    if times:
        line["arrival"] = wall_clock(frame.arrival_s)
        line["age_ms"] = round(1000 * result.age_s, 2)
        line["batch"] = result.batch
    line["mode"] = {"stride": mode.stride, "short_side": mode.short_side, "masks": mode.masks}
    ids = result.track_ids
    line["instances"] = [
        _instance(result.instances, i, int(ids[i])) for i in range(len(result.instances))
    ]
    line["events"] = [event_line(event, times=times) for event in result.events]
    line["places"] = [_place(tally) for tally in result.tallies]
    return line


def _instance(found: Instances, i: int, track: int) -> dict[str, Any]:
    crop, x, y = found.crop(i)
    # Of the crop, not of the picture: a run would otherwise cross the picture in every column.
    rle = encode_rle(crop, 0, 0, *crop.shape)
    return {
        "track": track,
        "class": found.name(i),
        "class_id": int(found.classes[i]),
        "score": round(float(found.scores[i]), 5),
        "mask_score": round(float(found.mask_scores[i]), 5),
        "box": [round(float(v), 2) for v in found.boxes[i]],
        "mask": {"x": x, "y": y, "size": rle["size"], "counts": rle["counts"]},
    }


def _place(tally: Tally) -> dict[str, Any]:
    return {"place": tally.place, "inside": tally.inside, "in": tally.ins, "out": tally.outs}


def event_line(event: Event, *, times: bool = True) -> dict[str, Any]:
    """The plain values of one event; see ``EventLine``."""
    line = {
        "kind": event.kind,
        "place": event.place,
        "track": event.track,
        "class": event.name,
        "direction": event.direction,
    }
    return {**line, "time": wall_clock(event.time_s)} if times else line


def dumps(line: dict[str, Any]) -> str:
    """The line as text, without blanks.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    return json.dumps(line, separators=(",", ":"), allow_nan=False)
