"""``centermask-edge quantize``: an FP32 file and calibration pictures in, an INT8 file out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from centermask_edge.cli.progress import counting, phases
from centermask_edge.errors import ConfigError, SinkError
from centermask_edge.quantize.job import DEFAULT_BUDGET, Job
from centermask_edge.quantize.observers import PERCENTILE, Observer

if TYPE_CHECKING:
    import onnx

    from centermask_edge.quantize.artefact import CalibrationPicture
    from centermask_edge.quantize.job import Ready
    from centermask_edge.quantize.picture_set import PictureSet
    from centermask_edge.quantize.plan import Plan
    from centermask_edge.quantize.publish import Published


def _check(job: Job, report: Path | None, json_path: Path | None) -> None:
    """Nothing, if the job makes sense: said before minutes of work, not after."""
    if job.out.suffix.lower() != ".onnx":
        raise ConfigError(f"--out {job.out}: the INT8 model is an .onnx file")
    if not 0 < job.budget <= 100:
        raise ConfigError(f"--budget {job.budget:g}: points of mask AP, above 0, for example 0.3")
    if not 50 <= job.percentile <= 100:
        raise ConfigError(f"--percentile {job.percentile:g}: wanted 50 to 100, for example 99.99")
    if job.threads is not None and job.threads < 1:
        raise ConfigError(f"--threads {job.threads}: the number of threads is at least 1")
    if job.val is None and (report is not None or json_path is not None):
        raise ConfigError("--report and --json hold the measured accuracy; give --val, too")
    outputs = [p for p in (job.out, report, json_path) if p is not None]
    named = [p.resolve() for p in (job.model, *outputs)]
    if len(set(named)) < len(named):
        raise SinkError("MODEL, --out, --report and --json name the same file; give each its own")


def _check_folders(*outputs: Path | None) -> None:
    for folder in {path.parent for path in outputs if path is not None}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SinkError(f"cannot write to {folder}: {error.strerror}") from None


def _checked_set(model: onnx.ModelProto, calibration: Path, folder: Path | None) -> PictureSet:
    """The calibration set, if it is for this model."""
    from centermask_edge.quantize.collect import metadata_of
    from centermask_edge.quantize.picture_set import load_set

    found = load_set(calibration, folder)
    found.check_preprocess(metadata_of(model).preprocess)
    return found


def _prepared(
    job: Job, model: onnx.ModelProto, pictures: list[CalibrationPicture], console: Console
) -> Ready:
    from centermask_edge.quantize.job import prepare

    done: int | None = None
    with counting(console, "calibrating", len(pictures)) as bar:

        def progress(number: int) -> None:
            nonlocal done
            if done is None and number:
                console.print(f"going on after {number} pictures", highlight=False)
            done = number
            bar(number)

        try:
            ready = prepare(job, model, pictures, progress)
        except KeyboardInterrupt:
            console.print(
                f"interrupted at picture {done or 0} of {len(pictures)}; "
                "the same command goes on from there or shortly before",
                highlight=False,
            )
            raise
    if done is None:
        console.print("calibrated earlier with these pictures", highlight=False)
    return ready


def _notes_on(model: onnx.ModelProto, val: Path, calibration: PictureSet) -> list[str]:
    """What is to be said of a set to judge with; that it can be used is checked early, too."""
    from centermask_edge.quantize.collect import metadata_of
    from centermask_edge.quantize.judged_set import read_set

    samples = read_set(val, metadata_of(model).classes, None).samples
    shared = calibration.shared_with(sample.path for sample in samples)
    if not shared:
        return []
    return [
        f"{shared} of the {len(samples)} pictures were calibrated with, too: the loss may look "
        "smaller than it is."
    ]


def _published(
    job: Job, ready: Ready, plan: Plan, val: Path, notes: list[str], console: Console
) -> Published:
    from centermask_edge.quantize.publish import publish

    with phases(console) as progress:
        return publish(job, ready, plan, val, progress, notes)


def _tell(console: Console, job: Job, published: Published) -> None:
    """Where the file is, and what that means."""
    path = published.path
    console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
    if path == job.out:
        return
    console.print(
        f"the budget is not held, so the file is not named {job.out.name}", style="yellow"
    )
    if job.out.exists():
        console.print(f"{job.out} of an earlier run is as it was", highlight=False)


def command(
    model: Annotated[Path, typer.Argument(help="FP32 .onnx file.")],
    calibration: Annotated[
        Path, typer.Option(help="Folder or manifest.json that calibrate wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="INT8 file to write; default: MODEL-int8.onnx.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="What is quantized: openvino, tensorrt, or a YAML file.")
    ] = "openvino",
    observer: Annotated[
        Observer, typer.Option(help="How an activation's range is chosen.")
    ] = Observer.MSE,
    percentile: Annotated[
        float, typer.Option(help="Of the values, that --observer percentile keeps.")
    ] = PERCENTILE,
    budget: Annotated[
        float, typer.Option(help="Points of mask AP that INT8 may cost.")
    ] = DEFAULT_BUDGET,
    val: Annotated[
        Path | None, typer.Option(help="COCO json file with masks, to measure accuracy on.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write; needs --val.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Verdict to write as JSON; needs --val.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of the pictures, if they were moved.")
    ] = None,
    bias_correction: Annotated[
        bool, typer.Option(help="Shift biases by the mean error of 8 bits.")
    ] = False,
    equalise: Annotated[
        bool, typer.Option(help="Even out channel ranges between layers first.")
    ] = False,
    fp16: Annotated[bool, typer.Option(help="Judge the model in FP16, too.")] = True,
    search: Annotated[
        bool, typer.Option(help="Past the budget, find what must stay in float; needs --val.")
    ] = True,
    resume: Annotated[
        bool, typer.Option(help="Use the calibration that an earlier run left, or go on with it.")
    ] = True,
    threads: Annotated[int | None, typer.Option(help="Processor threads.")] = None,
) -> None:
    """Write the INT8 file, and judge it: exit code 3 if it loses more than the budget."""
    from centermask_edge.cli.search import searched
    from centermask_edge.cli.verdict_table import show
    from centermask_edge.live.outputs.draw import draw
    from centermask_edge.live.sources.pictures import read_picture
    from centermask_edge.quantize.job import write_int8
    from centermask_edge.quantize.model_file import load_float_model
    from centermask_edge.quantize.report import write_report
    from centermask_edge.quantize.verdict import write_verdict

    job = Job(
        model=model,
        out=out or model.with_name(f"{model.stem}-int8.onnx"),
        recipe=recipe,
        observer=observer,
        percentile=percentile,
        budget=budget,
        val=val,
        bias_correction=bias_correction,
        equalise=equalise,
        fp16=fp16,
        resume=resume,
        threads=threads,
    )
    _check(job, report, json_path)
    console = Console(stderr=True, soft_wrap=True)
    proto = load_float_model(model)
    _check_folders(job.out, report, json_path)
    chosen = _checked_set(proto, calibration, pictures)
    notes = [] if val is None else _notes_on(proto, val, chosen)
    shown = chosen.pictures(read_picture)
    ready = _prepared(job, proto, shown, console)
    if val is None:
        path = write_int8(job.out, ready, ready.plan)
        console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False)
        console.print("accuracy was not measured: give --val to have it judged", highlight=False)
        return
    published = _published(job, ready, ready.plan, val, notes, console)
    if search and published.judgement.verdict.held is False:
        plan = searched(job, ready, shown, val, console).plan
        if plan != ready.plan:
            published = _published(job, ready, plan, val, notes, console)
    verdict = published.judgement.verdict
    if json_path is not None:
        write_verdict(json_path, verdict)
    if report is not None:
        write_report(report, published.judgement, draw)
    show(verdict)
    _tell(console, job, published)
    raise typer.Exit(verdict.exit_code)
