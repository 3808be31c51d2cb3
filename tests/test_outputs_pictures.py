"""Annotated pictures: what is drawn, drawn once, and where it goes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from live_results import event, result

from centermask_edge.errors import SinkError
from centermask_edge.live.outputs import pictures as module
from centermask_edge.live.outputs.names import Slugs, slug
from centermask_edge.live.outputs.overlay import DrawnOnce, Image, Overlay, annotate
from centermask_edge.live.outputs.pictures import VideoFiles, WindowGrid, grid
from centermask_edge.live.result import Result

ALARM = (40, 40, 230)


def flashes(image: Image) -> bool:
    return bool((image[-1] == ALARM).all())


def test_the_picture_is_a_copy_with_objects_age_and_camera() -> None:
    one = result(0, size=(480, 640))
    before = one.frame.image.copy()
    image = annotate(one)
    assert image.shape == before.shape and not np.array_equal(image, before)
    np.testing.assert_array_equal(one.frame.image, before)
    assert not flashes(image)
    other = annotate(result(0, "another gate", size=(480, 640)))
    assert not np.array_equal(image[:20, :200], other[:20, :200])


def test_a_track_keeps_its_colour_when_ranks_change() -> None:
    first = result(0, size=(240, 320), count=2)
    apart = np.array([[100, 100, 140, 140], [200, 150, 240, 190]], np.float32)
    first = replace(first, instances=replace(first.instances, boxes=apart))
    order = np.array([1, 0])
    swapped = replace(first, instances=first.instances.select(order), track_ids=np.array([2, 1]))
    before, after = annotate(first), annotate(swapped)
    for x, y in ((120, 120), (220, 170)):
        np.testing.assert_array_equal(before[y, x], after[y, x])
    assert before[120, 120].tolist() != before[170, 220].tolist()


def test_events_flash_for_a_while() -> None:
    overlay = Overlay(flash_s=1.0)
    begin = event()
    assert flashes(overlay(result(0, events=(begin,), arrival_s=begin.time_s)))
    assert not flashes(overlay(result(0, "other", arrival_s=begin.time_s + 0.1)))
    assert flashes(overlay(result(1, arrival_s=begin.time_s + 0.9)))
    assert not flashes(overlay(result(2, arrival_s=begin.time_s + 1.1)))


def test_a_picture_wanted_twice_is_drawn_once() -> None:
    drawn: list[int] = []

    def draw(result: Result) -> Image:
        drawn.append(result.frame.index)
        return result.frame.image.copy()

    once = DrawnOnce(draw)
    one, two, other = result(0), result(1), result(0, "other")
    assert once(one) is once(one)
    once(other)
    assert once(one) is once(one) and drawn == [0, 0]
    assert not once(two).flags.writeable and drawn == [0, 0, 1]
    assert not DrawnOnce(lambda r: r.frame.image)(two).flags.writeable
    assert two.frame.image.flags.writeable


def test_each_camera_gets_its_video(tmp_path: Path) -> None:
    sink = VideoFiles(tmp_path / "new" / "videos", lambda r: r.frame.image, Fraction(10))
    for index in range(5):
        sink.write(result(index, "a/b"))
        sink.write(result(index, "a:b", size=(32, 32)))
    sink.close()
    sink.close()
    assert sorted(p.name for p in (tmp_path / "new" / "videos").iterdir()) == [
        "a-b-2.mp4",
        "a-b.mp4",
    ]
    for camera, width in (("a/b", 64), ("a:b", 32)):
        with av.open(str(sink.path(camera))) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 5 and frames[0].width == width


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write to the folder"):
        VideoFiles(tmp_path / "file" / "videos", annotate)


class Window:
    """Stands for a screen, which this machine lacks."""

    def __init__(self) -> None:
        self.shown: list[Image] = []
        self.closed = self.gone = False

    def write(self, frame: Any, image: Image) -> None:
        self.shown.append(image)

    def close(self) -> None:
        self.gone = True


def test_all_cameras_share_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()
    monkeypatch.setattr(module, "WindowSink", lambda: window)
    monkeypatch.setattr(module, "check_window", lambda: None)
    sink = WindowGrid(lambda r: r.frame.image)
    sink.write(result(0, "a"))
    for camera in "bcd":
        sink.write(result(5, camera))
    assert [i.shape[:2] for i in window.shown] == [(48, 64), (48, 128), (96, 128), (96, 128)]
    assert window.shown[-1][10, 10, 0] == 40 and window.shown[-1][60, 100, 0] == 90
    window.closed = True
    sink.write(result(1, "a"))
    assert sink.closed and len(window.shown) == 4
    sink.close()
    assert window.gone


def test_a_machine_without_a_screen_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:  QT5")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SinkError, match="there is no display here"):
        WindowGrid(annotate)


def test_pictures_of_other_shapes_fit_their_cell() -> None:
    tall, wide = np.full((200, 50, 3), 9, np.uint8), np.full((40, 160, 3), 7, np.uint8)
    image = grid(cv2, [wide, tall, wide], 60)
    assert image.shape == (60, 240, 3) and image[10, 125, 0] == 9 and image[10, 200, 0] == 0


def test_names_are_safe_and_different() -> None:
    names = Slugs()
    assert [names[c] for c in ("Door", "door", "Door", "../../etc", "")] == [
        "Door",
        "door-2",
        "Door",
        "etc",
        "camera",
    ]
    assert slug("a" * 500) == "a" * 80
