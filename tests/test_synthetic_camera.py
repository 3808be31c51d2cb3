"""The synthetic camera: the truth about its pixels, and the numbers in its pictures."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import numpy as np
import pytest
from capture_rig import running, state, taken, until
from numpy.typing import NDArray

from centermask_edge.errors import SourceError
from centermask_edge.live.capture.opening import open_camera
from centermask_edge.live.health import State
from centermask_edge.live.source import Kind
from centermask_edge.live.sources.opening import open_source
from centermask_edge.live.synthetic import time_code
from centermask_edge.live.synthetic.scene import Look, Scene, SceneSettings
from centermask_edge.live.synthetic.source import SyntheticSource, parse_synthetic

SMALL = SceneSettings(look=Look.SHAPES, width=320, height=240, objects=3, seed=4)
BOTH = pytest.mark.parametrize("look", list(Look))


def full(crop: tuple[NDArray[np.bool_], int, int], height: int, width: int) -> NDArray[np.bool_]:
    mask, x, y = crop
    whole = np.zeros((height, width), np.bool_)
    whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return whole


@BOTH
def test_the_truth_is_what_differs_from_the_empty_room(look: Look) -> None:
    settings = SceneSettings(look=look, width=640, height=360, objects=5, seed=2)
    scene, empty = Scene(settings), Scene(SceneSettings(look, 640, 360, objects=0, seed=2))
    if look is Look.SHAPES:  # drawing figures moves the chance on, and with it the texture
        empty._room = scene._room
    same = covered = 0
    for index in range(0, 300, 37):
        truth = scene.truth(index)
        found = np.zeros((360, 640), np.int64)
        for true in truth:
            found += full(true.crop, 360, 640)
        different = (scene.picture(index) != empty.picture(index)).any(axis=2)
        assert found.max() == 1, "a pixel shows one figure"
        assert not (different & (found == 0)).any()
        same += int((different & (found == 1)).sum())
        covered += int((found == 1).sum())
    # A figure may have the colour of the room by chance.
    assert same > 0.98 * covered


def test_nearer_figures_hide_others() -> None:
    scene = Scene(SceneSettings(Look.SHAPES, 320, 240, objects=12, seed=3))
    areas: dict[int, set[int]] = {}
    for index in range(0, 600, 10):
        for true in scene.truth(index):
            areas.setdefault(true.track, set()).add(int(true.crop[0].sum()))
            left, top, right, bottom = true.box
            assert 0 <= left < right <= 320 and 0 <= top < bottom <= 240
            mask = true.crop[0]
            assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
    assert len(areas) == 12
    assert sum(len(seen) > 2 for seen in areas.values()) > 6


@BOTH
def test_the_same_settings_give_the_same_pixels(look: Look) -> None:
    settings = SceneSettings(look, 320, 240, seed=9)
    first, second = Scene(settings), Scene(settings)
    first.picture(7)
    np.testing.assert_array_equal(first.picture(100), second.picture(100))
    other = Scene(SceneSettings(look, 320, 240, seed=10))
    assert (first.picture(100) != other.picture(100)).any()


def test_figures_move() -> None:
    scene = Scene(SMALL)
    boxes = [[true.box for true in scene.truth(index)] for index in (0, 30, 60)]
    assert boxes[0] != boxes[1] != boxes[2]


@pytest.mark.parametrize("size", [(120, 160), (360, 640), (1080, 1920)])
@pytest.mark.parametrize("number", [0, 1, 0xABCDEF, 2**24 - 1])
def test_the_time_code_reads_back(size: tuple[int, int], number: int) -> None:
    image = np.full((*size, 3), 77, np.uint8)
    assert time_code.read(image) is None
    time_code.burn(image, number)
    assert time_code.read(image) == number
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    assert time_code.read(np.clip(image + noise, 0, 255).astype(np.uint8)) == number


def test_a_damaged_time_code_is_not_read() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    time_code.burn(image, 1234)
    side = time_code.block_side(240, 320)
    for column in range(16):
        wrong = image.copy()
        block = wrong[side // 2 : side // 2 + side, side // 2 + column * side :][:, :side]
        block[...] = 255 - block
        assert time_code.read(wrong) is None
    assert time_code.read(np.zeros((240, 320, 3), np.uint8)) is None
    assert time_code.read(image[:10, :10]) is None


def coded(settings: SceneSettings, count: int, bit_rate: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures after H.264."""
    av = pytest.importorskip("av")
    scene, buffer = Scene(settings), io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.bit_rate, stream.options = bit_rate, {"preset": "ultrafast", "tune": "zerolatency"}
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(scene.picture(index), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24")


@pytest.mark.parametrize(("width", "height", "bit_rate"), [(320, 240, 60_000), (640, 360, 200_000)])
def test_the_time_code_survives_h264(width: int, height: int, bit_rate: int) -> None:
    pytest.importorskip("av")
    settings = SceneSettings(Look.SHAPES, width, height, seed=1)
    numbers = [time_code.read(image) for image in coded(settings, 40, bit_rate)]
    assert numbers == list(range(40))


@BOTH
def test_a_1080p_picture_is_cheap(look: Look) -> None:
    scene = Scene(SceneSettings(look=look, objects=3, seed=1))
    times = []
    for index in range(40):
        start = time.perf_counter()
        scene.picture(index)
        times.append(time.perf_counter() - start)
    assert min(times) < 4e-3


def test_a_clip_gives_every_frame_without_waiting() -> None:
    source = open_source("synthetic:shapes?width=320&height=240&fps=5&frames=12&seed=4")
    assert source.kind is Kind.VIDEO and source.total == 12 and source.rate == 5
    start = time.monotonic()
    frames = list(source)
    assert time.monotonic() - start < 1.0
    assert [time_code.read(frame.image) for frame in frames] == list(range(12))
    assert frames[5].pts_s == 1.0
    np.testing.assert_array_equal(
        frames[3].image,
        Scene(parse_synthetic("synthetic:shapes?width=320&height=240&fps=5&seed=4").scene).picture(
            3
        ),
    )


def test_a_camera_keeps_the_time_and_leaves_frames_out_for_a_slow_reader() -> None:
    source = SyntheticSource("synthetic:shapes?width=160&height=120&fps=50")
    start = time.monotonic()
    for frame in source:
        number = time_code.read(frame.image)
        assert number == frame.index
        if number < 5:
            assert frame.arrival_s - start >= number / 50 - 1e-3
        if number == 5:
            time.sleep(0.2)
        if number > 5:
            assert number >= 15
            break
    source.close()
    assert list(source) == []
    assert source.truth(3)


def test_live_reads_it_as_a_camera() -> None:
    camera = open_camera("synthetic:shapes?width=160&height=120&fps=100")
    with running(camera):
        frames = taken(camera, 5)
        assert state(camera) is State.LIVE
        assert camera.health().decoder == "computed"
    assert camera.name == "synthetic:shapes"
    numbers = [time_code.read(frame.image) for frame in frames]
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]


def test_live_reads_it_as_a_clip_that_ends() -> None:
    camera = open_camera("synthetic:shapes?width=160&height=120&fps=100&frames=3")
    with running(camera):
        taken(camera, 1)
        until(lambda: state(camera) is State.ENDED)
        assert camera.health().fault is None and camera.health().frames == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("synthetic:cats", "synthetic:people or synthetic:shapes"),
        ("synthetic:people?size=3", "no option 'size'; there are fps, width"),
        ("synthetic:people?width=wide", "width is 'wide'; wanted a whole number from 160 to 7680"),
        ("synthetic:people?fps=nan", "fps is 'nan'; wanted a number from 0.1 to 240"),
        ("synthetic:people?objects=-1", "objects is '-1'"),
        ("synthetic:people?height=", "height is ''"),
    ],
)
def test_wrong_addresses(text: str, words: str) -> None:
    for opens in (open_source, open_camera):
        with pytest.raises(SourceError, match="^" + text.replace("?", r"\?")) as caught:
            opens(text)
        assert words in str(caught.value)
