"""The calibration file: histograms, and what they were made from.

One ``.npz`` with a JSON record in it. The record names the weights, the graph, the preprocessing
and every picture by hash; a calibration of anything else is refused with the field that differs.
It is written under another name and renamed when complete. While a collection runs, its state is
kept the same way beside it (``.partial``), so that an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from centermask_edge.quantize.collect import (
    Activations,
    Collector,
    Coverage,
    Picture,
    metadata_of,
)
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.observers import BINS, Histogram
from centermask_edge.quantize.weights import with_fp32_weights

if TYPE_CHECKING:
    import onnx

FORMAT = 1
_SAVE_EVERY = 16
_FIELDS = ("format", "weights", "graph", "preprocess", "pictures")


@dataclass(frozen=True, slots=True)
class CalibrationPicture:
    """One picture of a calibration set.

    Attributes:
        name: for the record: file name, or video and frame number.
        sha256: of the file, or of the pixels of a video frame.
        read: gives uint8 (H, W, 3) BGR.
    """

    name: str
    sha256: str
    read: Callable[[], Picture]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A complete calibration.

    Attributes:
        identity: what it was made from, by field; see :func:`identity`.
        seen: the histograms.
    """

    identity: dict[str, Any]
    seen: Activations

    @property
    def digest(self) -> str:
        """SHA-256 of what it was made from and of what was seen."""
        content = json.dumps([self.identity, _record(self.seen)], sort_keys=True)
        digest = hashlib.sha256(content.encode())
        for histogram in self.seen.histograms.values():
            digest.update(histogram.counts.astype("<i8").tobytes())
        return digest.hexdigest()


def weights_hash(model: onnx.ModelProto) -> str:
    """SHA-256 over names, shapes and values of all initializers, in order of names."""
    from onnx import numpy_helper

    digest = hashlib.sha256()
    for tensor in sorted(with_fp32_weights(model).graph.initializer, key=lambda t: str(t.name)):
        array = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def graph_hash(model: onnx.ModelProto) -> str:
    """SHA-256 over nodes, functions, inputs and outputs: all but the weights and the metadata."""
    plain = with_fp32_weights(model)
    digest = hashlib.sha256()
    for part in (*plain.graph.node, *plain.graph.input, *plain.graph.output, *plain.functions):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def identity(model: onnx.ModelProto, pictures: Sequence[CalibrationPicture]) -> dict[str, Any]:
    """What a calibration of that model with those pictures is made from, by field."""
    return {
        "format": FORMAT,
        "weights": weights_hash(model),
        "graph": graph_hash(model),
        "preprocess": metadata_of(model).preprocess.model_dump(mode="json"),
        "pictures": [[p.name, p.sha256] for p in pictures],
    }


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    pictures: Sequence[CalibrationPicture],
    path: Path,
    *,
    progress: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> Calibration:
    """Collect over the pictures and write the file; an interrupted collection goes on.

    Args:
        model: as exported.
        tensors: to observe.
        pictures: the calibration set.
        path: of the file.
        progress: called with the number of pictures done, first of all with those of an earlier,
            interrupted call.
        threads: of ONNX Runtime.

    Raises:
        QuantizationError: the pictures show nothing, or the file cannot be written.
    """
    made_from = identity(model, pictures)
    collector = Collector(model, tensors, threads=threads)
    partial = path.with_name(path.name + ".partial")
    seen, coverage = _resume(partial, made_from, tensors) or (collector.new(), Coverage())
    if progress is not None:
        progress(seen.pictures)
    for item in pictures[seen.pictures :]:
        picture = item.read()
        collector.add(picture, seen)
        coverage.add(picture)
        if seen.pictures % _SAVE_EVERY == 0:
            _write(partial, made_from, seen, coverage)
        if progress is not None:
            progress(seen.pictures)
    coverage.check()
    _write(path, made_from, seen, coverage)
    with contextlib.suppress(OSError):
        partial.unlink()
    return Calibration(made_from, seen)


