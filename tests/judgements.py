"""A judgement made by hand: two drawn pictures, one lost person, one changed dog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import write_scenes

from centermask_edge.data.coco import read_coco
from centermask_edge.instances import Instances
from centermask_edge.quantize.compare import compare
from centermask_edge.quantize.coverage_macs import Coverage, LayerCoverage
from centermask_edge.quantize.judge import JudgedPicture, Judgement
from centermask_edge.quantize.runtime_graph import Ran, RunLayer
from centermask_edge.quantize.speed import Speed, SpeedRow
from centermask_edge.quantize.verdict import (
    Accuracy,
    Annotations,
    Ap,
    ClassAp,
    Loss,
    ModelFile,
    Numbers,
    Verdict,
)

SIZE = (320, 240)
THRESHOLD = 0.4


def instances(names: tuple[str, ...], rows: list[tuple[list[float], float, int]]) -> Instances:
    """Discs in boxes: box, score, class."""
    y, x = np.mgrid[:28, :28] - 13.5
    disc = (np.hypot(x, y) < 12).astype(np.float32)
    score = np.array([r[1] for r in rows], np.float32)
    return Instances(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        score,
        score,
        np.array([r[2] for r in rows], np.int64),
        np.repeat(disc[None], len(rows), axis=0),
        (SIZE[1], SIZE[0]),
        names,
    )


def ap(value: float) -> Ap:
    return Ap(ap=value, ap50=value + 20, ap75=value - 5, small=None, medium=value, large=value + 9)


def accuracy(numbers: Numbers, mask: float, names: tuple[str, ...]) -> Accuracy:
    classes = tuple(
        ClassAp(name=name, objects=3 + i, box=mask + 5, mask=mask - i)
        for i, name in enumerate(names)
    )
    engine = "onnxruntime 1.0" if numbers is Numbers.FP16 else "openvino 1.0"
    return Accuracy(
        numbers=numbers, engine=engine, box=ap(mask + 5), mask=ap(mask), classes=classes
    )


def verdict(names: tuple[str, ...], lost: float, preset: str = "tiny") -> Verdict:
    layers = (
        LayerCoverage(name="dense/a/Conv", op="Conv", macs=3_000_000, int8=True),
        LayerCoverage(name="dense/b/Conv", op="Conv", macs=1_000_000, int8=False),
    )
    ran = tuple(
        RunLayer(name=x.name, precision="u8" if x.int8 else "f32", primitive="p", macs=x.macs)
        for x in layers
    )
    times = {"fp32": 12.5, "int8": 5.0}
    rows = tuple(
        SpeedRow(precision=n, engine="openvino 1.0", median_ms=t, p95_ms=t + 1, best_ms=t - 1)
        for n, t in times.items()
    )
    return Verdict(
        created="2026-01-02T03:04:05+00:00",
        processor="a processor, 2 logical processors",
        versions={"centermask-edge": "0"},
        preset=preset,
        annotations=Annotations(
            name="set/scenes.json", sha256="ab" * 32, images=2, of_images=2, objects=4
        ),
        models=tuple(
            ModelFile(numbers=n, name=f"{n.value}.onnx", bytes=size, sha256="cd" * 32)
            for n, size in ((Numbers.FP32, 13_538_041), (Numbers.INT8, 7_068_792))
        ),
        accuracy=(
            accuracy(Numbers.FP32, 30.0, names),
            accuracy(Numbers.FP16, 30.0, names),
            accuracy(Numbers.INT8, 30.0 - lost, names),
        ),
        losses=(Loss(numbers=Numbers.INT8, box=lost, mask=lost, low=lost - 0.1, high=lost + 0.1),),
        budget=0.3,
        judged=Numbers.INT8,
        coverage=Coverage(input_size=(64, 96), layers=layers),
        ran=Ran(engine="openvino 1.0", layers=ran, lost=(), macs=4_000_000),
        speed=Speed(input_size=(64, 96), threads=2, runs=30, rows=rows),
    )


def judgement(
    folder: Path,
    names: tuple[str, ...] = ("person", "dog"),
    lost: float = 0.1,
    preset: str = "tiny",
    pictures: int = 2,
) -> Judgement:
    path = write_scenes(folder, count=pictures, size=SIZE)
    before = instances(names, [([30, 40, 130, 200], 0.9, 0), ([170, 60, 290, 180], 0.7, 1)])
    after = instances(names, [([175, 60, 290, 185], 0.6, 1), ([5, 5, 60, 60], 0.5, 0)])
    objects = np.array([[30, 40, 130, 200]], np.float64)
    worst = [
        JudgedPicture(sample, compare(before, after, THRESHOLD, objects))
        for sample in read_coco(path, ("person",))
    ]
    return Judgement(verdict(names, lost, preset), tuple(worst), THRESHOLD)
