"""Puts an INT8 file under its name once it has been judged.

The name that was asked for only ever holds a file that kept the budget, or that nobody measured:
a script that goes on after exit code 3 must not deploy a file that failed, nor lose the one that
passed last time. A file past the budget is kept beside it as ``NAME.over-budget.onnx``.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from centermask_edge.engines.files import write_whole
from centermask_edge.errors import ModelFileError
from centermask_edge.quantize.job import Job, Ready, write_int8
from centermask_edge.quantize.judge import Candidates, Judgement, Settings, judge
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.session import Progress
from centermask_edge.quantize.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Published:
    """A file in its place.

    Attributes:
        path: of it.
        judgement: what was found.
    """

    path: Path
    judgement: Judgement


def over_budget_file(out: Path) -> Path:
    """Where a file past the budget is kept.

    >>> over_budget_file(Path("person-int8.onnx")).name
    'person-int8.over-budget.onnx'
    """
    return out.with_name(f"{out.stem}.over-budget.onnx")


def publish(
    job: Job,
    ready: Ready,
    plan: Plan,
    val: Path,
    progress: Progress = lambda phase, done, total: None,
    notes: Sequence[str] = (),
) -> Published:
    """The INT8 file judged, and put where its verdict says.

    Args:
        job: names the files and the budget.
        ready: what the file is made from.
        plan: which operations are quantized.
        val: COCO file to judge with.
        progress: see :func:`centermask_edge.quantize.judge.judge`.
        notes: what a reader of the verdict must know besides.

    Raises:
        CenterMaskError: see ``judge`` and :func:`centermask_edge.quantize.job.write_int8`; then
            nothing is left of it.
    """
    with _drafts(job.out.parent) as folder:
        draft = write_int8(folder / job.out.name, ready, plan)
        files = Candidates(fp32=job.model, fp16=_fp16(job, ready, folder), int8=draft)
        settings = Settings(budget=job.budget, threads=job.threads)
        judgement = judge(files, val, settings, progress)
        held = judgement.verdict.held
        path = job.out if held else over_budget_file(job.out)
        _move(draft, path)
    if held:
        with contextlib.suppress(OSError):
            over_budget_file(job.out).unlink()  # of an earlier try
    verdict = _renamed(judgement.verdict, draft.name, path.name)
    verdict = verdict.model_copy(update={"notes": (*verdict.notes, *notes)})
    return Published(path, replace(judgement, verdict=verdict))


@contextlib.contextmanager
def _drafts(parent: Path) -> Iterator[Path]:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".judging-", dir=parent)
    except OSError as error:
        raise ModelFileError(f"cannot write to {parent}: {error.strerror}") from None
    with folder as name:
        yield Path(name)


def _fp16(job: Job, ready: Ready, folder: Path) -> Path | None:
    """The model in FP16, to be judged beside; None where that is not wanted."""
    if not job.fp16:
        return None
    from centermask_edge.graph.precision import to_fp16

    content = to_fp16(ready.exported).SerializeToString()
    return write_whole(folder / f"{job.model.stem}-fp16.onnx", content)


def _move(draft: Path, path: Path) -> None:
    try:
        draft.replace(path)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from None


def _renamed(verdict: Verdict, old: str, new: str) -> Verdict:
    models = (m.model_copy(update={"name": new}) if m.name == old else m for m in verdict.models)
    return verdict.model_copy(update={"models": tuple(models)})
