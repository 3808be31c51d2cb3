"""The adapter over TensorRT's versions: what it finds, what it uses, and what it must not use."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from trt_fake import VERSIONS, World, fake_tensorrt, recorded

from centermask_edge.engines.tensorrt import api as api_module
from centermask_edge.engines.tensorrt import builder_process
from centermask_edge.engines.tensorrt.api import (
    Api,
    Flavor,
    find_api,
    load_plugins,
    make_logger,
)
from centermask_edge.engines.tensorrt.layers import from_json
from centermask_edge.engines.tensorrt.request import Request
from centermask_edge.errors import ConfigError, KernelError, MissingPackageError, ModelFileError

PACKAGE = Path(__file__).parents[1] / "centermask_edge"
# Gone in TensorRT 11; a word boundary on both sides.
REMOVED = (
    r"BuilderFlag\.(FP16|BF16|FP8|INT8|INT4|OBEY_PRECISION_CONSTRAINTS|PREFER_PRECISION_CONSTRAINTS)",
    r"EXPLICIT_BATCH",
    r"IInt8\w*Calibrator\w*",
    r"int8_calibrator",
    r"QuantizationFlag",
    r"set_output_type",
    r"\.dynamic_range",
    r"set_dynamic_range",
    r"supports_model\(",
    r"get_plugin_creator\(",
    r"algorithm_selector",
    r"set_calibration_profile",
    r"device_memory_size(?!_v2)\b",
    r"build_engine_with_config",
    r"max_workspace_size",
)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


def install(monkeypatch: pytest.MonkeyPatch, version: str, name: str = "tensorrt") -> World:
    module, world = fake_tensorrt(version)
    monkeypatch.setitem(sys.modules, name, module)
    return world


@pytest.mark.usefixtures("no_tensorrt")
def test_nothing_installed_names_every_way_to_install() -> None:
    with pytest.raises(MissingPackageError, match=r"JetPack 6\.1.*\[tensorrt\].*\[rtx\]"):
        find_api()
    with pytest.raises(MissingPackageError, match=r"TensorRT-RTX cannot be loaded.*\[rtx\]"):
        find_api(Flavor.RTX)


@pytest.mark.usefixtures("no_tensorrt")
def test_bindings_without_their_libraries_say_which_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt")
    with pytest.raises(MissingPackageError, match=r"libnvinfer\.so\.10: cannot open"):
        find_api(Flavor.TENSORRT)


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_is_preferred(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, version)
    found = find_api()
    assert (found.flavor, found.version) == (Flavor.TENSORRT, version)
    assert found.name == f"TensorRT {version}"


@pytest.mark.usefixtures("no_tensorrt")
def test_an_old_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    vars(module).update(__version__="8.6.2", Builder=object)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(ConfigError, match=r"TensorRT 8\.6\.2 is too old: 10\.3 or newer"):
        find_api()


def test_what_a_sink_raises_stays_out_of_tensorrt() -> None:
    module, _ = fake_tensorrt(VERSIONS[0])
    heard: list[tuple[str, str]] = []
    api = Api(Flavor.TENSORRT, module, VERSIONS[0])
    make_logger(api, lambda s, t: heard.append((s, t))).log("Severity.WARNING", "careful")
    assert heard == [("warning", "careful")]
    make_logger(api, lambda s, t: 1 / 0).log("Severity.ERROR", "x")  # type: ignore[arg-type]


def test_plugins_are_loaded_once(tmp_path: Path) -> None:
    module, world = fake_tensorrt(VERSIONS[0])
    api = Api(Flavor.TENSORRT, module, VERSIONS[0])
    library = tmp_path / "plugins.so"
    with pytest.raises(KernelError, match=r"not found.*kernels build --plugin"):
        load_plugins(api, library)
    library.touch()
    load_plugins(api, library)
    load_plugins(api, library)
    assert world.called("IPluginRegistry.load_library") == [(str(library),)]


def test_a_refused_plugin_library_is_an_error(tmp_path: Path) -> None:
    module, world = fake_tensorrt(VERSIONS[0])
    world.answers["IPluginRegistry.load_library"] = lambda path: None
    (tmp_path / "plugins.so").touch()
    with pytest.raises(KernelError, match="refuses the plugin library"):
        load_plugins(Api(Flavor.TENSORRT, module, VERSIONS[0]), tmp_path / "plugins.so")


def request(folder: Path, **changes: object) -> Request:
    files = {name: str(folder / name) for name in ("engine", "log", "layers", "timing_cache")}
    for name in ("model", "plugins"):
        files[name] = str(folder / name)
        (folder / name).write_bytes(b"x")
    sizes = {"batch": (1, 1, 1), "height": (64, 64, 64), "width": (96, 96, 96)}
    return Request(**{"flavor": Flavor.TENSORRT, **files, **sizes, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=VERSIONS)
def world(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, no_tensorrt: None
) -> World:
    monkeypatch.setattr(api_module, "_loaded", set())
    return install(monkeypatch, request.param)


def build(wanted: Request, answers: Path) -> None:
    journal = builder_process.Journal(Path(wanted.log))
    try:
        with answers.open("w") as stream:
            builder_process.build(wanted, journal, builder_process.Answers(stream))
    finally:
        journal.close()


def test_a_build_uses_only_what_each_version_has(world: World, tmp_path: Path) -> None:
    wanted = request(tmp_path, workspace_mib=256, batch=(1, 2, 4))
    build(wanted, tmp_path / "answers")
    assert Path(wanted.engine).read_bytes() == b"an engine"
    assert Path(wanted.timing_cache).read_bytes() == b"timings"
    assert [layer.name for layer in from_json(Path(wanted.layers).read_text())] == ["a", "b"]
    ((flags,),) = world.called("Builder.create_network")
    assert flags, "STRONGLY_TYPED must be asked for where there is such a flag"
    assert world.called("IBuilderConfig.set_memory_pool_limit")[0][1] == 256 << 20
    assert world.called("IBuilderConfig.clear_flag")[0][0].name == "BuilderFlag.TF32"
    shapes = dict((a[0], a[1:]) for a in world.called("IOptimizationProfile.set_shape"))
    assert shapes["image"] == ((1, 3, 64, 96), (2, 3, 64, 96), (4, 3, 64, 96))
    assert shapes["image_size"] == ((1, 2), (2, 2), (4, 2))
    assert world.called("IPluginRegistry.load_library") == [(wanted.plugins,)]


def test_one_shape_needs_no_profile(world: World, tmp_path: Path) -> None:
    build(request(tmp_path), tmp_path / "answers")
    assert not world.called("IBuilderConfig.add_optimization_profile")
    assert not world.called("IBuilderConfig.set_memory_pool_limit")


def test_a_timing_cache_of_another_device_is_replaced(world: World, tmp_path: Path) -> None:
    wanted = request(tmp_path)
    Path(wanted.timing_cache).write_bytes(b"of another device")
    answers = iter([False, True])
    world.answers["IBuilderConfig.set_timing_cache"] = lambda *a: next(answers)
    build(wanted, tmp_path / "answers")
    assert world.called("IBuilderConfig.create_timing_cache") == [(b"of another device",), (b"",)]
    assert Path(wanted.timing_cache).read_bytes() == b"timings"


def test_progress_is_reported_through_the_monitor(world: World, tmp_path: Path) -> None:
    def work(network: object, config: object) -> bytes:
        monitor = world.set["IBuilderConfig.progress_monitor"]
        monitor.phase_start("tactics", None, 2)
        assert monitor.step_complete("tactics", 0) and monitor.step_complete("tactics", 1)
        monitor.phase_finish("tactics")
        return b"an engine"

    world.answers["Builder.build_serialized_network"] = work
    build(request(tmp_path), tmp_path / "answers")
    said = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
    assert said[-1] == {"event": "progress", "phase": "tactics", "step": 2, "steps": 2}


def test_a_refused_model_names_the_first_error(world: World, tmp_path: Path) -> None:
    class Error:
        def desc(self) -> str:
            return "no importer\nfor Foo"

    world.answers["OnnxParser.parse"] = lambda content: False
    world.answers["OnnxParser.num_errors"] = 1
    world.answers["OnnxParser.get_error"] = lambda index: Error()
    with pytest.raises(ModelFileError, match="does not take this model: no importer for Foo"):
        build(request(tmp_path), tmp_path / "answers")
    world.answers["OnnxParser.parse"] = lambda content: True
    world.answers["Builder.build_serialized_network"] = lambda *a: None
    with pytest.raises(ModelFileError, match="cannot build this model: it gave no reason"):
        build(request(tmp_path), tmp_path / "answers")


def test_an_inspector_that_fails_costs_no_engine(world: World, tmp_path: Path) -> None:
    world.answers["Runtime.deserialize_cuda_engine"] = lambda content: None
    wanted = request(tmp_path)
    build(wanted, tmp_path / "answers")
    assert Path(wanted.engine).is_file() and from_json(Path(wanted.layers).read_text()) == []


def test_nothing_that_tensorrt_11_removed_is_used() -> None:
    pattern = re.compile("|".join(rf"(?:{name})" for name in REMOVED))
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_the_removed_names_are_those_of_the_recorded_versions() -> None:
    old, new = recorded("10.16.1.11")["classes"], recorded("11.4.0.106")["classes"]
    assert "FP16" in old["BuilderFlag"] and "FP16" not in new["BuilderFlag"]
    assert "EXPLICIT_BATCH" not in new["NetworkDefinitionCreationFlag"]
    assert "device_memory_size" not in new["ICudaEngine"]
    assert not [name for name in new if "Calibrator" in name]


def test_the_fake_is_as_strict_as_the_version() -> None:
    module, _ = fake_tensorrt("11.4.0.106")
    with pytest.raises(AttributeError):
        getattr(module.Builder(None).create_network(0), "not_there")  # noqa: B009
    with pytest.raises(AttributeError):
        getattr(module.BuilderFlag, "FP16")  # noqa: B009
