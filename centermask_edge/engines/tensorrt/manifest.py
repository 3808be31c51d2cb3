"""What an engine was built from, written beside it; and how that differs from what is here.

An engine fits one TensorRT version and one GPU. TensorRT itself says so only with a "version tag",
so each engine has a record of its own: ``person-fp16-1a2b3c4d.engine.json``. The ONNX file is the
product, an engine can always be built from it again, and every message ends in how.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from centermask_edge.engines.files import write_whole
from centermask_edge.engines.tensorrt.api import Flavor, version_tuple
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import ModelMetadata

_SUFFIX = ".json"


class Precision(str, Enum):
    """Arithmetic of the dense layers; the values are those of ``--precision``."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(_Record):
    """Smallest, most usual and largest value of one dimension."""

    min: int = Field(ge=1)
    opt: int = Field(ge=1)
    max: int = Field(ge=1)

    @property
    def fixed(self) -> bool:
        """Whether there is one value only."""
        return self.min == self.max


class Shapes(_Record):
    """What the engine's input may look like: pictures of a batch, padded height and width."""

    batch: Range
    height: Range
    width: Range

    @property
    def fixed(self) -> bool:
        """Whether there is one shape only."""
        return self.batch.fixed and self.height.fixed and self.width.fixed


class LayerSummary(_Record):
    """The engine's layers in figures.

    Attributes:
        count: layers after fusion.
        reformats: layers that only change type or memory layout.
        by_type: layers of each kind, in TensorRT's words.
        by_dtype: layers that compute in each number type: ``fp32``, ``fp16``, ``int8``.
        conv_macs: multiply-adds of convolutions at the usual input, by number type.
        activation_bytes: scratch memory that one run needs; 0 where TensorRT did not say.
        weight_bytes: of all weights in the engine; 0 where TensorRT did not say.
    """

    count: int
    reformats: int
    by_type: dict[str, int] = {}
    by_dtype: dict[str, int] = {}
    conv_macs: dict[str, int] = {}
    activation_bytes: int = 0
    weight_bytes: int = 0

    def share(self, dtype: str) -> float:
        """Part of the convolutions' multiply-adds in that type, 0 to 1."""
        total = sum(self.conv_macs.values())
        return self.conv_macs.get(dtype, 0) / total if total else 0.0


class Manifest(_Record):
    """The record of one engine.

    Attributes:
        format_version: of this record; a newer one is refused.
        flavor: TensorRT or TensorRT-RTX.
        tensorrt: its version.
        gpu: name of the GPU it was built on; empty where it was built without one.
        capabilities: compute capabilities (10 * major + minor) it runs on.
        driver: newest CUDA version of the driver it was built with; empty without a GPU.
        onnx: path of the ONNX file relative to the engine's folder.
        onnx_sha256: of that file.
        kernels: content key of the plugin library.
        precision: of the dense layers.
        shapes: of the input.
        workspace_mib: scratch memory a layer may use; None where TensorRT chose.
        build_log: name of the log in the engine's folder.
        build_log_sha256: of that file.
        engine_sha256: of the engine itself.
        model: what the ONNX file says about itself.
        created: UTC, ISO 8601.
        layers: figures of the layers; None where TensorRT told nothing of them.
    """

    format_version: Literal[1] = 1
    flavor: Flavor
    tensorrt: str
    gpu: str = ""
    capabilities: tuple[int, ...] = Field(min_length=1)
    driver: str = ""
    onnx: str
    onnx_sha256: str
    kernels: str
    precision: Precision
    shapes: Shapes
    workspace_mib: int | None = None
    build_log: str = ""
    build_log_sha256: str = ""
    engine_sha256: str = ""
    model: ModelMetadata
    created: str = ""
    layers: LayerSummary | None = None

    @property
    def key(self) -> str:
        """Hash of everything the engine was built from, 8 hexadecimal digits of its file name."""
        results = {"build_log", "build_log_sha256", "engine_sha256", "created", "layers", "onnx"}
        facts = self.model_dump(mode="json", exclude=results)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine has; None for what cannot be known here, which then is not compared.

    Attributes:
        flavor: of the TensorRT that would run the engine.
        tensorrt: its version.
        gpu: name of the GPU.
        capability: of the GPU, 10 * major + minor.
        driver: newest CUDA version of the driver.
        onnx_sha256: of the ONNX file beside the engine.
        kernels: content key of the plugin library.
    """

    flavor: Flavor
    tensorrt: str
    gpu: str | None = None
    capability: int | None = None
    driver: str | None = None
    onnx_sha256: str | None = None
    kernels: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which the engine does not fit.

    Attributes:
        field: for a reader: ``TensorRT``, ``GPU``, ``driver``, ``ONNX file`` or ``kernels``.
        found: in the engine's manifest.
        wanted: what this machine has.
    """

    field: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.field}: built for {self.found}, here is {self.wanted}"


