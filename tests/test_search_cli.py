"""``quantize --val --budget``: what 8 bits destroy stays in float, and is said."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import sensitive_models
from calibration_pictures import folder, scene
from quantize_cli import judged, words
from sensitive_models import PLAN, VICTIM

from centermask_edge.cli import main
from centermask_edge.quantize import load_plan, publish
from centermask_edge.quantize.build import int8_record
from centermask_edge.quantize.chosen import search_files

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its calibration set, a set to judge with, and a recipe."""
    root = tmp_path_factory.mktemp("given")
    onnx.save(sensitive_models.sensitive(), root / "net.onnx")
    shown = [scene(i) for i in range(9)]
    folder(root / "data", shown)
    sensitive_models.write_truth(root, root / "net.onnx", shown)
    (root / "masks.yaml").write_text(PLAN.model_dump_json(exclude_defaults=True))  # JSON is YAML
    assert main(["calibrate", str(root / "data"), "--out", str(root / "set"), "--count", "9"]) == 0
    return root


def test_a_budget_is_held_by_what_stays_in_float(
    given: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net-int8.onnx"
    more = ["--recipe", str(given / "masks.yaml"), "--val", str(given / "truth.json")]
    command = words(given / "net.onnx", given / "set", out, "--budget", "1", "--no-fp16", *more)
    past = out.with_name("net-int8.over-budget.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(publish, "judge", lambda *arguments: judged(1.5))
        assert main([*command, "--no-search"]) == 3
    assert past.exists() and not out.exists()

    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr()
    assert out.exists() and not past.exists()
    assert VICTIM in shown.out and "kept in float" in shown.out
    assert "1 of 4 parts kept in float" in shown.err
    assert "the budget of 1.00 is held" in shown.out
    record = int8_record(onnx.load(out))
    assert record is not None and record["plan"]["keep_float"] == [VICTIM]

    _, plan, ranking = search_files(out)
    assert json.loads(ranking.read_text())["search"]["kept"] == [VICTIM]
    assert load_plan(str(plan)).keep_float == (VICTIM,)
