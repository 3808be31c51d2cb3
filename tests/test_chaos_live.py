"""``centermask-edge live --chaos`` as a user types it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from centermask_edge.cli import main

CAMERA = "synthetic:shapes?width=160&height=120&fps=20&objects=1&frames=60"


def test_one_camera_goes_away_and_both_give_results(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "o.jsonl"
    words = ["live", CAMERA, CAMERA, "--model", str(tiny), "--json", str(text), "--plain"]
    assert main([*words, "--chaos", "refuse@1+1#2", "--seconds", "5"]) == 0
    found = [json.loads(line) for line in text.read_text().splitlines()]
    counts = Counter(line["camera"] for line in found)
    assert set(counts) == {"synthetic:shapes", "synthetic:shapes #2"}
    # At 20 frames/s many more, but for a busy machine.
    assert min(counts.values()) >= 5
    shown = capsys.readouterr().err
    told = [line for line in shown.splitlines() if line.startswith(("chaos: ", "synthetic:"))]
    assert told[0] == "chaos: refuse@1+1#2, counted from the first connection of each camera"
    begin = told.index("chaos: synthetic:shapes #2: refuse")
    over = told.index("chaos: synthetic:shapes #2: refuse is over")
    assert any("#2: waiting" in line and "refused" in line for line in told[begin:over])
    assert "synthetic:shapes #2: live, h264 (FFmpeg, software)" in told[over:]
    assert not [thread for thread in threading.enumerate() if thread.name == "fault server"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([CAMERA, "--chaos", "freez@1"], "chaos: there is no 'freez'; there are freeze"),
        ([CAMERA, "--chaos", "loss@1#2"], "chaos: 'loss@1#2' names camera 2; there are 1 to 1"),
        ([CAMERA, "--chaos", ""], "chaos: '' cannot be read"),
        (["rtsp://me:hunter2@h/live", "--chaos", "random"], "h/live is a camera already"),
        (["gst: videotestsrc", "--chaos", "random"], "is a camera already"),
        (["0", "--chaos", "random"], "webcam 0 is a camera already"),
        (["nowhere.mp4", "--chaos", "random"], "source not found: nowhere.mp4"),
        (["--chaos", "random"], "no cameras; name some"),
        (["--replay", "r", "--chaos", "random"], "--chaos needs cameras; a replay has none"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["live", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "hunter2" not in shown
    assert shown.startswith("error: ") and len(shown.splitlines()) == 1
