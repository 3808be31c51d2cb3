"""One 1280 x 720 frame from decoding to drawn masks, at 1, 10 and 50 instances, stage by stage.

    python bench/frames.py --json docs/results/frames.json

The bundled clip, enlarged and encoded again as H.264; every model in INT8. How many instances there
are is given (``frames_models.py``), and the same crowd is pasted and drawn whatever the model
(``frames_crowd.py``), so rows of one count differ in their network only. Models and counts take
turns, some frames each; the first frame of a turn, which finds other weights in the caches, is left
out. The mask branch is the difference between the whole network and its part before the masks.

Then, on one core: masks to results inside their boxes beside the full-frame way, and drawing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from frames_crowd import HEIGHT, WIDTH, crowd, in_turns, jobs, one_core, people, sampled
from frames_models import MODELS, ForcedEngine, network, quantized
from int8_variants import Picture

import centermask_edge
from centermask_edge.cli.report import write_json
from centermask_edge.engines.base import Detections
from centermask_edge.engines.openvino import import_openvino
from centermask_edge.instances import Instances
from centermask_edge.live.outputs.draw import draw
from centermask_edge.live.sources.opening import open_source
from centermask_edge.measure.stages import processor_name, usable_processors
from centermask_edge.preprocess import Placement, Preprocess

CLIP = Path(centermask_edge.__file__).parent / "_clips" / "people.mp4"
COUNTS = (1, 10, 50)
SAME = Placement((HEIGHT, WIDTH), (HEIGHT, WIDTH), (HEIGHT, WIDTH))
STAGES = ("decode", "preprocess", "engine", "masks", "draw")
_CALIBRATE_EVERY = 20
_TURN = 4  # frames, after one that does not count


def enlarge(source: Path, target: Path, frames: int | None = None) -> None:
    """Write the video at 1280 x 720, H.264 as encoded by default."""
    import av

    with av.open(str(source)) as inside, av.open(str(target), "w") as outside:
        stream = outside.add_stream("libx264", rate=inside.streams.video[0].average_rate or 10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i, frame in enumerate(inside.decode(video=0)):
            if frames is not None and i >= frames:
                break
            outside.mux(stream.encode(frame.reformat(WIDTH, HEIGHT, "yuv420p")))
        outside.mux(stream.encode())


def pictures(clip: Path) -> Iterator[Picture]:
    """The clip's frames, over and over."""
    while True:
        source = open_source(str(clip))
        try:
            yield from (frame.image for frame in source)
        finally:
            source.close()


@dataclass(slots=True)
class Run:
    """A model at one count of instances, and what its frames took in milliseconds."""

    model: str
    engine: ForcedEngine
    given: Detections
    prepare: Preprocess
    times: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block."""
        start = time.perf_counter()
        yield
        self.times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)

    def frame(self, clip: Iterator[Picture]) -> Picture:
        """The next frame of the clip with its masks; its network's dense part once more, apart."""
        with self.stage("decode"):
            picture = next(clip)
        with self.stage("preprocess"):
            image, placement = self.prepare(picture)
        size = np.asarray([placement.resized_size], np.float32)
        with self.stage("engine"):
            raw = self.engine.run(image[None], size, self.given)
        with self.stage("masks"):
            shown = replace(raw, masks=self.given.masks)
            found = Instances.from_detections(shown, 0, placement)
            crops = found.crops()
        with self.stage("draw"):
            drawn = draw(picture, found, crops)
        with self.stage("dense"):
            self.engine.run_dense(image[None], size)
        return drawn

    def forget_last(self) -> None:
        """Leaves the last frame out."""
        for values in self.times.values():
            values.pop()

    def row(self) -> dict[str, Any]:
        """Median and 95th percentile of every stage and of the whole frame."""
        columns = {name: self.times[name] for name in (*STAGES, "dense")}
        columns["total"] = np.sum([self.times[name] for name in STAGES], axis=0).tolist()
        row: dict[str, Any] = {"model": self.model, "instances": int(self.given.count[0])}
        for name, values in columns.items():
            row[f"{name}_ms"] = round(float(np.median(values)), 2)
            row[f"{name}_p95_ms"] = round(float(np.percentile(values, 95)), 2)
            row[f"{name}_best_ms"] = round(min(values), 2)
        row["mask_branch_ms"] = round(row["engine_ms"] - row["dense_ms"], 2)
        return row


def runs(names: list[str], stills: list[Picture], threads: int) -> list[Run]:
    """Every model at every count."""
    masks, aspects = people(stills)
    made = []
    for name in names:
        engine = ForcedEngine(quantized(network(name, stills), stills), threads)
        prepare = Preprocess(engine.preprocess)
        placement = prepare.plan(HEIGHT, WIDTH)
        for count in COUNTS:
            given = crowd(masks, aspects, count, placement)
            made.append(Run(name, engine, given, prepare))
    return made


def whole_frames(made: list[Run], clip: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each run; they take turns, and who goes first changes."""
    frames = pictures(clip)
    for turn in range(rounds + 1):  # the first compiles the networks
        first = turn % len(made)
        for run in made[first:] + made[:first]:
            for i in range(1 + _TURN):
                run.frame(frames)
                if i == 0 or turn == 0:
                    run.forget_last()
    return [run.row() for run in made]


def outside(stills: list[Picture], rounds: int) -> list[dict[str, Any]]:
    """Fifty instances on one core: masks to results, run lengths, drawing."""
    masks, aspects = people(stills)
    with one_core():
        return in_turns(jobs(crowd(masks, aspects, 50, SAME), stills[0]), rounds)


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """The rows as aligned text."""
    cells = [columns, *([str(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["  ".join(v.rjust(w) for v, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines) + "\n"


def main() -> int:
    """0; the tables are in the JSON file, and printed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=usable_processors())
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    import cv2

    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "people-720p.mp4"
        enlarge(CLIP, clip)
        source = open_source(str(clip))
        stills = sampled([frame.image for frame in source], _CALIBRATE_EVERY)
        source.close()
        alone = outside(stills, 5 * options.rounds)
        sys.stdout.write(table(alone, list(alone[0])) + "\n")
        frames = whole_frames(runs(options.models, stills, options.threads), clip, options.rounds)
    middle = [f"{name}_ms" for name in (*STAGES, "dense", "mask_branch", "total")]
    sys.stdout.write(table(frames, ["model", "instances", *middle, "total_p95_ms"]))
    facts = {
        "processor": processor_name(),
        "threads": options.threads,
        "openvino": import_openvino().__version__.split("-")[0],
        "picture": f"{WIDTH}x{HEIGHT}",
        "rounds": options.rounds,
        "frames_a_row": options.rounds * _TURN,
    }
    write_json(options.json, {**facts, "frames": frames, "one_core": alone})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
