"""What leaves a live run as a picture: zones and lines drawn, and nobody in it who was found."""

from __future__ import annotations

import json
import os
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pycocotools.mask as coco  # type: ignore[import-untyped]
import pytest
from live_results import instances, result
from numpy.typing import NDArray

from centermask_edge.cli import main
from centermask_edge.errors import ConfigError
from centermask_edge.live.live_config import OutputsConfig
from centermask_edge.live.outputs import opening as module
from centermask_edge.live.outputs.overlay import Draw, Image, annotate
from centermask_edge.live.outputs.privacy import Privacy
from centermask_edge.live.record.recording import Made
from centermask_edge.live.result import Mode, Result, Tally
from centermask_edge.live.track.place_config import FollowConfig, LineConfig, ZoneConfig
from centermask_edge.resources import project_file

CLIP = Path(__file__).parents[1] / "centermask_edge" / "_clips" / "people.mp4"
SQUARE = ZoneConfig(name="hall", points=((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)))
DOOR = LineConfig(name="door", start=(0.5, 0.9), end=(0.5, 0.1))
AMBER, WHITE = [0, 190, 255], [255, 255, 255]


def noise(size: tuple[int, int] = (72, 128), seed: int = 3) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def grey(count: int = 0, tallies: tuple[Tally, ...] = ()) -> Result:
    image = np.full((480, 640, 3), 90, np.uint8)
    return replace(result(0, count=count, image=image), tallies=tallies)


@pytest.mark.parametrize(("inside", "color"), [(0, WHITE), (2, AMBER)])
def test_a_zone_is_seen_and_turns_amber_when_somebody_is_in_it(
    inside: int, color: list[int]
) -> None:
    one = grey(tallies=(Tally("hall", inside, 5, 3),))
    image = annotate(one, None, FollowConfig(zones=(SQUARE,)))
    for y, x in ((120, 300), (240, 160), (240, 480)):
        around = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).tolist()
        assert color in around and min(around) < [60, 60, 60]
    assert (image[240, 320] == 90).all() and (image[100, 320] == 90).all()


def test_names_and_counts_lie_within_the_picture_and_not_on_each_other() -> None:
    over = SQUARE.model_copy(
        update={"name": "a long name of a zone", "points": ((0.5, 0.5), (1.5, 0.5), (1.5, 1.5))}
    )
    twin = over.model_copy(update={"name": "the same place"})
    bare = annotate(grey(), None, None)
    image = annotate(grey(), None, FollowConfig(zones=(over, twin), lines=(DOOR,)))
    ink = (image == 24).all(2) & (bare != 24).any(2)
    # Strips: rows in which a long run of the paper's colour lies.
    strips = [row for row in range(480) if ink[row].sum() > 60]
    assert strips[-1] == 479 and 20 <= len([row for row in strips if row > 430]) <= 60


def test_the_arrow_of_a_line_points_in() -> None:
    def rows(line: LineConfig) -> tuple[int, int]:
        """In how many rows something is white, left and right of it; the barbs' are more."""
        image = annotate(grey(), None, FollowConfig(lines=(line,)))
        strokes = image.min(axis=2)[242:] > 200  # the words are above
        return int(strokes[:, :312].any(1).sum()), int(strokes[:, 328:].any(1).sum())

    left, right = rows(DOOR)
    assert right > left + 3
    left, right = rows(DOOR.model_copy(update={"start": DOOR.end, "end": DOOR.start}))
    assert left > right + 3


def test_labels_of_objects_are_not_cut_by_outlines() -> None:
    one = grey(2)
    boxes = np.array([[280, 200, 360, 400], [20, 200, 90, 400]], np.float32)
    one = replace(one, instances=replace(one.instances, boxes=boxes))
    plain = annotate(one)
    drawn = annotate(one, None, FollowConfig(lines=(DOOR,)))
    np.testing.assert_array_equal(drawn[182:198, 282:360], plain[182:198, 282:360])