def load_calibration(
    path: Path,
    model: onnx.ModelProto,
    pictures: Sequence[CalibrationPicture] | None = None,
) -> Calibration:
    """A calibration that was made for this model.

    Args:
        path: of the file.
        model: as exported.
        pictures: the set it must have been made with; None takes any.

    Raises:
        QuantizationError: unreadable, or made for something else: the field that differs is named.
    """
    made_from, seen, _ = _read(path)
    wanted = identity(model, pictures or ())
    if pictures is None:
        wanted["pictures"] = made_from.get("pictures")
    for field in _FIELDS:
        if made_from.get(field) != wanted[field]:
            found, asked = _difference(made_from.get(field), wanted[field])
            raise QuantizationError(
                f"{path} was calibrated for another model or set: {field} is {found}, "
                f"wanted {asked}; calibrate again with: centermask-edge calibrate"
            )
    return Calibration(made_from, seen)


def _difference(found: Any, wanted: Any) -> tuple[str, str]:
    """The first place in which two values differ, short enough for one line."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted({*found, *wanted}):
            if found.get(key) != wanted.get(key):
                return f"{key} {found.get(key)}", f"{key} {wanted.get(key)}"
    if isinstance(found, list) and isinstance(wanted, list):
        if len(found) != len(wanted):
            return f"{len(found)} pictures", f"{len(wanted)}"
        first = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        return " ".join(map(str, found[first]))[:60], " ".join(map(str, wanted[first]))[:60]
    return str(found)[:16], str(wanted)[:16]


def _record(seen: Activations) -> dict[str, Any]:
    return {
        "pictures": seen.pictures,
        "instances": seen.instances,
        "tensors": [
            {"name": h.name, "width": h.width, "zeros": h.zeros, "maximum": h.maximum}
            for h in seen.histograms.values()
        ],
        "values": seen.values,
    }


def _write(path: Path, made_from: dict[str, Any], seen: Activations, coverage: Coverage) -> None:
    record = {
        "made_from": made_from,
        "coverage": [coverage.pictures, coverage.flat],
        **_record(seen),
    }
    arrays: dict[str, NDArray[Any]] = {
        f"sums/{i}": seen.sums[name] for i, name in enumerate(seen.values)
    }
    counts = [h.counts for h in seen.histograms.values()]
    arrays["counts"] = np.stack(counts) if counts else np.zeros((0, BINS), np.int64)
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: bytes) -> None:
    """The whole file, or none of it.

    Raises:
        QuantizationError: it cannot be written.
    """
    draft = path.with_name(path.name + ".draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise QuantizationError(f"cannot write {path}: {error.strerror}") from None


def _read(path: Path) -> tuple[dict[str, Any], Activations, Coverage]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        record = json.loads(arrays["record"].tobytes())
        histograms = {
            t["name"]: Histogram(t["name"], counts, t["width"], t["zeros"], t["maximum"])
            for t, counts in zip(record["tensors"], arrays["counts"], strict=True)
        }
        sums = {name: arrays[f"sums/{i}"] for i, name in enumerate(record["values"])}
        seen = Activations(
            histograms, sums, record["values"], record["pictures"], record["instances"]
        )
        return record["made_from"], seen, Coverage(*record["coverage"])
    except FileNotFoundError:
        raise QuantizationError(
            f"calibration file not found: {path}; make one with: centermask-edge calibrate"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise QuantizationError(
            f"{path} is not a calibration file of this version ({type(error).__name__}); "
            "make one with: centermask-edge calibrate"
        ) from None


def _resume(
    path: Path, made_from: dict[str, Any], tensors: Sequence[str]
) -> tuple[Activations, Coverage] | None:
    """The state of an interrupted collection of exactly this, if there is one."""
    if not path.is_file():
        return None
    try:
        found, seen, coverage = _read(path)
    except QuantizationError:
        return None
    same = found == made_from and list(seen.histograms) == list(tensors)
    return (seen, coverage) if same else None
