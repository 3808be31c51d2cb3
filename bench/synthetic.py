"""Live results against the truth of a synthetic camera, frame by frame.

    python bench/synthetic.py --json docs/results/synthetic.json

The bundled people, cut out, walk through their room; every mask is known, and the number of the
frame is a code in the picture. Each result is matched to the truth of the number read from its own
picture, and then to that of frames before and after: results that belonged to another frame would
fit those better. The clip is slow enough for every frame to be segmented; of the camera, which
keeps its own time, frames are left out. The clip's run is recorded, and replayed it has to give the
same bytes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from centermask_edge.cli.report import write_json
from centermask_edge.instances import Instances
from centermask_edge.live.chaos.footage import film_source
from centermask_edge.live.chaos.server import FaultServer
from centermask_edge.live.live_config import CameraConfig, LiveConfig, OutputsConfig
from centermask_edge.live.outputs.callback import Callback
from centermask_edge.live.outputs.outlet import RECORDING, Outlet
from centermask_edge.live.record.rerun import rerun
from centermask_edge.live.result import Result
from centermask_edge.live.runtime import Limits, run
from centermask_edge.live.schedule.finish import Rules
from centermask_edge.live.synthetic.scene import Scene, TrueObject
from centermask_edge.live.synthetic.source import parse_synthetic
from centermask_edge.live.synthetic.time_code import read
from centermask_edge.live.view.terminal import LineView
from centermask_edge.live.wiring import open_parts, replay_parts
from centermask_edge.masks import Crop, crop_overlap
from centermask_edge.measure.stages import processor_name

LOOK = "synthetic:people?width=1280&height=720&objects=4&seed=3"
CLIP_FPS, CAMERA_FPS = 10, 25
FRAMES = 300
SCORE = 0.5
SHIFTS = (-4, -2, -1, 0, 1, 2, 4)
# A figure of which less is to be seen than this share of the picture is nobody's to find.
_LEAST_SHARE = 0.001
_IOU = 0.5


def crop_iou(a: Crop, b: Crop) -> float:
    """Intersection over union of two masks of one picture.

    >>> square = np.ones((2, 2), bool)
    >>> round(crop_iou((square, 0, 0), (square, 1, 0)), 3)
    0.333
    """
    shared, union = crop_overlap(a, b)
    return shared / union if union else 0.0


@dataclass(slots=True)
class Tally:
    """Matches of many frames.

    Attributes:
        ious: of matched pairs.
        missed: true figures without a result.
        surplus: results without a figure.
    """

    ious: list[float] = field(default_factory=list)
    missed: int = 0
    surplus: int = 0

    def add(self, found: Sequence[Crop], truth: Sequence[TrueObject], least: float) -> None:
        """One frame: pairs by falling IoU, each at most once, from 0.5 on.

        What covers a figure too little of which shows is neither right nor wrong.
        """
        table = np.array([[crop_iou(f, t.crop) for t in truth] for f in found])
        table = table.reshape(len(found), len(truth))
        left = set(range(len(found)))
        unseen = {j for j, t in enumerate(truth) if t.crop[0].sum() < least}
        seen = set(range(len(truth))) - unseen
        for flat in np.argsort(-table, axis=None, kind="stable"):
            i, j = divmod(int(flat), len(truth))
            if table[i, j] < _IOU:
                break
            if i in left and (j in seen or j in unseen):
                left.discard(i)
                if j in seen:
                    self.ious.append(float(table[i, j]))
                seen.discard(j)
                unseen.discard(j)
        self.missed += len(seen)
        self.surplus += len(left)

    def figures(self) -> dict[str, Any]:
        """Recall, precision and the IoU of what was found, in percent."""
        found = len(self.ious)
        return {
            "objects": found + self.missed,
            "recall": round(100 * found / max(1, found + self.missed), 2),
            "precision": round(100 * found / max(1, found + self.surplus), 2),
            "mask_iou": round(100 * float(np.mean(self.ious)) if found else 0.0, 2),
        }


@dataclass(slots=True)
class Kept:
    """What is kept of a result: the number in its picture and what was found in it."""

    number: int | None
    instances: Instances
    identities: NDArray[np.int64]


def judge(kept: Sequence[Kept], address: str) -> dict[str, Any]:
    """Figures of results beside the truth of their own frame, and of others.

    ``falls`` counts results whose number is not above the one before: with a source that begins
    again at its end, one each time.
    """
    scene = Scene(parse_synthetic(address).scene)
    least = _LEAST_SHARE * scene.settings.width * scene.settings.height
    numbers = [k.number for k in kept if k.number is not None]
    tallies = {shift: Tally() for shift in SHIFTS}
    for one in kept:
        if one.number is None:
            continue
        crops = one.instances.crops()
        for shift, tally in tallies.items():
            tally.add(crops, scene.truth(max(0, one.number + shift)), least)
    return {
        "results": len(kept),
        "codes_unread": len(kept) - len(numbers),
        "falls": int((np.diff(numbers) <= 0).sum()),
        **tallies[0].figures(),
        "mask_iou_at_shift": {str(s): t.figures()["mask_iou"] for s, t in tallies.items()},
    }


def live(address: str, seconds: float | None, record: Path | None) -> tuple[list[Kept], Any]:
    """Results of a run over one camera, and how it ended."""
    kept: list[Kept] = []

    def keep(result: Result) -> None:
        kept.append(Kept(read(result.frame.image), result.instances, result.track_ids))

    config = LiveConfig(
        cameras=(CameraConfig(address=address, name="synthetic"),),
        score=SCORE,
        outputs=OutputsConfig(record=record),
    )
    view = LineView(Console(stderr=True))
    parts = open_parts(config, view.line)
    kept_too = Outlet(Callback(keep, queue=RECORDING))
    parts = replace(parts, outlets=[*parts.outlets, kept_too])
    outcome = run(parts, Limits(seconds=seconds), view)
    return kept, outcome


def replayed(folder: Path) -> list[Kept]:
    """Results of the same frames from their recording."""
    kept: list[Kept] = []
    config = LiveConfig(score=SCORE)
    parts = replay_parts(config, folder, lambda line: None)
    sink = Callback(
        lambda r: kept.append(Kept(read(r.frame.image), r.instances, r.track_ids)), queue=RECORDING
    )
    outlet = Outlet(sink)
    rules = Rules(1, parts.score, parts.scores, parts.followers)
    with parts.last:
        rerun(folder, parts.inference, rules, [outlet], lambda line: None, lambda: False)
        outlet.close()
    return kept


def _arrays(kept: Kept) -> Iterator[bytes]:
    found = kept.instances
    for array in (found.boxes, found.scores, found.mask_scores, found.classes, found.masks):
        yield array.tobytes()
    yield kept.identities.tobytes()


def same_bytes(first: Sequence[Kept], second: Sequence[Kept]) -> bool:
    """Whether two runs gave the same results, to the bit, for the same frames."""
    return len(first) == len(second) and all(
        a.number == b.number and list(_arrays(a)) == list(_arrays(b))
        for a, b in zip(first, second, strict=True)
    )


def measure(frames: int, seconds: float) -> dict[str, Any]:
    """All figures."""
    began = time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "recording"
        slow = f"{LOOK}&fps={CLIP_FPS}&frames={frames}"
        clip, _ = live(slow, None, folder)
        again = replayed(folder)
    fast = f"{LOOK}&fps={CAMERA_FPS}"
    camera, outcome = live(fast, seconds, None)
    with FaultServer() as server:
        filmed = server.serve(film_source(f"{fast}&frames={round(CAMERA_FPS * seconds)}"))
        stream, _ = live(filmed.address, seconds - 1, None)
    return {
        "date": began,
        "processor": processor_name(),
        "score": SCORE,
        "rows": [
            {"source": f"clip of {frames} frames, {CLIP_FPS} a second", **judge(clip, slow)},
            {"source": f"camera, {CAMERA_FPS} frames a second", **judge(camera, fast)},
            {"source": "the same over RTSP, H.264", **judge(stream, fast)},
        ],
        "age_p95_ms": round(1000 * outcome.last.age_run.read().p95_s, 1),
        "replay": {"results": len(again), "same_bytes": same_bytes(clip, again)},
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--seconds", type=float, default=11.0)
    asked = parser.parse_args()
    found = measure(asked.frames, asked.seconds)
    for row in found["rows"]:
        sys.stdout.write(f"{row}\n")
    sys.stdout.write(f"replay: {found['replay']}\n")
    write_json(asked.json, found)


if __name__ == "__main__":
    main()
