"""Train the VoVNetV2-19-slim and -39 person models on a GPU, in as many calls as it takes.

    make gpu-train DATA=folder                   (on a machine with a GPU)
    PYTHONPATH=. python3 bench/gpu_train.py --data folder --output out/gpu-train --seconds 560

``folder`` holds ``train.json`` and ``val.json`` with their pictures in ``images/``. The models are
trained one after the other; before the seconds are over the script writes a checkpoint and ends
with 0, and the same command goes on from there. When both are done it says so and writes
``result.json``. Needs torch, numpy, pillow, pydantic, safetensors and faster-coco-eval. It runs on
a CPU as well, with ``--rehearse`` in seconds: that trains tiny stand-ins.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from centermask_edge.config import Backbone, ModelConfig, TrainConfig, preset
from centermask_edge.errors import CenterMaskError, ConfigError
from centermask_edge.evaluate.coco import Report
from centermask_edge.train.journal import LINES
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.recipes import read_recipe, run_settings

RECIPE = "person-gpu"
MODELS = {"person-v19-slim": Backbone.V19_SLIM, "person-v39": Backbone.V39}
_TOLD_EVERY = 100
_ONE_STEP = 5.0  # seconds that must be left to begin another model


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def model_of(name: str, rehearse: bool) -> ModelConfig:
    """The network of that name; in a rehearsal a tiny one that goes by it."""
    base = preset("person-v19-slim")
    changes: dict[str, Any] = {"name": name, "backbone": MODELS[name]}
    if rehearse:
        sides = {"short_side": 64, "long_side": 96}
        changes["preprocess"] = base.preprocess.model_copy(update=sides)
        small = {"fpn_channels": 64, "head_convs": 1, "mask_convs": 1, "mask_iou_convs": 1}
        changes |= {"backbone": Backbone.V19_SLIM_DW, "mask_iou_fc": 16, **small}
    return base.model_copy(update=changes)


def settings(name: str, options: argparse.Namespace, seconds: float) -> TrainConfig:
    """The run of a model, which may take so many seconds of this call."""
    recipe = dict(read_recipe(RECIPE)["train"])
    if options.rehearse:
        recipe |= {"batch_size": 2, "short_sides": [64], "long_side": 96, "workers": 2}
        recipe |= {"steps": 4, "warmup_steps": 2, "eval_every": 4, "bf16": False}
    given = {
        "annotations": [options.data / "train.json"],
        "val_annotations": options.data / "val.json",
        "output": options.output / name,
        "seconds": seconds,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "device": "cpu" if options.rehearse else "cuda",
    }
    return run_settings(recipe, given)


def _last_report(folder: Path) -> dict[str, Any]:
    """The newest evaluation in a run's log; empty before the first."""
    rows = [json.loads(line) for line in (folder / LINES).read_text().splitlines()]
    return next((row["val"] for row in reversed(rows) if "val" in row), {})


def train_model(name: str, options: argparse.Namespace, seconds: float) -> bool:
    """Go on with a model; whether it is finished."""
    config = settings(name, options, seconds)
    start, first = time.perf_counter(), [0]
    stopped = []

    def step(progress: Progress) -> None:
        first[0] = first[0] or progress.step
        if progress.step % _TOLD_EVERY == 0 or progress.step == progress.steps:
            each = (time.perf_counter() - start) / (progress.step - first[0] + 1)
            total = sum(progress.losses.values())
            _say(f"{name}: step {progress.step} of {progress.steps}, loss {total:.3f}, "
                 f"{1000 * each:.0f} ms a step")  # fmt: skip

    def report(number: int, found: Report) -> None:
        _say(f"{name}: step {number}: box AP {found.box.ap:.1f}, mask AP {found.mask.ap:.1f}")

    def note(line: str) -> None:
        _say(f"{name}: {line}")
        stopped.append("run the same command again" in line)

    train(model_of(name, options.rehearse), config, step, report, on_note=note)
    return not any(stopped)


def run(options: argparse.Namespace) -> bool:
    """Go on with whichever models are not finished; whether all are."""
    end = time.monotonic() + options.seconds
    for name in options.models.split(","):
        if name not in MODELS:
            raise ConfigError(f"unknown model {name!r}; models are: {', '.join(MODELS)}")
    for name in options.models.split(","):
        done = options.output / name / "done"
        if done.exists():
            continue
        left = end - time.monotonic()
        if left < _ONE_STEP and options.seconds > _ONE_STEP:
            return False
        if not train_model(name, options, left):
            return False
        done.touch()
    return True


def main() -> int:
    """0, finished or not; 2 after an error the user can fix."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train.json, val.json, images/")
    parser.add_argument("--output", type=Path, default=Path("out/gpu-train"))
    parser.add_argument("--seconds", type=float, default=560.0, help="of this call")
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's")
    parser.add_argument("--rehearse", action="store_true", help="tiny stand-ins on the CPU")
    options = parser.parse_args()
    try:
        finished = run(options)
    except CenterMaskError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if not finished:
        _say("not finished: run the same command again to go on")
        return 0
    names = options.models.split(",")
    result = {"torch": torch.__version__, "recipe": RECIPE}
    result |= {name: _last_report(options.output / name) for name in names}
    (options.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    _say(f"finished: {', '.join(names)}; weights are in {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
