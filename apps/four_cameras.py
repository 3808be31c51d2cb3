"""Counts people at up to four cameras (or more): the live pipeline from Python.

    python apps/four_cameras.py rtsp://USER:PASSWORD@HOST/live clip.mp4 0

Prints a line whenever the number of people at a camera changes. A camera that is off, freezes or
comes back delays none of the others; Ctrl-C ends with a summary.
"""

from __future__ import annotations

import sys

from rich.console import Console

from centermask_edge.engines import open_engine
from centermask_edge.engines.shipped import default_model
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.outputs.callback import Callback
from centermask_edge.live.outputs.outlet import Outlet
from centermask_edge.live.result import Result
from centermask_edge.live.runtime import Limits, Parts, run
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.view.terminal import LineView, summary

SCORE = 0.5
MAX_AGE_S = 0.25


def main(addresses: list[str]) -> None:
    """Counts until the cameras end or Ctrl-C."""
    if not addresses:
        sys.exit("usage: python apps/four_cameras.py CAM [CAM ...]")
    console = Console()
    people: dict[str, int] = {}

    def count(result: Result) -> None:
        camera, found = result.frame.camera, len(result.instances)
        if people.get(camera) != found:
            people[camera] = found
            console.print(f"{camera}: {found} people, {1000 * result.age_s:.0f} ms ago")

    cameras = [open_camera(a, name=f"camera {i}") for i, a in enumerate(addresses, start=1)]
    engine = open_engine(default_model(), min_score=SCORE)
    inference = Inference(engine, engine.metadata.preprocess)
    parts = Parts(cameras, inference, [Outlet(Callback(count))], score=SCORE)
    outcome = run(parts, Limits(max_age_s=MAX_AGE_S), LineView(console))
    console.print(summary(outcome.last))


if __name__ == "__main__":
    main(sys.argv[1:])
