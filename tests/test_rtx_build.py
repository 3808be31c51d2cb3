"""Real engines: TensorRT-RTX builds the whole shipped model ahead of time, without a GPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_model
from trt_cases import int8_person, people
from typer.testing import CliRunner

from centermask_edge import cli
from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.build import (
    Built,
    Options,
    build_engine,
    layers_path,
    log_folder,
    rebuild,
)
from centermask_edge.engines.tensorrt.layers import Layer, from_json
from centermask_edge.engines.tensorrt.manifest import (
    Precision,
    Range,
    Shapes,
    manifest_path,
    read_manifest,
)
from centermask_edge.errors import CenterMaskError, ModelFileError
from centermask_edge.kernels.toolchain import find_host_compiler
from centermask_edge.resources import shipped_model

pytest.importorskip("tensorrt_rtx_bindings")
pytestmark = pytest.mark.skipif(find_host_compiler() is None, reason="no C++ compiler")

TARGETS = (86, 89, 120)
OUTPUTS = {"boxes", "scores", "mask_scores", "classes", "masks", "count"}


def fixed(number: int) -> Range:
    return Range(min=number, opt=number, max=number)


ONE = Shapes(batch=fixed(1), height=fixed(352), width=fixed(640))


def options(precision: Precision, shapes: Shapes = ONE, **changes: Any) -> Options:
    return Options(precision, shapes, targets=TARGETS, flavor=Flavor.RTX, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    (folder / "person.onnx").write_bytes(shipped_model().read_bytes())
    onnx.save(int8_person(), folder / "person-int8.onnx")
    return folder


_built: dict[Precision, Built] = {}


@pytest.fixture
def built(request: pytest.FixtureRequest, folder: Path) -> Built:
    precision: Precision = request.param
    if precision not in _built:
        name = "person-int8.onnx" if precision is Precision.INT8 else "person.onnx"
        _built[precision] = build_engine(folder / name, folder, options(precision))
    return _built[precision]


def every(*precisions: Precision) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("built", precisions, indirect=True, ids=lambda p: p.value)


def layers_of(built: Built) -> list[Layer]:
    return from_json(layers_path(built.engine).read_text(encoding="utf-8"))


@every(*Precision)
def test_the_whole_model_builds_in_well_under_a_minute(built: Built) -> None:
    assert 0 < built.seconds < 60
    manifest = read_manifest(built.engine)
    assert manifest == built.manifest
    assert manifest.capabilities == TARGETS and manifest.gpu == ""
    name = built.engine.name
    assert re.fullmatch(rf".*-{manifest.precision.value}-{manifest.key}\.rtx\.engine", name)
    plugins = {
        name for layer in layers_of(built) if layer.type == "custom_layer" for name in layer.onnx
    }
    kinds = {node.name for node in onnx.load(shipped_model()).graph.node if node.domain}
    assert plugins == kinds and len(kinds) == 3
    assert {t.name for layer in layers_of(built) for t in layer.outputs} >= OUTPUTS
    assert manifest.layers is not None and manifest.layers.activation_bytes > 1e6


@every(Precision.FP32)
def test_fp32_computes_in_fp32(built: Built) -> None:
    assert built.manifest.layers is not None
    assert built.manifest.layers.share("fp32") == 1


@every(Precision.FP16)
def test_fp16_has_no_float_convolution(built: Built) -> None:
    convolutions = [
        layer for layer in layers_of(built) if "conv" in layer.type or layer.is_convolution
    ]
    assert len(convolutions) > 90
    for layer in convolutions:
        assert {t.dtype for t in (*layer.inputs, *layer.outputs)} == {"fp16"}, layer
    assert built.manifest.layers is not None
    assert built.manifest.layers.share("fp16") == 1


@every(Precision.INT8)
def test_int8_keeps_nearly_every_multiply_add_in_int8(built: Built) -> None:
    summary = built.manifest.layers
    assert summary is not None
    assert sum(summary.conv_macs.values()) > 9e9
    assert summary.share("int8") >= 0.95, summary.conv_macs
    assert summary.conv_macs.get("fp32", 0) == 0


@every(Precision.FP16)
def test_the_same_engine_is_not_built_again(built: Built, folder: Path) -> None:
    again = build_engine(folder / "person.onnx", folder, options(Precision.FP16))
    assert again.engine == built.engine and again.seconds == 0
    assert not list(folder.glob(".building*"))


@every(Precision.FP16)
def test_the_log_is_kept_and_its_digest_is_in_the_manifest(built: Built) -> None:
    from centermask_edge.engines.files import file_sha256

    log = log_folder() / built.manifest.build_log
    assert file_sha256(log) == built.manifest.build_log_sha256
    assert file_sha256(built.engine) == built.manifest.engine_sha256


def test_a_range_of_batches_and_sizes(folder: Path) -> None:
    shapes = Shapes(
        batch=Range(min=1, opt=2, max=4),
        height=Range(min=192, opt=192, max=224),
        width=Range(min=256, opt=256, max=320),
    )
    made = build_engine(folder / "person.onnx", folder, options(Precision.FP16, shapes))
    log = (log_folder() / made.manifest.build_log).read_text(encoding="utf-8")
    assert "MinShape: [1,3,192,256], OptShape: [2,3,192,256], MaxShape: [4,3,224,320]" in log
    assert made.manifest.layers is not None and made.manifest.layers.share("fp16") == 1


@every(Precision.FP16)
def test_rebuild_makes_the_same_engine_from_the_onnx_file(
    built: Built, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "person.onnx").write_bytes((folder / "person.onnx").read_bytes())
    old = tmp_path / "person-fp16-00000000.rtx.engine"
    old.write_bytes(b"of another version")
    text = manifest_path(built.engine).read_text().replace("1.7.1.116", "1.6.0.1")
    manifest_path(old).write_text(text)
    new = rebuild(old)
    assert new.parent == tmp_path and new.name == built.engine.name
    (tmp_path / "person.onnx").unlink()
    with pytest.raises(ModelFileError, match=r"built from .*person\.onnx, which is not there"):
        rebuild(old)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """The processes that will be started, as they are."""
    children: list[subprocess.Popen[str]] = []

    class Watched(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return children


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, r"was killed \(SIGKILL\), which usually means that memory ran out"),
        (signal.SIGABRT, r"crashed inside TensorRT \(SIGABRT\)"),
    ],
)
def test_a_child_that_dies_is_one_line_and_leaves_nothing(
    number: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = watched(monkeypatch)

    def strike(phase: str, step: int, steps: int) -> None:
        os.kill(children[-1].pid, number)

    model = tmp_path / "person.onnx"
    model.write_bytes(shipped_model().read_bytes())
    with pytest.raises(ModelFileError, match=message) as caught:
        build_engine(model, tmp_path, options(Precision.FP16), progress=strike)
    assert "\n" not in str(caught.value) and "the whole log is in" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["person.onnx"]


def test_ctrl_c_ends_the_child_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = watched(monkeypatch)

    def interrupt(phase: str, step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(shipped_model(), tmp_path, options(Precision.FP16), progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert children[-1].returncode == -signal.SIGKILL


def test_a_model_tensorrt_refuses_names_the_node(tmp_path: Path) -> None:
    model = tiny_model.build()
    model.graph.node.append(onnx.helper.make_node("NonZero", ["image"], ["nz"], "find_all"))
    bad = onnx.helper.make_node("Cast", ["nz"], ["masks_2"], "cast_all", to=1)
    model.graph.node.append(bad)
    for node in model.graph.node:
        node.output[:] = ["masks_1" if name == "masks" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("ReduceMax", ["masks_2"], ["top"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Mul", ["masks_1", "top"], ["masks"]))
    onnx.save(model, tmp_path / "odd.onnx")
    shapes = Shapes(batch=fixed(1), height=fixed(64), width=fixed(96))
    with pytest.raises(CenterMaskError) as caught:
        build_engine(tmp_path / "odd.onnx", tmp_path, options(Precision.FP32, shapes))
    assert "TensorRT-RTX" in str(caught.value) and "log" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.onnx"]


def test_a_missing_plugin_library_is_one_line(tmp_path: Path) -> None:
    wanted = options(Precision.FP16, plugins=tmp_path / "none.so")
    with pytest.raises(CenterMaskError, match=r"plugin library not found.*kernels build --plugin"):
        build_engine(shipped_model(), tmp_path, wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_library_of_something_else_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "other.so"
    library.write_bytes(b"\x7fELF no library")
    with pytest.raises(CenterMaskError, match=r"refuses the plugin library .*other\.so"):
        build_engine(shipped_model(), tmp_path / "out", options(Precision.FP16, plugins=library))
    assert not list((tmp_path / "out").iterdir())


# --- the commands ---


@cache
def runner() -> CliRunner:
    return CliRunner()


def run(*words: str) -> tuple[int, str]:
    result = runner().invoke(cli.application(), list(words), catch_exceptions=False)
    return result.exit_code, result.stdout


@every(Precision.FP16)
def test_build_prints_the_engine(built: Built, folder: Path) -> None:
    model = str(folder / "person.onnx")
    code, text = run("build", model, "--flavor", "rtx", "--target", "sm86,sm89,120")
    assert code == 0 and text.splitlines()[0] == str(built.engine)


@every(Precision.INT8)
def test_a_quantized_file_is_int8_by_default(built: Built, folder: Path) -> None:
    code, text = run("build", str(folder / "person-int8.onnx"), "--target", "sm86,sm89,sm120")
    assert code == 0 and text.splitlines()[0] == str(built.engine)


def test_build_calibrates_on_a_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(people()[1:2]):
        image.fromarray(picture[..., ::-1]).save(tmp_path / "pictures" / f"{index}.png")
    words = ["--calibrate", str(tmp_path / "pictures"), "--out", str(tmp_path), "--size", "224x384"]
    code, text = run("build", *words, "--target", "sm86")
    assert code == 0
    engine = Path(text.splitlines()[0])
    manifest = read_manifest(engine)
    assert manifest.onnx == "person-int8.onnx" and (tmp_path / "person-int8.onnx").is_file()
    assert manifest.layers is not None and manifest.layers.share("int8") > 0.95
    preprocess = manifest.model.preprocess
    assert (preprocess.short_side, preprocess.long_side) == (224, 384)


@every(Precision.FP16)
def test_inspect_needs_no_gpu(built: Built) -> None:
    code, text = run("inspect", str(built.engine))
    assert code == 0
    for words in ("sm_86, sm_89, sm_120", "100.0% fp16", "custom_layer", "reformats", "CMSpatial"):
        assert words in text, text[:3000]
    assert re.search(r"fits here +yes", text)
    code, text = run("inspect", str(built.engine), "--json")
    content = json.loads(text)
    assert content["differences"] == [] and content["manifest"]["precision"] == "fp16"
    assert (
        sum(layer["reformat"] for layer in content["layers"])
        == (content["manifest"]["layers"]["reformats"])
    )


@every(Precision.FP16)
def test_inspect_says_what_does_not_fit_and_how_to_build_again(
    built: Built, tmp_path: Path
) -> None:
    engine = tmp_path / built.engine.name
    engine.write_bytes(b"x")
    text = manifest_path(built.engine).read_text()
    text = text.replace("1.7.1.116", "1.6.0.9").replace(built.manifest.kernels, "0" * 16)
    manifest_path(engine).write_text(text)
    (tmp_path / "person.onnx").write_bytes(b"another file")
    code, shown = run("inspect", str(engine))
    assert code == 0 and re.search(r"fits here +no", shown)
    assert "TensorRT: built for TensorRT-RTX 1.6.0.9, here is TensorRT-RTX 1.7.1.116" in shown
    assert "kernels: built for 0000000000000000" in shown and "ONNX file: built for" in shown
    command = "--precision fp16 --size 352x640 --target sm86,sm89,sm120 --flavor rtx"
    assert command in shown
