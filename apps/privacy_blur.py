"""Writes a video again with everybody in it hidden by their masks.

    python apps/privacy_blur.py                                 # the bundled clip
    python apps/privacy_blur.py party.mp4 party-hidden.mp4

Only what the model finds is hidden, and a blur is not anonymity: docs/tracking.md.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from itertools import islice
from pathlib import Path

from rich.console import Console

from centermask_edge.engines import open_engine
from centermask_edge.engines.segment import Segmenter
from centermask_edge.engines.shipped import default_model
from centermask_edge.errors import CenterMaskError, ConfigError
from centermask_edge.live.outputs.privacy import Privacy
from centermask_edge.live.outputs.privacy_config import PrivacyRules, Style
from centermask_edge.live.outputs.sinks import VideoSink
from centermask_edge.live.result import Result
from centermask_edge.live.sources.opening import open_source
from centermask_edge.live.track.follower import TrackFollower, low_score
from centermask_edge.live.track.tracker import TrackerRules

CLIP = str(files("centermask_edge").joinpath("_clips", "people.mp4"))
SCORE = 0.25  # lower than elsewhere: better to hide a chair than to show somebody
RULES = PrivacyRules(Style.BLUR, margin=0.08)


def main(name: str = CLIP, out: str = "hidden.mp4", most: int | None = None) -> None:
    """Every frame, or so many of them at most."""
    if Path(out).resolve() == Path(name).resolve():
        raise ConfigError(f"{out} is the video to read; give another name to write to")
    segment = Segmenter(open_engine(default_model(), min_score=low_score(SCORE)))
    follow, hide = TrackFollower(TrackerRules(SCORE)), Privacy(RULES)
    count = 0
    with closing(open_source(name)) as source, closing(VideoSink(Path(out), source.rate)) as video:
        for frame in islice(source, most):
            # A file is read faster than it was filmed: its own time is what people move in.
            frame = replace(frame, arrival_s=frame.pts_s)
            found, tracks, *_ = follow(frame, segment(frame.image))
            video.write(frame, hide(Result(frame, found, tracks)))
            count += 1
    Console().print(f"{count} frames, {out}", highlight=False)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except CenterMaskError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
