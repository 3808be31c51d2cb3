"""Checkpoints of the first release: names, background, norms, and the rules that come with them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from plain import shake
from torch import Tensor

from centermask_edge.cli import main
from centermask_edge.config import PRESETS, ModelConfig
from centermask_edge.errors import ModelFileError
from centermask_edge.model import checkpoint, convert
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.first_release import from_first_release, is_first_release, later_key
from centermask_edge.model.official import to_official
from centermask_edge.switches import Rules

Tensors = dict[str, Tensor]

# From centermask2's names to the first release's, as both are documented.
RENAMES = (
    (r"^backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.body.stem.bn1."),
    (r"^backbone\.bottom_up\.stem\.conv1\.", "backbone.body.stem.conv1."),
    (r"^backbone\.bottom_up\.res2\.(\d+)\.", r"backbone.body.layer1.\1."),
    (r"^backbone\.bottom_up\.res3\.(\d+)\.", r"backbone.body.layer2.\1."),
    (r"^backbone\.bottom_up\.res4\.(\d+)\.", r"backbone.body.layer3.\1."),
    (r"^backbone\.bottom_up\.res5\.(\d+)\.", r"backbone.body.layer4.\1."),
    (r"(body\.layer.*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"(body\.layer.*)\.shortcut\.", r"\1.downsample.0."),
    (r"(body\.layer.*)\.conv(\d)\.norm\.", r"\1.bn\2."),
    (r"^backbone\.bottom_up\.", "backbone.body."),
    (r"^backbone\.fpn_lateral3\.", "backbone.fpn.fpn_inner2."),
    (r"^backbone\.fpn_lateral4\.", "backbone.fpn.fpn_inner3."),
    (r"^backbone\.fpn_lateral5\.", "backbone.fpn.fpn_inner4."),
    (r"^backbone\.fpn_output3\.", "backbone.fpn.fpn_layer2."),
    (r"^backbone\.fpn_output4\.", "backbone.fpn.fpn_layer3."),
    (r"^backbone\.fpn_output5\.", "backbone.fpn.fpn_layer4."),
    (r"^backbone\.top_block\.", "backbone.fpn.top_blocks."),
    (r"^proposal_generator\.fcos_head\.ctrness\.", "rpn.head.centerness."),
    (r"^proposal_generator\.fcos_head\.", "rpn.head."),
    (r"^roi_heads\.mask_head\.deconv\.", "roi_heads.mask.predictor.conv5_mask."),
    (r"^roi_heads\.mask_head\.predictor\.", "roi_heads.mask.predictor.mask_fcn_logits."),
    (r"^roi_heads\.mask_head\.", "roi_heads.mask.feature_extractor."),
    (r"^roi_heads\.maskiou_head\.maskiou\.", "roi_heads.maskiou.predictor.maskiou."),
    (r"^roi_heads\.maskiou_head\.", "roi_heads.maskiou.feature_extractor."),
)


def first_name(key: str) -> str:
    for before, after in RENAMES:
        key = re.sub(before, after, key)
    return key


def first_release(model: CenterMask) -> Tensors:
    """The model as the first release would have written it."""
    state: Tensors = {}
    for key, value in to_official(model.state_dict(), model.config.backbone).items():
        name = first_name(key)
        if "mask_fcn_logits" in name or "predictor.maskiou" in name:
            value = torch.cat((torch.full_like(value[:1], 99.0), value))  # the background
        state[f"module.{name}"] = value
    return state


def meta(config: ModelConfig) -> CenterMask:
    with torch.device("meta"):
        return CenterMask(config)


@pytest.mark.parametrize("name", ["lite-v19-slim-dw", "v39-v1", "r50", "x101", "mobilenet-v2"])
def test_every_tensor_finds_its_place(name: str) -> None:
    model = meta(PRESETS[name])
    written = first_release(model)
    assert is_first_release(written)
    ours, unknown = from_first_release(written)
    assert unknown == []
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert {k: tuple(v.shape) for k, v in ours.items()} == wanted
    assert convert.guess_preset(ours, Path("x")) == PRESETS[name]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (
            "backbone.body.stage3.OSA3_1.layers.0.OSA3_1_0/conv.weight",
            "backbone.bottom_up.stage3.OSA3_1.layers.0.OSA3_1_0/conv.weight",
        ),
        ("backbone.fpn.fpn_layer4.bias", "backbone.fpn_output5.bias"),
        ("rpn.head.cls_tower.3.weight", "proposal_generator.fcos_head.cls_tower.3.weight"),
        ("rpn.head.centerness.bias", "proposal_generator.fcos_head.ctrness.bias"),
        (
            "roi_heads.mask.feature_extractor.spatialAtt.conv.weight",
            "roi_heads.mask_head.spatialAtt.conv.weight",
        ),
        ("roi_heads.box.predictor.cls_score.weight", None),
        ("rpn.anchor_generator.cell_anchors.0", None),
    ],
)
def test_names(first: str, later: str | None) -> None:
    assert later_key(first) == later
    assert later is None or first_name(later) == first


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[CenterMask, Path]:
    torch.manual_seed(0)
    model = CenterMask(PRESETS["lite-v19-slim-dw"])
    shake(model)
    path = tmp_path_factory.mktemp("first") / "model_final.pth"
    torch.save({"model": first_release(model), "iteration": 9, "optimizer": {}}, path)
    return model, path


def test_weights_are_taken_over_with_their_rules(
    source: tuple[CenterMask, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, path = source
    target = tmp_path / "ours.safetensors"
    assert main(["convert", str(path), str(target)]) == 0
    assert "keeps that one's rules" in " ".join(capsys.readouterr().err.split())
    model = checkpoint.load(target)
    config = model.config
    assert config.rules is Rules.ORIGINAL and config.name == "lite-v19-slim-dw-original"
    assert config.decode.score_threshold == 0.03 and config.decode.nms_threshold == 0.6
    assert config.preprocess.mean == (102.9801, 115.9465, 122.7717)
    for key, value in model.state_dict().items():
        wanted = written.state_dict()[key]
        if key.endswith("running_var"):
            wanted = wanted - 1e-5
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-9)


def test_norms_have_no_epsilon(source: tuple[CenterMask, Path]) -> None:
    """(x - mean) / sqrt(var) * weight + bias, in numpy, with a small variance, too."""
    state = from_first_release(first_release(source[0]))[0]
    model = CenterMask(PRESETS["lite-v19-slim-dw"]).eval()
    prefix = "backbone.stem.0.norm."
    state[f"{prefix}running_var"][0] = 3e-6 - 1e-5
    model.load_state_dict(state)
    norm = model.get_submodule("backbone.stem.0.norm")
    x = np.random.default_rng(0).standard_normal((1, 64, 3, 3)).astype(np.float32)
    tensors = source[0].state_dict()
    weight, bias, mean, var = (
        tensors[prefix + n].numpy().astype(np.float64).copy()[:, None, None]
        for n in ("weight", "bias", "running_mean", "running_var")
    )
    var[0] = 3e-6
    with torch.no_grad():
        found = norm(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found[0], (x[0] - mean) / np.sqrt(var) * weight + bias, rtol=1e-4)


def test_it_does_not_go_back_to_the_later_format(
    source: tuple[CenterMask, Path], tmp_path: Path
) -> None:
    convert.to_ours(source[1], tmp_path / "ours.safetensors", "lite-v19-slim-dw")
    with pytest.raises(ModelFileError, match="rules of the first release, which the official"):
        convert.to_official_file(tmp_path / "ours.safetensors", tmp_path / "back.pth")


def test_a_file_without_mask_scores(source: tuple[CenterMask, Path], tmp_path: Path) -> None:
    state = {k: v for k, v in first_release(source[0]).items() if "maskiou" not in k}
    torch.save(state, tmp_path / "a.pth")
    config, _ = convert.to_ours(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not config.mask_scoring and config.rules is Rules.ORIGINAL


# --- ImageNet weights of the official bodies ---------------------------------------------------


@pytest.mark.parametrize("strip", ["", "backbone.bottom_up.", "backbone."])
def test_imagenet_files_are_found_by_the_ends_of_their_names(strip: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, other = (CenterMask(PRESETS["lite-v19-slim-dw"]) for _ in range(2))
    shake(model)
    body = {
        k.removeprefix(strip): v
        for k, v in to_official(model.state_dict(), model.config.backbone).items()
        if k.startswith("backbone.bottom_up.")
    }
    counter = f"{next(iter(body)).rpartition('.')[0]}.num_batches_tracked"
    rest = {"classifier.weight": torch.zeros(10, 512), counter: torch.tensor(3)}
    torch.save({"model": {**body, **rest}, "matching_heuristics": True}, tmp_path / "a.pth")
    checkpoint.init_backbone(other, tmp_path / "a.pth")
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[key], value), key


def test_another_body_is_refused(tmp_path: Path) -> None:
    body = {k: torch.zeros(v.shape) for k, v in _official_body("lite-v19-slim").items()}
    torch.save(body, tmp_path / "slim.pth")
    with pytest.raises(ModelFileError, match="another architecture: of"):
        checkpoint.init_backbone(meta(PRESETS["lite-v19"]), tmp_path / "slim.pth")
    more = {**body, "backbone.bottom_up.stage3.OSA3_2.ese.fc.bias": torch.zeros(1)}
    torch.save(more, tmp_path / "deep.pth")
    with pytest.raises(ModelFileError, match=r"other than v19-slim: 1 .*OSA3_2\.ese"):
        checkpoint.init_backbone(meta(PRESETS["lite-v19-slim"]), tmp_path / "deep.pth")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"of \d+ tensors \d+ missing"):
        checkpoint.init_backbone(meta(PRESETS["lite-r50"]), tmp_path / "other.pth")


def _official_body(name: str) -> Tensors:
    model = meta(PRESETS[name])
    names = to_official(model.state_dict(), model.config.backbone)
    return {k: v for k, v in names.items() if k.startswith("backbone.bottom_up.")}
