"""Two processes are one with the doubled batch; a step in parts is the whole step; clean ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch
from scenes import write_scenes
from torch import Tensor
from torch._C._distributed_c10d import TCPStore
from train_resume import draw_pictures, settings, tiny_model

from centermask_edge.cli import main
from centermask_edge.config import TrainConfig
from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import ConfigError
from centermask_edge.train.batches import Batch, batches
from centermask_edge.train.journal import LINES, TABLE
from centermask_edge.train.learner import train_step
from centermask_edge.train.loop import train
from centermask_edge.train.ranks import PeerError, Ranks, told_by_peers
from centermask_edge.train.recipes import settings as recipe_settings
from centermask_edge.train.run import Run, start_run
from centermask_edge.train.setup import read_samples
from centermask_edge.train.stopping import TimeLimit

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = {
    "preset": "person-efficientnet-lite0",
    "train": {
        "steps": 6,
        "batch_size": 4,
        "optimizer": "sgd",
        "base_lr": 0.02,
        "warmup_steps": 2,
        "short_sides": [64],
        "long_side": 96,
        "rois_per_image": 1,
        "save_every": 2,
        "tensorboard": False,
        "device": "cpu",
        "threads": 1,
    },
}


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LINES).read_text().splitlines()]


def first_use(config: TrainConfig, names: tuple[str, ...], limit: int = 9) -> dict[str, int]:
    """In which step, from 1, and at which place of the batch each picture comes first."""
    samples = read_samples(config, names)
    sampler = BatchSampler(samples, config.batch_size, None, config.seed)
    found: dict[str, int] = {}
    for step in range(limit):
        for place, index in enumerate(sampler.next()):
            found.setdefault(samples[index].path.name, step * config.batch_size + place)
    return found


def worker(words: list[str], environment: dict[str, str], errors: str) -> None:
    """One process of a training, as torchrun starts it."""
    os.environ.update(environment)
    with open(errors, "w") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(main(words))


def run_together(words: list[str], folder: Path) -> tuple[list[int | None], list[str]]:
    """Exit codes and stderr of two processes that run the same command as one training."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["centermask_edge.train.loop"])
    processes, files = [], [folder / f"stderr{rank}" for rank in (0, 1)]
    for rank, file in enumerate(files):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        process = context.Process(target=worker, args=(words, environment, str(file)))
        process.start()
        processes.append(process)
    for process in processes:
        process.join(120)
        process.kill()
    return [p.exitcode for p in processes], [f.read_text() for f in files]


def test_two_processes_are_one_with_the_doubled_batch_until_one_of_them_fails(
    tmp_path: Path,
) -> None:
    data = write_scenes(tmp_path / "set", count=14)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    given = {"annotations": (data,), "output": tmp_path / "one"}
    model, config = recipe_settings(str(recipe), None, given)
    train(model, config)

    # A picture that rank 1 is the first to need, after two steps at least.
    uses = first_use(config, model.classes)
    name, use = next((n, u) for n, u in uses.items() if u >= 8 and u % 4 >= 2)
    (data.parent / "images" / name).write_bytes(b"no picture")
    words = ["train", str(data), "--recipe", str(recipe), "--output", str(tmp_path / "two")]
    codes, errors = run_together(words, tmp_path)
    good = use // 4
    single, double = logged(tmp_path / "one")[:good], logged(tmp_path / "two")
    assert [row["step"] for row in double] == [row["step"] for row in single], errors
    for ours, wanted in zip(double, single, strict=True):
        for key in wanted.keys() - {"seconds"}:
            assert ours[key] == pytest.approx(wanted[key], rel=1e-5), (key, ours["step"])
    # The one that could not read says so, the other points to it; both end, with one line each.
    assert codes == [2, 2]
    assert "another process of this training ended" in errors[0]
    assert "cannot be read" in errors[1] and name in errors[1]
    lines = [line for text in errors for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2 and "Traceback" not in "".join(errors)
    # Rank 0's files and nobody else's; the state is the last whole one.
    names = {p.name for p in (tmp_path / "two").iterdir()}
    wanted_names = {"last.safetensors", "state.pt", "settings.json", LINES, TABLE, "data.html"}
    assert names - {"state.previous.pt"} == wanted_names
    state = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    assert state["step"] == good // 2 * 2


def test_what_only_the_first_process_meets_ends_the_others_too(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "set")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(RECIPE))
    (tmp_path / "run" / "settings.json").mkdir(parents=True)  # where it wants to write a file
    words = ["train", str(data), "--recipe", str(recipe), "--output", str(tmp_path / "run")]
    codes, errors = run_together(words, tmp_path)
    assert codes == [2, 2]
    assert errors[0].startswith("error: cannot write to") and errors[0].count("\n") == 1
    assert errors[1].startswith("error: another process of this training ended")
    assert errors[1].count("\n") == 1


