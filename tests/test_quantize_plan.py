"""Plans: YAML, rules in order, what is kept in float, and the places they choose."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import quantize_models as models

from centermask_edge.backbone import Backbone
from centermask_edge.errors import ConfigError
from centermask_edge.quantize import load_plan, sites_of
from centermask_edge.quantize.placement import Sites
from centermask_edge.quantize.plan import Plan, Quantize, Rule, plan_file
from centermask_edge.quantize.weights import with_fp32_weights

SHIPPED = sorted(p.stem for p in plan_file("base").parent.glob("*.yaml"))


def graph(text: str) -> onnx.ModelProto:
    """A model of a few nodes; every node is named after its output."""
    header = '<ir_version: 8, opset_import: ["": 17]>\n'
    model = onnx.parser.parse_model(header + text)
    for node in model.graph.node:
        node.name = node.output[0]
    return model


BLOCK = """
g (float[1, 4, 8, 8] x, float[4, 4, 1, 1] w, float[4, 12, 1, 1] v) => (float[1, 4, 8, 8] y)
<float[4, 4, 1, 1] w = {0}, float[4, 12, 1, 1] v = {0}> {
  a0 = Conv (x, w)
  a = Relu (a0)
  b0 = Conv (a, w)
  b = Relu (b0)
  c = Concat <axis = 1> (x, a, b)
  d = Conv (c, v)
  y = Add (d, x)
}
"""


def block() -> onnx.ModelProto:
    """A one-shot aggregation with a residual, one weight used by two convolutions."""
    import numpy as np
    from onnx import numpy_helper

    model = graph(BLOCK.replace("= {0}", ""))
    rng = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, shape in (("w", (4, 4, 1, 1)), ("v", (4, 12, 1, 1))):
        value = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    kept = [i for i in model.graph.input if i.name == "x"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def edges(sites: Sites) -> set[tuple[str, str]]:
    return {(edge.node, edge.tensor) for edge in sites.edges}


def test_base_quantizes_convolution_inputs_and_the_residual_only() -> None:
    sites = sites_of(block(), load_plan("base"))
    assert edges(sites) == {("a0", "x"), ("b0", "a"), ("d", "c"), ("y", "x")}


def test_openvino_keeps_the_concat_in_8_bits_too() -> None:
    sites = sites_of(block(), load_plan("openvino"))
    assert edges(sites) - edges(sites_of(block(), load_plan("base"))) == {
        ("c", "x"),
        ("c", "a"),
        ("c", "b"),
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_an_aggregation_has_one_scale(name: str) -> None:
    sites = sites_of(block(), load_plan(name))
    assert len(sites.members()) == 1


def test_a_weight_used_twice_stays_one_tensor() -> None:
    sites = sites_of(block(), load_plan("base"))
    assert {(w.name, w.nodes) for w in sites.weights} == {("w", ("a0", "b0")), ("v", ("d",))}


def test_a_group_is_unsigned_only_if_all_of_it_is() -> None:
    # x may be negative, so nothing that shares its scale is unsigned.
    assert not sites_of(block(), load_plan("openvino")).unsigned
    alone = graph(
        """g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
        <float[4, 4, 1, 1] w = {1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1}>
        { a = Relu (x)
          p = MaxPool <kernel_shape = [1, 1]> (a)
          y = Conv (p, w) }"""
    )
    assert sites_of(alone, load_plan("openvino")).unsigned == {"a", "p"}


@pytest.mark.parametrize("name", ["base", "tensorrt"])
def test_tensorrt_never_gets_uint8(name: str) -> None:
    assert not load_plan(name).unsigned
    assert not sites_of(models.exported(), load_plan(name)).unsigned


def test_the_residual_is_what_does_not_come_from_a_convolution_of_its_own() -> None:
    swapped = block()
    swapped.graph.node[-1].input[:] = ["x", "d"]
    assert ("y", "x") in edges(sites_of(swapped, load_plan("base")))
    assert ("y", "d") not in edges(sites_of(swapped, load_plan("base")))


def test_a_constant_operand_is_no_residual() -> None:
    model = graph(
        """g (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
        <float[4, 4, 1, 1] w = {1,1,1,1, 1,1,1,1, 1,1,1,1, 1,1,1,1}, float[4, 1, 1] k = {1,1,1,1}>
        { a = Conv (x, w)
          y = Add (a, k) }"""
    )
    assert edges(sites_of(model, load_plan("openvino"))) == {("a", "x")}


@pytest.mark.parametrize("backbone", [models.VOVNET, models.LITE0])
def test_every_convolution_of_the_family_is_quantized_but_the_gates(
    backbone: Backbone,
) -> None:
    model = with_fp32_weights(models.exported(backbone))
    sites = sites_of(model, load_plan("base"))
    quantized = {e.node for e in sites.edges}
    left = {n.name for n in model.graph.node if n.op_type in ("Conv", "Gemm")} - quantized
    assert all("/ese/" in name for name in left)
    assert len(left) == (0 if backbone is models.LITE0 else 4)
    assert not any(n.op_type == "ConvTranspose" and n.name in quantized for n in model.graph.node)
    shared = Counter(len(w.nodes) for w in sites.weights)
    assert shared[5] >= 6  # two towers of two layers, logits and centerness, over five levels


def test_later_rules_hold_and_kept_blocks_win() -> None:
    plan = Plan(
        name="p",
        rules=(
            Rule(ops=("Conv",), quantize=Quantize.WEIGHTED),
            Rule(names=("a*",), quantize=Quantize.NONE),
            Rule(names=("a0",), share=True),
        ),
    )
    assert plan.quantize("Conv", "a0") is Quantize.NONE
    assert plan.quantize("Conv", "b0") is Quantize.WEIGHTED
    assert plan.shares("Conv", "a0")
    kept = plan.keeping("b0", "b0").keeping("b0")
    assert kept.keep_float == ("b0",)
    assert kept.quantize("Conv", "b0") is Quantize.NONE


def test_a_kept_block_is_left_alone() -> None:
    model = models.exported()
    plan = load_plan("base").keeping("dense/backbone/stages.0", "mask")
    names = {e.node for e in sites_of(model, plan).edges}
    assert not any(n.startswith(("dense/backbone/stages.0/", "mask/")) for n in names)
    assert any(n.startswith("dense/backbone/stages.1/") for n in names)


@pytest.mark.parametrize("lost", ["dense/backbon", "y/"])
def test_keeping_what_is_not_there_is_refused(lost: str) -> None:
    with pytest.raises(ConfigError, match=f"'{lost}', which is no node"):
        sites_of(block(), load_plan("base").keeping(lost))


def test_a_plan_that_chooses_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="chooses no operation"):
        sites_of(block(), load_plan("base").keeping("*"))


def test_a_file_extends_a_shipped_plan(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: openvino\nweights: tensor\nkeep_float: [mask]\n")
    mine, parent = load_plan(str(path)), load_plan("openvino")
    assert mine.rules == parent.rules
    assert mine.unsigned and mine.name == "mine" and mine.keep_float == ("mask",)
    assert all(w.axis is None for w in sites_of(models.exported(), mine).weights)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "cannot be read as YAML"),
        ("just text", "is not a quantization plan"),
        ("rules: []", "name: Field required"),
        ("name: a\nwieghts: tensor", "wieghts: Extra inputs"),
        ("name: a\nrules: [{ops: [Conv]}]", "a rule needs quantize or share"),
        ("name: a\nrules: [{quantize: all}]", "a rule needs ops or names"),
        ("name: a\nrules: [{ops: [Conv], quantize: some}]", r"rules.0.quantize"),
        ("name: a\nextends: nowhere", "unknown quantization plan 'nowhere'"),
    ],
)
def test_a_broken_plan_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_plan(str(path))
    assert "\n" not in str(caught.value)


def test_a_plan_that_extends_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(f"name: a\nextends: {path}\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_plan(str(path))
