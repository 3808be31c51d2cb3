"""ImageNet files by timm's names: every tensor finds its place, and, where timm is, the same maps.

timm is no dependency; with it (and torchvision) installed the last tests run, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain import shake
from safetensors.torch import save_file
from torch import Tensor

from centermask_edge.backbone import Backbone
from centermask_edge.config import PRESETS
from centermask_edge.errors import ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.model.bodies import build_backbone
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.imagenet_timm import hrnet_state, lite_state

NORM = ("weight", "bias", "running_mean", "running_var")
HRNETS = [b for b in Backbone if b.value.startswith("hrnet")]
LITES = [b for b in Backbone if b.value.startswith("efficientnet")]


def unit(conv: str, norm: str) -> Iterator[str]:
    yield f"{conv}.weight"
    yield from (f"{norm}.{leaf}" for leaf in NORM)


def hrnet_names() -> Iterator[str]:
    """What HRNetV2's authors call their tensors, in front of the classifier."""
    for i in (1, 2):
        yield from unit(f"conv{i}", f"bn{i}")
    for block in range(4):
        for i in (1, 2, 3):
            yield from unit(f"layer1.{block}.conv{i}", f"layer1.{block}.bn{i}")
    yield from unit("layer1.0.downsample.0", "layer1.0.downsample.1")
    yield from unit("transition1.0.0", "transition1.0.1")
    for i in (1, 2, 3):
        yield from unit(f"transition{i}.{i}.0.0", f"transition{i}.{i}.0.1")
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            name = f"stage{stage}.{module}"
            for branch in range(stage):
                for block in range(4):
                    inner = f"{name}.branches.{branch}.{block}"
                    for i in (1, 2):
                        yield from unit(f"{inner}.conv{i}", f"{inner}.bn{i}")
            for i in range(stage):
                for j in range(i + 1, stage):
                    fuse = f"{name}.fuse_layers.{i}.{j}"
                    yield from unit(f"{fuse}.0", f"{fuse}.1")
                for j in range(i):
                    for k in range(i - j):
                        fuse = f"{name}.fuse_layers.{i}.{j}.{k}"
                        yield from unit(f"{fuse}.0", f"{fuse}.1")


def lite_names(repeats: tuple[int, ...]) -> Iterator[str]:
    yield from unit("conv_stem", "bn1")
    for stage, blocks in enumerate(repeats):
        for block in range(blocks):
            inner = f"blocks.{stage}.{block}"
            plain = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
            for i, conv in enumerate(plain, start=1):
                yield from unit(f"{inner}.{conv}", f"{inner}.bn{i}")


HEAD = ("classifier.weight", "bn1.num_batches_tracked")
HRNET_HEAD = ("incre_modules.0.0.conv1.weight", "downsamp_modules.0.0.weight", "final_layer.0.bias")


@pytest.mark.parametrize("body", HRNETS)
def test_hrnets_tensors_find_their_places(body: Backbone) -> None:
    with torch.device("meta"):
        wanted = build_backbone(body).state_dict().keys()
    names = [*hrnet_names(), *HEAD, *HRNET_HEAD]
    found = hrnet_state({name: torch.zeros(1) for name in names})
    assert found.keys() == wanted and len(found) == len(names) - 5
    other = "transition2.1.0.0.weight"
    assert hrnet_state({other: torch.zeros(1)}).keys() == {other}  # to be refused by its name


@pytest.mark.parametrize(
    ("body", "repeats"),
    [
        (Backbone.EFFICIENTNET_LITE0, (1, 2, 2, 3, 3, 4, 1)),
        (Backbone.EFFICIENTNET_LITE1, (1, 3, 3, 4, 4, 5, 1)),
        (Backbone.EFFICIENTNET_LITE2, (1, 3, 3, 4, 4, 5, 1)),
    ],
)
def test_efficientnets_tensors_find_their_places(body: Backbone, repeats: tuple[int, ...]) -> None:
    with torch.device("meta"):
        wanted = build_backbone(body).state_dict().keys()
    names = [*lite_names(repeats), *HEAD, "conv_head.weight", "bn2.weight"]
    found = lite_state({name: torch.zeros(1) for name in names})
    assert found.keys() == wanted and len(found) == len(names) - 4


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_fills_the_backbone(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, path = build_backbone(Backbone.EFFICIENTNET_LITE1), tmp_path / f"lite1{suffix}"
    shake(body)
    names = lite_names((1, 3, 3, 4, 4, 5, 1))
    by_place = {next(iter(lite_state({name: torch.zeros(1)}))): name for name in names}
    source: dict[str, Tensor] = {by_place[k]: v for k, v in body.state_dict().items()}
    if suffix == ".pth":
        torch.save(source, path)
    else:
        save_file(source, path)
    model = CenterMask(PRESETS["lite-efficientnet-lite1"])
    checkpoint.init_backbone(model, path)
    for key, value in body.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value)
    with pytest.raises(ModelFileError, match="another architecture"):
        checkpoint.init_backbone(CenterMask(PRESETS["lite-efficientnet-lite0"]), path)
    with pytest.raises(ModelFileError, match="another architecture"):
        checkpoint.init_backbone(CenterMask(PRESETS["lite-hrnet-w18"]), path)


# --- with timm ---------------------------------------------------------------------------------


def published(name: str) -> Any:
    """timm's network with random weights and statistics."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model


@torch.no_grad()
@pytest.mark.parametrize("body", HRNETS)
def test_hrnet_is_timms(body: Backbone) -> None:
    model, ours = published(body.value.replace("-", "_")), build_backbone(body).eval()
    ours.load_state_dict(hrnet_state(model.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    stem = model.act2(model.bn2(model.conv2(model.act1(model.bn1(model.conv1(x))))))
    for found, wanted in zip(ours(x), model.stages(stem)[1:], strict=True):
        torch.testing.assert_close(found, wanted)


@torch.no_grad()
@pytest.mark.parametrize("body", LITES)
def test_efficientnet_lite_is_timms(body: Backbone) -> None:
    model = published(f"tf_{body.value.replace('-', '_')}")
    ours = build_backbone(body).eval()
    ours.load_state_dict(lite_state(model.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    y, maps = model.bn1(model.conv_stem(x)), []
    for stage in model.blocks:
        y = stage(y)
        maps.append(y)
    for found, wanted in zip(ours(x), (maps[2], maps[4], maps[6]), strict=True):
        torch.testing.assert_close(found, wanted)
