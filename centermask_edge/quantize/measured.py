"""The figures of a verdict: AP and its losses, coverage and speed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from centermask_edge.data.augment import read_bgr
from centermask_edge.data.coco import Sample
from centermask_edge.engines import Engine, default_engine
from centermask_edge.engines.segment import Segmenter
from centermask_edge.errors import require
from centermask_edge.preprocess import Size
from centermask_edge.quantize.coverage_macs import Coverage, coverage
from centermask_edge.quantize.interval import jackknife
from centermask_edge.quantize.judged_set import JudgedSet
from centermask_edge.quantize.runtime_graph import Ran, openvino_runs
from centermask_edge.quantize.session import Progress, Session, Settings, engine_for
from centermask_edge.quantize.speed import Input, Speed, measure_speed
from centermask_edge.quantize.verdict import Accuracy, Ap, ClassAp, Loss, Numbers

_SPEED_PICTURES = 8


def accuracy(numbers: Numbers, session: Session, judged: JudgedSet, progress: Progress) -> Accuracy:
    """Box and mask AP of one file, by size and by class; classes without objects left out."""
    rows = session.rows[numbers]
    box, mask = judged.ap(rows)
    counted = {i: n for i, c in judged.ids.items() if (n := judged.objects(c))}
    names = session.engines[numbers].metadata.classes
    classes = []
    for done, (index, objects) in enumerate(counted.items(), start=1):
        parts = (
            (box, mask) if len(counted) == 1 else judged.ap(rows, categories=[judged.ids[index]])
        )
        one, two = (Ap.of(part).ap for part in parts)
        classes.append(ClassAp(name=names[index], objects=objects, box=one, mask=two))
        progress(f"AP of {numbers.value}", done, len(counted))
    engine = session.engines[numbers].name
    return Accuracy(
        numbers=numbers, engine=engine, box=Ap.of(box), mask=Ap.of(mask), classes=tuple(classes)
    )


def losses(
    session: Session, judged: JudgedSet, settings: Settings, progress: Progress
) -> tuple[Loss, ...]:
    """What each file loses against FP32; nothing without FP32."""
    if Numbers.FP32 not in session.files:
        return ()
    ids = [s.image_id for s in judged.samples]
    return tuple(
        _loss(n, session, judged, ids, settings.groups if n is session.judged else 0, progress)
        for n in session.files
        if n is not Numbers.FP32
    )


def _loss(
    numbers: Numbers,
    session: Session,
    judged: JudgedSet,
    ids: Sequence[int],
    groups: int,
    progress: Progress,
) -> Loss:
    steps = 0

    @lru_cache(maxsize=1)
    def both(images: tuple[int, ...]) -> tuple[float | None, float | None]:
        pairs = [judged.ap(session.rows[n], images=images) for n in (Numbers.FP32, numbers)]
        box, mask = ((a.ap, b.ap) for a, b in zip(*pairs, strict=True))
        return _difference(*box), _difference(*mask)

    def mask_loss(images: Sequence[int]) -> float | None:
        nonlocal steps
        steps += 1
        found = both(tuple(images))[1]
        progress("interval", steps, min(groups, len(ids)) + 1)
        return found

    box, mask = both(tuple(ids))
    assert box is not None and mask is not None  # there are objects
    ends = jackknife(mask_loss, ids, groups) if groups else None
    low, high = ends or (None, None)
    return Loss(numbers=numbers, box=box, mask=mask, low=low, high=high)


def _difference(before: float, after: float) -> float | None:
    """Points lost; None where the pictures have no object."""
    return None if before < 0 or after < 0 else round(before - after, 4)


def common_input(engine: Engine, samples: Sequence[Sample]) -> tuple[Size, list[Input]]:
    """The padded size that most pictures have, and some pictures of it as network inputs."""
    preprocess = Segmenter(engine).preprocess
    sizes = [preprocess.plan(s.height, s.width).padded_size for s in samples]
    common = max(dict.fromkeys(sizes), key=sizes.count)
    inputs: list[Input] = []
    for sample, size in zip(samples, sizes, strict=True):
        if size == common and len(inputs) < _SPEED_PICTURES:
            tensor, placement = preprocess(read_bgr(sample))
            inputs.append((tensor[None], np.array([placement.resized_size], np.float32)))
    return common, inputs


def measured_coverage(
    session: Session, size: Size, progress: Progress
) -> tuple[Coverage | None, Ran | None]:
    """What the INT8 file asks to compute in 8 bits, and what OpenVINO makes of it."""
    path = session.files.get(Numbers.INT8)
    if path is None:
        return None, None
    onnx = require("onnx", extra="cpu", why="count multiply-adds")
    progress("coverage", 0, 1)
    asked = coverage(onnx.load(str(path)), size)
    openvino = session.engines[Numbers.INT8].name.startswith("openvino")
    ran = openvino_runs(path, asked) if openvino else None
    progress("coverage", 1, 1)
    return asked, ran


def measured_speed(
    session: Session, inputs: Sequence[Input], settings: Settings, progress: Progress
) -> Speed | None:
    """Of the files on one engine; what ran elsewhere for its numerics would not compare."""
    if settings.runs < 1:
        return None
    wanted = settings.engine or default_engine()
    engines = {n.value: e for n, e in session.engines.items() if engine_for(n, settings) is wanted}
    if not engines:
        return None
    return measure_speed(
        engines,
        inputs,
        settings.runs,
        settings.threads,
        progress=lambda done: progress("speed", done, settings.runs),
    )
