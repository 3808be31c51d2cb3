"""Parameters and multiply-adds of the presets against the figures of the official networks."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from centermask_edge.cli import main
from centermask_edge.cli.models import row
from centermask_edge.config import PRESETS, preset
from centermask_edge.model.census import Census, take_census
from centermask_edge.model.published import PUBLISHED
from centermask_edge.model.reference import OFFICIAL_CONFIGS
from centermask_edge.switches import ChannelAttention

# Millions: total, backbone, FPN, P6 and P7, box head, mask head, mask-IoU head.
LITE, FULL = "0.295 0.689 0.371 7.851", "1.180 4.921 2.643 16.340"
PARAMETERS = {
    "lite_V_19": f"20.116 10.171 0.738 {LITE}",
    "lite_V_39": f"35.109 25.164 0.738 {LITE}",
    "lite_V_19_slim": f"12.446 2.648 0.591 {LITE}",
    "lite_V_19_slim_dw": f"11.177 1.379 0.591 {LITE}",
    "lite_Mv2": f"11.488 1.780 0.500 {LITE}",
    "lite_V_19_dw": f"15.452 5.507 0.738 {LITE}",
    "lite_R_50": f"33.564 23.455 0.902 {LITE}",
    "V_39": f"52.609 25.164 2.361 {FULL}",
    "V_57": f"68.869 41.423 2.361 {FULL}",
    "V_99": f"96.915 69.469 2.361 {FULL}",
    "R_50": f"51.228 23.455 2.689 {FULL}",
    "R_101": f"70.168 42.395 2.689 {FULL}",
    "X_101": f"114.312 86.539 2.689 {FULL}",
    "V_39_dcn": f"54.383 26.937 2.361 {FULL}",
    "V_57_dcn": f"71.856 44.410 2.361 {FULL}",
    "V_99_dcn": f"102.329 74.883 2.361 {FULL}",
}
# Billions, on 608x800 and 800x1088: backbone, FPN, box head, mask and mask-IoU head of one RoI,
# and all with 50 RoIs.
MACS = {
    "lite_V_19": (40.044, 2.243, 7.0, 0.079, 0.044, 55.44),
    "lite_V_39": (68.697, 2.244, 7.0, 0.079, 0.044, 84.09),
    "lite_V_19_slim": (16.353, 1.87, 7.0, 0.079, 0.044, 31.37),
    "lite_V_19_slim_dw": (3.922, 1.87, 7.0, 0.079, 0.044, 18.94),
    "lite_Mv2": (2.837, 1.57, 7.0, 0.079, 0.044, 17.56),
    "lite_V_19_dw": (13.02, 2.244, 7.0, 0.079, 0.044, 28.41),
    "lite_R_50": (37.584, 2.368, 7.0, 0.079, 0.044, 53.1),
    "V_39": (122.929, 13.374, 89.304, 0.53, 0.39, 271.61),
    "V_57": (155.193, 13.375, 89.304, 0.53, 0.39, 303.87),
    "V_99": (286.429, 13.374, 89.304, 0.53, 0.39, 435.11),
    "R_50": (67.256, 13.82, 89.304, 0.53, 0.39, 216.38),
    "R_101": (131.829, 13.82, 89.304, 0.53, 0.39, 280.95),
    "X_101": (285.78, 13.82, 89.304, 0.53, 0.39, 434.9),
}


@cache
def census(name: str) -> Census:
    return take_census(preset(name))


@pytest.mark.parametrize("config", PARAMETERS)
def test_parameters_to_the_printed_digit(config: str) -> None:
    found = census(OFFICIAL_CONFIGS[config]).parameters
    values = [found.total, *asdict(found).values()]
    assert [f"{value / 1e6:.3f}" for value in values] == PARAMETERS[config].split()


@pytest.mark.parametrize("config", MACS)
def test_multiply_adds_within_one_percent(config: str) -> None:
    found = census(OFFICIAL_CONFIGS[config]).macs
    values = [*asdict(found).values(), found.total(50)]
    assert [value / 1e9 for value in values] == pytest.approx(MACS[config], rel=0.01)


def test_deformable_layers_cost_more_than_plain_ones() -> None:
    extra = census("v39-dcn").macs.backbone - census("v39").macs.backbone
    assert 0 < extra < 0.1 * census("v39").macs.backbone


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        *(("hrnet-w18", 36.4), ("hrnet-w32", 56.2), ("hrnet-w48", 92.3)),
        *(("v39-v1", 49.0), ("v57-v1", 63.0), ("v19", 37.6), ("r101", 70.1), ("x101", 114.3)),
    ],
)
def test_totals_of_the_papers_tables(name: str, millions: float) -> None:
    """Tables 3 and 4, which now and then cut where others round."""
    assert census(name).parameters.total / 1e6 == pytest.approx(millions, abs=0.08)


@pytest.mark.parametrize(("name", "millions"), [("v39", 50.8), ("v57", 65.9)])
def test_squeeze_and_excitation_has_the_papers_size(name: str, millions: float) -> None:
    config = preset(name).model_copy(update={"channel_attention": ChannelAttention.SE})
    assert take_census(config).parameters.total / 1e6 == pytest.approx(millions, abs=0.06)


def test_a_network_without_mask_scores_has_no_head_for_them() -> None:
    found = take_census(preset("lite-v19").model_copy(update={"mask_scoring": False}))
    assert found.parameters.mask_iou == found.macs.mask_iou == 0


def test_published_figures_are_of_presets() -> None:
    assert PUBLISHED.keys() <= PRESETS.keys()
    assert all(20 < p.mask_ap < p.box_ap < 50 for p in PUBLISHED.values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.json"
    assert main(["models", "lite-v19-slim-dw", "v19", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "608x800" in shown and "11.177" in shown and "centermask2, 4x, val2017" in shown
    rows = json.loads(path.read_text())["rows"]
    assert [r["name"] for r in rows] == ["lite-v19-slim-dw", "v19"]
    assert rows[0]["parameters"]["total"] == census("lite-v19-slim-dw").parameters.total
    assert rows[1]["published"]["mask_ap"] == 34.7
    assert main(["models", "v20"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown preset 'v20'; nearest are")


@pytest.mark.parametrize("name", ["lite-v39", "r50", "person-v19-slim"])
def test_the_committed_table_is_of_this_code(name: str) -> None:
    path = Path(__file__).parents[1] / "docs" / "results" / "models.json"
    rows = {r["name"]: r for r in json.loads(path.read_text())["rows"]}
    assert rows.keys() == PRESETS.keys()
    assert rows[name] == row(census(name))
