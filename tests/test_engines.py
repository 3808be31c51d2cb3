from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_model
from onnx import TensorProto, helper

from centermask_edge.engines import EngineName, default_engine, open_engine
from centermask_edge.engines.base import Detections
from centermask_edge.errors import (
    CenterMaskError,
    ConfigError,
    MissingPackageError,
    ModelFileError,
)

CPU_ENGINES = [EngineName.OPENVINO, EngineName.ONNXRUNTIME]
both = pytest.mark.parametrize("engine", CPU_ENGINES, ids=lambda e: e.value)


def batch(*sizes: tuple[int, int], height: int = 64, width: int = 96) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(len(sizes))
    images = rng.standard_normal((len(sizes), 3, height, width), dtype=np.float32)
    return images, np.array(sizes, np.float32)


@both
def test_outputs_keep_their_promised_types_and_values(engine: EngineName, tiny: Path) -> None:
    images, sizes = batch((64, 90), (50, 96))
    found = open_engine(tiny, engine).run(images, sizes)
    k = tiny_model.K
    assert {n: (getattr(found, n).shape, getattr(found, n).dtype) for n in found.__slots__} == {
        "boxes": ((2, k, 4), np.float32),
        "scores": ((2, k), np.float32),
        "mask_scores": ((2, k), np.float32),
        "classes": ((2, k), np.int64),
        "masks": ((2, k, 28, 28), np.float32),
        "count": ((2,), np.int64),
    }
    np.testing.assert_allclose(found.boxes[1, :3], tiny_model.BOXES * [96, 50, 96, 50], rtol=1e-6)
    np.testing.assert_allclose(found.mask_scores[:, 0], images.mean((1, 2, 3)), atol=1e-6)
    assert found.count.tolist() == [3, 3]
    assert not found.masks[:, 3:].any()


@both
def test_metadata_comes_with_the_model(engine: EngineName, tiny: Path) -> None:
    opened = open_engine(tiny, engine)
    assert opened.metadata == tiny_model.metadata()
    assert opened.name.startswith(engine.value)


@both
def test_results_outlive_the_next_run(engine: EngineName, tiny: Path) -> None:
    opened = open_engine(tiny, engine)
    first = opened.run(*batch((64, 96)))
    boxes, scores = first.boxes.copy(), first.mask_scores.copy()
    images, sizes = batch((30, 40))
    opened.run(images + 5, sizes)
    np.testing.assert_array_equal(first.boxes, boxes)
    np.testing.assert_array_equal(first.mask_scores, scores)


@both
def test_nothing_found_is_a_result(engine: EngineName, tmp_path: Path) -> None:
    empty = tiny_model.save(tmp_path / "empty.onnx", found=0)
    found = open_engine(empty, engine, threads=1).run(*batch((64, 96)))
    assert found.count.tolist() == [0] and not found.scores.any()


def test_the_engines_agree(tiny: Path) -> None:
    images, sizes = batch((64, 90), (50, 96), (64, 64))
    runs = [open_engine(tiny, engine).run(images, sizes) for engine in CPU_ENGINES]
    for name in Detections.__slots__:
        np.testing.assert_allclose(getattr(runs[0], name), getattr(runs[1], name), atol=1e-6)


@both
def test_many_input_shapes(engine: EngineName, tiny: Path) -> None:
    opened = open_engine(tiny, engine)
    for height, width in [(32, 64), (64, 64), (64, 96), (96, 64), (128, 32), (32, 32), (32, 64)]:
        images, sizes = batch((height, width), height=height, width=width)
        found = opened.run(images, sizes)
        np.testing.assert_allclose(found.mask_scores[0, 0], images.mean(), atol=1e-6)
        np.testing.assert_allclose(found.boxes[0, 0, 2:], [0.5 * width, 0.9 * height], rtol=1e-6)


