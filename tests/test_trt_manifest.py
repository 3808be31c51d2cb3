"""Manifests: written whole, read back, and honest about what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from centermask_edge.engines.files import file_sha256, write_whole
from centermask_edge.engines.tensorrt.api import Flavor
from centermask_edge.engines.tensorrt.fit import rebuild_command, require_fit
from centermask_edge.engines.tensorrt.manifest import (
    Difference,
    Facts,
    LayerSummary,
    Manifest,
    Precision,
    Range,
    Shapes,
    differences,
    engine_name,
    manifest_path,
    onnx_path,
    read_manifest,
    write_manifest,
)
from centermask_edge.errors import ModelFileError


def fixed(number: int) -> Range:
    return Range(min=number, opt=number, max=number)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "flavor": Flavor.TENSORRT,
        "tensorrt": "10.3.0",
        "gpu": "Orin",
        "capabilities": (87,),
        "driver": "12.6",
        "onnx": "../person.onnx",
        "onnx_sha256": "ab" * 32,
        "kernels": "0123456789abcdef",
        "precision": Precision.FP16,
        "shapes": Shapes(batch=fixed(1), height=fixed(352), width=fixed(640)),
        "model": tiny_model.metadata(),
        "layers": LayerSummary(count=3, reformats=1, conv_macs={"fp16": 3, "int8": 1}),
    }
    return Manifest(**{**values, **changes})


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "flavor": Flavor.TENSORRT,
        "tensorrt": "10.3.0",
        "gpu": "Orin",
        "capability": 87,
        "driver": "12.6",
        "onnx_sha256": "ab" * 32,
        "kernels": "0123456789abcdef",
    }
    return Facts(**{**values, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    engine.touch()
    write_manifest(engine, manifest())
    assert read_manifest(engine) == manifest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.engine", "a.engine.json"]
    assert onnx_path(engine, manifest()) == tmp_path.parent / "person.onnx"


def test_the_name_holds_a_hash_of_what_it_was_built_from() -> None:
    one = manifest()
    name = engine_name("person", one)
    assert name == f"person-fp16-{one.key}.engine" and len(one.key) == 8
    same = manifest(created="now", build_log="x", engine_sha256="y", onnx="elsewhere/person.onnx")
    assert engine_name("person", same) == name
    others = [
        manifest(tensorrt="10.4.0"),
        manifest(gpu="Thor"),
        manifest(onnx_sha256="cd" * 32),
        manifest(kernels="f" * 16),
        manifest(workspace_mib=64),
        manifest(shapes=Shapes(batch=fixed(2), height=fixed(352), width=fixed(640))),
    ]
    assert len({engine_name("person", other) for other in others} | {name}) == 7
    assert engine_name("p", manifest(flavor=Flavor.RTX)).endswith(".rtx.engine")


def test_no_difference_where_everything_fits() -> None:
    assert differences(manifest(), facts()) == []
    assert differences(manifest(), facts(driver="13.0")) == [], "a newer driver runs it"
    unknown = facts(gpu=None, capability=None, driver=None, onnx_sha256=None, kernels=None)
    assert differences(manifest(), unknown) == []


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"tensorrt": "10.16.2"}, "TensorRT", "built for TensorRT 10.3.0, here is TensorRT 10.16"),
        ({"flavor": Flavor.RTX, "tensorrt": "1.7.1"}, "TensorRT", "here is TensorRT-RTX 1.7.1"),
        ({"capability": 110, "gpu": "Thor"}, "GPU", "Orin (sm_87), here is Thor (sm_110)"),
        ({"gpu": "Orin Nano"}, "GPU", "Orin (sm_87), here is Orin Nano (sm_87)"),
        ({"driver": "12.2"}, "driver", "CUDA 12.6, here is CUDA 12.2"),
        ({"onnx_sha256": "cd" * 32}, "ONNX file", "built for abababab, here is cdcdcdcd"),
        ({"kernels": "f" * 16}, "kernels", "built for 0123456789abcdef, here is ffff"),
    ],
)
def test_each_field_that_differs_is_named(changes: dict[str, Any], field: str, text: str) -> None:
    (found,) = differences(manifest(), facts(**changes))
    assert isinstance(found, Difference)
    assert found.field == field and text in str(found)


def test_an_engine_for_several_gpus_fits_each_of_them() -> None:
    several = manifest(gpu="", capabilities=(86, 89, 120))
    assert differences(several, facts(gpu="RTX 4090", capability=89)) == []
    (found,) = differences(several, facts(gpu="RTX 2080", capability=75))
    assert str(found) == "GPU: built for sm_86, sm_89, sm_120, here is RTX 2080 (sm_75)"


def test_a_misfit_is_one_line_with_every_field_and_the_command() -> None:
    engine = Path("engines/person-fp16-x.engine")
    with pytest.raises(ModelFileError) as caught:
        require_fit(engine, manifest(workspace_mib=512), facts(tensorrt="11.4.0", driver="12.0"))
    text = str(caught.value)
    assert "\n" not in text and "TensorRT: built for" in text and "driver: built for" in text
    assert text.endswith(
        "centermask-edge build person.onnx --precision fp16 --size 352x640 --workspace 512 "
        "--flavor tensorrt --out engines"
    )
    require_fit(engine, manifest(), facts())


def test_the_command_repeats_ranges_and_targets() -> None:
    ranged = Shapes(
        batch=Range(min=1, opt=2, max=4),
        height=Range(min=192, opt=352, max=352),
        width=Range(min=320, opt=640, max=640),
    )
    rtx = manifest(flavor=Flavor.RTX, gpu="", capabilities=(86, 120), shapes=ranged)
    command = rebuild_command(Path("my engines/a.rtx.engine"), rtx)
    for words in (
        "--batch 1,2,4",
        "--size 192x320,352x640,352x640",
        "--target sm86,sm120",
        "--out 'my engines'",
    ):
        assert words in command


def broken(path: Path, **changes: object) -> None:
    content = json.loads(manifest().model_dump_json())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, r"has no manifest \(a\.engine\.json\).*centermask-edge build"),
        (lambda p: p.write_text("{"), r"cannot be read by this version \(the record"),
        (lambda p: broken(p, format_version=2), r"cannot be read by this version \(format_version"),
        (lambda p: broken(p, colour="red"), r"cannot be read by this version \(colour"),
        (lambda p: p.mkdir(), "cannot read .*: Is a directory"),
    ],
)
def test_a_bad_manifest_is_one_line(write: Any, message: str, tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    with pytest.raises(ModelFileError, match="engine not found"):
        read_manifest(engine)
    engine.touch()
    if write is not None:
        write(manifest_path(engine))
    with pytest.raises(ModelFileError, match=message):
        read_manifest(engine)


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "folder" / "file"
    assert write_whole(target, b"content").read_bytes() == b"content"
    assert file_sha256(target).startswith("ed7002b439e9ac84")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelFileError, match=r"cannot write .*No space left"):
        write_whole(target, b"other")
    assert target.read_bytes() == b"content"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    with pytest.raises(ModelFileError, match="cannot read"):
        file_sha256(tmp_path / "none")


def test_shares_of_multiply_adds() -> None:
    summary = LayerSummary(count=1, reformats=0, conv_macs={"int8": 3, "fp16": 1})
    assert (summary.share("int8"), summary.share("fp32")) == (0.75, 0.0)
    assert LayerSummary(count=0, reformats=0).share("int8") == 0
