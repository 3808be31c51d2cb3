"""The files to judge, opened and checked to be one model; and how they are to be judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centermask_edge.data.coco import Sample
from centermask_edge.engines import Engine, EngineName, default_engine, open_engine
from centermask_edge.errors import ConfigError
from centermask_edge.quantize.compare import PictureChange
from centermask_edge.quantize.interval import GROUPS
from centermask_edge.quantize.judged_set import Row
from centermask_edge.quantize.verdict import Numbers

Progress = Callable[[str, int, int], Any]

BUDGET = 0.3  # points of mask AP


@dataclass(frozen=True, slots=True)
class Candidates:
    """The files of one model; any may be absent."""

    fp32: Path | None = None
    fp16: Path | None = None
    int8: Path | None = None

    def files(self) -> dict[Numbers, Path]:
        """Those that are given."""
        found = {Numbers.FP32: self.fp32, Numbers.FP16: self.fp16, Numbers.INT8: self.int8}
        return {numbers: path for numbers, path in found.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to judge.

    Attributes:
        budget: points of mask AP that may be lost; None judges nothing and only measures.
        engine: that runs FP32 and INT8; the installed default where None.
        threads: of the processor; None lets the engine choose.
        limit: pictures at most, evenly spread over the set.
        gallery: worst pictures to keep for the report.
        threshold: box score from which the report shows an instance.
        groups: of the interval; 0 leaves it out.
        runs: of each file for its speed; 0 leaves it out.
    """

    budget: float | None = BUDGET
    engine: EngineName | None = None
    threads: int | None = None
    limit: int | None = None
    gallery: int = 24
    threshold: float = 0.4
    groups: int = GROUPS
    runs: int = 30


@dataclass(frozen=True, slots=True)
class JudgedPicture:
    """A picture in which FP32 and the judged file differ."""

    sample: Sample
    change: PictureChange


@dataclass(slots=True)
class Session:
    """Open engines and what they found so far."""

    files: dict[Numbers, Path]
    engines: dict[Numbers, Engine]
    judged: Numbers | None
    rows: dict[Numbers, list[Row]] = field(default_factory=dict)
    worst: list[JudgedPicture] = field(default_factory=list)


def open_session(candidates: Candidates, settings: Settings) -> Session:
    """The files, opened in their engines.

    Raises:
        ConfigError: no file, a budget with nothing to compare, files of different models.
        ModelFileError: a file that is missing or not of this project.
    """
    files = candidates.files()
    if not files:
        raise ConfigError("no model to judge; give the FP32 and the INT8 file")
    judged = next((n for n in (Numbers.INT8, Numbers.FP16) if n in files), None)
    if settings.budget is not None:
        _check_budget(settings.budget, files, judged)
    if Numbers.FP32 not in files:
        judged = None
    engines = {
        n: open_engine(p, engine_for(n, settings), settings.threads) for n, p in files.items()
    }
    _check_same_model(files, engines)
    return Session(files, engines, judged, {n: [] for n in files})


def engine_for(numbers: Numbers, settings: Settings) -> EngineName:
    """OpenVINO computes fp16 graphs of a CPU in f32 and would hide what fp16 loses."""
    chosen = settings.engine or default_engine()
    if numbers is Numbers.FP16 and chosen is EngineName.OPENVINO:
        return EngineName.ONNXRUNTIME
    return chosen


def _check_budget(budget: float, files: Mapping[Numbers, Path], judged: Numbers | None) -> None:
    if not 0 <= budget <= 100:
        raise ConfigError(f"a budget of {budget:g} mask AP; wanted 0 to 100, for example {BUDGET}")
    if Numbers.FP32 not in files or judged is None:
        given = ", ".join(n.value.upper() for n in files)
        raise ConfigError(
            f"a budget compares INT8 or FP16 with FP32, and only {given} is given; "
            "give the other file, or no budget"
        )


def _check_same_model(files: Mapping[Numbers, Path], engines: Mapping[Numbers, Engine]) -> None:
    first = next(iter(engines))
    wanted = engines[first].metadata
    for numbers, engine in engines.items():
        for name in ("preset", "classes", "preprocess", "decode"):
            if getattr(engine.metadata, name) != getattr(wanted, name):
                raise ConfigError(
                    f"{files[numbers].name} and {files[first].name} are not the same model: "
                    f"{name} differs; give files that were made from one another"
                )
