"""Outputs: what they hold, that they stay valid, and what is refused before any work."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from centermask_edge.errors import SinkError
from centermask_edge.frame import Frame
from centermask_edge.live.outputs.sinks import (
    ImageSink,
    JsonLines,
    VideoSink,
    WindowSink,
    check_writable,
    picture_sink,
)
from centermask_edge.live.source import Kind
from centermask_edge.live.sources.pictures import read_picture
from centermask_edge.live.sources.video import VideoSource


class Nowhere:
    """A source that only says what it is."""

    def __init__(self, kind: Kind, *paths: Path) -> None:
        self.kind, self.paths, self.rate = kind, list(paths), Fraction(10)


def frame(index: int, height: int = 48, width: int = 64, pts_s: float | None = None) -> Frame:
    image = np.full((height, width, 3), 40 + 10 * index, np.uint8)
    return Frame(image, index / 10 if pts_s is None else pts_s, 0.0, f"{index}.png", index)


def read(path: Path) -> list[tuple[float, tuple[int, ...], int]]:
    with av.open(str(path)) as container:
        return [
            (round(float(f.time or 0), 3), f.to_ndarray(format="bgr24").shape[:2], f.width)
            for f in container.decode(video=0)
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_video_holds_every_frame_at_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, Fraction(10))
    for index in range(7):
        sink.write(frame(index), frame(index).image)
    sink.close()
    sink.close()
    assert [t for t, _, _ in read(path)] == pytest.approx([i / 10 for i in range(7)], abs=0.02)


def test_odd_sizes_and_a_change_of_size_are_fitted(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", None)
    for index, size in enumerate([(47, 63), (47, 63), (96, 128)]):
        sink.write(frame(index, *size), frame(index, *size).image)
    sink.close()
    assert [shape for _, shape, _ in read(tmp_path / "out.mp4")] == [(48, 64)] * 3


def test_repeated_times_do_not_stop_the_encoder(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", Fraction(25))
    for index in range(4):
        sink.write(frame(index, pts_s=1.0), frame(index).image)
    sink.close()
    assert len(read(tmp_path / "out.mp4")) == 4


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    VideoSink(tmp_path / "out.mp4", None).close()
    assert not (tmp_path / "out.mp4").exists()


def test_json_lines_are_whole_before_the_file_is_closed(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "out.jsonl")
    lines.write(frame(0), [])
    lines.write(frame(1), [])
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    lines.close()
    assert [line["frame"] for line in found] == [0, 1]
    assert found[0]["schema"] == "centermask-edge/1"
    assert (found[0]["width"], found[0]["height"]) == (64, 48)


def test_images_of_a_folder_keep_their_names(tmp_path: Path) -> None:
    sink = picture_sink(tmp_path / "out", Nowhere(Kind.FOLDER))  # type: ignore[arg-type]
    assert isinstance(sink, ImageSink)
    for index in range(2):
        sink.write(frame(index), frame(index).image)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing/out.mp4", Kind.VIDEO, "no folder"),
        ("out.txt", Kind.VIDEO, "wanted a name ending in one of .mp4"),
        ("out.mp4", Kind.IMAGE, "wanted a name ending in one of .jpg"),
        ("out.png", Kind.FOLDER, "give a folder to write to"),
        ("folder.mp4", Kind.VIDEO, "is a folder"),
        ("source.mp4", Kind.VIDEO, "is the source itself"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, kind: Kind, message: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "source.mp4").write_text("precious")
    source = Nowhere(kind, tmp_path / "source.mp4")
    with pytest.raises(SinkError, match=message):
        picture_sink(tmp_path / name, source)  # type: ignore[arg-type]
    assert (tmp_path / "source.mp4").read_text() == "precious"


def test_the_check_leaves_no_file_and_changes_none(tmp_path: Path) -> None:
    source = Nowhere(Kind.VIDEO)
    check_writable(tmp_path / "new.jsonl", source)  # type: ignore[arg-type]
    (tmp_path / "old.jsonl").write_text("kept")
    check_writable(tmp_path / "old.jsonl", source)  # type: ignore[arg-type]
    assert not (tmp_path / "new.jsonl").exists()
    assert (tmp_path / "old.jsonl").read_text() == "kept"


def test_an_opencv_without_windows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "General\n  GUI:      NONE\n")
    with pytest.raises(SinkError, match="built without windows"):
        WindowSink()


def test_times_count_from_the_first_frame_and_bear_a_clock_that_begins_anew(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", Fraction(10))
    for index, pts_s in enumerate([5000.0, 5000.1, 5000.2, 0.0, 0.1]):
        sink.write(frame(index, pts_s=pts_s), frame(index).image)
    sink.close()
    found = [t for t, _, _ in read(tmp_path / "out.mp4")]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.01)


def test_a_killed_process_leaves_a_playable_video(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", Fraction(10))
    noise = np.random.default_rng(0)
    for index in range(150):
        image = noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        sink.write(frame(0, pts_s=index / 10), image)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes((tmp_path / "out.mp4").read_bytes())
    sink.close()
    assert 40 <= sum(1 for _ in VideoSource(str(copy), Kind.VIDEO)) < 150
    assert len(read(tmp_path / "out.mp4")) == 150


def test_an_old_json_file_stays_until_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    JsonLines(path).close()
    assert path.read_text() == "old\n"


def test_a_link_to_the_source_is_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    source.write_text("precious")
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "soft.mp4").symlink_to(source)
    for name in ("hard.mp4", "soft.mp4"):
        with pytest.raises(SinkError, match="is the source itself"):
            picture_sink(tmp_path / name, Nowhere(Kind.VIDEO, source))  # type: ignore[arg-type]


def test_a_name_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot write"):
        check_writable(tmp_path / ("a" * 400), Nowhere(Kind.VIDEO))  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".TIFF"])
def test_every_image_suffix_can_be_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    sink = picture_sink(path, Nowhere(Kind.IMAGE))  # type: ignore[arg-type]
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200  # blue
    sink.write(frame(0), image)
    back = read_picture(path)
    assert back.shape == (8, 8, 3) and np.abs(back.astype(int) - image).max() < 12
