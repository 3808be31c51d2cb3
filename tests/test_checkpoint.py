"""Checkpoint files: what is written is read, and whatever else is found is one line."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from plain import shake
from safetensors.torch import save_file
from torch import Tensor

from centermask_edge.config import PRESETS, ModelConfig
from centermask_edge.errors import ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.imagenet import efficientnet_lite0_state

PERSON = PRESETS["person-efficientnet-lite0"]


@pytest.fixture(scope="module")
def model() -> CenterMask:
    torch.manual_seed(0)
    built = CenterMask(PERSON)
    shake(built)
    return built


@pytest.fixture(scope="module")
def saved(model: CenterMask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "deep" / "person.safetensors"
    checkpoint.save(path, model.state_dict(), PERSON)
    return path


def refused(path: Path, message: str, read: str = "load") -> str:
    with pytest.raises(ModelFileError, match=message) as caught:
        getattr(checkpoint, read)(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


def test_what_is_written_is_read(model: CenterMask, saved: Path) -> None:
    found = checkpoint.load(saved)
    assert found.config == PERSON and not found.training
    state, wanted = found.state_dict(), model.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[k], wanted[k]) for k in wanted)
    assert os.listdir(saved.parent) == ["person.safetensors"]


def test_the_file_describes_its_own_model(model: CenterMask, tmp_path: Path) -> None:
    config = PERSON.model_copy(update={"name": "mine", "classes": ("car",)})
    checkpoint.save(tmp_path / "a.safetensors", model.state_dict(), config)
    assert checkpoint.load(tmp_path / "a.safetensors").config == config


def test_channels_last_weights_are_written_as_others(model: CenterMask, tmp_path: Path) -> None:
    """Training keeps its weights in another memory order."""
    state = {
        k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v
        for k, v in model.state_dict().items()
    }
    checkpoint.save(tmp_path / "a.safetensors", state, PERSON)
    found, _ = checkpoint.read_safetensors(tmp_path / "a.safetensors")
    assert all(torch.equal(found[k], state[k]) for k in state)


# --- files that cannot be read ----------------------------------------------------------------


@pytest.mark.parametrize("read", ["load", "read_safetensors", "read_pth"])
def test_files_that_are_not_there(read: str, tmp_path: Path) -> None:
    refused(tmp_path / "none.bin", "checkpoint not found", read)
    refused(tmp_path, "is a folder", read)
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty", r"is empty \(0 bytes\)", read)


@pytest.mark.parametrize("read", ["load", "read_pth"])
@pytest.mark.parametrize("seed", range(8))
def test_random_bytes(read: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(random.Random(seed).randbytes(1 + 10**seed % 99_991))
    refused(path, "cannot be read as a torch" if read == "read_pth" else "not a readable", read)


def test_every_kind_of_damage_is_one_line(tmp_path: Path) -> None:
    """Single bytes changed and ends cut off: read as it is, or refused, and nothing else."""
    rng = random.Random(0)
    tensors = {"a": torch.zeros(9), "b": torch.ones(3, 3)}
    save_file(tensors, tmp_path / "new", {"centermask_edge.config": "{}"})
    torch.save({"model": tensors}, tmp_path / "zip")
    torch.save(tensors, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    path, outcomes = tmp_path / "damaged", set()
    for kind in ("new", "zip", "legacy"):
        whole = (tmp_path / kind).read_bytes()
        for _ in range(150):
            content = bytearray(whole)
            for _ in range(rng.randint(0, 4)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            if rng.random() < 0.3:
                content = content[: rng.randrange(1, len(content))]
            path.write_bytes(content)
            try:
                (checkpoint.read_safetensors if kind == "new" else checkpoint.read_pth)(path)
                outcomes.add((kind, "read"))
            except ModelFileError as error:
                assert "\n" not in str(error)
                outcomes.add((kind, "refused"))
    assert len(outcomes) == 6


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_that_was_cut(share: float, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "not a readable safetensors file")


def test_a_file_of_no_tensors(tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    refused(tmp_path / "none.safetensors", "holds no tensors")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    refused(tmp_path / "none.pth", "holds no tensors", "read_pth")


def test_a_file_without_our_configuration(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "carries no model configuration; convert")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "v100"}, "backbone: Input should be"),
        ({"depth": 3}, "depth: Extra inputs"),
        ({"fpn_channels": 100}, "fpn_channels: Input should be a multiple of 32"),
        (None, "configuration: Invalid JSON"),
    ],
)
def test_a_configuration_of_another_version(
    change: dict[str, object] | None, message: str, tmp_path: Path
) -> None:
    text = json.dumps({**PERSON.model_dump(mode="json"), **(change or {})})
    path = tmp_path / "a.safetensors"
    metadata = {"centermask_edge.config": text if change else "{"}
    save_file({"a": torch.zeros(1)}, path, metadata)
    refused(path, f"a model this version cannot build: {message}")


# --- files that are read no matter what -------------------------------------------------------


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(
    legacy: bool, nested: bool, tmp_path: Path
) -> None:
    target, path = tmp_path / "ran", tmp_path / "a.pth"
    payload = Payload(target)
    content = {"model": {"a": torch.zeros(1)}, "extra": payload} if nested else payload
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    line = refused(path, "could run code and is refused", "read_pth")
    assert "plain tensors" in line and not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # it would have


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_tensors_are_found_where_others_put_them(wrapper: str | None, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    path = tmp_path / "a.pth"
    torch.save({wrapper: tensors, "iteration": 7, "scheduler": {}} if wrapper else tensors, path)
    found = checkpoint.read_pth(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_a_list_is_no_state(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "holds a list, wanted a state dict", "read_pth")


# --- models that do not fit -------------------------------------------------------------------


def test_another_architecture_is_told_by_its_tensors(model: CenterMask, tmp_path: Path) -> None:
    state = model.state_dict()
    del state["fpn.p6.bias"]
    state["head.extra"] = torch.zeros(1)
    state["fpn.p7.bias"] = torch.zeros(5)
    with pytest.raises(ModelFileError) as caught:
        checkpoint.load_state(model, state, tmp_path / "a.pth")
    total = len(model.state_dict())
    assert str(caught.value) == (
        f"{tmp_path / 'a.pth'} is a checkpoint of another architecture: of {total} tensors "
        "1 missing (first fpn.p6.bias); 1 unexpected (first head.extra); 1 of another shape "
        "(first fpn.p7.bias: found (5,), wanted (128,)); choose the preset it was made with"
    )


def test_a_configuration_that_is_not_its_tensors(model: CenterMask, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    two = PERSON.model_copy(update={"classes": ("person", "dog")})
    checkpoint.save(path, model.state_dict(), two)
    refused(path, r"6 of another shape \(first head.cls_logits.bias: found \(1,\), wanted \(2,\)\)")


# --- writing ----------------------------------------------------------------------------------


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.safetensors", tmp_path / "file" / "deep" / "a.pth"):
        with pytest.raises(ModelFileError, match="cannot write the checkpoint") as caught:
            if path.suffix == ".pth":
                checkpoint.save_pth(path, {"a": torch.zeros(1)})
            else:
                checkpoint.save(path, {"a": torch.zeros(1)}, PERSON)
        assert "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved.read_bytes()[:1000])

    def full(tensors: object, partial: Path, metadata: object) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelFileError, match="No space left on device"):
        checkpoint.save(path, {"a": torch.zeros(1)}, PERSON)
    assert path.read_bytes() == saved.read_bytes()[:1000]
    assert os.listdir(tmp_path) == ["a.safetensors"]


# --- ImageNet weights -------------------------------------------------------------------------


def classifier(model: CenterMask) -> dict[str, Tensor]:
    """The published classifier's names for this model's backbone, and what else it has."""
    rows = (1, 2, 2, 3, 3, 4, 1)
    units = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    units["project"] = ("_project_conv", "_bn2")
    state = {"_fc.weight": torch.zeros(9, 9), "_conv_head.weight": torch.zeros(9)}
    state["_bn1.weight"] = torch.zeros(9)
    for key, value in model.backbone.state_dict().items():
        if key.startswith("stem"):
            state[key.replace("stem.conv", "_conv_stem").replace("stem.norm", "_bn0")] = value
            continue
        _, stage, block, unit, part, leaf = key.split(".")
        number = sum(rows[: int(stage)]) + int(block)
        state[f"_blocks.{number}.{units[unit][part == 'norm']}.{leaf}"] = value
        state[f"_blocks.{number}._bn1.num_batches_tracked"] = torch.tensor(1)
    return state


def test_imagenet_weights_find_their_places(model: CenterMask, tmp_path: Path) -> None:
    torch.save(classifier(model), tmp_path / "lite0.pth")
    other = CenterMask(PERSON)
    head = {k: v.clone() for k, v in other.state_dict().items() if "backbone" not in k}
    checkpoint.init_backbone(other, tmp_path / "lite0.pth")
    wanted = {**head, **{k: v for k, v in model.state_dict().items() if "backbone" in k}}
    assert all(torch.equal(v, wanted[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("name", ["_blocks.0._se_reduce.weight", "_blocks.16._bn1.weight"])
def test_another_efficientnet_is_refused(name: str, model: CenterMask, tmp_path: Path) -> None:
    torch.save({**classifier(model), name: torch.zeros(1)}, tmp_path / "b0.pth")
    with pytest.raises(ModelFileError, match=f"1 unexpected .first {name}"):
        checkpoint.init_backbone(CenterMask(PERSON), tmp_path / "b0.pth")
    assert name in efficientnet_lite0_state({name: torch.zeros(1)})


def test_a_backbone_is_taken_from_a_checkpoint_of_other_classes(
    model: CenterMask, saved: Path
) -> None:
    config: ModelConfig = PRESETS["lite-efficientnet-lite0"]
    other = CenterMask(config)
    checkpoint.init_backbone(other, saved)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[key], value)
    with torch.device("meta"):
        other = CenterMask(PRESETS["lite-hrnet-w18"])
    with pytest.raises(ModelFileError, match="another architecture"):
        checkpoint.init_backbone(other, saved)
