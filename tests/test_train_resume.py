"""Killed and resumed, a training gives the same bits; states and logs that a kill leaves."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
import train_resume
from train_resume import compare, disturb, draw_pictures, settings, tiny_model

from centermask_edge.errors import MissingPackageError, ModelFileError
from centermask_edge.evaluate.coco import Precision, Report
from centermask_edge.train.journal import LINES, TABLE, Journal
from centermask_edge.train.loop import train
from centermask_edge.train.state import (
    PREVIOUS_FILE,
    STATE_FILE,
    Content,
    read_state,
    write_state,
)

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A run that was left alone."""
    folder = tmp_path_factory.mktemp("straight")
    train(tiny_model(), settings(data, folder, STEPS))
    return folder


def test_a_run_killed_twice_is_the_run_left_alone(
    data: Path, straight: Path, tmp_path: Path
) -> None:
    found = disturb(data, tmp_path, STEPS, 2, random.Random(1))
    assert len(found.killed_after) == 2 and found.lives == 3
    assert min(found.killed_after) > 0 and max(found.killed_after) < STEPS
    assert compare(straight, tmp_path) == []


def test_the_comparison_sees_a_single_bit(straight: Path) -> None:
    first, second = (torch.load(straight / STATE_FILE, weights_only=True) for _ in range(2))
    key = next(k for k, v in second["model"].items() if v.is_floating_point() and v.numel() > 9)
    flat = second["model"][key].flatten()
    flat[3:4].view(torch.int32).bitwise_xor_(1)
    second["model"][key] = flat.view(first["model"][key].shape)
    assert train_resume.differences(first, second) == [f"state.model.{key}"]


@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(
    damage: str, data: Path, straight: Path, tmp_path: Path
) -> None:
    for name in (STATE_FILE, PREVIOUS_FILE, LINES, TABLE):
        (tmp_path / name).write_bytes((straight / name).read_bytes())
    path = tmp_path / STATE_FILE
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 3] if damage == "cut" else content)
    if damage == "gone":  # killed between the two renames
        path.unlink()
    notes: list[str] = []
    train(tiny_model(), settings(data, tmp_path, STEPS), on_note=notes.append)
    assert compare(straight, tmp_path) == []
    if damage == "gone":
        assert notes == []
        return
    (line,) = notes
    assert "\n" not in line and str(path) in line
    assert f"continuing from {PREVIOUS_FILE}" in line


def test_two_damaged_states_are_an_error_about_the_newest(tmp_path: Path) -> None:
    for name in (STATE_FILE, PREVIOUS_FILE):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match=rf"cannot resume from \S+{STATE_FILE}: .*delete it"):
        read_state(tmp_path, lambda content: None, print)


def test_the_last_two_states_are_kept(tmp_path: Path) -> None:
    for step in range(4):
        write_state(tmp_path, {"step": step})
    seen: list[Content] = []
    assert read_state(tmp_path, seen.append, print)
    (tmp_path / STATE_FILE).unlink()
    assert read_state(tmp_path, seen.append, print)
    assert seen == [{"step": 3}, {"step": 2}]
    assert sorted(p.name for p in tmp_path.iterdir()) == [PREVIOUS_FILE]
    assert not read_state(tmp_path / "nowhere", seen.append, print)


def test_another_batch_is_another_run(data: Path, straight: Path, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes((straight / STATE_FILE).read_bytes())
    changed = settings(data, tmp_path, STEPS + 1).model_copy(update={"batch_size": 4})
    with pytest.raises(ModelFileError, match="batch_size was 2, now it is 4"):
        train(tiny_model(), changed)


# --- logs -------------------------------------------------------------------------------------


def test_logs_hold_every_step_once(tmp_path: Path) -> None:
    nothing = Precision(1.5, 2.0, 1.0, -1.0, -1.0, -1.0)
    with Journal(tmp_path, 0, tensorboard=False) as journal:
        for step in (1, 2, 3):
            journal.step(step, {"loss_cls": step / 2, "lr": 0.1})
        journal.report(3, Report(2, 4, nothing, nothing))
    with (tmp_path / LINES).open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    with Journal(tmp_path, 2, tensorboard=False) as journal:
        journal.step(3, {"loss_cls": float("inf"), "lr": 0.1})
    rows = [json.loads(line) for line in (tmp_path / LINES).read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3] and rows[-1]["loss_cls"] is None
    table = (tmp_path / TABLE).read_text().splitlines()
    assert table[:2] == ["step,loss_cls,lr", "1,0.5,0.1"] and len(table) == 4


def test_tensorboard_that_is_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match="tensorboard is not installed"):
        Journal(tmp_path, 0, tensorboard=True)


def test_a_run_logs_its_losses_without_tensorboard(straight: Path) -> None:
    header, *rows = (straight / TABLE).read_text().splitlines()
    names = "step,loss_cls,loss_box,loss_centerness,loss_mask,loss_mask_iou,grad_norm,lr,seconds"
    assert header == names and [int(r.split(",")[0]) for r in rows] == list(range(1, STEPS + 1))
    assert not list(straight.glob("events.*"))
