"""From a budget of mask AP to a plan: sensitivity where it is needed, search, and their files.

Beside the INT8 file lie ``NAME.search.jsonl``, every measurement made so far, from which an
interrupted search goes on; and, where something must be left in float, ``NAME.plan.yaml``, which
``--recipe`` takes, and ``NAME.sensitivity.json``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from centermask_edge.engines.files import write_whole
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize.artefact import CalibrationPicture
from centermask_edge.quantize.blocks import Unit, layers
from centermask_edge.quantize.build import sites_of
from centermask_edge.quantize.candidates import Losses
from centermask_edge.quantize.collect import metadata_of
from centermask_edge.quantize.coverage_macs import coverage
from centermask_edge.quantize.journal import Journal
from centermask_edge.quantize.judged_set import read_set
from centermask_edge.quantize.kept_plan import keeping, write_plan
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.probe import Probe
from centermask_edge.quantize.rewrite import without_deconvolution
from centermask_edge.quantize.search import EVALUATIONS, Found, search
from centermask_edge.quantize.sensitivity import Ranking, measure

if TYPE_CHECKING:
    import onnx

    from centermask_edge.quantize.job import Job, Ready

PICTURES = 8  # of the calibration set, for the ranking
Progress = Callable[[str, int, int], Any]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan to quantize with, and how it was found.

    Attributes:
        plan: of the model to write.
        found: by the search.
        ranking: None where everything holds in 8 bits, so that none was needed.
        file: the plan, written; None where it is the recipe's.
    """

    plan: Plan
    found: Found
    ranking: Ranking | None
    file: Path | None


def search_files(output: Path) -> tuple[Path, Path, Path]:
    """Where the journal, the plan and the ranking of an INT8 file lie: beside it.

    >>> [p.name for p in search_files(Path("out/p-int8.onnx"))]
    ['p-int8.search.jsonl', 'p-int8.plan.yaml', 'p-int8.sensitivity.json']
    """
    ends = ("search.jsonl", "plan.yaml", "sensitivity.json")
    journal, plan, ranking = (output.with_name(f"{output.stem}.{end}") for end in ends)
    return journal, plan, ranking


def choose(
    job: Job,
    ready: Ready,
    pictures: Sequence[CalibrationPicture],
    val: Path,
    *,
    evaluations: int = EVALUATIONS,
    limit: int | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Chosen:
    """The plan that keeps the fewest parts in float within the job's budget.

    Args:
        job: names the files and the budget.
        ready: what the INT8 model is made from.
        pictures: the calibration set; ``PICTURES`` of them, evenly spread, rank the parts.
        val: COCO file to measure mask AP on.
        evaluations: models to measure at most, besides FP32.
        limit: pictures of ``val`` at most, evenly spread; None takes all.
        progress: called with a phase, steps done and steps in all.

    Raises:
        CenterMaskError: see :class:`Losses`, :class:`Probe` and
            :func:`centermask_edge.quantize.judged_set.read_set`.
    """
    journal_file, plan_file, ranking_file = search_files(job.out)
    if not job.resume:
        with contextlib.suppress(FileNotFoundError):
            journal_file.unlink()
    judged = read_set(val, metadata_of(ready.model).classes, limit)

    def build(kept: tuple[Unit, ...]) -> onnx.ModelProto:
        return ready.int8(keeping(ready.plan, kept))

    journal = Journal(journal_file)
    losses = Losses(job.model, build, judged, val, journal, job.threads, progress)
    tried = 0

    def loss(kept: tuple[Unit, ...]) -> float:
        nonlocal tried
        progress("search", tried, evaluations)
        found = losses.loss(kept)
        tried += 1
        progress("search", tried, evaluations)
        return found

    ranking = None
    units: Sequence[Unit] = layers(sites_of(ready.model, ready.plan))
    if losses.loss(()) > job.budget:
        ranking = _ranking(job, ready, pictures, journal_file, progress)
        units = ranking.units
    found = search(units, loss, job.budget, evaluations, lambda: losses.of(_float(ready)))
    progress("search", tried, tried)
    if ranking is None or not found.kept:
        return Chosen(ready.plan, found, ranking, None)
    record = {**ranking.to_json(), "search": _record(found)}
    write_whole(ranking_file, (json.dumps(record, indent=1) + "\n").encode())
    file = write_plan(plan_file, ready.plan, found, ranking)
    return Chosen(keeping(ready.plan, found.kept), found, ranking, file)


def _ranking(
    job: Job,
    ready: Ready,
    pictures: Sequence[CalibrationPicture],
    journal: Path,
    progress: Progress,
) -> Ranking:
    count = min(PICTURES, len(pictures))
    some = [pictures[i * len(pictures) // count] for i in range(count)]
    images = [picture.read() for picture in some]
    probe = Probe(ready.model, ready.plan, ready.scales, images, ready.options, job.threads)
    height, width = images[0].shape[:2]
    size = Preprocess(metadata_of(ready.model).preprocess).plan(height, width).padded_size
    shaped = _float(ready)
    macs = {layer.name: layer.macs for layer in coverage(shaped, size).layers}
    made_from = [
        ready.calibration.digest,
        ready.plan.to_json(),
        ready.options.bias_correction is not None,
        [picture.sha256 for picture in some],
    ]
    units = layers(probe.sites, macs)
    return measure(
        probe, units, made_from, journal, lambda done, total: progress("sensitivity", done, total)
    )


def _float(ready: Ready) -> onnx.ModelProto:
    """The model as the plan has it written, with everything in float."""
    plan = ready.plan
    return without_deconvolution(ready.model) if plan.split_deconvolution else ready.model


def _record(found: Found) -> dict[str, Any]:
    return {
        "outcome": found.outcome.value,
        "budget": found.budget,
        "loss": found.loss,
        "kept": [unit.name for unit in found.kept],
        "tried": [asdict(step) for step in found.tried],
    }
