"""What a model loses in mask AP with some of its parts left in float, measured and remembered.

Every model is named by the SHA-256 of its file, so a result can only be used again for exactly the
model, the set and the engine that it was measured with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centermask_edge.data.augment import read_bgr
from centermask_edge.engines import EngineName, default_engine, ir_cache, open_engine
from centermask_edge.engines.files import file_sha256, write_whole
from centermask_edge.engines.openvino import import_openvino
from centermask_edge.engines.segment import Segmenter
from centermask_edge.errors import require
from centermask_edge.evaluate.coco import results_of
from centermask_edge.quantize.blocks import Unit
from centermask_edge.quantize.journal import Journal, fingerprint
from centermask_edge.quantize.judged_set import JudgedSet, Row

if TYPE_CHECKING:
    import onnx

Build = Callable[[tuple[Unit, ...]], "onnx.ModelProto"]
Progress = Callable[[str, int, int], Any]


class Losses:
    """Points of mask AP that models lose against the FP32 file.

    Args:
        fp32: that file.
        build: gives the model with some parts left in float.
        judged: pictures and objects.
        annotations: the set's COCO file.
        journal: of results.
        threads: of the processor; None lets the engine choose.
        progress: called with a phase, pictures done and pictures in all.
    """

    def __init__(
        self,
        fp32: Path,
        build: Build,
        judged: JudgedSet,
        annotations: Path,
        journal: Journal,
        threads: int | None = None,
        progress: Progress = lambda phase, done, total: None,
    ) -> None:
        self._fp32, self._build, self._judged = fp32, build, judged
        self._journal, self._threads, self._progress = journal, threads, progress
        self._engine = default_engine()
        self._set = fingerprint(
            [file_sha256(annotations), [s.image_id for s in judged.samples], _version(self._engine)]
        )
        self._known: dict[tuple[str, ...], float] = {}
        self.measured = 0  # models that were run, not remembered

    def loss(self, kept: tuple[Unit, ...]) -> float:
        """Points lost with these parts in float; negative where it gains."""
        names = tuple(sorted(unit.name for unit in kept))
        if names not in self._known:
            self._known[names] = self.of(self._build(kept))
        return self._known[names]

    def of(self, model: onnx.ModelProto) -> float:
        """Points that a model loses.

        Raises:
            ModelFileError: the engine refuses it, or it cannot be written for the engine.
            QuantizationError: the journal cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="centermask-edge-") as folder:
            content = model.SerializeToString(deterministic=True)
            path = write_whole(Path(folder) / "candidate.onnx", content)
            found = self._ap(path, passing=True)
        return round(self._ap(self._fp32) - found, 4)

    def _ap(self, path: Path, passing: bool = False) -> float:
        key = f"{self._set}/{file_sha256(path)}"
        known = self._journal.get(key)
        if known is None:
            known = self._measure(path)
            self._journal.put(key, known)
            if passing and self._engine is EngineName.OPENVINO:
                _forget(path)
        return float(known)

    def _measure(self, path: Path) -> float:
        segment = Segmenter(open_engine(path, self._engine, self._threads))
        rows: list[Row] = []
        total = len(self._judged.samples)
        self._progress("pictures", 0, total)
        for done, sample in enumerate(self._judged.samples, start=1):
            rows += results_of(segment(read_bgr(sample)), sample.image_id, self._judged.ids)
            self._progress("pictures", done, total)
        self.measured += 1
        return self._judged.ap(rows)[1].ap


def _version(name: EngineName) -> str:
    if name is EngineName.OPENVINO:
        return f"openvino {import_openvino().__version__}"
    ort = require("onnxruntime", extra="cpu", why="measure accuracy")
    return f"onnxruntime {ort.__version__}"


def _forget(path: Path) -> None:
    """Takes a candidate out of the cache, where models that will be used again should stay."""
    ir_cache.discard(ir_cache.entry(path.read_bytes(), import_openvino().__version__))
