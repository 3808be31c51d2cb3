"""The verdict of a quantization: accuracy, coverage and speed, and whether the budget is held.

Plain data with a schema version, written as JSON. Everything in it was measured or read from a
file; ``judge`` makes it.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, computed_field

from centermask_edge.engines.files import write_whole
from centermask_edge.evaluate.coco import Precision as SizeAp
from centermask_edge.quantize.coverage_macs import Coverage
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.runtime_graph import Ran
from centermask_edge.quantize.speed import Speed

HELD, NOT_HELD = 0, 3


class Numbers(str, Enum):
    """What a file computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ap(_Model):
    """Average precision in percent; None where the set has no object of that size."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None

    @classmethod
    def of(cls, found: SizeAp) -> Ap:
        """The evaluator's figures, its -1 for "no such object" made None."""
        values = (found.ap, found.ap50, found.ap75, found.small, found.medium, found.large)
        return cls.model_validate(
            {k: v if v >= 0 else None for k, v in zip(cls.model_fields, values, strict=True)}
        )

    def values(self) -> tuple[float | None, ...]:
        """In the order of the columns."""
        return (self.ap, self.ap50, self.ap75, self.small, self.medium, self.large)


class ClassAp(_Model):
    """One class: its objects in the set, box and mask AP."""

    name: str
    objects: int
    box: float | None
    mask: float | None


class Accuracy(_Model):
    """One file on the set, and what ran it."""

    numbers: Numbers
    engine: str
    box: Ap
    mask: Ap
    classes: tuple[ClassAp, ...]


class Loss(_Model):
    """AP that a file loses against FP32; negative where it gains.

    Attributes:
        numbers: of the file.
        box: points of box AP.
        mask: points of mask AP: what the budget is about.
        low: end of the 95 % interval of ``mask``; None where it was not computed.
        high: the other end.
    """

    numbers: Numbers
    box: float
    mask: float
    low: float | None = None
    high: float | None = None


class ModelFile(_Model):
    """A judged file."""

    numbers: Numbers
    name: str
    bytes: int
    sha256: str


class Annotations(_Model):
    """The set; ``images`` of its ``of_images`` pictures were judged, evenly spread."""

    name: str
    sha256: str
    images: int
    of_images: int
    objects: int


class Verdict(_Model):
    """Everything that was found.

    Attributes:
        schema_version: of this record.
        created: date and time, UTC, ISO 8601.
        processor: that everything ran on.
        versions: of this package and of what it used.
        preset: of the model.
        annotations: the set.
        models: the files.
        accuracy: by file.
        losses: against FP32, by file.
        budget: points of mask AP that may be lost; None asks for no judgement.
        judged: the file that the budget is about.
        coverage: what the judged file asks to compute in 8 bits.
        ran: what OpenVINO runs in 8 bits.
        speed: of the files on one engine, if measured.
        notes: what a reader must know to read the figures right.
    """

    schema_version: Literal[1] = 1
    created: str
    processor: str
    versions: dict[str, str]
    preset: str
    annotations: Annotations
    models: tuple[ModelFile, ...]
    accuracy: tuple[Accuracy, ...]
    losses: tuple[Loss, ...] = ()
    budget: float | None
    judged: Numbers | None = None
    coverage: Coverage | None = None
    ran: Ran | None = None
    speed: Speed | None = None
    notes: tuple[str, ...] = ()

    def loss(self) -> Loss | None:
        """Of the judged file."""
        return next((loss for loss in self.losses if loss.numbers is self.judged), None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def held(self) -> bool | None:
        """Whether the loss is within the budget; None where there is none to hold."""
        loss = self.loss()
        if self.budget is None or loss is None:
            return None
        return loss.mask <= self.budget

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0, or 3 past the budget."""
        return NOT_HELD if self.held is False else HELD

    def sentence(self) -> str:
        """The outcome in plain words."""
        loss = self.loss()
        if loss is None or self.judged is None:
            return "Nothing to compare: one file was measured."
        name = self.judged.value.upper()
        change = "loses" if loss.mask >= 0 else "gains"
        text = f"{name} {change} {abs(loss.mask):.2f} mask AP against FP32"
        if self.budget is None:
            return f"{text}; no budget was set."
        word = "held" if self.held else "not held"
        return f"{text}; the budget of {self.budget:.2f} is {word}."

    def certainty(self) -> str:
        """What the interval of the loss means for the budget; empty where there is none."""
        loss = self.loss()
        if loss is None or loss.low is None or loss.high is None:
            return ""
        text = f"95 % interval of the loss on this set: {loss.low:+.2f} to {loss.high:+.2f}."
        if self.budget is None or loss.low > self.budget or loss.high <= self.budget:
            return text
        return f"{text} It reaches across the budget: more pictures would make this surer."


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write the JSON, whole or not at all.

    Raises:
        ModelFileError: it cannot be written.
    """
    write_whole(path, (verdict.model_dump_json(indent=1) + "\n").encode())


def read_verdict(path: Path) -> Verdict:
    """A verdict from its JSON.

    Raises:
        QuantizationError: unreadable, or not a verdict of this version.
    """
    try:
        return Verdict.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise QuantizationError(f"cannot read the verdict {path}: {reason}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise QuantizationError(
            f"{path} is not a verdict of this version ({where}: {first['msg']}); make one with: "
            "centermask-edge quantize"
        ) from None
