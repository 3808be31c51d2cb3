"""Learned norms and a teacher: what a start without ImageNet weights needs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scenes import write_scenes
from torch import nn

from centermask_edge.config import PRESETS, Backbone, TrainConfig
from centermask_edge.errors import ConfigError
from centermask_edge.model import checkpoint
from centermask_edge.model.centermask import CenterMask
from centermask_edge.model.fcos import DensePredictions
from centermask_edge.model.layers import (
    ConvNorm,
    FrozenBatchNorm2d,
    LearnedBatchNorm2d,
    learn_norms,
)
from centermask_edge.train.distill import Teacher, open_teacher
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.optim import Ema
from centermask_edge.train.run import start_run
from centermask_edge.train.setup import build_model

pytestmark = pytest.mark.usefixtures("one_thread")

STUDENT = PRESETS["person-v19-slim"].model_copy(update={"backbone": Backbone.V19_SLIM_DW})
TEACHER = PRESETS["person-efficientnet-lite0"]


def test_a_learned_norm_is_torchs_batch_norm_under_the_frozen_ones_names() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 6, 7) * 3 + 1
    ours, theirs = LearnedBatchNorm2d(5), nn.BatchNorm2d(5)
    for _ in range(3):
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.running_var, theirs.running_var)  # type: ignore[arg-type]
    ours.eval()
    theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    frozen = FrozenBatchNorm2d(5)
    frozen.load_state_dict(ours.state_dict())
    assert torch.allclose(frozen(x), ours(x), atol=1e-6)


def test_learned_norms_keep_the_values_and_give_gradients() -> None:
    torch.manual_seed(0)
    unit = nn.Sequential(ConvNorm(3, 4, 3, activation=nn.ReLU())).eval()
    unit[0].norm.running_mean.fill_(0.5)  # type: ignore[union-attr, operator]
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        before = unit(x)
    learn_norms(unit)
    assert torch.allclose(unit.eval()(x), before, atol=1e-6)
    unit.train()(x).sum().backward()
    assert unit[0].norm.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_the_average_holds_the_statistics_of_learned_norms() -> None:
    norm = nn.Sequential(LearnedBatchNorm2d(2))
    ema = Ema(norm, 0.5)
    norm[0].running_mean.fill_(4.0)  # type: ignore[operator]
    ema.update(norm)
    decay = min(0.5, 2 / 11)
    assert ema.state(norm)["0.running_mean"].tolist() == pytest.approx([4 * (1 - decay)] * 2)


def teacher_file(folder: Path) -> Path:
    torch.manual_seed(1)
    path = folder / "teacher.safetensors"
    checkpoint.save(path, CenterMask(TEACHER).state_dict(), TEACHER)
    return path


def test_the_students_heads_start_as_the_teachers(tmp_path: Path) -> None:
    config = TrainConfig(teacher=teacher_file(tmp_path), teacher_weight=2.0)
    student = build_model(STUDENT, config)
    teacher = open_teacher(student, config)
    assert teacher is not None and teacher.weight == 2.0
    for name, value in teacher.model.state_dict().items():
        if name.startswith(("head.", "mask_head.", "mask_iou_head.")):
            assert torch.equal(student.state_dict()[name], value), name


def test_the_loss_is_the_share_of_the_variance_that_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint.load(teacher_file(tmp_path))
    teacher = Teacher(model, 3.0)
    wanted = [torch.randn(1, 8, side, side) * scale for side, scale in ((8, 0.1), (4, 5.0))]
    monkeypatch.setattr(model, "pyramid", lambda images: wanted)
    images = torch.zeros(1, 3, 64, 64)
    nothing = DensePredictions([], [], [])
    found = teacher.losses(images, wanted, nothing)
    assert list(found) == ["loss_teacher"]
    assert float(found["loss_teacher"]) == pytest.approx(0, abs=1e-6)
    # A shift by one standard deviation of its level misses all of it, however large the level is.
    shifted = [x + x.std() for x in wanted]
    found = teacher.losses(images, shifted, nothing)
    assert float(found["loss_teacher"]) == pytest.approx(3.0, rel=1e-3)
    assert not any(p.requires_grad for p in model.parameters())


def test_classes_are_imitated_where_the_teacher_is_surer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint.load(teacher_file(tmp_path))
    teacher = Teacher(model, 0.0, classes=2.0)
    monkeypatch.setattr(model, "pyramid", lambda images: [])
    wanted, found = torch.tensor([2.0, -5.0]), torch.tensor([0.0, -5.0])
    said = DensePredictions([wanted.view(1, 1, 1, 2)], [], [])
    monkeypatch.setattr(model.head, "forward", lambda pyramid: said)
    dense = DensePredictions([found.view(1, 1, 1, 2)], [], [])
    (loss,) = teacher.losses(torch.zeros(1, 3, 64, 64), [], dense).values()
    sure, vague = float(torch.sigmoid(wanted[0])), float(torch.sigmoid(wanted[1]))
    # Only the first cell is off, by sure - 1/2, and its cross entropy at 1/2 is log 2.
    by_hand = 2 * (sure - 0.5) ** 2 * math.log(2) / max(sure + vague, 1)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_a_teacher_with_other_classes_is_refused(tmp_path: Path) -> None:
    student = CenterMask(STUDENT.model_copy(update={"classes": ("cat",)}))
    config = TrainConfig(teacher=teacher_file(tmp_path))
    with pytest.raises(ConfigError, match="differs from person-v19-slim in classes; give"):
        open_teacher(student, config)


def test_a_student_of_another_width_learns_through_adapters(tmp_path: Path) -> None:
    narrow = STUDENT.model_copy(update={"fpn_channels": 32})
    config = TrainConfig(
        annotations=(write_scenes(tmp_path / "set"),),
        output=tmp_path / "run",
        teacher=teacher_file(tmp_path),
        steps=2,
        batch_size=2,
        warmup_steps=0,
        short_sides=(64,),
        long_side=96,
        save_every=1,
        tensorboard=False,
    )
    run = start_run(narrow, config)
    before = {k: v.clone() for k, v in run.adapters.state_dict().items()}
    assert before["0.weight"].shape == (128, 32, 1, 1)
    seen: list[Progress] = []
    path = train(narrow, config, seen.append)
    assert {"loss_teacher", "loss_teacher_cls"} <= set(seen[0].losses)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert all(not torch.equal(before[k], v) for k, v in state["adapters"].items())
    assert not any("adapter" in k for k in checkpoint.read_safetensors(path)[0])


def test_a_teacher_with_other_pixels_is_refused(tmp_path: Path) -> None:
    prep = STUDENT.preprocess.model_copy(update={"channel_order": "bgr"})
    student = CenterMask(STUDENT.model_copy(update={"preprocess": prep}))
    with pytest.raises(ConfigError, match="channel_order"):
        open_teacher(student, TrainConfig(teacher=teacher_file(tmp_path)))


def test_a_run_with_both_trains_and_leaves_a_plain_checkpoint(tmp_path: Path) -> None:
    config = TrainConfig(
        annotations=(write_scenes(tmp_path / "set"),),
        output=tmp_path / "run",
        teacher=teacher_file(tmp_path),
        batch_norm=True,
        steps=3,
        batch_size=2,
        optimizer="adamw",
        warmup_steps=1,
        short_sides=(64,),
        long_side=96,
        ema_decay=0.9,
        bf16=True,
    )
    seen: list[Progress] = []
    path = train(STUDENT, config, seen.append)
    assert all(progress.losses["loss_teacher"] > 0 for progress in seen)
    model = checkpoint.load(path)
    norms = [m for m in model.backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(bool((norm.running_var != 1).any()) for norm in norms)
