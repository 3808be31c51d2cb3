"""Between an INT8 file and training with rounding: the places as plain data, and the way back.

The places of a plan are inputs of ONNX nodes. A node's name holds the path of the torch module
that it was traced from, which run of the module it was and its number in it; so each has exactly
one operation in the network's code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from centermask_edge.graph.export import build, weights_digest
from centermask_edge.quantize.build import Options, int8_record, quantize_model, sites_of
from centermask_edge.quantize.collect import metadata_of
from centermask_edge.quantize.errors import QuantizationError
from centermask_edge.quantize.placement import Sites
from centermask_edge.quantize.plan import Plan
from centermask_edge.quantize.qdq import SIGNED_LEVELS, UNSIGNED_LEVELS
from centermask_edge.quantize.scales import FixedScales
from centermask_edge.quantize.weights import weight_steps
from centermask_edge.quantize.wiring import Wiring, read_wiring
from centermask_edge.train.fake_quant import (
    ActivationSite,
    FakeQuantSpec,
    Operation,
    Range,
    WeightSite,
)

if TYPE_CHECKING:
    import onnx

    from centermask_edge.model.centermask import CenterMask

ORIGIN = "trained"
_STORED_AS_FP16 = 2e-3  # by how much weights of one model may differ between its files
_DECONVOLUTION = "ConvTranspose"


@dataclass(frozen=True, slots=True)
class Start:
    """What training with rounding starts from.

    Attributes:
        plan: of the INT8 file.
        spec: its places and ranges.
        calibration: hash of the calibration that the first ranges came from; may be empty.
    """

    plan: Plan
    spec: FakeQuantSpec
    calibration: str


def operation_of(node: str) -> Operation:
    """The operation of the network's code that a node was traced from.

    >>> str(operation_of("dense/head/box_tower/box_tower.0/conv_2/Conv"))
    'Conv 0 of run 2 of head.box_tower.0.conv'
    >>> str(operation_of("dense/backbone/stages.1/stages.1.0/Concat"))
    'Concat 0 of run 0 of backbone.stages.1.0'
    """
    _, *scopes, last = node.split("/")
    path: list[str] = []
    run = 0
    for scope in scopes:
        name, number = _numbered(scope)
        # A child of a list or sequence repeats its parent's name: box_tower, box_tower.0.
        if path and name.startswith(f"{path[-1]}."):
            path.pop()
        path.append(name)
        run = number
    kind, index = _numbered(last)
    return Operation(".".join(path), run, kind, index)


def _numbered(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)_(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def fake_quant_spec(sites: Sites, ranges: Mapping[str, float]) -> FakeQuantSpec:
    """The places of a model as training takes them.

    Args:
        sites: of the model, see :func:`sites_of`.
        ranges: largest magnitude by scale group.
    """
    activations = tuple(
        ActivationSite(operation_of(e.node), e.index, e.tensor, sites.groups[e.tensor])
        for e in sites.edges
    )
    weights = tuple(
        WeightSite(operation_of(node), _kept(operation_of(node).kind, site.axis))
        for site in sites.weights
        for node in site.nodes
    )
    groups = {
        group: Range(ranges[group], members[0] in sites.unsigned)
        for group, members in sites.members().items()
    }
    return FakeQuantSpec(activations, weights, groups)


def _kept(kind: str, axis: int | None) -> tuple[int, ...]:
    """Dimensions of torch's weight along which the ONNX weight has its steps."""
    if axis is None:
        return ()
    if kind != _DECONVOLUTION:
        return (0,)
    # torch: (D_in, D_out, S, S). Split, it has one step per channel and position in the window.
    return (1,) if axis == 1 else (1, 2, 3)


def start_from(int8: onnx.ModelProto, network: CenterMask, name: str) -> Start:
    """Places and ranges of an INT8 file that was made from a network.

    Args:
        int8: as :func:`quantize_model` wrote it.
        network: with the weights that it was made from.
        name: of the file, for errors.

    Raises:
        QuantizationError: not an INT8 file of this toolkit, of other weights, or equalised.
    """
    record = int8_record(int8)
    if record is None:
        raise QuantizationError(
            f"{name} is not an INT8 file; make one with: centermask-edge quantize"
        )
    _check_digest(int8, network, name)
    plan = Plan.model_validate(record["plan"])
    model = build(network, {})
    sites = sites_of(model, plan)
    wiring = read_wiring(int8)
    _check_weights(model, sites, wiring, name)
    spec = fake_quant_spec(sites, dict(_ranges(sites, wiring, name)))
    return Start(plan, spec, str(record["calibration"]))


def _check_digest(int8: onnx.ModelProto, network: CenterMask, name: str) -> None:
    found = metadata_of(int8).training.get("weights_sha256", "")
    wanted = weights_digest(network)
    if found != wanted:
        raise QuantizationError(
            f"{name} was made from other weights: weights_sha256 is {found[:12] or 'missing'}, "
            f"the checkpoint's is {wanted[:12]}; give the checkpoint that it was exported from"
        )


def _check_weights(model: onnx.ModelProto, sites: Sites, wiring: Wiring, name: str) -> None:
    """Equalised weights have other ranges than the network's, and so have their activations."""
    plain = read_wiring(model)
    for site in sites.weights:
        weight = plain.constant(site.name)
        if weight is None:  # split; its input and output are those of layers that are compared
            continue
        steps = _steps(wiring, site.nodes[0], 1, name)
        wanted = weight_steps(weight, site.axis)
        if steps.shape != wanted.shape or not np.allclose(steps, wanted, rtol=_STORED_AS_FP16):
            raise QuantizationError(
                f"the weights of {site.nodes[0]} in {name} are not the checkpoint's; was it made "
                "with --equalise? Training starts from a file made without"
            )


def _ranges(sites: Sites, wiring: Wiring, name: str) -> Iterator[tuple[str, float]]:
    edges = {edge.tensor: edge for edge in reversed(sites.edges)}
    for group, members in sites.members().items():
        edge = edges[members[0]]
        levels = UNSIGNED_LEVELS if members[0] in sites.unsigned else SIGNED_LEVELS
        yield group, float(_steps(wiring, edge.node, edge.index, name)) * levels


def _steps(wiring: Wiring, node: str, index: int, name: str) -> NDArray[np.float32]:
    """Size of the 8-bit steps that an input of a node is read with."""
    reader = wiring.nodes.get(node)
    maker = None if reader is None else wiring.maker(reader.input[index])
    if maker is None or maker.op_type != "DequantizeLinear":
        raise QuantizationError(
            f"{name} does not read input {index} of {node} through 8 bits as its own record says; "
            "make it again with: centermask-edge quantize"
        )
    steps = wiring.constant(maker.input[1])
    assert steps is not None
    return np.asarray(steps, np.float32)


def trained_model(
    network: CenterMask,
    ranges: Mapping[str, float],
    start: Start,
    notes: Mapping[str, str],
    *,
    fp16_weights: bool = True,
) -> onnx.ModelProto:
    """The INT8 model of a network trained with rounding, with the ranges that it learnt.

    Args:
        network: after training.
        ranges: by scale group.
        start: what training started from.
        notes: on the training, for the metadata.
        fp16_weights: store the large weights that stay in float in half the space.

    Raises:
        QuantizationError: a range is missing.
    """
    model = build(network, dict(notes))
    groups = sites_of(model, start.plan).groups
    values = {tensor: ranges[group] for tensor, group in groups.items() if group in ranges}
    options = Options(calibration=start.calibration, fp16_weights=fp16_weights)
    return quantize_model(model, start.plan, FixedScales(values, ORIGIN), options)
