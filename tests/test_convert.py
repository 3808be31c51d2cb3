"""Official checkpoints to ours and back without a changed bit, as the command does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from plain import shake
from safetensors.torch import save_file
from torch import Tensor

from centermask_edge.cli import main
from centermask_edge.config import PRESETS, Backbone
from centermask_edge.errors import ModelFileError
from centermask_edge.model import checkpoint, convert
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.official import to_official

SLIM = "lite-v19-slim-dw"
Tensors = dict[str, Tensor]


def official(name: str) -> Tensors:
    """A random model of that preset by official names."""
    torch.manual_seed(0)
    model = CenterMask(PRESETS[name])
    shake(model)
    return to_official(model.state_dict(), model.config.backbone)


def meta(name: str) -> Tensors:
    """Names and shapes only."""
    with torch.device("meta"):
        return dict(CenterMask(PRESETS[name]).state_dict())


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return official(SLIM)


@pytest.fixture(scope="module")
def source(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the official trainer leaves it."""
    path = tmp_path_factory.mktemp("official") / "slim.pth"
    rest = {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    torch.save({"model": {**tensors, **rest}, "iteration": 359_999, "optimizer": {}}, path)
    return path


@pytest.fixture(scope="module")
def ours(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "slim.safetensors"
    assert main(["convert", str(source), str(path)]) == 0
    return path


def equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def test_there_and_back_without_a_changed_bit(ours: Path, tensors: Tensors, tmp_path: Path) -> None:
    model = checkpoint.load(ours)
    assert model.config == PRESETS[SLIM]
    assert equal(to_official(model.state_dict(), model.config.backbone), tensors)
    back = tmp_path / "back.pth"
    assert main(["convert", str(ours), str(back), "--to", "official"]) == 0
    assert equal(checkpoint.read_pth(back), tensors)
    assert os.listdir(tmp_path) == ["back.pth"]


def test_what_is_written_and_left_out_is_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.safetensors"
    assert main(["convert", str(source), str(target), "--preset", SLIM]) == 0
    told = capsys.readouterr()
    assert "pixel_mean, pixel_std ignored" in " ".join(told.err.split())
    assert f"wrote {target} ({SLIM})" in told.err and not told.out


def test_official_names_in_safetensors(tensors: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "official.safetensors"
    save_file(tensors, path)
    file = convert.read_official(path)
    assert file.left_out == [] and len(file.state) == len(tensors) and not file.first_release


@pytest.mark.parametrize("name", convert.official_presets())
def test_the_preset_is_told_by_the_tensors(name: str) -> None:
    assert convert.guess_preset(meta(name), Path("x")) == PRESETS[name]


def test_presets_without_an_official_network() -> None:
    left = {PRESETS[name].backbone for name in PRESETS.keys() - convert.official_presets().keys()}
    assert left == {b for b in Backbone if b.value.startswith(("hrnet", "efficientnet"))}


def test_a_file_without_mask_scores_is_a_model_without() -> None:
    state = {k: v for k, v in meta("v39").items() if not k.startswith("mask_iou_head.")}
    found = convert.guess_preset(state, Path("x"))
    assert found == PRESETS["v39"].model_copy(update={"mask_scoring": False})


def test_the_nearest_preset_is_named() -> None:
    state = meta("lite-v39")
    del state["fpn.p6.bias"]
    with pytest.raises(ModelFileError, match=r"nearest is lite-v39: of \d+ tensors 1 missing"):
        convert.guess_preset(state, Path("x"))
    with pytest.raises(ModelFileError, match=r"fits none of the \d+ official presets"):
        convert.guess_preset(meta("person-efficientnet-lite0"), Path("x"))


def test_presets_of_the_same_tensors_must_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = PRESETS[SLIM].model_copy(update={"name": "twin"})
    monkeypatch.setitem(PRESETS, "twin", twin)
    with pytest.raises(ModelFileError, match=f"choose one with --preset: {SLIM}, twin"):
        convert.guess_preset(meta(SLIM), Path("x"))


# --- half the space ---------------------------------------------------------------------------


def test_half_precision_files(ours: Path, tmp_path: Path) -> None:
    half, again = tmp_path / "half.safetensors", tmp_path / "again.safetensors"
    assert main(["convert", str(ours), str(half), "--to", "fp16"]) == 0
    assert half.stat().st_size < 0.51 * ours.stat().st_size
    stored, _ = checkpoint.read_safetensors(half)
    kinds = {(v.ndim > 1, v.dtype) for v in stored.values()}
    assert kinds == {(True, torch.float16), (False, torch.float32)}
    rough, exact = checkpoint.load(half), checkpoint.load(ours)
    assert rough.config == exact.config
    for (key, a), b in zip(rough.state_dict().items(), exact.state_dict().values(), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=2**-11, atol=2**-24, msg=key)
    assert main(["convert", str(half), str(again), "--to", "fp16"]) == 0
    assert again.read_bytes() == half.read_bytes()


# --- errors -----------------------------------------------------------------------------------


def refused(
    words: list[object], message: str, capsys: pytest.CaptureFixture[str], target: Path
) -> None:
    assert main(["convert", *(str(w) for w in words)]) == 2
    told = capsys.readouterr()
    *table, line = told.err.splitlines()
    assert line.startswith("error: ") and message in line, line
    # Where tensors do not fit, a table of them comes first.
    assert not table or "tensors" in table[1]
    assert not told.out and not target.exists()
    assert not list(target.parent.glob("*.partial"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "checkpoint not found"),
        (b"", "is empty (0 bytes)"),
        (b"nonsense", "cannot be read as a torch checkpoint"),
    ],
)
def test_unreadable_sources(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "out.safetensors"
    if content is not None:
        source.write_bytes(content)
    refused([source, target], message, capsys, target)


OFFSET = "backbone.bottom_up.stage4.OSA4_1.layers.0.OSA4_1_0/conv_angle.weight"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"layer1.0.conv1.weight": 1, "fc.bias": 1}, "found layer1.0.conv1.weight and 1 more"),
        ({"pixel_mean": 1}, "no tensor with an official name: found pixel_mean and 0 more"),
        ({"backbone.fpn_lateral3.bias": 1, OFFSET: 1}, f"(first {OFFSET}); centermask-edge"),
        ({"backbone.fpn_lateral3.bias": 1}, "official presets; nearest is"),
        ({"epoch": None}, "holds no tensors"),
    ],
)
def test_sources_of_something_else(
    state: dict[str, int | None],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "out.safetensors"
    torch.save({k: torch.zeros(v) if v else v for k, v in state.items()}, source)
    refused([source, target], message, capsys, target)


def test_a_preset_that_does_not_fit(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.safetensors"
    words = [source, target, "--preset"]
    refused([*words, "lite-v19"], "is a checkpoint of another architecture", capsys, target)
    refused([*words, "lite-v20"], "unknown preset 'lite-v20'", capsys, target)


def test_what_does_not_fit_is_a_table(
    tensors: Tensors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "out.safetensors"
    gone = sorted(k for k in tensors if "OSA5_1.layers" in k)
    state = {k: v for k, v in tensors.items() if k not in gone}
    state["backbone.fpn_lateral3.bias"] = torch.zeros(7)
    torch.save({"model": state}, source)
    assert main(["convert", str(source), str(target)]) == 2
    told = capsys.readouterr().err
    assert f"missing {len(gone)}" in " ".join(told.split())
    assert f"... and {len(gone) - 4} more" in told and "Traceback" not in told
    assert "fpn.lateral.0.bias (7,), wanted (128,)" in " ".join(told.split())
    assert told.splitlines()[-1].startswith("error: ") and not target.exists()


def test_our_own_files_are_told_apart(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, pth = tmp_path / "out.safetensors", tmp_path / "out.pth"
    refused([ours, target], "is a checkpoint of this toolkit already", capsys, target)
    words = [ours, pth, "--to", "official", "--preset", SLIM]
    refused(words, "--preset is for --to ours", capsys, pth)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    words = [tmp_path / "foreign.safetensors", pth, "--to", "official"]
    refused(words, "carries no model configuration", capsys, pth)


def test_outputs_of_the_wrong_kind(
    source: Path, ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pth, bare = tmp_path / "out.pth", tmp_path / "out"
    refused([source, pth], "ends in .pth, wanted .safetensors", capsys, pth)
    refused([ours, bare, "--to", "official"], "ends in nothing, wanted .pth", capsys, bare)
    refused([ours, pth, "--to", "fp16"], "ends in .pth, wanted .safetensors", capsys, pth)
    refused([ours, pth, "--to", "onnx"], "--to", capsys, pth)
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "out.safetensors"
    assert main(["convert", str(source), str(inside)]) == 2
    assert "cannot write the checkpoint" in capsys.readouterr().err


def test_a_network_the_official_code_never_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PRESETS["person-efficientnet-lite0"]
    source, target = tmp_path / "a.safetensors", tmp_path / "out.pth"
    checkpoint.save(source, CenterMask(config).state_dict(), config)
    words = [source, target, "--to", "official"]
    refused(words, "efficientnet-lite0, which the official code never had", capsys, target)
