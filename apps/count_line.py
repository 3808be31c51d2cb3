"""Counts who crosses a line in a camera's picture; from its left to its right is in.

python apps/count_line.py                                   # the bundled clip
python apps/count_line.py rtsp://HOST/live 0.2,0.9 0.8,0.9  # its ends, as shares of the picture
"""

from __future__ import annotations

import sys
from importlib.resources import files

from rich.console import Console

from centermask_edge.engines import open_engine
from centermask_edge.engines.shipped import default_model
from centermask_edge.errors import CenterMaskError, ConfigError
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.outputs.callback import Callback
from centermask_edge.live.outputs.outlet import LINES, Outlet
from centermask_edge.live.outputs.overlay import event_text
from centermask_edge.live.result import Result
from centermask_edge.live.runtime import Limits, Parts, run
from centermask_edge.live.schedule.inference import Inference
from centermask_edge.live.track.follower import TrackFollower, low_score
from centermask_edge.live.track.place_config import LineConfig
from centermask_edge.live.track.tracker import TrackerRules
from centermask_edge.live.view.terminal import LineView

CLIP = str(files("centermask_edge").joinpath("_clips", "people.mp4"))


def main(address: str = CLIP, start: str = "0.5,1", end: str = "0.5,0") -> None:
    """Counts until the camera ends or Ctrl-C."""
    ends = {"name": "line", "start": start.split(","), "end": end.split(",")}
    try:
        line = LineConfig.model_validate(ends)
    except ValueError:
        raise ConfigError(f"{start} {end}: wanted two points, as 0.2,0.9 0.8,0.9") from None
    engine = open_engine(default_model(), min_score=low_score(TrackerRules().score))
    console = Console()

    def tell(result: Result) -> None:
        for event in result.events:
            console.print(f"{result.frame.pts_s:7.1f} s  {event_text(event)}")

    inference = Inference(engine, engine.metadata.preprocess)
    cameras, outlets = [open_camera(address, name="camera")], [Outlet(Callback(tell, queue=LINES))]
    follow = TrackFollower(lines=[line])
    parts = Parts(cameras, inference, outlets, followers={"camera": follow})
    for tally in run(parts, Limits(), LineView(console)).last.cameras[0].tallies:
        console.print(f"in {tally.ins}, out {tally.outs}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except CenterMaskError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
