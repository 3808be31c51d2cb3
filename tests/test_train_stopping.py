"""Runs that end early: good enough, no better, no time; the batch that fits; steps from epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_resume import draw_pictures, settings, tiny_model

from centermask_edge.config import TrainConfig
from centermask_edge.errors import ConfigError
from centermask_edge.evaluate.coco import Precision, Report
from centermask_edge.model import checkpoint
from centermask_edge.train import auto_batch
from centermask_edge.train.auto_batch import ON_CPU, largest_fitting, with_fitting_batch
from centermask_edge.train.batches import Batch
from centermask_edge.train.learner import make_scaler, train_step
from centermask_edge.train.loop import Progress, train
from centermask_edge.train.ranks import Ranks, chosen_device
from centermask_edge.train.recipes import run_settings
from centermask_edge.train.run import BEST, LAST, Run, evaluated_model, start_run
from centermask_edge.train.setup import open_output
from centermask_edge.train.stopping import Judged, TimeLimit

pytestmark = pytest.mark.usefixtures("one_thread")


def report(mask: float, box: float = 50.0) -> Report:
    def precision(ap: float) -> Precision:
        return Precision(ap, ap, ap, -1.0, -1.0, -1.0)

    return Report(1, 1, precision(box), precision(mask))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("drawn"), count=3)


def run_with(data: Path, output: Path, **changes: object) -> TrainConfig:
    plain = settings(data, output, 8).model_dump()
    return TrainConfig.model_validate({**plain, **changes})


def test_a_run_without_progress_ends_and_stays_ended(data: Path, tmp_path: Path) -> None:
    config = run_with(data, tmp_path, eval_every=1, patience=2, save_every=100)
    found = iter([10.0, 12.0, 11.0, 12.0])
    notes: list[str] = []

    def judge(run: Run) -> Report:
        return report(next(found))

    path = train(tiny_model(), config, on_note=notes.append, evaluator=judge)
    assert notes == ["ended after step 4: no better mask AP than 12.0 in 2 evaluations"]
    best, last = (checkpoint.read_safetensors(tmp_path / name)[0] for name in (BEST, LAST))
    assert path.name == LAST and any(not torch.equal(best[k], v) for k, v in last.items())
    seen: list[Progress] = []
    train(tiny_model(), config, seen.append, evaluator=judge)
    assert seen == []


def test_patience_starts_anew_when_it_gets_better() -> None:
    config = TrainConfig(eval_every=1, patience=2, stop_at_ap=90.0)
    judged = Judged()
    assert [judged.judge(report(ap), config) for ap in (5, 4, 6, 5)] == [True, False, True, False]
    assert not judged.ended
    judged.judge(report(5), config)
    assert judged.ended
    judged = Judged()
    judged.judge(report(95, box=89), config)
    assert not judged.ended
    judged.judge(report(95, box=90), config)
    assert judged.ended == "AP has reached 90.0"


def test_time_that_runs_out_is_seen_before_it_has() -> None:
    now = [0.0]
    limit = TimeLimit(100.0, lambda: now[0])
    for what, took in (("step", 3.0), ("step", 2.0), ("save", 5.0), ("evaluation", 20.0)):
        limit.took(what, took)
    now[0] = 80.0
    assert not limit.over("step")  # 2 x (3 + 5) and a second are still there
    assert limit.over("step", "evaluation")
    now[0] = 83.1
    assert limit.over("step")
    assert not TimeLimit(0.0, lambda: 1e9).over("step")


def test_a_run_stopped_by_time_goes_on_in_the_next_call(data: Path, tmp_path: Path) -> None:
    config = run_with(data, tmp_path, seconds=0.001, steps=3, save_every=100)
    seen: list[Progress] = []
    notes: list[str] = []
    for _ in range(3):
        train(tiny_model(), config, seen.append, on_note=notes.append)
    assert [p.step for p in seen] == [1, 2, 3]
    assert [line.split(":")[0] for line in notes] == [
        "stopped after step 1 of 3",
        "stopped after step 2 of 3",
    ]


def test_epochs_are_steps_of_the_pictures_there_are(data: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tiny_model(), run_with(data, tmp_path, epochs=1.0), seen.append)
    assert [(p.step, p.steps) for p in seen] == [(1, 2), (2, 2)]  # three pictures, two a step


def test_the_averaged_weights_are_evaluated_and_saved(data: Path, tmp_path: Path) -> None:
    judged: list[dict[str, torch.Tensor]] = []

    def judge(run: Run) -> Report:
        judged.append(evaluated_model(run).state_dict())
        return report(1.0)

    config = run_with(data, tmp_path, steps=2, eval_every=2)
    saved, _ = checkpoint.read_safetensors(train(tiny_model(), config, evaluator=judge))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    key = "head.cls_logits.weight"
    assert torch.equal(judged[0][key], saved[key]) and torch.equal(
        saved[key], state["ema"]["shadow"][key]
    )
    assert not torch.equal(saved[key], state["model"][key])


# --- the batch that fits ----------------------------------------------------------------------


def test_doubling_stops_with_a_tenth_to_spare() -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= 20

    assert largest_fitting(fits) == 16 and tried == [2, 4, 8, 17, 35]
    assert largest_fitting(lambda size: False) == 1


def test_on_a_cpu_the_batch_is_the_stated_one(data: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    config = run_with(data, tmp_path, auto_batch=True, accumulate=1, steps=1)
    train(tiny_model(), config, on_note=notes.append)
    assert notes == [f"auto batch: {ON_CPU} pictures per step"]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["batch_size"] == ON_CPU


def test_on_a_gpu_the_largest_that_runs_is_kept_when_the_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(run: object, batch: Batch) -> None:
        if len(batch.seeds) > 11:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(auto_batch, "start_run", lambda *arguments: None)
    monkeypatch.setattr(auto_batch, "train_step", step)
    gpu = Ranks(device=torch.device("cuda"))
    notes: list[str] = []
    config = run_with(data, tmp_path, auto_batch=True)  # in two parts
    found = with_fitting_batch(tiny_model(), config, gpu, notes.append)
    assert found.batch_size == 16 and notes == ["auto batch: 16 pictures per step"]
    open_output(tiny_model(), found)
    monkeypatch.setattr(auto_batch, "train_step", None)  # nothing is tried again
    assert with_fitting_batch(tiny_model(), config, gpu, notes.append).batch_size == 16


def test_what_is_tried_is_a_whole_step(data: Path, tmp_path: Path) -> None:
    config = run_with(data, tmp_path, accumulate=1)
    batch = auto_batch.crowded_batch(config, 2)
    assert batch.images.shape == (2, 3, 64, 96)
    losses, norm = train_step(start_run(tiny_model(), config), batch)
    assert all(bool(v.isfinite()) for v in losses.values()) and bool(norm > 0)


def test_a_scaled_loss_takes_the_same_step_and_its_scale_is_kept(
    data: Path, tmp_path: Path
) -> None:
    config = run_with(data, tmp_path, accumulate=1, clip_norm=5.0)
    batch = auto_batch.crowded_batch(config, 2)
    plain, scaled, broken = (start_run(tiny_model(), config) for _ in range(3))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    wanted, found = (train_step(run, batch)[1] for run in (plain, scaled))
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    for ours, theirs in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert scaled.content()["scaler"]["scale"] == 2048.0
    broken.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    broken.restore(scaled.content())
    assert broken.scaler.get_scale() == 2048.0
    before = {k: v.clone() for k, v in broken.model.named_parameters()}
    batch.images[0] = float("inf")
    train_step(broken, batch)
    assert broken.scaler.get_scale() == 1024.0
    assert all(torch.equal(v, before[k]) for k, v in broken.model.named_parameters())


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bf16": True, "fp16": True}, "bf16 and fp16 exclude each other"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size 6 is no multiple of accumulate 4"),
        ({"jitter": (2.0, 1.0)}, "no range of scales"),
        ({"patience": 3}, "need eval_every"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^training settings: .*{message}"):
        run_settings(values, {})


def test_fp16_and_cuda_are_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16 training needs a CUDA device"):
        make_scaler(TrainConfig(fp16=True), torch.device("cpu"))
    assert not make_scaler(TrainConfig(bf16=True), torch.device("cpu")).is_enabled()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        chosen_device("cuda")
    assert chosen_device("auto").type == "cpu"
