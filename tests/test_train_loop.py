"""Training on drawn pictures: a stop and a resume change no bit, damage is one line, bfloat16."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from scenes import write_scenes
from torch import Tensor

from centermask_edge.config import PRESETS, TrainConfig
from centermask_edge.data.coco import read_coco
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import ConfigError, DatasetError, ModelFileError
from centermask_edge.model import checkpoint
from centermask_edge.train.batches import Batch, batches
from centermask_edge.train.learner import train_step
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.run import Run, start_run
from centermask_edge.train.setup import build_model, read_samples
from centermask_edge.train.state import STATE_FILE

pytestmark = pytest.mark.usefixtures("one_thread")

PERSON = PRESETS["person-efficientnet-lite0"]


class Stopped(Exception):
    """Stands for a machine that goes away."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A set with masks and one with boxes only."""
    folder = tmp_path_factory.mktemp("data")
    return write_scenes(folder / "masks"), write_scenes(folder / "boxes", seed=1, masks=False)


def config(data: tuple[Path, ...], output: Path, **values: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "annotations": data,
            "output": output,
            "steps": 4,
            "batch_size": 2,
            "optimizer": "adamw",
            "base_lr": 0.01,
            "schedule": "cosine",
            "warmup_steps": 1,
            "short_sides": (64,),
            "long_side": 96,
            "rois_per_image": 1,  # of two objects: a random one
            "masked_share": 0.5,
            "ema_decay": 0.9,
            "save_every": 2,
            **values,
        }
    )


def stop_at(step: int) -> object:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return on_step


