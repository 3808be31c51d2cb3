"""Units, probe, ranking: what can be left in float, how noisy it is, and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantize_models as models
import sensitive_models
from sensitive_models import PLAN, VICTIM

from centermask_edge.quantize import (
    FixedScales,
    ObservedScales,
    Options,
    QuantizationError,
    collect,
    load_plan,
    observable,
    sites_of,
)
from centermask_edge.quantize.blocks import blocks, layers, patterns_of
from centermask_edge.quantize.collect import Activations
from centermask_edge.quantize.journal import Journal
from centermask_edge.quantize.plan import named
from centermask_edge.quantize.probe import Probe, best_cells, compared
from centermask_edge.quantize.sensitivity import measure


@pytest.fixture(scope="module")
def seen() -> Activations:
    model = models.exported()
    return collect(model, observable(model, [load_plan("openvino"), PLAN]), models.pictures())


@pytest.fixture(scope="module")
def probe(seen: Activations) -> Probe:
    plan, scales = load_plan("openvino"), ObservedScales(seen.histograms)
    return Probe(models.exported(), plan, scales, models.pictures(), threads=1)


@pytest.fixture(scope="module")
def victim() -> Probe:
    model = sensitive_models.sensitive()
    seen = collect(model, observable(model, [PLAN]), models.pictures())
    return Probe(model, PLAN, ObservedScales(seen.histograms), models.pictures(), threads=1)


def nodes(probe: Probe) -> frozenset[str]:
    return frozenset(edge.node for edge in probe.sites.edges)


# Units


@pytest.mark.parametrize("backbone", [models.VOVNET, models.LITE0])
@pytest.mark.parametrize("name", ["tensorrt", "openvino"])
def test_every_quantized_node_is_in_one_layer_and_one_block(backbone: Any, name: str) -> None:
    sites = sites_of(models.exported(backbone, 5), load_plan(name))
    quantized = list(dict.fromkeys(edge.node for edge in sites.edges))
    parts = layers(sites)
    for units in (parts, blocks(parts)):
        found = [node for unit in units for node in unit.nodes]
        assert sorted(found) == sorted(quantized)
        assert len({unit.name for unit in units}) == len(units)
        for unit in units:
            matched = {n for n in quantized for p in unit.patterns if named(p, n)}
            assert matched == set(unit.nodes), unit.name
    assert len(blocks(parts)) < 30 < len(parts)


def test_a_weight_that_levels_share_is_one_layer() -> None:
    units = layers(sites_of(models.exported(), load_plan("base")))
    shared = next(u for u in units if u.block == "dense/head/cls_logits")
    assert len(shared.nodes) == 5
    assert shared.patterns == ("dense/head/cls_logits*/Conv",)


def test_a_pattern_that_names_too_much_is_not_used() -> None:
    quantized = ["a/x_1/Conv", "a/x_2/Conv", "a/x_3/Conv", "b[0]/Conv"]
    assert patterns_of(quantized[:3], quantized) == ("a/x_*/Conv",)
    assert patterns_of(quantized[:2], quantized) == ("a/x_1/Conv", "a/x_2/Conv")
    (odd,) = patterns_of(quantized[3:], quantized)
    assert [n for n in quantized if named(odd, n)] == ["b[0]/Conv"]


def test_a_kept_unit_is_not_quantized() -> None:
    model, plan = models.exported(), load_plan("openvino")
    before = sites_of(model, plan)
    for unit in layers(before)[::7]:
        after = sites_of(model, plan.keeping(*unit.patterns))
        gone = {e.node for e in before.edges} - {e.node for e in after.edges}
        assert gone == set(unit.nodes)


def test_units_count_their_multiply_adds() -> None:
    sites = sites_of(models.exported(), load_plan("base"))
    macs = {node: 10 for node in {edge.node for edge in sites.edges}}
    parts = layers(sites, macs)
    assert all(unit.macs == 10 * len(unit.nodes) for unit in (*parts, *blocks(parts, macs)))


# The probe


def test_nothing_in_8_bits_has_no_noise(probe: Probe) -> None:
    noise = probe.noise(frozenset())
    assert set(noise) == set(probe.outputs.names)
    assert max(noise.values()) == 0.0


def test_more_in_8_bits_has_noise_where_it_is_read(probe: Probe) -> None:
    everything = probe.noise(nodes(probe))
    assert min(everything.values()) > 0
    head = probe.noise(frozenset(n for n in nodes(probe) if n.startswith("mask/mask_iou_head")))
    assert {name for name, value in head.items() if value > 0} == {"roi_iou"}


def test_masks_are_compared_as_logits_of_the_predicted_class() -> None:
    for classes in (1, 5):
        model = models.exported(models.VOVNET, classes)
        outputs = compared(model)
        (mask,) = outputs.by_kind["mask"]
        sigmoid = next(n for n in model.graph.node if n.op_type == "Sigmoid" and mask in n.input)
        assert sigmoid.name.startswith("mask/")
        assert len(outputs.by_kind["logits"]) == 5


def test_the_best_cells_are_those_with_the_highest_logits() -> None:
    outputs = compared(models.exported())
    rng = np.random.default_rng(0)
    values = {}
    for level, side in enumerate((8, 4, 2, 1, 1)):
        for kind, channels in (("logits", 3), ("reg", 4), ("centerness", 1)):
            shape = (1, channels, side, side)
            values[outputs.by_kind[kind][level]] = rng.standard_normal(shape).astype(np.float32)
    cells = best_cells(values, outputs, count=10)
    chosen = [values[name][0].max(0).ravel()[cells[name]] for name in outputs.by_kind["logits"]]
    every = [values[name][0].max(0).ravel() for name in outputs.by_kind["logits"]]
    wanted = np.sort(np.concatenate(every))[-10:]
    np.testing.assert_array_equal(np.sort(np.concatenate(chosen)), wanted)
    for kind in ("reg", "centerness"):
        assert [cells[n].tolist() for n in outputs.by_kind[kind]] == [
            cells[n].tolist() for n in outputs.by_kind["logits"]
        ]


def test_corrected_biases_count(seen: Activations) -> None:
    model, scales = models.exported(), ObservedScales(seen.histograms)
    found = [
        Probe(model, PLAN, scales, models.pictures(), Options(bias_correction=b), threads=1)
        for b in (None, seen)
    ]
    plain, corrected = (p.noise(nodes(p)) for p in found)
    assert plain != corrected


def test_a_model_of_something_else_is_refused() -> None:
    model = models.exported()
    for node in model.graph.node:
        if node.op_type == "CMDecodeNMS":
            node.op_type = "Other"
    with pytest.raises(QuantizationError, match="no CMDecodeNMS operation"):
        compared(model)


def test_pictures_are_needed(seen: Activations) -> None:
    with pytest.raises(QuantizationError, match="give at least one"):
        Probe(models.exported(), PLAN, ObservedScales(seen.histograms), [])


# The ranking


def test_the_layer_that_8_bits_destroy_is_first(victim: Probe) -> None:
    ranking = measure(victim, layers(victim.sites), "test")
    assert ranking.units[0].name == VICTIM
    first, second = ranking.parts[:2]
    assert first.score > 20 * second.score
    assert first.alone["mask"] > 0.1  # less than 10 dB
    assert {"logits", "reg", "centerness"} <= set(first.alone)
    assert first.alone["logits"] == first.saved["logits"] == 0.0


def test_an_activation_outlier_is_first_too(seen: Activations) -> None:
    model, plan = models.exported(), load_plan("openvino")
    sites = sites_of(model, plan)
    groups = ObservedScales(seen.histograms).ranges(sites)
    values = {t: groups[sites.groups[t]] for t in sites.tensors}
    edge = next(e for e in sites.edges if e.node == "dense/head/cls_tower/cls_tower.1/conv/Conv")
    values[edge.tensor] *= 300
    probe = Probe(model, plan, FixedScales(values), models.pictures(), threads=1)
    units = [u for u in layers(probe.sites) if u.block.startswith("dense/head/")]
    assert len(units) > 5
    ranking = measure(probe, units, "test")
    assert edge.node in ranking.units[0].nodes


def test_the_order_is_the_same_every_time(victim: Probe) -> None:
    units = layers(victim.sites)
    once = measure(victim, units, "test")
    again = measure(victim, units[::-1], "test")
    assert [u.name for u in once.units] == [u.name for u in again.units]
    assert once.everything == again.everything


def test_of_two_equals_the_cheaper_is_first(victim: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = dict.fromkeys(victim.outputs.names, 1.0)
    monkeypatch.setattr(Probe, "noise", lambda self, chosen: flat)
    units = layers(victim.sites, {node: 100 - i for i, node in enumerate(sorted(nodes(victim)))})
    macs = [unit.macs for unit in measure(victim, units, "test").units]
    assert len(macs) == 4 and macs == sorted(macs)


def test_only_the_first_are_confirmed(victim: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    units = layers(victim.sites)
    whole = measure(victim, units, "test")
    asked = counted(victim, monkeypatch)
    some = measure(victim, units, "test", confirmed=1)
    assert [bool(part.saved) for part in some.parts] == [True, False, False, False]
    assert len(asked) == 1 + len(units) + 1
    assert some.units == whole.units and some.parts[0] == whole.parts[0]
    # The masks' noise is that of the one layer, from either side.
    first = whole.parts[0]
    assert first.saved["mask"] == pytest.approx(first.alone["mask"], rel=0.2)


def test_the_record_is_plain_and_complete(victim: Probe) -> None:
    record = json.loads(json.dumps(measure(victim, layers(victim.sites), "test").to_json()))
    assert record["pictures"] == 2
    assert record["parts"][0]["name"] == VICTIM
    assert record["parts"][0]["keep_float"] == [VICTIM]
    assert set(record["tensors_db"]) == set(victim.outputs.names)
    assert record["everything_db"]["logits"] is None  # nothing of the dense half is quantized


class Stopped(Exception):
    pass


def counted(probe: Probe, patch: pytest.MonkeyPatch, stop_at: int = 999) -> list[frozenset[str]]:
    """The sets of nodes that the probe is asked about; the last one is interrupted."""
    asked: list[frozenset[str]] = []
    original = Probe.noise

    def noise(self: Probe, chosen: frozenset[str]) -> dict[str, float]:
        if len(asked) == stop_at:
            raise Stopped
        asked.append(chosen)
        return original(self, chosen)

    patch.setattr(Probe, "noise", noise)
    return asked


def test_an_interrupted_ranking_goes_on(
    victim: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, units = tmp_path / "s.jsonl", layers(victim.sites)
    with monkeypatch.context() as patch:
        asked = counted(victim, patch, stop_at=5)
        with pytest.raises(Stopped):
            measure(victim, units, "test", path)
        assert len(asked) == 5
    with path.open("a") as file:
        file.write('{"key": "cut off by a powe')
    steps: list[tuple[int, int]] = []
    asked = counted(victim, monkeypatch)
    resumed = measure(victim, units, "test", path, lambda *step: steps.append(step))
    assert len(asked) == 1 + 2 * len(units) - 5
    assert steps == [(i, 8) for i in range(9)]
    asked.clear()
    assert measure(victim, units, "test", path) == resumed
    assert asked == []
    assert measure(victim, units, "test") == resumed


def test_results_of_something_else_are_not_used(
    victim: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, units = tmp_path / "s.jsonl", layers(victim.sites)[:1]
    first = measure(victim, units, ["calibration a"], path)
    asked = counted(victim, monkeypatch)
    second = measure(victim, units, ["calibration b"], path)
    assert len(asked) == 3 and first.key != second.key
    monkeypatch.setattr(victim, "ranges", {k: 2 * v for k, v in victim.ranges.items()})
    assert measure(victim, units, ["calibration a"], path).key != first.key


# The journal


def test_a_journal_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j.jsonl"
    journal = Journal(path)
    journal.put("a", {"x": 1.5})
    journal.put("b", 2)
    path.write_bytes(path.read_bytes() + b'{"key": "c", "resu')
    again = Journal(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == ({"x": 1.5}, 2, None)
    again.put("c", 3)
    again.put("a", 4)
    last = Journal(path)
    assert [last.get(k) for k in "abc"] == [4, 2, 3]


@pytest.mark.parametrize("line", [b"[]", b"17", b'{"key": "a"}', b"\xff\xfe", b"null", b""])
def test_lines_of_something_else_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(line + b'\n{"key": "b", "result": 1}\n')
    journal = Journal(path)
    assert (journal.get("a"), journal.get("b")) == (None, 1)


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "folder" / "j.jsonl")
    (tmp_path / "folder").write_text("")
    with pytest.raises(QuantizationError, match="cannot write"):
        journal.put("a", 1)
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(QuantizationError, match="cannot read"):
        Journal(tmp_path / "folder")
