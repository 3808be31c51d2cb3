"""A network of the family with one layer that 8 bits with one scale per tensor destroy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import quantize_models as models
from calibration_pictures import save
from numpy.typing import NDArray
from onnx import numpy_helper

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import read_coco
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.segment import Segmenter
from centermask_edge.quantize import Plan
from centermask_edge.quantize.plan import Granularity, Quantize, Rule

VICTIM = "mask/mask_head/convs.1/Conv"
# The four layers of the mask head, nothing else: boxes stay what they are, and AP depends on the
# masks alone.
PLAN = Plan(
    name="masks",
    weights=Granularity.TENSOR,
    rules=(
        Rule(ops=("Conv",), names=("mask/mask_head/*",), quantize=Quantize.WEIGHTED),
        Rule(ops=("ConvTranspose",), quantize=Quantize.WEIGHTED),
    ),
)


def sensitive() -> onnx.ModelProto:
    """One weight of the victim is 1000 times the others, on a channel that is always zero.

    It changes no result in float and leaves the layer's other weights a fraction of an int8 step.
    """
    model = models.exported()
    values = {t.name: t for t in model.graph.initializer}
    before, victim = "mask/mask_head.convs.0", "mask/mask_head.convs.1.weight"
    _set(values[f"{before}.weight"], 0, 0.0)
    _set(values[f"{before}.bias"], 0, -1.0)
    array = numpy_helper.to_array(values[victim]).copy()
    array[0, 0, 0, 0] = 1000 * np.abs(array).max()
    values[victim].CopyFrom(numpy_helper.from_array(array, victim))
    for name, tensor in values.items():
        if name.endswith("head.box_pred.bias"):  # boxes of some pixels, so that masks matter
            _set(tensor, slice(None), 3.0)
    return model


def _set(tensor: onnx.TensorProto, channel: int | slice, value: float) -> None:
    array = numpy_helper.to_array(tensor).copy()
    array[channel] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def write_truth(folder: Path, model: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    """A COCO set of the pictures, annotated with what the model finds in them."""
    path = folder / "truth.json"
    rows = []
    for index, picture in enumerate(pictures):
        save(folder / "images" / f"{index}.png", picture)
        height, width = picture.shape[:2]
        name = f"{index}.png"
        rows.append({"id": index + 1, "file_name": name, "width": width, "height": height})
    content = {
        "images": rows,
        "annotations": [],
        "categories": [{"id": 1, "name": "class 0"}],
    }
    path.write_text(json.dumps(content))
    segment = Segmenter(open_engine(model, EngineName.ONNXRUNTIME, threads=1))
    annotations: list[dict[str, Any]] = []
    for sample in read_coco(path, ("class 0",)):
        found = segment(read_bgr(sample))
        for box, row in zip(found.boxes.tolist(), found.to_coco(), strict=True):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": sample.image_id,
                    "category_id": 1,
                    "bbox": sides,
                    "area": sides[2] * sides[3],
                    "iscrowd": 0,
                    "segmentation": row["segmentation"],
                }
            )
    path.write_text(json.dumps({**content, "annotations": annotations}))
    return path
