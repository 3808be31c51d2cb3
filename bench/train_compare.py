"""What each part of the training and of the network is worth, under one small budget.

    python bench/train_compare.py --train SET --val SET --json docs/results/train_compare.json
    python bench/train_compare.py ... --rows baseline,lite+ --steps 300 --minutes 10

Every row trains the same small network from the same seed on the same pictures for the same number
of steps, and changes one thing. With ``--start`` all begin with the weights of one checkpoint, as
far as they fit, because a few hundred steps from nothing teach no masks. A row's result is written
as soon as it ends; a row that was interrupted goes on from its checkpoint, and rows that are there
are not trained again. AP after so few steps says what helps early, not where a long training ends;
with ``--start`` also how far a changed network is from the one whose weights it got.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from train_curves import write_curves

from centermask_edge.config import ModelConfig, TrainConfig, preset
from centermask_edge.errors import CenterMaskError, ConfigError
from centermask_edge.evaluate.coco import Report
from centermask_edge.model import checkpoint
from centermask_edge.train.journal import LINES
from centermask_edge.train.loop import train
from centermask_edge.train.recipes import read_recipe
from centermask_edge.train.run import LAST
from centermask_edge.train.sanity import sized

TEACHER = "lite-v39"
_POINTS = 60  # of a loss curve in the result
_PLUS = ("jitter", "paste", "assigner", "ema_decay")


@dataclass(frozen=True, slots=True)
class Row:
    """One training.

    Attributes:
        name: of the row.
        part: of the table it belongs to, "training" or "network".
        train: settings that differ from the baseline's.
        model: switches of the network that differ.
        teacher: whether the row imitates the larger sibling.
    """

    name: str
    part: str
    train: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    teacher: bool = False


def rows(plus: dict[str, Any]) -> tuple[Row, ...]:
    """All rows, the baseline first.

    Args:
        plus: the settings of the recipe lite+ that work at any length.
    """
    return (
        Row("baseline", "training"),
        # What chance alone changes.
        *(Row(f"baseline with seed {seed}", "training", {"seed": seed}) for seed in (1, 2)),
        Row("lite+", "training", plus),
        *(Row(f"only {name}", "training", {name: plus[name]}) for name in _PLUS),
        Row("distilled", "training", teacher=True),
        Row("lite+ distilled", "training", plus, teacher=True),
        Row("SE instead of eSE", "network", model={"channel_attention": "se"}),
        Row("no channel attention", "network", model={"channel_attention": "none"}),
        Row("no residual", "network", model={"residual": False}),  # of V-39 and larger
        Row("RoI level by size (eq. 1)", "network", model={"roi_assignment": "canonical"}),
        Row("RoIs from P3 to P4", "network", model={"roi_levels": (3, 4)}),
        Row("RoIs from P4 to P5", "network", model={"roi_levels": (4, 5)}),
        Row("RoIs from P3 to P7", "network", model={"roi_levels": (3, 7)}),
        Row("no spatial attention", "network", model={"spatial_attention": False}),
        Row("no mask scoring", "network", model={"mask_scoring": False}),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What all rows have in common."""

    train: tuple[Path, ...]
    val: Path
    folder: Path
    base: str
    steps: int
    minutes: float
    short_side: int
    batch_size: int
    seed: int
    threads: int
    start: Path | None = None
    teacher: Path | None = None
    base_lr: float = 0.003

    def model(self, changes: dict[str, Any], name: str | None = None) -> ModelConfig:
        """The row's network, checked as a whole."""
        model = preset(name or self.base)
        return ModelConfig.model_validate({**model.model_dump(), **changes})

    def config(self, name: str, changes: dict[str, Any]) -> TrainConfig:
        """The row's run."""
        side = self.short_side
        return TrainConfig.model_validate(
            {
                "annotations": self.train,
                "val_annotations": self.val,
                "output": self.folder / name.replace(" ", "-"),
                "steps": self.steps,
                "batch_size": self.batch_size,
                "optimizer": "adamw",
                "base_lr": self.base_lr,
                "weight_decay": 0.02,
                "warmup_steps": max(1, self.steps // 20),
                "schedule": "cosine",
                "clip_norm": 20.0,
                "short_sides": (side - side // 8, side),
                "long_side": side * 5 // 3,
                "rois_per_image": 16,
                "batch_norm": True,
                "save_every": 50,
                "tensorboard": False,
                "seed": self.seed,
                "threads": self.threads,
                "seconds": self.minutes * 60,
                "start": self.start,
                **changes,
            }
        )


def lite_plus() -> dict[str, Any]:
    """The settings of the recipe, with an average that is as short as the training."""
    return {**{name: read_recipe("lite+")["train"][name] for name in _PLUS}, "ema_decay": 0.99}


def teacher_file(plan: Plan) -> Path:
    """The larger sibling, trained once under the same budget."""
    if plan.teacher is not None:
        return plan.teacher
    config = plan.config("teacher", {"start": None})
    done = config.output / "done"
    if not done.exists():
        train(sized(plan.model({}, TEACHER), config), config, _told("teacher", plan.steps))
        done.touch()
    return config.output / LAST


def _told(name: str, steps: int) -> Any:
    def step(progress: Any) -> None:
        if progress.step % 50 == 0 or progress.step == steps:
            total = sum(progress.losses.values())
            sys.stderr.write(f"{name}: step {progress.step} of {steps}, loss {total:.3f}\n")

    return step


def curve_of(folder: Path) -> list[tuple[int, float]]:
    """Step and summed loss, averaged over at most ``_POINTS`` stretches; no teacher's losses."""
    values = []
    for line in (folder / LINES).read_text().splitlines():
        row = json.loads(line)
        if "val" not in row:
            names = [k for k in row if k.startswith("loss_") and "teacher" not in k]
            values.append((row["step"], sum(row[k] or 0.0 for k in names)))
    stretch = -(-len(values) // _POINTS)
    parts = [values[i : i + stretch] for i in range(0, len(values), stretch)]
    return [(p[-1][0], round(sum(v for _, v in p) / len(p), 4)) for p in parts]


def train_row(row: Row, plan: Plan) -> dict[str, Any]:
    """Train and evaluate one row; a finished or interrupted one goes on where it was."""
    changes = dict(row.train)
    if row.teacher:
        changes["teacher"] = teacher_file(plan)
    config = plan.config(row.name, changes)
    start = time.perf_counter()
    path = train(sized(plan.model(row.model), config), config, _told(row.name, plan.steps))
    minutes = (time.perf_counter() - start) / 60
    curve = curve_of(config.output)
    report = judged(path, plan.val)
    return {
        "row": row.name,
        "part": row.part,
        "steps": curve[-1][0],
        "minutes": round(minutes, 1),
        "box_ap": round(report.box.ap, 2),
        "mask_ap": round(report.mask.ap, 2),
        "mask_ap50": round(report.mask.ap50, 2),
        "parameters_m": round(parameters(path) / 1e6, 3),
        "loss": curve,
    }


def judged(path: Path, val: Path) -> Report:
    """Box and mask AP of a checkpoint at the size it was trained at."""
    from centermask_edge.evaluate.coco import evaluate
    from centermask_edge.model.predict import segment

    model = checkpoint.load(path)
    return evaluate(lambda image: segment(model, image), val, model.config.classes)


def parameters(path: Path) -> int:
    """Learnt numbers of a checkpoint's network."""
    return sum(p.numel() for p in checkpoint.load(path).parameters())


def header(plan: Plan) -> dict[str, Any]:
    """What the result says of all rows; another budget is another result."""
    return {
        "network": plan.base,
        "training_pictures_of": ", ".join(p.parent.name for p in plan.train),
        "validation_pictures_of": plan.val.parent.name,
        "steps": plan.steps,
        "short_side": plan.short_side,
        "batch": plan.batch_size,
        "seed": plan.seed,
        "base_lr": plan.base_lr,
        "started_from": "nothing" if plan.start is None else plan.start.name,
        "teacher": TEACHER if plan.teacher is None else plan.teacher.name,
        "torch": torch.__version__,
    }


def missing(plan: Plan, target: Path, wanted: list[str]) -> Iterator[Row]:
    """Rows that the result does not hold yet.

    Raises:
        ConfigError: an unknown row, or a result of another budget.
    """
    known = {row.name: row for row in rows(lite_plus())}
    lost = [name for name in wanted if name not in known]
    if lost:
        raise ConfigError(f"unknown row {lost[0]!r}; rows are: {', '.join(known)}")
    done = json.loads(target.read_text()) if target.exists() else {**header(plan), "rows": []}
    there = {k: v for k, v in done.items() if k != "rows"}
    if there != header(plan):
        differing = [k for k in header(plan) if there.get(k) != header(plan)[k]]
        raise ConfigError(
            f"{target} is of another budget ({', '.join(differing)}); give another --json"
        )
    finished = {row["row"] for row in done["rows"]}
    yield from (known[name] for name in wanted or known if name not in finished)


def add(plan: Plan, target: Path, result: dict[str, Any]) -> None:
    """Write a row's result beside those that are there, in the order of the table."""
    content = json.loads(target.read_text()) if target.exists() else {**header(plan), "rows": []}
    order = [row.name for row in rows(lite_plus())]
    content["rows"] = sorted([*content["rows"], result], key=lambda row: order.index(row["row"]))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(target)
    write_curves(content, target.with_suffix(".svg"))


def main() -> int:
    """0; 2 after an error the user can fix."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="annotation files")
    parser.add_argument("--val", type=Path, required=True, help="COCO json file to evaluate on")
    parser.add_argument("--json", type=Path, required=True, help="result, added to")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="for checkpoints")
    parser.add_argument("--rows", default="", help="names, separated by commas; all if not given")
    parser.add_argument("--preset", default="lite-v19-slim-dw")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=0, help="most for a row; 0 for no limit")
    parser.add_argument("--short-side", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="checkpoint that all rows begin with")
    parser.add_argument("--teacher", type=Path, help="checkpoint; trained first where not given")
    parser.add_argument("--base-lr", type=float, default=0.003)
    o = parser.parse_args()
    wanted = [name.strip() for name in o.rows.split(",") if name.strip()]
    plan = Plan(tuple(o.train), o.val, o.runs, o.preset, o.steps, o.minutes, o.short_side,
                o.batch_size, o.seed, o.threads, o.start, o.teacher, o.base_lr)  # fmt: skip
    try:
        for row in list(missing(plan, o.json, wanted)):
            result = train_row(row, plan)
            add(plan, o.json, result)
            sys.stdout.write(
                f"{row.name}: mask AP {result['mask_ap']}, box AP {result['box_ap']} after "
                f"{result['steps']} steps\n"
            )
    except CenterMaskError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
