"""The whole path of a frame through the TensorRT engine, on a fake GPU: see the two fakes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_cuda
import fake_tensorrt
import numpy as np
import pytest
import tiny_model
from fake_cuda import CUresult, Driver
from trt_rig import Rig, agree, batch, frame

from centermask_edge.config import PreprocessConfig
from centermask_edge.engines.onnxruntime import OnnxRuntimeEngine
from centermask_edge.engines.tensorrt import state
from centermask_edge.engines.tensorrt.cuda import GpuError
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.errors import ConfigError, ModelFileError
from centermask_edge.kernels.library import Library
from centermask_edge.preprocess import Preprocess


@pytest.fixture()
def rig(host: Library, tmp_path: Path) -> Iterator[Rig]:
    with fake_cuda.installed(Driver()) as driver:
        found = Rig(driver, host, tmp_path)
        yield found
        found.close()


def test_a_batch_gives_what_onnx_runtime_gives(rig: Rig, tiny: Path) -> None:
    reference = OnnxRuntimeEngine(tiny)
    engine = rig.open()
    for n in (1, 2, 1):
        images, sizes = batch(n)
        agree(engine.run(images, sizes), reference.run(images, sizes))
    assert engine.name == "tensorrt 10.16.1.11"
    assert engine.metadata == tiny_model.metadata()


def test_a_frame_is_preprocessed_as_in_training(rig: Rig, tiny: Path) -> None:
    engine, reference = rig.open(), OnnxRuntimeEngine(tiny)
    for seed in range(3):
        image = frame(seed=seed)
        found, placement = engine.segment(image)
        tensor, wanted = Preprocess(engine.metadata.preprocess)(image)
        assert placement == wanted
        sizes = np.array([placement.resized_size], np.float32)
        agree(found, reference.run(tensor[None], sizes), atol=2e-3)
        assert found.mask_scores[0, 0] == pytest.approx(tensor.mean(), abs=2e-3)


def test_another_preprocessing_than_the_models_own(rig: Rig) -> None:
    config = PreprocessConfig(
        short_side=96, long_side=160, channel_order="rgb", mean=(10, 20, 30), std=(1, 2, 4)
    )
    image = frame()
    image[..., 0] //= 4
    found, placement = rig.open().segment(image, config)
    tensor, _ = Preprocess(config)(image)
    assert placement.padded_size == tensor.shape[1:]
    assert found.mask_scores[0, 0] == pytest.approx(tensor.mean(), abs=2e-3)


def test_detections_below_the_score_are_dropped(rig: Rig) -> None:
    least = float(np.sort(tiny_model.SCORES)[1])
    found = rig.open(min_score=least).run(*batch())
    assert found.count.tolist() == [2]
    assert found.scores[0, 2:].tolist() == [0] * (tiny_model.K - 2)


def test_a_graph_is_recorded_on_the_second_run_of_each_shape(rig: Rig) -> None:
    engine, driver = rig.open(), rig.driver
    engine.run(*batch())
    assert list(engine.graph_states.values()) == ["not recorded yet"]
    for _ in range(3):
        engine.run(*batch())
    assert list(engine.graph_states.values()) == ["recorded"]
    assert (driver.calls["cuGraphInstantiate"], driver.calls["cuGraphLaunch"]) == (1, 3)
    engine.run(*batch(height=96))
    engine.run(*batch(height=96))
    assert driver.calls["cuGraphInstantiate"] == 2
    images, sizes = batch()
    wanted = images.mean()
    assert engine.run(images, sizes).mask_scores[0, 0] == pytest.approx(wanted, abs=1e-6)
    assert driver.others["graph"] == 0, "only the executable is kept"


def test_without_a_graph_the_network_is_queued_and_the_reason_kept(rig: Rig) -> None:
    fake_tensorrt.IExecutionContext.refuses_capture = True
    engine = rig.open()
    for _ in range(3):
        images, sizes = batch()
        found = engine.run(images, sizes)
        assert found.mask_scores[0, 0] == pytest.approx(images.mean(), abs=1e-6)
    (reason,) = engine.graph_states.values()
    assert "not permitted when stream is capturing" in reason
    assert rig.driver.calls["cuStreamBeginCapture"] == 1, "not tried again"
    assert rig.driver.calls["cuGraphLaunch"] == 0


def test_a_graph_that_cannot_be_made_is_done_without(rig: Rig) -> None:
    rig.driver.fail("cuGraphInstantiate", CUresult.CUDA_ERROR_OUT_OF_MEMORY)
    engine = rig.open()
    engine.run(*batch())
    engine.run(*batch())
    assert "OUT_OF_MEMORY" in next(iter(engine.graph_states.values()))


def test_graphs_can_be_switched_off(rig: Rig) -> None:
    engine = rig.open(graphs=False)
    engine.run(*batch())
    engine.run(*batch())
    assert list(engine.graph_states.values()) == ["switched off"]
    assert rig.driver.calls["cuStreamBeginCapture"] == 0


def test_nothing_is_allocated_for_a_frame_of_known_size(rig: Rig) -> None:
    engine = rig.open()
    for _ in range(3):
        engine.segment(frame())
    allocations = ("cuMemAlloc", "cuMemHostAlloc", "cuEventCreate", "cuStreamCreate")
    before = [rig.driver.calls[name] for name in allocations]
    live = rig.driver.live
    for seed in range(5):
        engine.segment(frame(seed=seed))
    assert [rig.driver.calls[name] for name in allocations] == before
    assert rig.driver.live == live


def test_the_next_frame_is_prepared_while_one_is_on_its_way(rig: Rig) -> None:
    engine = rig.open()
    frames = [frame(seed=seed) for seed in range(5)]
    alone = [engine.segment(image)[0] for image in frames]
    waits = rig.driver.calls["cuEventSynchronize"]
    started = [engine.start_segment(image)[0] for image in frames]
    assert rig.driver.calls["cuEventSynchronize"] == waits + 3, "of five, the last two wait"
    for pending, wanted in zip(reversed(started), reversed(alone), strict=True):
        agree(pending.result(), wanted, atol=0)
    agree(started[0].result(), alone[0], atol=0)


def test_results_outlive_later_frames(rig: Rig) -> None:
    engine = rig.open()
    first, _ = engine.segment(frame(seed=1))
    kept = first.mask_scores.copy()
    for seed in (2, 3, 4):
        engine.segment(frame(seed=seed))
    np.testing.assert_array_equal(first.mask_scores, kept)


def test_calls_from_many_threads(rig: Rig) -> None:
    engine = rig.open()
    sizes = [(64, 96), (96, 64), (128, 96)]
    inputs = [batch(1, *sizes[i % 3]) for i in range(24)]
    inputs = [(images + i, size) for i, (images, size) in enumerate(inputs)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda x: engine.run(*x), inputs))
    for (images, _), result in zip(inputs, found, strict=True):
        assert result.mask_scores[0, 0] == pytest.approx(images.mean(), rel=1e-5)
    assert len(rig.driver.current) == 1, "the context is current on one thread only"


def test_an_error_comes_back_to_the_thread_that_called(rig: Rig) -> None:
    engine = rig.open(graphs=False)
    engine.run(*batch())
    fake_tensorrt.IExecutionContext.refuses_to_run = 1
    with pytest.raises(GpuError, match=r"could not run the network: .* a broken enqueue"):
        engine.run(*batch())
    images, sizes = batch()
    found = engine.run(images, sizes)
    assert found.mask_scores[0, 0] == pytest.approx(images.mean(), abs=1e-6)


def test_a_fault_on_the_gpu_is_told_and_everything_given_back(rig: Rig) -> None:
    engine = rig.open()
    engine.run(*batch())
    pending = engine.start(*batch())
    rig.driver.sticky = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(GpuError, match=r"ILLEGAL_ADDRESS.*start again"):
        pending.result()
    with pytest.raises(GpuError, match="ILLEGAL_ADDRESS"):
        pending.result()
    with pytest.raises(GpuError, match="ILLEGAL_ADDRESS"):
        engine.close()
    assert rig.driver.live == {}


def test_no_memory_for_a_shape_leaves_the_others_usable(rig: Rig) -> None:
    engine = rig.open()
    engine.run(*batch())
    live = rig.driver.live
    for name in ("cuMemAlloc", "cuMemHostAlloc", "cuEventCreate"):
        rig.driver.fail(name, CUresult.CUDA_ERROR_OUT_OF_MEMORY, after=4)
        with pytest.raises(GpuError, match=r"OUT_OF_MEMORY.*smaller --size"):
            engine.run(*batch(height=128))
        assert rig.driver.live == live, name
    engine.run(*batch())
    engine.run(*batch(height=128))


def test_the_least_recently_used_shapes_make_room(rig: Rig) -> None:
    engine = rig.open()
    for height in range(32, 32 * (state.MAX_LANES + 1), 32):
        engine.run(*batch(height=height))
    full = rig.driver.live
    pending = engine.start(*batch(height=64))
    images, sizes = batch(height=32 * 12)
    assert engine.run(images, sizes).mask_scores[0, 0] == pytest.approx(images.mean(), abs=1e-6)
    assert len(engine.graph_states) == state.MAX_LANES
    assert (1, 3, 32, 96) not in engine.graph_states
    assert rig.driver.live == {**full, "executable": 1}  # 64's, from its second run
    for height in (96, 128, 160, 192):  # and 64 goes while it is on its way
        engine.run(*batch(height=height))
    assert rig.driver.live == {**full, "executable": 2}, "96's and 128's; 64's is gone"
    found = pending.result()
    assert found.mask_scores[0, 0] == pytest.approx(batch(height=64)[0].mean(), abs=1e-6)


def test_many_frame_sizes_hold_bounded_memory(rig: Rig) -> None:
    engine = rig.open()
    config = PreprocessConfig(short_side=64, long_side=64)
    for width in range(80, 80 + 2 * state.MAX_CAMERAS):
        image = frame(80, width)
        found, _ = engine.segment(image, config)
        tensor, _ = Preprocess(config)(image)
        assert found.mask_scores[0, 0] == pytest.approx(tensor.mean(), abs=2e-3)
    pinned = rig.driver.live["pinned"]
    engine.segment(frame(80, 97), config)
    assert rig.driver.live["pinned"] == pinned


def test_a_frame_on_its_way_keeps_its_buffers_until_it_has_arrived(rig: Rig) -> None:
    engine = rig.open()
    config = PreprocessConfig(short_side=64, long_side=64)
    started = []
    for width in range(80, 80 + 2 * state.MAX_CAMERAS):  # of one input shape
        started.append((engine.start_segment(frame(80, width), config)[0], frame(80, width)))
    for height in range(64, 64 + 32 * state.MAX_LANES, 32):  # of others
        image = frame(height, 256)
        own = PreprocessConfig(short_side=height, long_side=256)
        engine.start_segment(image, own)
    for pending, image in started:
        tensor, _ = Preprocess(config)(image)
        assert pending.result().mask_scores[0, 0] == pytest.approx(tensor.mean(), abs=2e-3)


def test_a_shape_outside_the_profile(rig: Rig) -> None:
    engine = rig.open(profile=[[1, 3, 64, 64], [1, 3, 64, 96], [2, 3, 96, 128]])
    for n, height, width in ((3, 64, 64), (1, 32, 64), (1, 64, 160)):
        with pytest.raises(ConfigError, match=r"1x64x64 to 2x96x128.*--size"):
            engine.run(*batch(n, height, width))
    engine.run(*batch(2, 96, 128))
    fixed = rig.open(profile=[[1, 3, 64, 96]] * 3)
    with pytest.raises(ConfigError, match=r"batches of 1x64x96 \(pictures"):
        fixed.run(*batch(2))


def test_times_of_every_step(rig: Rig) -> None:
    engine = rig.open()
    for _ in range(3):
        engine.segment(frame())
    assert len(engine.gpu_times) == 3
    for times in engine.gpu_times:
        assert times.network_ms > 0 and times.preprocess_ms > 0
        assert times.upload_ms > 0 and times.download_ms > 0


def test_everything_goes_in_the_reverse_order(rig: Rig) -> None:
    engine = rig.open()
    engine.segment(frame())
    engine.close()
    assert rig.driver.trace[-2:] == ["stream", "context"]
    assert {"device", "pinned"} <= set(rig.driver.trace[:-2])
    engine.close()
    with pytest.raises(GpuError, match="closed"):
        engine.run(*batch())


def test_an_engine_that_nobody_closes_is_closed(rig: Rig) -> None:
    rig.open().segment(frame())
    rig.opened.clear()
    gc.collect()
    assert rig.driver.live == {}
    assert not [t for t in threading.enumerate() if t.name == "centermask-gpu"]


def test_a_block_closes_it(rig: Rig) -> None:
    with rig.open() as engine:
        engine.run(*batch())
    assert rig.driver.live == {}


def test_a_file_that_tensorrt_cannot_read(rig: Rig) -> None:
    path = rig.folder / "old.engine"
    path.write_bytes(b"ptrt not an engine")
    with pytest.raises(
        ModelFileError, match=r"old.engine cannot be loaded.*Version tag.*--rebuild"
    ):
        TensorRtEngine(rig.api, path, path.read_bytes(), tiny_model.metadata())
    assert rig.driver.live == {}


def test_an_engine_of_something_else(rig: Rig) -> None:
    model = tiny_model.build()
    kept = [o for o in model.graph.output if o.name not in ("masks", "count")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    path = fake_tensorrt.save_engine(model, rig.folder / "other.engine")
    with pytest.raises(ModelFileError, match="has no count, masks"):
        TensorRtEngine(rig.api, path, path.read_bytes(), tiny_model.metadata())
    assert rig.driver.live == {}


@pytest.mark.parametrize("name", ["cuCtxSetCurrent", "cuStreamCreate", "cuDevicePrimaryCtxRetain"])
def test_a_start_that_fails_leaves_nothing(rig: Rig, name: str) -> None:
    rig.driver.fail(name, CUresult.CUDA_ERROR_OUT_OF_MEMORY)
    with pytest.raises(GpuError, match="OUT_OF_MEMORY"):
        rig.open()
    assert rig.driver.live == {}
    assert not [t for t in threading.enumerate() if t.name == "centermask-gpu"]


def test_no_gpu(host: Library, tmp_path: Path) -> None:
    with fake_cuda.installed(Driver(gpus=0)) as driver:
        rig = Rig(driver, host, tmp_path)
        with pytest.raises(GpuError, match=r"no NVIDIA GPU.*--engine openvino"):
            rig.open()
        assert driver.live == {}
