"""Mask AP of one model in FP32 and in INT8 by every plan, observer and peer, through OpenVINO.

    centermask-edge calibrate person/train.json --out set --count 64
    python bench/int8_accuracy.py person.onnx --calibration set --val person/val.json \
        --json calibration/results/person.json

One calibration serves every observer and plan. Peers (ONNX Runtime's quantizer; nvidia-modelopt
where it is installed) see the same pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from int8_variants import PLANS, Picture, peers

from centermask_edge.cli.report import write_json
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.segment import Segmenter
from centermask_edge.evaluate.coco import Report, evaluate
from centermask_edge.live.sources.pictures import read_picture
from centermask_edge.measure.stages import processor_name
from centermask_edge.quantize.build import Options, observable, prepared, quantize_model
from centermask_edge.quantize.collect import Activations, collect
from centermask_edge.quantize.observers import Observer
from centermask_edge.quantize.picture_set import load_set
from centermask_edge.quantize.plan import load_plan
from centermask_edge.quantize.scales import ObservedScales

_SIZES = ("small", "medium", "large")


def measured(model: onnx.ModelProto, val: Path) -> tuple[Report, str]:
    """AP of a model through OpenVINO, and the engine's name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, str(path))
        engine = open_engine(path, EngineName.OPENVINO)
        return evaluate(Segmenter(engine), val, engine.metadata.classes), engine.name


def ours(
    model: onnx.ModelProto, pictures: Sequence[Picture]
) -> Iterator[tuple[dict[str, str], onnx.ModelProto]]:
    """Every plan with every observer, and the largest value with corrected biases."""
    plain = prepared(model)
    plans = [load_plan(name) for name in PLANS]
    seen = collect(plain, observable(plain, plans), pictures)
    for plan in plans:
        for observer in Observer:
            yield _named(plan.name, observer.value), _int8(plain, plan.name, seen, observer)
        corrected = _int8(plain, plan.name, seen, Observer.MAX, Options(bias_correction=seen))
        yield _named(plan.name, "max, biases corrected"), corrected


def _int8(
    plain: onnx.ModelProto,
    plan: str,
    seen: Activations,
    observer: Observer,
    options: Options | None = None,
) -> onnx.ModelProto:
    return quantize_model(
        plain, load_plan(plan), ObservedScales(seen.histograms, observer), options
    )


def _named(plan: str, observer: str) -> dict[str, str]:
    return {"quantizer": f"ours, {plan} plan", "observer": observer}


def row(names: dict[str, str], report: Report, before: Report) -> dict[str, Any]:
    """One line of the table."""
    sizes = {size: round(getattr(report.mask, size), 2) for size in _SIZES}
    return {
        **names,
        "box_ap": round(report.box.ap, 2),
        "mask_ap": round(report.mask.ap, 2),
        "mask_ap_lost": round(before.mask.ap - report.mask.ap, 2),
        **sizes,
    }


def kept(path: Path, model: str) -> list[dict[str, Any]]:
    """Our rows of an earlier table of the same model."""
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["model_sha256"] != model:
        raise SystemExit(f"{path} is about another model; measure without --peers-only")
    return [row for row in earlier["rows"] if row["quantizer"].startswith("ours")]


def main() -> int:
    """0; the table is in the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--peers-only", action="store_true", help="keep the other rows of --json")
    options = parser.parse_args()
    model = onnx.load(str(options.model))
    chosen = load_set(options.calibration, None).pictures(read_picture)
    pictures = [picture.read() for picture in chosen]
    before, engine = measured(model, options.val)
    rows = [row({"quantizer": "none (FP32)", "observer": "-"}, before, before)]
    sys.stdout.write(f"{rows[-1]}\n")
    if options.peers_only:
        rows += kept(options.json, file_sha256(options.model))
    candidates = () if options.peers_only else ours(model, pictures)
    for names, quantized in candidates:
        rows.append(row(names, measured(quantized, options.val)[0], before))
        sys.stdout.write(f"{rows[-1]}\n")
        sys.stdout.flush()
    for peer, quantize in peers():
        names = {"quantizer": peer, "observer": "its default"}
        try:
            rows.append(row(names, measured(quantize(model, pictures), options.val)[0], before))
        except Exception as error:  # a peer that fails is a line of the table
            rows.append({**names, "fails": " ".join(str(error).split())[:120]})
        sys.stdout.write(f"{rows[-1]}\n")
    facts = {
        "model": options.model.name,
        "model_sha256": file_sha256(options.model),
        "calibration_pictures": len(pictures),
        "annotations": "/".join(options.val.parts[-2:]),
        "engine": engine,
        "processor": processor_name(),
    }
    write_json(options.json, {**facts, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
