"""Frames from pycuda in, detections to pycuda out, nothing copied in between.

    python apps/pycuda_arrays.py person.engine photo.jpg

``pycuda.autoprimaryctx`` is the point: it shares the GPU's primary context, which the engine uses,
too. ``pycuda.autoinit`` makes a context of its own, and pointers do not pass between the two.
"""

import sys
from pathlib import Path

import numpy as np
import pycuda.autoprimaryctx  # noqa: F401  (the context is made by importing it)
from PIL import Image
from pycuda import gpuarray

from centermask_edge.engines.tensorrt.open import open_tensorrt


def as_pycuda(array):
    """A GPUArray over the memory of one of ours; ``base`` keeps that alive."""
    address = array.__cuda_array_interface__["data"][0]
    return gpuarray.GPUArray(array.shape, array.dtype, gpudata=address, base=array)


def main(words):
    """Prints class, score and box of what is in the picture, boxes in its own pixels."""
    model, picture = map(Path, words)
    rgb = np.asarray(Image.open(picture).convert("RGB"))
    frame = gpuarray.to_gpu(np.ascontiguousarray(rgb[..., ::-1]))  # pictures are BGR
    with open_tensorrt(model, min_score=0.4) as engine:
        found, placement = engine.segment_on_device(frame)
        engine.synchronize()  # pycuda works on the default stream, the engine on its own
        arrays = (found.boxes, found.scores, found.classes)
        boxes, scores, kinds = (as_pycuda(array).get()[0] for array in arrays)
        boxes /= np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
        for i in np.flatnonzero(scores >= engine.min_score):
            print(engine.metadata.classes[kinds[i]], f"{scores[i]:.2f}", boxes[i].round(1).tolist())


if __name__ == "__main__":
    main(sys.argv[1:])
