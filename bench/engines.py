"""Builds the shipped person model with TensorRT-RTX, ahead of time, in every precision.

    python bench/engines.py --json docs/results/engines.json

Needs no GPU. INT8 comes from ``--int8``, a file that ``centermask-edge quantize --recipe tensorrt``
wrote, or else from the largest values seen on frames of the bundled clip. Nothing is timed but the
builds: engines run on a GPU only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import onnx

import centermask_edge
from centermask_edge.cli.report import write_json
from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.build import Built, Options, build_engine
from centermask_edge.engines.tensorrt.manifest import Precision, Range, Shapes
from centermask_edge.live.sources.opening import open_source
from centermask_edge.measure.stages import processor_name
from centermask_edge.quantize import max_int8
from centermask_edge.resources import shipped_model

_CLIP = Path(centermask_edge.__file__).parent / "_clips" / "people.mp4"
TARGETS = (86, 89, 120)
_HEIGHT, _WIDTH = 352, 640
_FRAMES, _EVERY = 12, 10


def _fixed(number: int) -> Range:
    return Range(min=number, opt=number, max=number)


def quantized(folder: Path) -> Path:
    """The shipped model in INT8 by the largest values seen on frames of the bundled clip."""
    source = open_source(str(_CLIP))
    try:
        frames = islice(source, 0, _FRAMES * _EVERY, _EVERY)
        model = max_int8(onnx.load(str(shipped_model())), (frame.image for frame in frames))
    finally:
        source.close()
    path = folder / "person-int8.onnx"
    onnx.save(model, str(path))
    return path


def row(built: Built) -> dict[str, Any]:
    """What is told of one engine."""
    layers = built.manifest.layers
    assert layers is not None
    return {
        "precision": built.manifest.precision.value,
        "seconds": round(built.seconds, 1),
        "engine_mb": round(built.engine.stat().st_size / 1e6, 1),
        "conv_gmacs": round(sum(layers.conv_macs.values()) / 1e9, 2),
        "conv_shares": {kind: round(layers.share(kind), 4) for kind in layers.conv_macs},
        "layers": layers.count,
        "reformats": layers.reformats,
    }


def main() -> int:
    """0; the table is in the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--int8", type=Path, help="a quantized file")
    options = parser.parse_args()
    shapes = Shapes(batch=_fixed(1), height=_fixed(_HEIGHT), width=_fixed(_WIDTH))
    rows, version = [], ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        int8 = options.int8 or quantized(folder)
        for precision in Precision:
            path = int8 if precision is Precision.INT8 else shipped_model()
            wanted = Options(precision, shapes, targets=TARGETS, flavor=Flavor.RTX)
            built = build_engine(path, folder, wanted)
            version = built.manifest.tensorrt
            rows.append(row(built))
            sys.stdout.write(f"{rows[-1]}\n")
    facts = {
        "model": shipped_model().name,
        "network_input": f"{_WIDTH}x{_HEIGHT}",
        "tensorrt_rtx": version,
        "targets": ", ".join(f"sm_{target}" for target in TARGETS),
        "processor": processor_name(),
    }
    write_json(options.json, {**facts, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