def manifest_path(engine: Path) -> Path:
    """Where the manifest of an engine lies.

    >>> manifest_path(Path("a.engine")).name
    'a.engine.json'
    """
    return engine.with_name(engine.name + _SUFFIX)


def read_manifest(engine: Path) -> Manifest:
    """The manifest of an engine.

    Raises:
        ModelFileError: the engine or its manifest is missing, or the manifest cannot be read.
    """
    if not engine.is_file():
        raise ModelFileError(
            f"engine not found: {engine}; centermask-edge build MODEL.onnx makes one"
        )
    path = manifest_path(engine)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(
            f"{engine} has no manifest ({path.name}), so nobody knows what it was built from; "
            "build it again with: centermask-edge build MODEL.onnx"
        ) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ModelFileError(
            f"{path} cannot be read by this version ({where}: {first['msg']}); "
            "build the engine again with: centermask-edge build MODEL.onnx"
        ) from None


def write_manifest(engine: Path, manifest: Manifest) -> Path:
    """Writes the manifest of an engine, whole or not at all, and returns its path.

    Raises:
        ModelFileError: it cannot be written.
    """
    text = manifest.model_dump_json(indent=1) + "\n"
    return write_whole(manifest_path(engine), text.encode())


def engine_name(stem: str, manifest: Manifest) -> str:
    """File name of an engine: ``person-fp16-1a2b3c4d.engine``, or ``.rtx.engine``."""
    suffix = ".rtx.engine" if manifest.flavor is Flavor.RTX else ".engine"
    return f"{stem}-{manifest.precision.value}-{manifest.key}{suffix}"


def onnx_path(engine: Path, manifest: Manifest) -> Path:
    """The ONNX file an engine was built from, as the manifest names it."""
    return Path(os.path.normpath(engine.parent / manifest.onnx))


def differences(manifest: Manifest, facts: Facts) -> list[Difference]:
    """What does not fit, in the order in which a user would look.

    A newer driver fits: it runs what was built for an older one.
    """
    found = [_version(manifest, facts), _gpu(manifest, facts), _driver(manifest, facts)]
    if facts.onnx_sha256 not in (None, manifest.onnx_sha256):
        found.append(Difference("ONNX file", manifest.onnx_sha256[:8], facts.onnx_sha256[:8]))
    if facts.kernels not in (None, manifest.kernels):
        found.append(Difference("kernels", manifest.kernels, facts.kernels))
    return [difference for difference in found if difference is not None]


def _version(manifest: Manifest, facts: Facts) -> Difference | None:
    if (manifest.flavor, manifest.tensorrt) == (facts.flavor, facts.tensorrt):
        return None
    found = f"{manifest.flavor.label} {manifest.tensorrt}"
    return Difference("TensorRT", found, f"{facts.flavor.label} {facts.tensorrt}")


def _gpu(manifest: Manifest, facts: Facts) -> Difference | None:
    if facts.capability is None:
        return None
    fits = facts.capability in manifest.capabilities
    if fits and (not manifest.gpu or facts.gpu in (None, manifest.gpu)):
        return None
    targets = ", ".join(f"sm_{c}" for c in manifest.capabilities)
    found = f"{manifest.gpu} ({targets})" if manifest.gpu else targets
    here = f"{facts.gpu} (sm_{facts.capability})" if facts.gpu else f"sm_{facts.capability}"
    return Difference("GPU", found, here)


def _driver(manifest: Manifest, facts: Facts) -> Difference | None:
    if not manifest.driver or facts.driver is None:
        return None
    if version_tuple(facts.driver) >= version_tuple(manifest.driver):
        return None
    return Difference("driver", f"CUDA {manifest.driver}", f"CUDA {facts.driver}")
