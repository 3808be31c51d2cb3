"""The search: what it asks, what it keeps, when it gives up, what survives an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import sensitive_models
from calibration_pictures import scene
from sensitive_models import PLAN, VICTIM
from test_quantize_calibration import items

from centermask_edge.engines import EngineName
from centermask_edge.errors import ConfigError
from centermask_edge.quantize import load_plan, quantize_model, sites_of
from centermask_edge.quantize.blocks import Unit
from centermask_edge.quantize.candidates import Losses
from centermask_edge.quantize.chosen import Chosen, choose, search_files
from centermask_edge.quantize.job import Job, Ready, prepare
from centermask_edge.quantize.kept_plan import keeping, plan_text
from centermask_edge.quantize.probe import Probe
from centermask_edge.quantize.search import Found, Outcome, search


def units(count: int, macs: Callable[[int], int] = lambda i: 1) -> list[Unit]:
    return [Unit(f"u{i}", (f"n{i}",), (f"n{i}",), "block", macs(i)) for i in range(count)]


class Costs:
    """Loses a fixed number of points for each part in 8 bits."""

    def __init__(self, costs: dict[str, float], base: float = 0.0) -> None:
        self.costs, self.base = costs, base
        self.asked: list[frozenset[str]] = []

    def __call__(self, kept: tuple[Unit, ...]) -> float:
        names = frozenset(unit.name for unit in kept)
        self.asked.append(names)
        return self.base + sum(cost for name, cost in self.costs.items() if name not in names)


def kept(found: Found) -> set[str]:
    return {unit.name for unit in found.kept}


# The search alone


def test_nothing_is_kept_where_8_bits_hold() -> None:
    loss = Costs({"u3": 0.2})
    found = search(units(10), loss, 0.3)
    assert found.outcome is Outcome.NOTHING_KEPT and found.kept == () and found.holds
    assert len(loss.asked) == 1
    assert "nothing is kept in float" in found.sentence()


@pytest.mark.parametrize("count", [2, 3, 16, 93])
def test_one_sensitive_part_is_kept_and_no_other(count: int) -> None:
    loss = Costs({"u0": 5.0})
    found = search(units(count), loss, 0.3)
    assert found.outcome is Outcome.KEPT and kept(found) == {"u0"}
    assert len(loss.asked) == 2


@pytest.mark.parametrize("needed", [1, 2, 3, 4, 5, 7, 8, 11, 31])
def test_as_many_as_needed_are_kept(needed: int) -> None:
    loss = Costs({f"u{i}": 1.0 for i in range(needed)})
    found = search(units(93), loss, 0.5, evaluations=99)
    assert kept(found) == {f"u{i}" for i in range(needed)}
    assert found.outcome is Outcome.KEPT and found.loss == 0.0
    assert len(loss.asked) == len(set(loss.asked)) <= 2 * needed + 12


def test_numbers_double_and_are_then_bisected() -> None:
    found = search(units(93), Costs({f"u{i}": 1.0 for i in range(31)}), 0.5, evaluations=99)
    sizes = [len(step.kept) for step in found.tried]
    assert sizes[:11] == [0, 1, 2, 4, 8, 16, 32, 24, 28, 30, 31]
    assert sizes[11:] == [30] * 30  # each of the 31 but the last, which was the step before


def test_what_the_ranking_got_wrong_is_given_back() -> None:
    # u0 .. u5 are said to be sensitive; only u5 is.
    loss = Costs({"u5": 2.0, "u1": 0.1})
    found = search(units(20, macs=lambda i: 100 - i), loss, 0.3)
    assert kept(found) == {"u5"} and found.loss == pytest.approx(0.1)


def test_the_most_expensive_is_given_back_first() -> None:
    # Any two of the three suffice.
    costs = {"u0": 0.2, "u1": 0.2, "u2": 0.2}
    found = search(units(9, macs=lambda i: (10, 30, 20)[i] if i < 3 else 1), Costs(costs), 0.25)
    assert kept(found) == {"u0", "u2"} or kept(found) == {"u0", "u1"}
    whole = search(units(9, macs=lambda i: (10, 30, 20)[i] if i < 3 else 1), Costs(costs), 0.2)
    assert kept(whole) == {"u0", "u1"}
    three = Costs({"u0": 0.1, "u1": 0.1, "u2": 0.1, "u3": 1.0})
    freed = search(units(9, macs=lambda i: (10, 30, 20, 5)[i] if i < 4 else 1), three, 0.2)
    assert kept(freed) == {"u0", "u3"}


def test_a_budget_of_zero_can_be_met() -> None:
    found = search(units(12), Costs({"u0": 0.01, "u1": 0.001}), 0.0)
    assert kept(found) == {"u0", "u1"} and found.loss == 0.0 and found.holds


def test_only_float_holds() -> None:
    loss = Costs({f"u{i}": 1.0 for i in range(12)})
    found = search(units(12), loss, 0.5, float_loss=lambda: 0.1)
    assert found.outcome is Outcome.ONLY_FLOAT and not found.holds
    assert found.loss == 1.0 and len(found.kept) == 11  # with all of them nothing is quantized
    assert "no plan holds the budget of 0.50 but the float model itself" in found.sentence()


def test_not_even_float_holds() -> None:
    found = search(units(9), Costs({}, base=0.4), 0.3, float_loss=lambda: 0.4)
    assert found.outcome is Outcome.NOISE and not found.holds
    assert "even with everything in float 0.40 mask AP are lost" in found.sentence()
    assert found.kept == ()  # as good as any other, and the fastest


def test_one_part_alone_cannot_be_kept() -> None:
    found = search(units(1), Costs({"u0": 1.0}), 0.3, float_loss=lambda: 0.0)
    assert found.outcome is Outcome.ONLY_FLOAT and found.kept == ()


@pytest.mark.parametrize("evaluations", range(1, 9))
def test_the_number_of_evaluations_is_bounded(evaluations: int) -> None:
    loss = Costs({f"u{i}": 1.0 for i in range(7)})
    found = search(units(93), loss, 0.5, evaluations)
    assert len(loss.asked) == len(found.tried) == evaluations
    # 0, 1, 2, 4, 8 parts: the fifth evaluation is the first that holds.
    wanted = Outcome.NOT_FOUND if evaluations < 5 else Outcome.STOPPED
    assert found.outcome is wanted and found.holds is (evaluations >= 5)
    assert min(t.loss for t in found.tried) == found.loss


def test_a_plan_is_only_what_was_measured() -> None:
    loss = Costs({f"u{i}": 0.07 * (i % 5) for i in range(40)})
    found = search(units(40), loss, 0.9, evaluations=18)
    assert frozenset(kept(found)) in loss.asked
    assert found.loss == loss(found.kept) <= 0.9


@pytest.mark.parametrize(("budget", "evaluations"), [(-0.1, 5), (101.0, 5), (0.3, 0)])
def test_impossible_wishes_are_refused(budget: float, evaluations: int) -> None:
    with pytest.raises(ConfigError, match=r"wanted 0 to 100|needs 1 at least"):
        search(units(3), Costs({}), budget, evaluations)


# With a model, its engine and a set


COUNT = 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a layer that 8 bits destroy, and a set that it fits perfectly."""
    folder = tmp_path_factory.mktemp("files")
    onnx.save(sensitive_models.sensitive(), folder / "net.onnx")
    shown = [scene(i) for i in range(COUNT)]
    sensitive_models.write_truth(folder, folder / "net.onnx", shown)
    return folder


