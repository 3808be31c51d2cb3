"""What every engine takes and gives, and the checks of a model file that all of them share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from centermask_edge.config import PreprocessConfig
from centermask_edge.errors import ModelFileError
from centermask_edge.graph.metadata import ModelMetadata
from centermask_edge.preprocess import Placement

Floats = npt.NDArray[np.float32]

INPUTS = ("image", "image_size")
OUTPUTS = ("boxes", "scores", "mask_scores", "classes", "masks", "count")

_OTHER_FORMATS = {
    ".pth": "a torch checkpoint",
    ".pt": "a torch checkpoint",
    ".safetensors": "a checkpoint",
    ".xml": "an OpenVINO model",
    ".bin": "OpenVINO weights",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".trt": "a TensorRT engine",
}


class EngineName(str, Enum):
    """What can run a model; the values are those of ``--engine``."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TORCH = "torch"
    TENSORRT = "tensorrt"


@dataclass(frozen=True, slots=True)
class Detections:
    """Outputs of the graph for N pictures with room for K detections each; zero beyond count.

    Attributes:
        boxes: float32 (N, K, 4) xyxy in resized pixels, not clipped.
        scores: float32 (N, K) descending.
        mask_scores: float32 (N, K).
        classes: int64 (N, K).
        masks: float32 (N, K, 28, 28) probabilities of the predicted class.
        count: int64 (N,) detections of each picture.
    """

    boxes: Floats
    scores: Floats
    mask_scores: Floats
    classes: npt.NDArray[np.int64]
    masks: Floats
    count: npt.NDArray[np.int64]


class Engine(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """For tables: ``openvino 2026.4``."""

    @property
    def metadata(self) -> ModelMetadata:
        """What the file says about itself."""

    def run(self, images: Floats, image_sizes: Floats) -> Detections:
        """Detections of a batch.

        Args:
            images: float32 (N, 3, H, W) normalised and padded; H and W multiples of 32.
            image_sizes: float32 (N, 2) height and width in pixels before padding.
        """


@runtime_checkable
class FrameEngine(Protocol):
    """An engine that takes camera frames as they are and prepares them itself, on the GPU."""

    def segment(
        self, image: npt.NDArray[np.uint8], preprocess: PreprocessConfig | None = None
    ) -> tuple[Detections, Placement]:
        """Detections of one frame, uint8 (H, W, 3) BGR, and how the network saw it.

        Raises:
            KernelError: the preprocessing kernel cannot be built on this machine.
        """


def check_model_file(path: Path) -> None:
    """Nothing, if the path may be an ONNX file.

    Raises:
        ModelFileError: it is missing, a folder, unreadable, empty, or another kind of file.
    """
    if not os.path.exists(path):
        raise ModelFileError(
            f"model file not found: {path}; give --model the path of an exported .onnx file"
        )
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give --model an exported .onnx file")
    other = _OTHER_FORMATS.get(path.suffix.lower())
    if other is not None:
        raise ModelFileError(
            f"{path} is {other}; this engine runs .onnx files: centermask-edge export writes one"
        )
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror}") from None
    if empty:
        raise ModelFileError(
            f"{path} is empty (0 bytes); it was probably not downloaded or exported to the end"
        )


def check_signature(path: Path, inputs: set[str], outputs: set[str]) -> None:
    """Nothing, if a graph has the inputs and outputs of a CenterMask model.

    Raises:
        ModelFileError: one is missing.
    """
    missing = [f"input {n}" for n in INPUTS if n not in inputs]
    missing += [f"output {n}" for n in OUTPUTS if n not in outputs]
    if missing:
        raise ModelFileError(
            f"{path} is an ONNX file of something else: it has no {', '.join(missing)}; "
            "give --model a file written by centermask-edge export"
        )


def to_detections(outputs: dict[str, npt.NDArray[Any]], min_score: float = 0.0) -> Detections:
    """The named outputs of a run as :class:`Detections`, in the promised types.

    Args:
        outputs: arrays by output name.
        min_score: detections whose box score is lower are dropped; as scores descend, they are
            the last ones.
    """
    found = Detections(
        boxes=np.asarray(outputs["boxes"], np.float32),
        scores=np.asarray(outputs["scores"], np.float32),
        mask_scores=np.asarray(outputs["mask_scores"], np.float32),
        classes=np.asarray(outputs["classes"], np.int64),
        masks=np.asarray(outputs["masks"], np.float32),
        count=np.asarray(outputs["count"], np.int64),
    )
    return found if min_score <= 0 else _above(found, min_score)


def _above(found: Detections, min_score: float) -> Detections:
    slots = np.arange(found.scores.shape[1])
    keep = (slots < found.count[:, None]) & (found.scores >= np.float32(min_score))

    def kept(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        rank = (1,) * (values.ndim - 2)
        return np.where(keep.reshape(*keep.shape, *rank), values, values.dtype.type(0))

    return Detections(
        kept(found.boxes),
        kept(found.scores),
        kept(found.mask_scores),
        kept(found.classes),
        kept(found.masks),
        keep.sum(1, dtype=np.int64),
    )