def test_openvino_compiles_at_most_four_shapes_and_then_one_for_all(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from centermask_edge.engines import openvino

    compiled: list[object] = []
    compile_ = openvino.OpenVinoEngine._compile

    def counted(self: openvino.OpenVinoEngine, shape: tuple[int, ...] | None) -> object:
        compiled.append(shape and shape[2:])
        return compile_(self, shape)

    monkeypatch.setattr(openvino.OpenVinoEngine, "_compile", counted)
    engine = openvino.OpenVinoEngine(tiny)
    shapes = [(32, 32 * n) for n in range(1, 8)]
    for height, width in shapes * 2:
        engine.run(*batch((height, width), height=height, width=width))
    assert compiled == [*shapes[:4], None]
    for _ in range(20):  # one that stays gets a network of its own
        engine.run(*batch(shapes[6], height=32, width=32 * 7))
    assert compiled == [*shapes[:4], None, shapes[6]]
    assert len(engine._requests) == 4


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def relu(path: Path) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "relu", values[:1], values[1:]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def without_masks(path: Path) -> Path:
    model = tiny_model.build()
    kept = [o for o in model.graph.output if o.name != "masks"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)
    return path


@both
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p, "model file not found"),
        (lambda p: p.parent, "is a folder"),
        (lambda p: write(p, b""), r"is empty \(0 bytes\)"),
        (lambda p: write(p, b"this is a text, not a model\n" * 50), "not a valid ONNX file"),
        (lambda p: write(p, tiny_model.build().SerializeToString()[:900]), "not a valid ONNX"),
        (relu, "not written by centermask-edge"),
        (without_masks, "has no output masks"),
        (lambda p: tiny_model.save(p, record="{}"), "cannot read"),
        (lambda p: write(p.with_suffix(".pth"), b"x"), "is a torch checkpoint"),
        (lambda p: write(p.with_suffix(".engine"), b"x"), "is a TensorRT engine"),
    ],
)
def test_a_wrong_file_is_one_clear_line(
    engine: EngineName, make: object, message: str, tmp_path: Path
) -> None:
    assert callable(make)
    path = make(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=message) as caught:
        open_engine(path, engine)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_engines_that_cannot_run_this_say_what_can(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("centermask_edge.engines.tensorrt.open.find_gpu", lambda: None)
    with pytest.raises(CenterMaskError, match=r"no NVIDIA GPU.*--engine openvino"):
        open_engine(tiny, EngineName.TENSORRT)
    with pytest.raises(ConfigError, match=r"checkpoints.*tiny\.onnx"):
        open_engine(tiny, EngineName.TORCH)


@pytest.mark.parametrize("threads", [0, -2])
def test_impossible_threads(tiny: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=f"--threads {threads}"):
        open_engine(tiny, None, threads)


def test_openvino_is_the_default_and_onnxruntime_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    assert default_engine() is EngineName.OPENVINO
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    assert default_engine() is EngineName.ONNXRUNTIME


@both
def test_a_missing_engine_names_the_extra(
    engine: EngineName, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine.value, None)
    with pytest.raises(MissingPackageError, match=r"centermask-edge\[cpu\]"):
        open_engine(tiny, engine)


RUN = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork", "subprocess.Popen"):
        print("NETWORK", event, args)
sys.addaudithook(hook)
from pathlib import Path
import numpy as np
from centermask_edge.engines import EngineName, open_engine
engine = open_engine(Path(sys.argv[1]), EngineName(sys.argv[2]))
engine.run(np.zeros((1, 3, 64, 64), np.float32), np.full((1, 2), 64, np.float32))
print("LOADED", sorted({"torch", "onnx", "openvino_telemetry", "tensorrt"} & set(sys.modules)))
"""


@both
def test_a_warm_start_needs_neither_torch_nor_onnx_nor_the_network(
    engine: EngineName, tiny: Path
) -> None:
    open_engine(tiny, engine)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tiny), engine.value],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["LOADED []"], done.stdout
