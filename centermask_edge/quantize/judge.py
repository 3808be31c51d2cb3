"""Files of one model in FP32, FP16 and INT8 judged side by side on a set of pictures.

    judgement = judge(Candidates(fp32=..., int8=...), Path("val.json"))
    judgement.verdict.held

Every file sees every picture once, in turn; AP comes from the one evaluator of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from centermask_edge import __version__
from centermask_edge.data.augment import read_bgr
from centermask_edge.engines import default_engine
from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.segment import Segmenter
from centermask_edge.evaluate.coco import results_of
from centermask_edge.measure.stages import processor_name
from centermask_edge.quantize.compare import compare
from centermask_edge.quantize.judged_set import JudgedSet, read_set
from centermask_edge.quantize.measured import (
    accuracy,
    common_input,
    losses,
    measured_coverage,
    measured_speed,
)
from centermask_edge.quantize.session import (
    Candidates,
    JudgedPicture,
    Progress,
    Session,
    Settings,
    engine_for,
    open_session,
)
from centermask_edge.quantize.verdict import Annotations, ModelFile, Numbers, Verdict

__all__ = ["Candidates", "JudgedPicture", "Judgement", "Settings", "judge"]

_PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "faster-coco-eval")


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and what its report shows.

    Attributes:
        verdict: the figures.
        worst: pictures by falling loss.
        threshold: box score from which they show an instance.
    """

    verdict: Verdict
    worst: tuple[JudgedPicture, ...]
    threshold: float


def judge(
    candidates: Candidates,
    annotations: Path,
    settings: Settings | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Judgement:
    """What the files of one model are worth on a COCO set, on this machine.

    Args:
        candidates: the files. INT8 is judged against FP32; FP16 is, where there is no INT8.
        annotations: COCO json file with masks; pictures in ``images/`` beside it.
        settings: see :class:`Settings`.
        progress: called with the name of a phase, steps done and steps of the phase.

    Raises:
        ConfigError: no file, a budget with nothing to compare, files of different models.
        DatasetError: a set that AP cannot be measured on.
        MissingPackageError: an engine or the evaluator is not installed.
        ModelFileError: a file that is missing or not of this project.
    """
    settings = settings or Settings()
    session = open_session(candidates, settings)
    metadata = next(iter(session.engines.values())).metadata
    judged = read_set(annotations, metadata.classes, settings.limit)
    _run(session, judged, settings, progress)
    size, inputs = common_input(next(iter(session.engines.values())), judged.samples)
    asked, ran = measured_coverage(session, size, progress)
    verdict = Verdict(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        processor=processor_name(),
        versions=_versions(),
        preset=metadata.preset,
        annotations=_annotations(annotations, judged),
        models=tuple(_model_file(numbers, path) for numbers, path in session.files.items()),
        accuracy=tuple(accuracy(n, session, judged, progress) for n in session.files),
        losses=losses(session, judged, settings, progress),
        budget=settings.budget,
        judged=session.judged,
        coverage=asked,
        ran=ran,
        speed=measured_speed(session, inputs, settings, progress),
        notes=_notes(session, judged, settings),
    )
    return Judgement(verdict, tuple(session.worst), settings.threshold)


def _run(session: Session, judged: JudgedSet, settings: Settings, progress: Progress) -> None:
    """Every file on every picture; the worst pictures are kept."""
    segmenters = {n: Segmenter(engine) for n, engine in session.engines.items()}
    total = len(judged.samples)
    progress("pictures", 0, total)
    for done, sample in enumerate(judged.samples, start=1):
        image = read_bgr(sample)
        found = {n: segment(image) for n, segment in segmenters.items()}
        for numbers, instances in found.items():
            session.rows[numbers] += results_of(instances, sample.image_id, judged.ids)
        if session.judged is not None and settings.gallery > 0:
            before, after = found[Numbers.FP32], found[session.judged]
            change = compare(before, after, settings.threshold, sample.boxes)
            session.worst.append(JudgedPicture(sample, change))
            session.worst.sort(key=lambda p: p.change.loss, reverse=True)
            del session.worst[settings.gallery :]
        progress("pictures", done, total)


def _annotations(path: Path, judged: JudgedSet) -> Annotations:
    return Annotations(
        name="/".join(path.parts[-2:]),
        sha256=file_sha256(path),
        images=len(judged.samples),
        of_images=judged.of_images,
        objects=judged.objects(),
    )


def _model_file(numbers: Numbers, path: Path) -> ModelFile:
    return ModelFile(
        numbers=numbers, name=path.name, bytes=path.stat().st_size, sha256=file_sha256(path)
    )


def _versions() -> dict[str, str]:
    found = {"centermask-edge": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _notes(session: Session, judged: JudgedSet, settings: Settings) -> tuple[str, ...]:
    notes = []
    if len(judged.samples) < judged.of_images:
        notes.append(
            f"A quick look at {len(judged.samples)} of {judged.of_images} pictures; "
            "judge all of them before relying on it."
        )
    chosen = settings.engine or default_engine()
    if Numbers.FP16 in session.files and engine_for(Numbers.FP16, settings) is not chosen:
        notes.append(
            f"FP16 was run by {session.engines[Numbers.FP16].name}, because OpenVINO computes "
            "FP16 graphs of a CPU in FP32; its speed is therefore not compared."
        )
    return tuple(notes)
