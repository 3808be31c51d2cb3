"""Kill a training again and again, resume it, and compare with one that was left alone.

    python bench/train_resume.py --kills 20 --json docs/results/resume.json

A tiny network learns drawn pictures in a process of its own, with everything on that has a state:
learned norms, averaged weights, jitter, pasted objects, a step in two parts. The process is killed
(SIGKILL) after a random number of steps and a random part of one, and started again, as often as
asked. Then the weights, the training state and the log must equal the undisturbed ones, bit by bit.
The processes are forked from one that has torch loaded and has not yet computed anything.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from centermask_edge.config import PRESETS, Backbone, ModelConfig, TrainConfig
from centermask_edge.train.journal import LINES
from centermask_edge.train.loop import train
from centermask_edge.train.run import LAST
from centermask_edge.train.state import STATE_FILE

_FINAL_PART = 0.08  # seconds; a kill may come anywhere in the step that follows
_POLL = 0.002
_HANGS = 120.0


def tiny_model() -> ModelConfig:
    """A network that makes a step of two pictures in some hundredths of a second."""
    small = {"fpn_channels": 64, "head_convs": 1, "mask_convs": 1, "mask_iou_convs": 1}
    changes = {"backbone": Backbone.V19_SLIM_DW, "mask_iou_fc": 16, **small}
    return PRESETS["person-v19-slim"].model_copy(update=changes)


def settings(data: Path, output: Path, steps: int) -> TrainConfig:
    """A run with everything that has a state."""
    return TrainConfig(
        annotations=(data,),
        output=output,
        steps=steps,
        batch_size=2,
        accumulate=2,
        optimizer="adamw",
        base_lr=0.02,
        schedule="cosine",
        warmup_steps=3,
        short_sides=(48, 64),
        long_side=96,
        jitter=(0.7, 1.4),
        paste=0.5,
        assigner="atss",
        rois_per_image=2,
        train_proposals=10,
        ema_decay=0.9,
        batch_norm=True,
        save_every=2,
        tensorboard=False,
        device="cpu",
        threads=1,
    )


def draw_pictures(folder: Path, count: int = 6, seed: int = 0, name: str = "drawn") -> Path:
    """A COCO file of bright boxes on noise, pictures of 64 x 96 pixels; the path of its json."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(1, count + 1):
        pixels = rng.integers(0, 90, (64, 96, 3), dtype=np.uint8)
        for _ in range(2):
            x, y, w, h = (int(v) for v in rng.integers((2, 2, 20, 20), (60, 30, 36, 32)))
            pixels[y : y + h, x : x + w] = rng.integers(150, 250, 3)
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        file = f"{name}{number}.png"
        Image.fromarray(pixels).save(folder / "images" / file)
        images.append({"id": number, "file_name": file, "width": 96, "height": 64})
    path = folder / f"{name}.json"
    categories = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def child(data: Path, output: Path, steps: int) -> None:
    """The training that is killed."""
    train(tiny_model(), settings(data, output, steps))


def _steps_logged(output: Path) -> int:
    try:
        return (output / LINES).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _start(data: Path, output: Path, steps: int) -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["centermask_edge.train.loop"])
    process = context.Process(target=child, args=(data, output, steps))
    process.start()
    return process


@dataclass(slots=True)
class Disturbed:
    """A training that is killed and resumed: after which steps it was killed."""

    killed_after: list[int]
    lives: int


def disturb(data: Path, output: Path, steps: int, kills: int, rng: random.Random) -> Disturbed:
    """Train to the end with so many kills on the way.

    Raises:
        RuntimeError: a life ended by itself before its time, or hangs.
    """
    found = Disturbed([], 0)
    while True:
        # How far the next life may go: what is left, shared among the kills to come.
        left, coming = steps - 1 - _steps_logged(output), kills - len(found.killed_after)
        target = _steps_logged(output) + rng.randint(1, max(1, 2 * left // (coming + 1)))
        target = min(target, steps - coming)
        process = _start(data, output, steps)
        found.lives += 1
        if coming == 0:
            _finish(process)
            return found
        _wait_for(process, output, target)
        time.sleep(rng.uniform(0, _FINAL_PART))
        process.kill()
        process.join()
        if process.exitcode == 0:
            raise RuntimeError("training was over before it could be killed; give more --steps")
        found.killed_after.append(_steps_logged(output))


def _finish(process: ForkServerProcess) -> None:
    process.join(_HANGS)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"training ended with exit code {process.exitcode}")


def _wait_for(process: ForkServerProcess, output: Path, target: int) -> None:
    end = time.monotonic() + _HANGS
    while _steps_logged(output) < target:
        if not process.is_alive():
            raise RuntimeError(f"training ended with exit code {process.exitcode}")
        if time.monotonic() > end:
            raise RuntimeError(f"training hangs before step {target}")
        time.sleep(_POLL)


def differences(a: object, b: object, where: str = "state") -> list[str]:
    """Places where two states differ in any bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
    elif isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: other keys"]
        return [line for key in a for line in differences(a[key], b[key], f"{where}.{key}")]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{where}: another length"]
        pairs = enumerate(zip(a, b, strict=True))
        return [line for i, (x, y) in pairs for line in differences(x, y, f"{where}.{i}")]
    else:
        same = bool(a == b)
    return [] if same else [where]


def _lines(output: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (output / LINES).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def compare(straight: Path, disturbed: Path) -> list[str]:
    """What differs between two finished runs."""
    states = [torch.load(f / STATE_FILE, weights_only=True) for f in (straight, disturbed)]
    found = differences(*states)
    if (straight / LAST).read_bytes() != (disturbed / LAST).read_bytes():
        found.append(LAST)
    if _lines(straight) != _lines(disturbed):
        found.append(LINES)
    return found


def measure(folder: Path, steps: int, kills: int, seed: int) -> dict[str, object]:
    """Both trainings, and whether they agree."""
    data = draw_pictures(folder / "data")
    _finish(_start(data, folder / "straight", steps))
    found = disturb(data, folder / "disturbed", steps, kills, random.Random(seed))
    state = torch.load(folder / "straight" / STATE_FILE, weights_only=True)
    return {
        "steps": steps,
        "kills": len(found.killed_after),
        "killed_after_steps": found.killed_after,
        "tensors_compared": sum(isinstance(v, torch.Tensor) for v in _leaves(state)),
        "differences": compare(folder / "straight", folder / "disturbed"),
        "torch": torch.__version__,
    }


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in _leaves(v)]
    if isinstance(value, list | tuple):
        return [leaf for v in value for leaf in _leaves(v)]
    return [value]


def main() -> int:
    """0, or 1 if the two trainings differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.steps, options.kills, options.seed)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    differing = result["differences"]
    sys.stdout.write(f"{result['kills']} kills; differing: {differing or 'nothing'}\n")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
