"""A budget held, a budget broken, and what a verdict refuses to judge."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import judged_models as models
import pytest
import tiny_model
from rich.console import Console

from centermask_edge.engines import EngineName
from centermask_edge.errors import ConfigError, DatasetError, ModelFileError
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.judge import Candidates, Judgement, Settings, judge
from centermask_edge.quantize.summary import summary
from centermask_edge.quantize.verdict import (
    HELD,
    NOT_HELD,
    Ap,
    Loss,
    Numbers,
    Verdict,
    read_verdict,
    write_verdict,
)

QUICK = Settings(engine=EngineName.ONNXRUNTIME, threads=1, groups=3, runs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def files(folder: Path) -> Candidates:
    return Candidates(
        fp32=models.write_model(folder / "fp32.onnx"),
        int8=models.write_model(folder / "int8.onnx", models.GOOD_SCALE),
    )


@pytest.fixture(scope="module")
def truth(folder: Path, files: Candidates) -> Path:
    assert files.fp32 is not None
    return models.write_truth(folder / "set", files.fp32)


@pytest.fixture(scope="module")
def good(files: Candidates, truth: Path) -> Judgement:
    return judge(files, truth, QUICK)


@pytest.fixture(scope="module")
def broken(folder: Path, files: Candidates, truth: Path) -> Judgement:
    """One scale of the INT8 file a hundred times too small."""
    path = models.write_model(folder / "broken.onnx", models.BROKEN_SCALE)
    return judge(Candidates(fp32=files.fp32, int8=path), truth, QUICK)


def loss_of(judgement: Judgement) -> Loss:
    loss = judgement.verdict.loss()
    assert loss is not None
    return loss


def printed(verdict: Verdict) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(summary(verdict))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


# --- held and not held ------------------------------------------------------------------------


def test_a_good_quantization_holds_the_budget(good: Judgement) -> None:
    verdict = good.verdict
    fp32 = verdict.accuracy[0]
    assert fp32.box.ap == fp32.mask.ap == 100.0  # the set is what FP32 finds
    assert verdict.judged is Numbers.INT8
    assert abs(loss_of(good).mask) <= 0.3
    assert verdict.held is True and verdict.exit_code == HELD
    assert "the budget of 0.30 is held" in verdict.sentence()


def test_one_broken_scale_does_not(broken: Judgement) -> None:
    verdict = broken.verdict
    assert verdict.accuracy[1].box.ap == 100.0 and verdict.accuracy[1].mask.ap == 0.0
    assert loss_of(broken).mask == 100.0 and loss_of(broken).box == 0.0
    assert verdict.held is False and verdict.exit_code == NOT_HELD
    assert "the budget of 0.30 is not held" in verdict.sentence()
    assert "not held" in printed(verdict)


def test_the_broken_masks_lead_the_worst_pictures(broken: Judgement) -> None:
    change = broken.worst[0].change.changes[0]
    assert change.mask_iou == 0.0 and change.loss >= 1.0


@pytest.mark.parametrize(
    ("loss", "budget", "held"),
    [(0.3, 0.3, True), (0.3001, 0.3, False), (-5.0, 0.0, True), (0.0001, 0.0, False)],
)
def test_the_budget_is_a_limit_that_may_be_reached(
    good: Judgement, loss: float, budget: float, held: bool
) -> None:
    losses = (Loss(numbers=Numbers.INT8, box=50.0, mask=loss),)
    verdict = good.verdict.model_copy(update={"losses": losses, "budget": budget})
    assert verdict.held is held


def test_a_bigger_budget_lets_the_same_file_through(
    folder: Path, files: Candidates, truth: Path, broken: Judgement
) -> None:
    verdict = broken.verdict.model_copy(update={"budget": 100.0})
    assert verdict.held is True and verdict.exit_code == HELD


def test_the_interval_says_when_more_pictures_are_needed(good: Judgement) -> None:
    def certainty(low: float, high: float) -> str:
        losses = (Loss(numbers=Numbers.INT8, box=0, mask=0.1, low=low, high=high),)
        return good.verdict.model_copy(update={"losses": losses}).certainty()

    assert "+0.05 to +0.25" in certainty(0.05, 0.25)
    assert "more pictures" not in certainty(0.05, 0.25)
    assert "more pictures" in certainty(-0.4, 0.6)


# --- what is in it ----------------------------------------------------------------------------


def test_sizes_and_classes_are_told_apart(broken: Judgement) -> None:
    fp32, int8 = broken.verdict.accuracy
    assert [(c.name, c.objects) for c in fp32.classes] == [("person", 12), ("dog", 6)]
    assert [(c.box, c.mask) for c in fp32.classes] == [(100.0, 100.0)] * 2
    assert [(c.box, c.mask) for c in int8.classes] == [(100.0, 0.0)] * 2
    assert fp32.mask.large is None and fp32.mask.medium == 100.0
    assert int8.mask.medium == 0.0 and int8.mask.large is None


def test_only_the_class_that_lost_has_a_loss(folder: Path, files: Candidates, truth: Path) -> None:
    """Dogs annotated where none are found: their AP falls, that of persons does not."""
    content = json.loads(truth.read_text())
    for row in content["annotations"]:
        if row["category_id"] == 9:
            row["bbox"][0] += 70
            row["segmentation"] = {"size": [128, 160], "counts": "0P1"}
    moved = truth.with_name("moved.json")
    moved.write_text(json.dumps(content))
    found = judge(Candidates(fp32=files.fp32), moved, Settings(budget=None, runs=0, groups=0))
    assert [(c.name, c.box) for c in found.verdict.accuracy[0].classes] == [
        ("person", 100.0),
        ("dog", 0.0),
    ]


def test_the_share_in_8_bits_and_the_speed_are_in_it(good: Judgement) -> None:
    verdict = good.verdict
    assert verdict.coverage is not None and verdict.speed is not None
    assert [(x.name, x.int8) for x in verdict.coverage.layers] == [("copy/Conv", True)]
    assert verdict.coverage.share == 1.0
    assert verdict.ran is None  # it is OpenVINO that tells
    assert [r.precision for r in verdict.speed.rows] == ["fp32", "int8"]
    assert all(0 < r.best_ms <= r.median_ms <= r.p95_ms for r in verdict.speed.rows)
    assert verdict.speed.input_size == verdict.coverage.input_size == (64, 96)


def test_files_and_set_are_named_by_hash(good: Judgement, files: Candidates) -> None:
    import hashlib

    assert files.int8 is not None
    model = good.verdict.models[1]
    content = files.int8.read_bytes()
    assert (model.name, model.bytes) == ("int8.onnx", len(content))
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert good.verdict.versions["onnxruntime"] in good.verdict.accuracy[0].engine


def test_a_limit_is_a_quick_look_and_says_so(files: Candidates, truth: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    settings = Settings(engine=EngineName.ONNXRUNTIME, threads=1, limit=2, groups=0, runs=0)
    found = judge(files, truth, settings, lambda *step: steps.append(step)).verdict
    assert (found.annotations.images, found.annotations.of_images) == (2, 6)
    assert found.annotations.objects == 6 and found.accuracy[0].mask.ap == 100.0
    assert "quick look at 2 of 6 pictures" in found.notes[0]
    assert "2 of 6 pictures" in printed(found)
    assert ("pictures", 2, 2) in steps
    loss = found.loss()
    assert loss is not None and loss.low is None


def test_fp16_runs_where_its_numerics_are_real(files: Candidates, truth: Path) -> None:
    """OpenVINO would compute it in f32."""
    pytest.importorskip("openvino")
    settings = Settings(engine=EngineName.OPENVINO, threads=1, limit=2, groups=0, runs=1)
    found = judge(Candidates(fp32=files.fp32, fp16=files.fp32), truth, settings).verdict
    assert [a.engine.split()[0] for a in found.accuracy] == ["openvino", "onnxruntime"]
    assert found.judged is Numbers.FP16 and found.held is True
    assert any("FP16 was run by onnxruntime" in note for note in found.notes)
    assert found.speed is not None and [r.precision for r in found.speed.rows] == ["fp32"]


def test_the_table_shows_what_was_lost(good: Judgement, broken: Judgement) -> None:
    assert "+100.00" in printed(broken.verdict)
    text = printed(good.verdict)
    assert "dog" in text and "18 objects" in text and "INT8" in text and "100 %" in text


# --- JSON -------------------------------------------------------------------------------------


def test_the_json_comes_back_as_it_was(tmp_path: Path, broken: Judgement) -> None:
    path = tmp_path / "deep" / "verdict.json"
    write_verdict(path, broken.verdict)
    content = json.loads(path.read_text())
    assert content["held"] is False and content["exit_code"] == 3
    assert content["coverage"]["share"] == 1.0
    assert read_verdict(path) == broken.verdict
    assert [p.name for p in path.parent.iterdir()] == ["verdict.json"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, good: Judgement, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verdict.json"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelFileError, match="No space left"):
        write_verdict(path, good.verdict)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("text", "words"), [("{}", "verdict of this version"), ("x", "verdict of this version")]
)
def test_another_json_is_no_verdict(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(text)
    with pytest.raises(QuantizationError, match=words):
        read_verdict(path)
    with pytest.raises(QuantizationError, match="cannot read the verdict"):
        read_verdict(tmp_path / "none.json")


def test_a_newer_schema_is_refused(tmp_path: Path, good: Judgement) -> None:
    path = tmp_path / "verdict.json"
    write_verdict(path, good.verdict)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 2}))
    with pytest.raises(QuantizationError, match="schema_version"):
        read_verdict(path)


def test_minus_one_is_no_ap() -> None:
    from centermask_edge.evaluate.coco import Precision

    ap = Ap.of(Precision(12.5, 30.0, 0.0, -1.0, 4.0, -1.0))
    assert ap.values() == (12.5, 30.0, 0.0, None, 4.0, None)


# --- refusals ---------------------------------------------------------------------------------


def test_what_cannot_be_judged_is_refused(files: Candidates, truth: Path, folder: Path) -> None:
    cases = [
        (Candidates(), QUICK, "no model to judge"),
        (Candidates(fp32=files.fp32), QUICK, "only FP32 is given"),
        (Candidates(int8=files.int8), QUICK, "only INT8 is given"),
        (files, Settings(budget=-0.1), "a budget of -0.1 mask AP"),
        (files, Settings(engine=EngineName.ONNXRUNTIME, limit=0), "a limit of 0 pictures"),
    ]
    for candidates, settings, words in cases:
        with pytest.raises(ConfigError, match=words):
            judge(candidates, truth, settings)


def test_files_of_two_models_are_refused(files: Candidates, truth: Path, tmp_path: Path) -> None:
    other = tiny_model.save(
        tmp_path / "other.onnx", record=tiny_model.metadata(short_side=32).to_json()
    )
    with pytest.raises(ConfigError, match=r"other.onnx and fp32.onnx .* preprocess differs"):
        judge(Candidates(fp32=files.fp32, int8=other), truth, QUICK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(category_id=99), "no category|no object"),
        (lambda row: row.update(segmentation=[]), "no masks for 18 of its 18"),
    ],
)
def test_a_set_without_truth_is_refused(
    files: Candidates, truth: Path, change: object, words: str
) -> None:
    assert callable(change)
    content = json.loads(truth.read_text())
    for row in content["annotations"]:
        change(row)
    path = truth.with_name("bare.json")
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=words):
        judge(files, path, QUICK)
