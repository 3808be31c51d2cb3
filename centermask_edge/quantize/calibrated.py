"""The calibration file of a quantization: read where it is there, collected where it is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from centermask_edge.quantize.artefact import (
    Calibration,
    CalibrationPicture,
    calibrate,
    load_calibration,
)
from centermask_edge.quantize.errors import QuantizationError

if TYPE_CHECKING:
    import onnx


def calibration_for(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    pictures: Sequence[CalibrationPicture],
    path: Path,
    *,
    resume: bool = True,
    progress: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> Calibration:
    """The calibration of a model with a set of pictures.

    Args:
        model: as exported or prepared.
        tensors: that it must hold; a file that lacks some is collected again.
        pictures: the set.
        path: of the file.
        resume: use the file if it is there, and go on with an interrupted collection; False
            collects from the start and replaces the file.
        progress: see :func:`centermask_edge.quantize.artefact.calibrate`; not called where the
            file is there.
        threads: of ONNX Runtime.

    Raises:
        QuantizationError: the file was made for something else, the pictures show nothing, or it
            cannot be written.
    """
    if not resume:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ".partial").unlink()
    elif path.is_file():
        found = _found(path, model, pictures)
        if set(tensors) <= set(found.seen.histograms):
            return found
    return calibrate(model, tensors, pictures, path, progress=progress, threads=threads)


def _found(
    path: Path, model: onnx.ModelProto, pictures: Sequence[CalibrationPicture]
) -> Calibration:
    try:
        return load_calibration(path, model, pictures)
    except QuantizationError as error:
        raise QuantizationError(f"{error}; --no-resume replaces the file") from None


def calibration_file(output: Path) -> Path:
    """Where the calibration of an INT8 file lies: beside it.

    >>> calibration_file(Path("out/person-int8.onnx")).name
    'person-int8.calibration.npz'
    """
    return output.with_name(f"{output.stem}.calibration.npz")
