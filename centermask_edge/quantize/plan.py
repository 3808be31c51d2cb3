"""The plan of a quantization: which operations work on 8 bits. A YAML file that people edit.

    name: mine
    extends: openvino            # another plan: its rules come first, its values hold unless given
    rules:
      - ops: [Conv, Gemm]        # which nodes, by operator and by name (with * and ?)
        names: ["dense/*"]
        quantize: weighted       # their data input and their weight
    keep_float: [dense/head]     # nodes and blocks left alone, whatever the rules say

Rules are applied in order; of several that match a node the last one holds, separately for
``quantize`` and for ``share``.
"""

from __future__ import annotations

import fnmatch
import json
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from centermask_edge.errors import ConfigError, require
from centermask_edge.resources import project_file


class Quantize(str, Enum):
    """Which inputs of a node go through 8 bits."""

    NONE = "none"
    WEIGHTED = "weighted"  # the data and the weight
    DATA = "data"  # the first input only
    RESIDUAL = "residual"  # all but the one that a convolution can add in its registers
    ALL = "all"  # every float input that depends on the picture


class Granularity(str, Enum):
    """What shares one weight scale."""

    CHANNEL = "channel"  # each output channel has its own
    TENSOR = "tensor"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Model):
    """What to do with the nodes it matches; a rule without ``ops`` matches all operators.

    Attributes:
        ops: ONNX operator names.
        names: patterns of node names.
        quantize: which inputs.
        share: True puts the node's inputs and outputs on one scale.
    """

    ops: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    quantize: Quantize | None = None
    share: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if not self.ops and not self.names:
            raise ValueError("a rule needs ops or names")
        if self.quantize is None and self.share is None:
            raise ValueError("a rule needs quantize or share")
        return self

    def matches(self, op_type: str, name: str) -> bool:
        """Whether the rule speaks of a node."""
        by_op = not self.ops or op_type in self.ops
        return by_op and (not self.names or any(named(p, name) for p in self.names))


class Plan(_Model):
    """Rules, and what holds for the whole model.

    Attributes:
        name: for metadata and reports.
        weights: what shares one weight scale.
        unsigned: tensors that are never negative use all 255 levels of uint8. Only for engines
            that have uint8: TensorRT reads it as int8 without a word.
        split_deconvolution: write the deconvolution as a convolution and a shuffle, for engines
            without an 8-bit deconvolution; the result is the same.
        rules: in order.
        keep_float: node names, patterns, or blocks (``dense/backbone/stages.0``) left in float.
    """

    name: str = Field(min_length=1)
    weights: Granularity = Granularity.CHANNEL
    unsigned: bool = False
    split_deconvolution: bool = False
    rules: tuple[Rule, ...] = ()
    keep_float: tuple[str, ...] = ()

    def quantize(self, op_type: str, name: str) -> Quantize:
        """Which inputs of that node go through 8 bits."""
        if any(named(pattern, name) for pattern in self.keep_float):
            return Quantize.NONE
        found = [r.quantize for r in self.rules if r.quantize and r.matches(op_type, name)]
        return found[-1] if found else Quantize.NONE

    def shares(self, op_type: str, name: str) -> bool:
        """Whether that node's inputs and outputs are on one scale."""
        found = [r.share for r in self.rules if r.share is not None and r.matches(op_type, name)]
        return bool(found) and found[-1]

    def keeping(self, *names: str) -> Plan:
        """The plan with more operations left in float."""
        kept = tuple(dict.fromkeys((*self.keep_float, *names)))
        return self.model_copy(update={"keep_float": kept})

    def to_json(self) -> str:
        """Everything that decides the placement, as text; equal for equal plans."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def named(pattern: str, name: str) -> bool:
    """Whether a pattern, or a block that holds it, names a node.

    >>> named("dense/head", "dense/head/cls_logits/Conv"), named("*/ese/*", "a/b/ese/fc/Conv")
    (True, True)
    >>> named("dense/head", "dense/header/Conv")
    False
    """
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}/*")


def plan_file(name: str) -> Path:
    """A plan of ``calibration/recipes`` by name, or any YAML file by path.

    Raises:
        ConfigError: neither exists.
    """
    folder = project_file("calibration", "recipes")
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
    raise ConfigError(f"unknown quantization plan {name!r}; give a YAML file or one of: {known}")


def load_plan(name: str) -> Plan:
    """The plan of that name or path, with what it extends.

    Raises:
        ConfigError: no such file, not YAML, or not a plan.
        MissingPackageError: PyYAML is not installed.
    """
    content = _read(plan_file(name), ())
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the plan"
        raise ConfigError(f"{plan_file(name)}: {where}: {first['msg']}") from None


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path} extends itself through {seen[-1]}")
    yaml = require("yaml", extra="cpu", why="read quantization plans")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a quantization plan: it needs name and rules")
    parent = content.pop("extends", None)
    if parent is None:
        return content
    base = _read(plan_file(str(parent)), (*seen, path))
    joined = {k: [*(base.get(k) or []), *(content.get(k) or [])] for k in ("rules", "keep_float")}
    return {**base, **content, **joined}
