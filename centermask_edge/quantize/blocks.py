"""The parts of a network that can be left in float, and how a plan names them.

A layer is everything that reads one weight: the head runs the same convolution on five pyramid
levels, and a weight that is int8 for one of them and float for another would be stored twice. What
has no weight, such as the residual input of an addition, is a part of its own.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from centermask_edge.quantize.placement import Sites
from centermask_edge.quantize.plan import named

# The first that matches the start of a node's name gives its block.
_BLOCKS = (
    re.compile(r"dense/backbone/stages\.\d+/stages\.\d+\.\d+(?=/)"),
    re.compile(r"dense/backbone/[^/]+(?=/)"),
    re.compile(r"dense/fpn(?=/)"),
    re.compile(r"dense/head/(cls_tower|box_tower)(?=/)"),
    re.compile(r"dense/head/(cls_logits|box_pred|centerness)(?=[_/])"),
    re.compile(r"mask/(mask_head|mask_iou_head)(?=/)"),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """What is quantized or left in float as one.

    Attributes:
        name: for tables and records; unique in its model.
        nodes: that it consists of, in graph order; only those that the plan quantizes.
        patterns: that name exactly these nodes in a plan's ``keep_float``.
        block: that it belongs to.
        macs: multiply-adds for one picture, 0 where they were not counted.
    """

    name: str
    nodes: tuple[str, ...]
    patterns: tuple[str, ...]
    block: str
    macs: int


def layers(sites: Sites, macs: Mapping[str, int] | None = None) -> tuple[Unit, ...]:
    """The layers that a plan quantizes in a model, in graph order.

    Args:
        sites: the plan's places.
        macs: multiply-adds by node.
    """
    quantized = tuple(dict.fromkeys(edge.node for edge in sites.edges))
    weights = {node: site.name for site in sites.weights for node in site.nodes}
    members: dict[tuple[str, str], list[str]] = {}
    for node in quantized:
        key = ("weight", weights[node]) if node in weights else ("node", node)
        members.setdefault(key, []).append(node)
    return tuple(_unit(nodes, quantized, block_of(nodes[0]), macs) for nodes in members.values())


def blocks(parts: Sequence[Unit], macs: Mapping[str, int] | None = None) -> tuple[Unit, ...]:
    """The blocks that layers make up: backbone blocks, FPN, towers, predictors, the mask heads."""
    quantized = tuple(node for part in parts for node in part.nodes)
    members: dict[str, list[str]] = {}
    for part in parts:
        members.setdefault(part.block, []).extend(part.nodes)
    return tuple(
        _unit(nodes, quantized, block, macs, (block, f"{block}_*"), block)
        for block, nodes in members.items()
    )


def block_of(node: str) -> str:
    """The block of a node, by its name.

    >>> block_of("dense/backbone/stages.1/stages.1.0/expand/conv/Conv")
    'dense/backbone/stages.1/stages.1.0'
    >>> block_of("dense/head/cls_logits_2/Conv"), block_of("mask/mask_head/convs.0/Conv")
    ('dense/head/cls_logits', 'mask/mask_head')
    """
    for pattern in _BLOCKS:
        found = pattern.match(node)
        if found:
            return found.group(0)
    return node.rpartition("/")[0] or node


def patterns_of(nodes: Sequence[str], quantized: Iterable[str]) -> tuple[str, ...]:
    """Patterns that name exactly the nodes among those that are quantized; one if possible.

    >>> names = ("head/conv/Conv", "head/conv_1/Conv", "head/other/Conv")
    >>> patterns_of(names[:2], names)
    ('head/conv*/Conv',)
    """
    exact = tuple(glob.escape(node) for node in nodes)
    if len(nodes) < 2:
        return exact
    start = _common_start(nodes)
    rests = [node[len(start) :] for node in nodes]
    end = _common_start([rest[::-1] for rest in rests])[::-1]
    pattern = f"{glob.escape(start)}*{glob.escape(end)}"
    return (pattern,) if _names(pattern, quantized) == set(nodes) else exact


def _common_start(texts: Sequence[str]) -> str:
    columns = zip(*texts, strict=False)  # as long as the shortest
    same = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return "".join(column[0] for column in same)


def _unit(
    nodes: Sequence[str],
    quantized: Sequence[str],
    block: str,
    macs: Mapping[str, int] | None,
    prefer: tuple[str, ...] = (),
    name: str | None = None,
) -> Unit:
    wanted = set(nodes)
    whole = [n for n in (1, 2) if _all_names(prefer[:n], quantized) == wanted]
    patterns = prefer[: whole[0]] if prefer and whole else patterns_of(nodes, quantized)
    total = sum(macs.get(node, 0) for node in nodes) if macs else 0
    return Unit(name or patterns[0], tuple(nodes), patterns, block, total)


def _all_names(patterns: Iterable[str], nodes: Sequence[str]) -> set[str]:
    return {node for pattern in patterns for node in _names(pattern, nodes)}


def _names(pattern: str, nodes: Iterable[str]) -> set[str]:
    return {node for node in nodes if named(pattern, node)}