# --- parts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("drawn"))


def stepped(data: Path, output: Path, parts: int) -> tuple[Run, dict[str, Tensor], Tensor]:
    plain = settings(data, output, 4).model_dump()
    changes = {"accumulate": parts, "batch_size": 4, "batch_norm": False, "rois_per_image": 1}
    config = TrainConfig.model_validate({**plain, **changes})
    run = start_run(tiny_model(), config)
    losses, norm = train_step(run, first_batch(config))
    return run, losses, norm


def first_batch(config: TrainConfig, ranks: Ranks | None = None) -> Batch:
    samples = read_samples(config, ("person",))
    sampler = BatchSampler(samples, config.batch_size, None, config.seed)
    stream = batches(samples, sampler, tiny_model().preprocess, config, ranks)
    batch = next(stream)
    stream.close()  # type: ignore[attr-defined]
    return batch


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_the_whole_step(parts: int, data: Path, tmp_path: Path) -> None:
    whole, wanted, norm = stepped(data, tmp_path, 1)
    divided, found, other = stepped(data, tmp_path, parts)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert float(found[key]) == pytest.approx(float(value), rel=1e-5), key
    assert float(other) == pytest.approx(float(norm), rel=1e-4)
    gradients = [{k: p.grad for k, p in r.model.named_parameters()} for r in (whole, divided)]
    for key, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-3, atol=1e-5)


def test_threads_change_nothing(data: Path, tmp_path: Path) -> None:
    config = settings(data, tmp_path, 4)
    one, several = (
        first_batch(config.model_copy(update={"workers": workers})) for workers in (1, 3)
    )
    assert torch.equal(one.images, several.images) and one.seeds == several.seeds


def test_processes_draw_what_one_would(data: Path, tmp_path: Path) -> None:
    config = settings(data, tmp_path, 4).model_copy(update={"batch_size": 4})
    one = first_batch(config)
    parts = [first_batch(config, Ranks(rank, 2)) for rank in (0, 1)]
    assert [*parts[0].seeds, *parts[1].seeds] == one.seeds
    assert [*parts[0].image_sizes, *parts[1].image_sizes] == one.image_sizes
    assert parts[0].sampler_state == parts[1].sampler_state == one.sampler_state
    for row, (height, width) in enumerate(one.image_sizes):
        part = parts[row // 2].images[row % 2]
        assert torch.equal(part[:, :height, :width], one.images[row, :, :height, :width])


# --- alone, and with others gone --------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(data, tmp_path, 4)
    from centermask_edge.train import loop

    with pytest.raises(ConfigError, match="batch_size 2 is no multiple of 6"):
        loop._train(tiny_model(), config, None, Ranks(0, 3), loop.Watch(), TimeLimit(0))


def test_a_broken_connection_points_to_the_other_process() -> None:
    with pytest.raises(PeerError, match="its own message says why"), told_by_peers(2):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), told_by_peers(2):
        raise RuntimeError("shapes do not match")
    assert Ranks().mean([1.0, 2.0]) == [1.0, 2.0] == Ranks().largest([1.0, 2.0])


def test_processes_that_do_not_meet_are_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2 but the processes do not meet"):
        train(tiny_model(), settings(data, tmp_path, 4))