@pytest.fixture
def job(files: Path, tmp_path: Path) -> Job:
    out = tmp_path / "net-int8.onnx"
    return Job(files / "net.onnx", out, budget=1.0, val=files / "truth.json", threads=1)


@pytest.fixture(scope="module")
def ready(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    out = tmp_path_factory.mktemp("ready") / "net-int8.onnx"
    shown = items([scene(i) for i in range(COUNT)])
    found = prepare(Job(files / "net.onnx", out), onnx.load(files / "net.onnx"), shown)
    return replace(found, plan=PLAN)


def run(job: Job, ready: Ready) -> Chosen:
    assert job.val is not None
    return choose(job, ready, items([scene(i) for i in range(COUNT)]), job.val)


@pytest.fixture(scope="module")
def searched(
    files: Path, ready: Ready, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Chosen, set[str]]:
    """A search from start to end, and what it left in the cache of the engine."""
    out = tmp_path_factory.mktemp("searched") / "net-int8.onnx"
    job = Job(files / "net.onnx", out, budget=1.0, val=files / "truth.json", threads=1)

    def entries() -> set[str]:
        folder = cache / EngineName.OPENVINO.value
        return {p.name for p in folder.iterdir()} if folder.exists() else set()

    before = entries()
    return job, run(job, ready), entries() - before


Searched = tuple[Job, Chosen, set[str]]


def test_exactly_the_sensitive_layer_is_kept(searched: Searched) -> None:
    job, chosen, _ = searched
    assert [u.name for u in chosen.found.kept] == [VICTIM]
    assert chosen.found.tried[0].loss > 2 and chosen.found.loss < 0.5
    assert chosen.plan.keep_float == (VICTIM,)
    names = {path.name for path in search_files(job.out)}
    assert {p.name for p in job.out.parent.iterdir()} == names
    record = json.loads(search_files(job.out)[2].read_text())
    assert record["parts"][0]["name"] == VICTIM
    assert record["search"]["kept"] == [VICTIM] and record["search"]["outcome"] == "kept"


def test_candidates_do_not_stay_in_the_cache(searched: Searched) -> None:
    assert len(searched[2]) <= 1  # FP32 at most


def test_the_written_plan_gives_the_same_model(searched: Searched, ready: Ready, job: Job) -> None:
    chosen = searched[1]
    assert chosen.file is not None
    text = chosen.file.read_text()
    assert "# rank 1" in text and f'  - "{VICTIM}"' in text
    again = load_plan(str(chosen.file))
    assert again.name == "masks-kept" and again.rules == PLAN.rules
    model = ready.model
    assert sites_of(model, again) == sites_of(model, chosen.plan)
    wanted = quantize_model(model, chosen.plan, ready.scales)
    assert quantize_model(model, again, ready.scales).graph == wanted.graph
    # What was kept is not looked at again: the plan holds at once.
    second = run(job, replace(ready, plan=again))
    assert second.found.outcome is Outcome.NOTHING_KEPT and second.file is None
    assert second.plan == again and second.ranking is None


def test_a_plan_text_keeps_what_was_kept(searched: Searched, tmp_path: Path) -> None:
    chosen = searched[1]
    assert chosen.ranking is not None
    text = plan_text(PLAN.keeping("mask/mask_head/predictor"), chosen.found, chosen.ranking)
    (tmp_path / "p.yaml").write_text(text)
    plan = load_plan(str(tmp_path / "p.yaml"))
    assert plan.keep_float == ("mask/mask_head/predictor", VICTIM)
    assert max(len(line) for line in text.splitlines()) <= 100


def test_nothing_is_ranked_where_8_bits_hold(
    job: Job, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "noise", lambda *_: pytest.fail("ranked"))
    chosen = run(replace(job, budget=100.0), ready)
    assert chosen.plan == PLAN and chosen.file is None
    assert [p.name for p in job.out.parent.iterdir()] == [search_files(job.out)[0].name]


class Stopped(Exception):
    pass


def test_an_interrupted_search_goes_on(
    job: Job, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    original = Losses._measure

    def measure(self: Losses, path: Path) -> float:
        if len(measured) == 2 and not resumed:
            raise Stopped
        measured.append(path.name)
        return original(self, path)

    resumed = False
    monkeypatch.setattr(Losses, "_measure", measure)
    with pytest.raises(Stopped):
        run(job, ready)
    assert not any(p.suffix in (".yaml", ".json") for p in job.out.parent.iterdir())
    resumed = True
    monkeypatch.setattr(Probe, "noise", lambda *_: pytest.fail("ranked again"))
    chosen = run(job, ready)
    assert [u.name for u in chosen.found.kept] == [VICTIM]
    # Everything in 8 bits and FP32 before the interruption, the kept layer after it.
    assert measured == ["candidate.onnx", "net.onnx", "candidate.onnx"]
    assert run(job, ready).found == chosen.found
    assert len(measured) == 3


def test_without_resume_everything_is_measured_again(
    job: Job, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(self: Losses, path: Path) -> float:
        measured.append(path.name)
        return 50.0

    monkeypatch.setattr(Losses, "_measure", measure)
    for resume in (True, True, False):
        run(replace(job, budget=100.0, resume=resume), ready)
    assert len(measured) == 4


def test_the_float_form_of_the_model_is_asked_last(
    job: Job, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Losses, "_measure", lambda self, path: 50.0 if path.name == "net.onnx" else 49.0
    )
    split = replace(ready, plan=PLAN.model_copy(update={"split_deconvolution": True}))
    chosen = run(replace(job, budget=0.5), split)
    assert chosen.found.outcome is Outcome.NOISE and chosen.found.floor == 1.0
    assert chosen.plan == split.plan and chosen.file is None
    # Written as it came, the float model is the FP32 file and loses nothing.
    assert run(replace(job, budget=0.5), ready).found.outcome is Outcome.ONLY_FLOAT


def test_a_part_of_the_set_can_be_taken(job: Job, ready: Ready) -> None:
    seen: list[tuple[str, int, int]] = []
    assert job.val is not None
    shown = items([scene(0)])
    progress = lambda *step: seen.append(step)  # noqa: E731
    choose(replace(job, budget=100.0), ready, shown, job.val, limit=2, progress=progress)
    assert ("pictures", 2, 2) in seen and ("search", 1, 1) in seen


def test_keeping_is_the_same_in_any_order() -> None:
    some = units(4)
    assert keeping(PLAN, some) == keeping(PLAN, some[::-1])
    assert keeping(PLAN, ()) is PLAN
