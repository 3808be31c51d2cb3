"""The pages: every figure on them comes from a file of results, and they are up to date."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import sections_kernels
import sections_model
import tables

SCRIPT = Path(__file__).parents[1] / "docs" / "generate.py"


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, looking for results in an empty folder."""
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "GPU_RESULTS", tmp_path / "gpu")
    return module


def write(folder: Path, name: str, data: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(data))


def test_pages_are_up_to_date(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "RESULTS", SCRIPT.parent / "results")
    monkeypatch.setattr(tables, "GPU_RESULTS", SCRIPT.parents[1] / "bench" / "results")
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0, capsys.readouterr().out + "run: make docs"


def test_the_readme_has_its_sections(generate: ModuleType) -> None:
    text = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    found = [m[2] for m in generate.SECTION.finditer(text)]
    assert found == ["picture", "int8-twin", "ap", "stages"]


@pytest.mark.parametrize(
    "name", ["stages", "ap", "kernels", "gpu", "engines", "int8-speed", "int8-engines", "faults"]
)
def test_a_missing_result_is_said_to_be_missing(generate: ModuleType, name: str) -> None:
    page = f"a\n<!-- generated: {name} -->\nold 12.3\n<!-- end -->\nb\n"
    filled = generate.fill(page)
    assert "Not measured yet" in filled and "12.3" not in filled
    assert filled.startswith("a\n") and filled.endswith("<!-- end -->\nb\n")
    assert generate.fill(filled) == filled


def test_precision_is_a_table_with_a_dash_where_no_object_is(
    generate: ModuleType, tmp_path: Path
) -> None:
    one = {"ap": 31.26, "ap50": 60.0, "ap75": 30, "small": -1.0, "medium": 20.04, "large": 50.0}
    write(tmp_path, "ap", {"images": 10, "engine": "openvino", "box": one, "mask": one})
    filled = sections_model.average_precision()
    assert "| mask | 31.3 | 60.0 | 30.0 | - | 20.0 | 50.0 |" in filled
    assert filled.endswith("images 10, engine openvino.")


def test_an_unknown_section_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(KeyError):
        generate.fill("<!-- generated: nothing -->\n<!-- end -->")


def test_kernels_show_their_largest_error(generate: ModuleType, tmp_path: Path) -> None:
    row = {"kernel": "roi_align", "kind": "float32", "cases": 3, "failures": [], "unit": ""}
    rows = [{**row, "worst": 2.17e-7, "exact": False}, {**row, "worst": 0.0, "exact": True}]
    write(tmp_path, "kernels", {"device": "host", "rows": rows})
    filled = sections_kernels.kernels()
    assert "| roi_align | float32 | 3 | 0 | 2.2e-07 |" in filled
    assert "| 0 | equal to the bit |" in filled
    assert filled.endswith("device host.")


def test_a_gpu_result_is_a_table(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    timing = {
        "kernel": "roi_align",
        "name": "K 50",
        "bytes": 1000,
        "copy_fraction": 0.5,
        "speedup": {"torch": 7.25},
        "times": {"kernel": {"cold_p50_us": 12.34, "warm_p50_us": None}},
    }
    result = {"date": "2026-01-02", "environment": {"gpu": "A GPU"}, "timings": [timing]}
    write(tmp_path / "gpu", "a", result)
    filled = sections_kernels.gpu()
    assert "| roi_align: K 50 | 12.3 | - | 1000 | 0.50 | torch 7.2x |" in filled
    assert filled.endswith("gpu A GPU, date 2026-01-02.")
