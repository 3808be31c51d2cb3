"""Arrays on the device, in and out, and masks drawn there; on a fake GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
from fake_arrays import Foreign
from fake_cuda import Driver
from trt_rig import Rig, agree, batch, frame

from centermask_edge.engines.base import Detections
from centermask_edge.engines.tensorrt.buffers import pinned_array
from centermask_edge.errors import ConfigError
from centermask_edge.instances import Instances
from centermask_edge.kernels.library import Library
from centermask_edge.kernels.mask_overlay import mask_overlay


@pytest.fixture()
def rig(host: Library, tmp_path: Path) -> Iterator[Rig]:
    with fake_cuda.installed(Driver()) as driver:
        found = Rig(driver, host, tmp_path)
        yield found
        found.close()


def test_frames_that_are_on_the_device(rig: Rig) -> None:
    engine, driver = rig.open(), rig.driver
    image = frame()
    wanted, _ = engine.segment(image)
    uploads = driver.calls["cuMemcpyHtoDAsync"]
    for stream, padding in ((None, 0), (1, 32), (2, 7)):
        if stream == 2:
            driver.streams[2] = fake_cuda.Stream()
        given = Foreign(driver, image, stream, padding)
        waits = driver.calls["cuStreamWaitEvent"]
        found, _ = engine.segment(given)
        assert driver.calls["cuStreamWaitEvent"] == waits + 1
        agree(found, wanted, atol=0)
        given.free()
    del driver.streams[2]
    assert driver.calls["cuMemcpyHtoDAsync"] == uploads + 3, "only image_size goes up"


def test_a_batch_that_is_on_the_device(rig: Rig) -> None:
    engine = rig.open()
    images, sizes = batch()
    given = Foreign(rig.driver, images)
    given.shape = images.shape  # type: ignore[attr-defined]
    agree(engine.run(given, sizes), engine.run(images, sizes), atol=0)  # type: ignore[arg-type]
    given.free()
    wrong = Foreign(rig.driver, images.astype(np.float64))
    wrong.shape = images.shape  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"float32 \(1, 3, 64, 96\), contiguous.*float64"):
        engine.run(wrong, sizes)  # type: ignore[arg-type]
    wrong.free()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"typestr": "<f4"}, "got float32"),
        ({"shape": (3, 70, 90)}, "got uint8"),
        ({"strides": (270, 1, 90)}, "strides"),
        ({"strides": (100, 3, 1)}, "strides"),
        ({"version": 1}, "version 1"),
        ({"mask": object()}, "mask"),
    ],
)
def test_what_is_no_picture_on_the_device(
    rig: Rig, change: dict[str, object], message: str
) -> None:
    given = Foreign(rig.driver, frame())
    given.__cuda_array_interface__.update(change)
    with pytest.raises(ConfigError, match=message):
        rig.open().segment(given)
    given.free()


def test_detections_stay_on_the_device(rig: Rig) -> None:
    engine = rig.open()
    image = frame()
    wanted, _ = engine.segment(image)
    found, placement = engine.segment_on_device(image)
    assert placement.source_size == (70, 90)
    for name in Detections.__slots__:
        facts = getattr(found, name).__cuda_array_interface__
        assert facts["stream"] == next(s for s in rig.driver.streams if s != 1)
        want = getattr(wanted, name)
        assert (facts["shape"], facts["version"], facts["strides"]) == (want.shape, 3, None)
        assert rig.driver._inside(facts["data"][0], want.nbytes)
    rig.driver._drain(rig.driver.streams[facts["stream"]])
    count = pinned_array(found.count.address, (1,), np.int64)
    assert count.tolist() == wanted.count.tolist()
    for seed in range(6):  # slots are reused only when their batch is done
        engine.segment_on_device(frame(seed=seed))


def instances(count: int, height: int, width: int) -> Instances:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, (width / 2, height / 2), (count, 2))
    high = low + rng.uniform(5, (width / 2, height / 2), (count, 2))
    return Instances(
        np.concatenate((low, high), 1).astype(np.float32),
        np.linspace(1, 0.5, count, dtype=np.float32),
        np.ones(count, np.float32),
        np.zeros(count, np.int64),
        rng.random((count, 28, 28), np.float32),
        (height, width),
    )


def test_masks_are_drawn_on_the_gpu(rig: Rig, host: Library) -> None:
    engine = rig.open()
    for count in (3, 0, 200, 5):
        image, found = frame(seed=count), instances(count, 70, 90)
        colors = np.random.default_rng(count).integers(0, 256, (count, 3), np.uint8)
        untouched = image.copy()
        drawn = engine.draw(image, found, colors, opacity=0.5, outline=1)
        wanted = untouched
        if count:
            wanted, _ = mask_overlay(
                host, image, found.masks, found.boxes, colors, opacity=0.5, outline=1
            )
            assert (drawn != untouched).any()
        np.testing.assert_array_equal(drawn, wanted)
        np.testing.assert_array_equal(image, untouched)
        given = Foreign(rig.driver, image, padding=6)
        assert engine.draw(given, found, colors, opacity=0.5, outline=1) is given
        np.testing.assert_array_equal(given.get(), wanted)
        given.free()
