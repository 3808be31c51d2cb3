"""Opening engines: which are refused and why, what is rebuilt; ``run`` on the command line."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_arrays
import fake_cuda
import fake_tensorrt
import numpy as np
import onnx
import pytest
import tiny_model
from fake_cuda import Driver
from PIL import Image

from centermask_edge.cli import main
from centermask_edge.engines import EngineName, open_engine
from centermask_edge.engines.files import file_sha256
from centermask_edge.engines.tensorrt import build, fit, open, targets
from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.build import Built, Options
from centermask_edge.engines.tensorrt.cuda import GpuError
from centermask_edge.engines.tensorrt.engine import TensorRtEngine
from centermask_edge.engines.tensorrt.manifest import (
    Manifest,
    Precision,
    manifest_path,
    read_manifest,
    write_manifest,
)
from centermask_edge.engines.tensorrt.open import any_shape, open_tensorrt
from centermask_edge.engines.tensorrt.plugins import kernels_key
from centermask_edge.errors import KernelError, MissingPackageError, ModelFileError
from centermask_edge.kernels.device import Gpu
from centermask_edge.kernels.library import Library

GPU = Gpu("NVIDIA Orin", 87, "12.6")


@dataclass
class Machine:
    """A fake GPU, fake bindings and a builder that makes fake engines."""

    driver: Driver
    folder: Path
    gpu: Gpu | None = GPU
    version: str = "10.16.1.11"
    built: list[Options] = field(default_factory=list)
    fault: Callable[[onnx.ModelProto], onnx.ModelProto] = field(default=lambda model: model)
    kernels: Callable[[], Library] = field(default=lambda: pytest.fail("kernels not wanted"))

    def manifest(self, **changes: Any) -> Manifest:
        """Of an engine that fits, but for the changes."""
        facts: dict[str, Any] = {
            "flavor": Flavor.TENSORRT,
            "tensorrt": self.version,
            "gpu": GPU.name,
            "capabilities": (GPU.capability,),
            "driver": GPU.driver,
            "onnx": "tiny.onnx",
            "onnx_sha256": file_sha256(self.folder / "tiny.onnx"),
            "kernels": kernels_key(),
            "precision": Precision.FP16,
            "shapes": any_shape(tiny_model.metadata()),
            "model": tiny_model.metadata(),
        }
        return Manifest(**{**facts, **changes})

    def engine(self, **changes: Any) -> Path:
        """Such an engine, whole."""
        path = fake_tensorrt.save_engine(
            self.fault(tiny_model.build()), self.folder / "tiny.engine"
        )
        changes.setdefault("engine_sha256", file_sha256(path))
        write_manifest(path, self.manifest(**changes))
        return path

    def build(
        self, path: Path, folder: Path, options: Options, metadata: Any = None, progress: Any = None
    ) -> Built:
        """In the place of ``build_engine``."""
        self.built.append(options)
        folder.mkdir(parents=True, exist_ok=True)
        engine = fake_tensorrt.save_engine(self.fault(onnx.load(path)), folder / "built.engine")
        manifest = self.manifest(
            onnx=Path(os.path.relpath(path, folder)).as_posix(),
            onnx_sha256=file_sha256(path),
            precision=options.precision,
            shapes=options.shapes,
            engine_sha256=file_sha256(engine),
            model=metadata or tiny_model.metadata(),
        )
        write_manifest(engine, manifest)
        return Built(engine, manifest, 1.0)


@pytest.fixture()
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Library) -> Iterator[Machine]:
    with fake_cuda.installed(Driver()) as driver:
        found = Machine(driver, tmp_path, kernels=lambda: fake_arrays.Kernels(host, driver))
        tiny_model.save(tmp_path / "tiny.onnx")
        api = fake_tensorrt.api(driver)
        monkeypatch.setattr(open, "find_api", lambda flavor: api)
        for module in (open, fit, targets):
            monkeypatch.setattr(module, "find_gpu", lambda: found.gpu)
        for module in (open, build):
            monkeypatch.setattr(module, "build_engine", found.build)
        monkeypatch.setattr(open, "load_cuda", lambda: found.kernels())
        monkeypatch.setattr(open, "find_plugins", lambda for_gpu: tmp_path / "plugins.so")
        monkeypatch.setattr(
            "centermask_edge.engines.tensorrt.state.load_plugins", lambda api, library: None
        )
        yield found
        assert driver.live == {}
        assert not [t for t in threading.enumerate() if t.name == "centermask-gpu"]


def run_once(engine: Any) -> np.ndarray:
    images = np.full((1, 3, 64, 64), 2, np.float32)
    with engine:
        found = engine.run(images, np.array([[64, 64]], np.float32))
    scores: np.ndarray = found.mask_scores[0]
    return scores


def test_an_engine_that_fits_is_opened(machine: Machine) -> None:
    engine = open_engine(machine.engine(), EngineName.TENSORRT)
    assert run_once(engine)[:3].tolist() == [2, 2, 2]
    opened = open_engine(machine.engine())  # by its suffix
    assert isinstance(opened, TensorRtEngine)
    opened.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensorrt": "10.3.0"}, r"TensorRT: built for TensorRT 10\.3\.0, here is TensorRT 10\.16"),
        (
            {"gpu": "NVIDIA Thor", "capabilities": (110,)},
            r"GPU: .*Thor \(sm_110\), here is .*sm_87",
        ),
        ({"gpu": "NVIDIA Other"}, r"GPU: .*Other"),
        ({"driver": "13.2"}, r"driver: built for CUDA 13\.2, here is CUDA 12\.6"),
        ({"onnx_sha256": "0" * 64}, r"ONNX file: built for 00000000"),
        ({"kernels": "1234567890abcdef"}, r"kernels: built for 1234567890abcdef"),
        ({"flavor": Flavor.RTX}, r"TensorRT: built for TensorRT-RTX"),
        ({"engine_sha256": "0" * 64}, r"not the file its manifest was written for"),
    ],
)
def test_an_engine_that_does_not_fit(
    machine: Machine, changes: dict[str, Any], message: str
) -> None:
    path = machine.engine(**changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        open_tensorrt(path)
    assert "centermask-edge build" in str(caught.value)
    assert machine.built == []
    engine = open_tensorrt(path, rebuild_misfit=True)
    assert run_once(engine)[0] == 2
    (options,) = machine.built
    assert options.precision is Precision.FP16


def test_an_engine_that_fits_is_not_rebuilt(machine: Machine) -> None:
    open_tensorrt(machine.engine(), rebuild_misfit=True).close()
    assert machine.built == []


def test_every_difference_is_named(machine: Machine) -> None:
    path = machine.engine(tensorrt="10.3.0", driver="13.9", kernels="0" * 16)
    with pytest.raises(ModelFileError, match=r"TensorRT: .*driver: .*kernels: "):
        open_tensorrt(path)


def test_an_engine_without_its_manifest(machine: Machine) -> None:
    path = machine.engine()
    manifest_path(path).unlink()
    with pytest.raises(ModelFileError, match="no manifest"):
        open_tensorrt(path)
    with pytest.raises(ModelFileError, match="not found"):
        open_tensorrt(machine.folder / "gone.engine")


def test_an_onnx_file_is_built_for_this_gpu(machine: Machine) -> None:
    path = machine.folder / "tiny.onnx"
    engine = open_engine(path, EngineName.TENSORRT, min_score=0.5)
    images = np.full((1, 3, 64, 64), 2, np.float32)
    assert isinstance(engine, TensorRtEngine)
    with engine:
        assert engine.run(images, np.array([[64, 64]], np.float32)).count.tolist() == [2]
    (options,) = machine.built
    assert options.precision is Precision.FP16 and options.targets == ()


def test_the_shapes_of_an_onnx_file_take_any_proportions() -> None:
    shapes = any_shape(tiny_model.metadata(short_side=352, long_side=640))
    assert (shapes.height.opt, shapes.width.opt) == (352, 640)
    assert (shapes.height.min, shapes.height.max, shapes.width.max) == (64, 640, 640)
    assert shapes.batch.max == 1
    upright = any_shape(tiny_model.metadata(short_side=64, long_side=64))
    assert upright.height.min <= upright.height.opt <= upright.height.max == 64


def test_no_gpu_names_the_cpu(machine: Machine) -> None:
    machine.gpu = None
    for name in ("tiny.engine", "tiny.onnx"):
        with pytest.raises(GpuError, match=r"no NVIDIA GPU.*--engine openvino"):
            open_tensorrt(machine.folder / name)


def test_no_tensorrt_names_the_cpu(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(flavor: Flavor | None) -> Any:
        raise MissingPackageError("TensorRT cannot be loaded; pip install it")

    monkeypatch.setattr(open, "find_api", missing)
    with pytest.raises(MissingPackageError, match=r"pip install it; .*--engine openvino"):
        open_tensorrt(machine.folder / "tiny.onnx")


@pytest.fixture()
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_run_from_the_command_line(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, stages = machine.folder / "a.jsonl", machine.folder / "stages.json"
    words = ["run", str(picture), "--model", str(machine.engine()), "--json", str(lines)]
    assert main([*words, "--stages-json", str(stages)]) == 0
    assert len(json.loads(lines.read_text())["instances"]) == 2
    assert json.loads(stages.read_text())["engine"] == "tensorrt 10.16.1.11"
    assert "tensorrt 10.16.1.11" in capsys.readouterr().err


def test_run_shows_the_times_of_the_gpu(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machine.folder / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(picture.read_bytes())
    stages = machine.folder / "stages.json"
    words = ["run", str(folder), "--model", str(machine.engine()), "--stages-json", str(stages)]
    assert main(words) == 0
    content = json.loads(stages.read_text())
    # The frame goes up as it is: the processor prepares nothing.
    assert "preprocess" not in [row["stage"] for row in content["stages"]]
    rows = content["gpu_stages"]
    assert [row["stage"] for row in rows] == ["upload", "preprocess", "network", "download"]
    assert rows[2]["p50_ms"] > 0
    assert "on the GPU" in capsys.readouterr().err


def test_run_without_a_compiler_prepares_frames_on_the_processor(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Library:
        raise KernelError("no nvcc was found; install it")

    words = ["run", str(picture), "--model", str(machine.engine()), "--json"]
    assert main([*words, str(machine.folder / "gpu.jsonl")]) == 0
    machine.kernels = missing
    assert main([*words, str(machine.folder / "cpu.jsonl")]) == 0
    printed = capsys.readouterr().err
    assert "frames are prepared on the processor: no nvcc was found" in printed
    on_gpu, on_cpu = (
        json.loads((machine.folder / f"{name}.jsonl").read_text())["instances"]
        for name in ("gpu", "cpu")
    )
    assert on_gpu == on_cpu and len(on_gpu) == 2


def test_run_refuses_and_rebuilds(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = machine.engine(tensorrt="10.3.0")
    words = ["run", str(picture), "--engine", "tensorrt", "--model", str(path)]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "10.3.0" in line and "centermask-edge build" in line
    assert main([*words, "--rebuild"]) == 0
    assert read_manifest(machine.folder / "built.engine").tensorrt == "10.16.1.11"


def test_run_without_a_gpu(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gpu = None
    out = machine.folder / "out.png"
    assert main(["run", str(picture), "--engine", "tensorrt", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no NVIDIA GPU") and "--engine openvino" in line
    assert not out.exists()


def largest_for_mean(model: onnx.ModelProto) -> onnx.ModelProto:
    """A fault: the mean of the picture is its largest value."""
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            node.op_type = "ReduceMax"
    return model


def test_verify_an_engine_that_agrees(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    result = machine.folder / "verify.json"
    words = ["verify", str(machine.engine()), "--count", "2", "--json", str(result)]
    assert main(words) == 0
    found = json.loads(result.read_text())
    assert found["agrees"] and found["pictures"] == 2 and found["objects"] == 4
    assert [row["tensor"] for row in found["outputs"]] == [
        *("boxes", "scores", "mask_scores", "masks", "classes", "count")
    ]
    assert "agrees with ONNX Runtime on 2 pictures, 4 objects" in capsys.readouterr().err
    assert machine.built == []


def test_verify_an_engine_that_diverges(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fault = largest_for_mean
    folder = machine.folder / "pictures"
    folder.mkdir()
    picture.rename(folder / "a.png")
    result = machine.folder / "verify.json"
    words = ["verify", str(machine.engine()), "--images", str(folder), "--json", str(result)]
    assert main(words) == 3
    assert json.loads(result.read_text())["first"] == "mean"
    text = capsys.readouterr().err
    assert "the first tensor that does is mean, made by ReduceMean" in text
    (options,) = machine.built
    assert options.shapes.fixed and options.precision is Precision.FP16


def test_verify_looks_into_layers_when_asked(machine: Machine) -> None:
    result = machine.folder / "verify.json"
    words = ["verify", str(machine.engine()), "--count", "1", "--layers", "--json", str(result)]
    assert main(words) == 0
    found = json.loads(result.read_text())
    assert found["first"] is None and "mean" in [row["tensor"] for row in found["layers"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.engine"], "not found"),
        (["tiny.engine", "--count", "0"], "--count 0"),
        (["tiny.engine", "--score", "2"], "--score 2"),
        (["tiny.engine", "--images", "nowhere"], "source not found"),
    ],
)
def test_verify_refuses(
    machine: Machine,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.engine()
    monkeypatch.chdir(machine.folder)
    assert main(["verify", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_verify_needs_the_onnx_file_and_a_gpu(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    path = machine.engine()
    machine.gpu = None
    assert main(["verify", str(path)]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    (machine.folder / "tiny.onnx").unlink()
    assert main(["verify", str(path)]) == 2
    assert "the ONNX file that the engine was built from is not there" in capsys.readouterr().err


def test_verify_leaves_out_pictures_that_do_not_fit(
    machine: Machine, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = machine.folder / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture.read_bytes())
    Image.fromarray(np.zeros((90, 70, 3), np.uint8)).save(folder / "b.png")
    path = machine.engine()
    fake_tensorrt.save_engine(tiny_model.build(), path, [[1, 3, 64, 96]] * 3)
    write_manifest(path, machine.manifest(engine_sha256=file_sha256(path)))
    assert main(["verify", str(path), "--images", str(folder)]) == 0
    assert "on 1 picture, 2 objects" in capsys.readouterr().err
    (folder / "a.png").unlink()
    assert main(["verify", str(path), "--images", str(folder)]) == 2
    assert "built for batches of 1x64x96" in capsys.readouterr().err