def hidden(shown: Image, raw: Image, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """How much of the raw picture is left inside and outside of masks: correlation, 0 to 1."""
    flat = [image.astype(np.float64).mean(2) for image in (shown, raw)]
    return tuple(  # type: ignore[return-value]
        abs(float(np.corrcoef(flat[0][where], flat[1][where])[0, 1])) for where in (inside, ~inside)
    )


@pytest.mark.parametrize("style", ["blur", "pixelate", "fill"])
def test_every_output_of_pictures_hides_people(
    style: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawers: list[Draw] = []

    class Sink:
        name, closed, url = "sink", False, ""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            drawers.extend(a for a in arguments if callable(a))

        def close(self) -> None:
            """Nothing."""

    for name in ("VideoFiles", "Clips", "WebPictures", "WindowGrid", "RtspPush"):
        monkeypatch.setattr(module, name, Sink)
    outputs = OutputsConfig.model_validate(
        {
            **{"out": tmp_path, "clips": tmp_path / "c", "mjpeg": 0, "show": True},
            **{"rtsp_push": "rtsp://127.0.0.1/x", "privacy": style},
        }
    )
    module.open_outputs(outputs, Made(), {"gate": FollowConfig(zones=(SQUARE,))}, list)
    assert len(drawers) == 5
    found = instances(1, 240, 320)
    boxes = np.array([[60, 30, 180, 210]], np.float32)
    one = replace(result(0, image=noise((240, 320))), instances=replace(found, boxes=boxes))
    one = replace(one, track_ids=np.zeros(1, np.int64))
    mask, x, y = one.instances.crop(0)
    inside = np.zeros((240, 320), np.bool_)
    inside[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    for draw in drawers:
        left_in, left_out = hidden(draw(one), one.frame.image, inside)
        assert left_in < 0.15 and left_out > 0.7


def test_masks_of_an_earlier_moment_are_not_trusted() -> None:
    found = instances(1, 240, 320)
    boxes = np.array([[60, 30, 180, 210]], np.float32)
    one = replace(result(0, image=noise((240, 320))), instances=replace(found, boxes=boxes))
    one = replace(one, track_ids=np.zeros(1, np.int64), mode=Mode(1, 256, masks=False))
    shown = Privacy()(one)
    assert (shown == one.frame.image).all(2)[30:210, 60:180].sum() <= 1


def test_a_late_question_about_an_older_picture_forgets_nobody() -> None:
    raw = noise((240, 320))
    found = replace(instances(1, 240, 320), boxes=np.array([[60, 30, 180, 210]], np.float32))
    privacy = Privacy()

    def at(time_s: float, count: int) -> Image:
        one = result(0, image=raw, arrival_s=time_s, count=0)
        there = found if count else one.instances
        return privacy(replace(one, instances=there, track_ids=np.full(count, 7, np.int64)))

    at(10.0, 1)
    at(9.2, 0)  # of an output that lags behind
    assert (at(10.9, 0) == raw).all(2)[30:210, 60:180].sum() <= 1


def pictures(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    return [np.asarray(image, np.uint8) for image in decoded]


@pytest.fixture(scope="module")
def noisy_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of one noisy picture, so that any frame can be compared with any."""
    path = tmp_path_factory.mktemp("clip") / "noise.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        coarse = noise((60, 80)).repeat(4, axis=0).repeat(4, axis=1)
        for _ in range(12):
            for packet in stream.encode(av.VideoFrame.from_ndarray(coarse, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


@pytest.mark.filterwarnings("ignore:__array__")  # pycocotools beside NumPy 2
def test_the_video_of_a_run_shows_no_pixel_of_a_mask(
    noisy_clip: Path, tiny: Path, tmp_path: Path
) -> None:
    out, text = tmp_path / "v", tmp_path / "o.jsonl"
    words = ["--out", str(out), "--json", str(text), "--privacy", "fill", "--score", "0.2"]
    assert main(["live", str(noisy_clip), "--model", str(tiny), *words]) == 0
    (line, *_) = [json.loads(line) for line in text.read_text().splitlines()]
    inside = np.zeros((240, 320), np.bool_)
    for found in line["instances"]:
        mask = found["mask"]
        crop = coco.decode({"size": mask["size"], "counts": mask["counts"].encode()}) > 0
        window = inside[mask["y"] :, mask["x"] :][: crop.shape[0], : crop.shape[1]]
        window |= crop
    raw, shown = pictures(noisy_clip)[0], pictures(out / "noise.mp4.mp4")
    assert len(shown) >= 6 and inside.sum() > 5000
    for picture in shown:
        left_in, left_out = hidden(picture, raw, inside)
        assert left_in < 0.1 and left_out > 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--privacy", "blur", "--record", "r"], "--privacy and --record exclude each other"),
        (["--privacy", "mask"], "'mask' is not one of"),
    ],
)
def test_what_cannot_be_hidden_is_refused(
    words: list[str],
    message: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["live", str(CLIP), *words, "--model", str(tiny)]) == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_the_program_that_hides_everybody(
    noisy_clip: Path,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = runpy.run_path(str(project_file("apps", "privacy_blur.py")))
    monkeypatch.setitem(program["main"].__globals__, "default_model", lambda: tiny)
    out = tmp_path / "out.mp4"
    program["main"](str(noisy_clip), str(out), 3)
    assert "3 frames" in capsys.readouterr().out
    raw, shown = pictures(noisy_clip)[0], pictures(out)
    assert len(shown) == 3
    middle = np.zeros((240, 320), np.bool_)
    middle[100:160, 70:120] = True  # well within the first of the model's constant discs
    left_in, left_out = hidden(shown[1], raw, middle)
    assert left_in < 0.35 < left_out
    with pytest.raises(ConfigError, match="the video to read"):
        program["main"](str(out), str(out))


def test_the_edges_of_a_zone_that_fills_the_picture_are_seen() -> None:
    whole = SQUARE.model_copy(update={"points": ((0, 0), (1, 0), (1, 1), (0, 1))})
    image = annotate(grey(tallies=(Tally("hall", 0, 0, 0),)), None, FollowConfig(zones=(whole,)))
    for side in (image[:6, 320], image[-6:, 320], image[240, :6], image[240, -6:]):
        assert WHITE in side.tolist()