@pytest.fixture(scope="module")
def undisturbed(
    data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> tuple[Path, list[Progress]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    seen: list[Progress] = []
    train(PERSON, config(data, folder), seen.append)
    return folder, seen


def same_tree(a: object, b: object) -> bool:
    """Whether two states are equal, bit by bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_tree(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_tree, a, b))
    return a == b


def test_a_stopped_and_resumed_run_gives_the_same_bits(
    data: tuple[Path, Path], undisturbed: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    straight, seen = undisturbed
    with pytest.raises(Stopped):  # the third step is lost: the state is that of the second
        train(PERSON, config(data, tmp_path), stop_at(3))  # type: ignore[arg-type]
    resumed: list[Progress] = []
    assert train(PERSON, config(data, tmp_path), resumed.append) == tmp_path / "last.safetensors"
    assert [p.step for p in resumed] == [3, 4]
    for ours, wanted in zip(resumed, seen[2:], strict=True):
        assert (ours.losses, ours.grad_norm, ours.lr) == (
            wanted.losses,
            wanted.grad_norm,
            wanted.lr,
        )
    for name in ("last.safetensors", STATE_FILE):
        assert (tmp_path / name).exists()
    states = [torch.load(folder / STATE_FILE, weights_only=True) for folder in (straight, tmp_path)]
    assert same_tree(*states)
    weights = [checkpoint.read_safetensors(f / "last.safetensors")[0] for f in (straight, tmp_path)]
    assert same_tree(*weights)
    # The comparison is worth something: the average is not the model, and training moved both.
    assert not same_tree(states[0]["model"], weights[0])
    assert not same_tree(
        states[0]["model"], build_model(PERSON, config(data, tmp_path)).state_dict()
    )


def test_every_loss_is_learned_from(undisturbed: tuple[Path, list[Progress]]) -> None:
    _, seen = undisturbed
    assert [p.step for p in seen] == [1, 2, 3, 4]
    for progress in seen:
        assert all(v > 0 for v in progress.losses.values()), progress.losses
        assert progress.grad_norm > 0
    assert seen[0].lr == pytest.approx(0.01 * 2 / 16 * 0.001)  # warm-up of one step


def test_a_finished_run_is_not_trained_on(
    data: tuple[Path, Path], undisturbed: tuple[Path, list[Progress]]
) -> None:
    folder, _ = undisturbed
    before = (folder / "last.safetensors").stat().st_mtime_ns
    seen: list[Progress] = []
    train(PERSON, config(data, folder), seen.append)
    assert not seen and (folder / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "flip", "other"])
def test_a_damaged_state_is_one_line(
    damage: str, data: tuple[Path, Path], undisturbed: tuple[Path, list[Progress]], tmp_path: Path
) -> None:
    content = (undisturbed[0] / STATE_FILE).read_bytes()
    rng = random.Random(0)
    if damage == "flip":
        start = len(content) - 4000  # in the directory at the end of the file
        content = content[:start] + bytes(b ^ 0x55 for b in content[start:])
    state = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "noise": rng.randbytes(5000),
        "flip": content,
        "other": b"",
    }[damage]
    path = tmp_path / STATE_FILE
    path.write_bytes(state)
    if damage == "other":
        torch.save({"step": 3}, path)
    with pytest.raises(ModelFileError, match="cannot resume from") as caught:
        train(PERSON, config(data, tmp_path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "delete it" in message


def test_an_unwritable_output_is_one_line(data: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="cannot write to"):
        train(PERSON, config(data, tmp_path / "file" / "run"))


def test_a_picture_that_vanishes_is_told_and_stops_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_scenes(tmp_path / "set", count=2)
    chosen = config((path,), tmp_path / "run")
    samples = read_samples(chosen, PERSON.classes)
    samples[0].path.unlink()
    sampler = BatchSampler(samples, 2, None, 0)
    with pytest.raises(DatasetError, match="cannot be read"):
        next(batches(samples, sampler, PERSON.preprocess, chosen))


def test_training_leaves_out_the_validation_pictures(tmp_path: Path) -> None:
    path = write_scenes(tmp_path / "set", count=3)
    content = path.read_text()
    held_out = tmp_path / "set" / "val.json"
    held_out.write_text(content.replace("_000.png", "_001.png"))
    chosen = config((path,), tmp_path / "run", val_annotations=held_out)
    # val.json names pictures 1, 1 and 2.
    assert [s.path.name for s in read_samples(chosen, PERSON.classes)] == ["set_000.png"]
    with pytest.raises(DatasetError, match="no training picture has an object"):
        read_samples(config((path,), tmp_path, val_annotations=path), PERSON.classes)
    with pytest.raises(ConfigError, match="no training annotations"):
        read_samples(config((), tmp_path), PERSON.classes)


# --- one step ---------------------------------------------------------------------------------


def start(chosen: TrainConfig) -> tuple[Run, Batch]:
    samples = read_coco(chosen.annotations[0], PERSON.classes)
    sampler = BatchSampler(samples, chosen.batch_size, None, 0)
    stream = batches(samples, sampler, PERSON.preprocess, chosen)
    batch = next(stream)
    stream.close()  # type: ignore[attr-defined]
    run = start_run(PERSON, chosen)
    run.step = 1
    return run, batch


def gradients(run: Run) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}


def test_a_bfloat16_step_is_near_a_float32_step(data: tuple[Path, Path], tmp_path: Path) -> None:
    results = []
    for bf16 in (False, True):
        run, batch = start(config(data, tmp_path, bf16=bf16))
        losses, norm = train_step(run, batch)
        results.append(({k: float(v.detach()) for k, v in losses.items()}, norm, gradients(run)))
    (plain, norm, exact), (rough, rough_norm, rounded) = results
    assert rough == pytest.approx(plain, rel=0.05) and rough != plain
    assert float(rough_norm) == pytest.approx(float(norm), rel=0.1)
    assert rounded.keys() == exact.keys()
    assert all(g.dtype == torch.float32 for g in rounded.values())
    for key in ("head.cls_logits.weight", "fpn.output.0.weight", "mask_head.deconv.weight"):
        a, b = exact[key].flatten(), rounded[key].flatten()
        assert float(torch.dot(a, b) / (a.norm() * b.norm())) > 0.98, key


def test_a_step_that_is_not_finite_changes_nothing(data: tuple[Path, Path], tmp_path: Path) -> None:
    run, batch = start(config(data, tmp_path))
    before = {k: v.clone() for k, v in run.weights().items()}
    batch.images[0, 0, 0, 0] = float("inf")
    _, norm = train_step(run, batch)
    assert not bool(torch.isfinite(norm))
    assert same_tree(before, run.weights())


def test_frozen_stages_do_not_move(data: tuple[Path, Path], tmp_path: Path) -> None:
    run, batch = start(config(data, tmp_path, frozen_stages=2, clip_norm=0.5))
    before = {k: v.clone() for k, v in run.model.named_parameters()}
    train_step(run, batch)
    moved = {k for k, v in run.model.named_parameters() if not torch.equal(v, before[k])}
    assert {k for k in before if k.startswith(("backbone.stem", "backbone.stages.0"))}.isdisjoint(
        moved
    )
    assert any(k.startswith("backbone.stages.1") for k in moved)
    total = torch.stack([g.norm() for g in gradients(run).values()]).norm()
    assert float(total) == pytest.approx(0.5, rel=1e-3)
