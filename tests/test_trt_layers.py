"""Layers as TensorRT tells them: a block in the log of a build, and JSON of the inspector."""

from __future__ import annotations

import json

from centermask_edge.engines.tensorrt.layers import (
    Layer,
    Tensor,
    from_json,
    macs_by_dtype,
    parse_block,
    parse_json,
    summarise,
    to_json,
)

BLOCK = """Layers:
Name: __myl_CastMove_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,3,8,16], \
Strides: [384,128,16,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major \
linear format }], Constants: [], Outputs: [ { Name: x, Dimensions: [1,3,8,16], \
Strides: [384,1,48,3], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major \
format }], TacticName: t, \
StreamId: 0, Metadata: [ONNX Layer: stem/Conv]
Name: stem/Conv_myl0_1, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,3,8,16], \
Strides: [384,1,48,3], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format \
}], Constants: [ { Name: w, Dimensions: [4,3,1,1], Strides: [3,1,3,3], StrideOrder: [3,0,2,1], \
Datatype: Half, Format: (NHWC) Channel major format }, { Name: b, Dimensions: [4], Strides: [1], \
StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear format }], Outputs: [ { Name: \
y, Dimensions: [1,4,E0,E1], Strides: [512,1,64,4], StrideOrder: [3,0,2,1], Datatype: Half, Format: \
(NHWC) Channel major format }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: stem/Conv]\
[ONNX Layer: stem/Relu]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float
"""

# The shape of the inspector's answer in TensorRT 10, as its documents show it.
JSON = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to stem/Conv",
            "LayerType": "Reformat",
            "Inputs": [
                {
                    "Name": "image",
                    "Location": "Device",
                    "Dimensions": [1, 3, 8, 16],
                    "Format/Datatype": "Row major linear FP32",
                }
            ],
            "Outputs": [
                {
                    "Name": "x",
                    "Dimensions": [1, 3, 8, 16],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
                }
            ],
        },
        {
            "Name": "stem/Conv + stem/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {"Name": "x", "Dimensions": [1, 3, 8, 16], "Format": "CHW32", "Datatype": "Int8"}
            ],
            "Outputs": [],
            "Metadata": "[ONNX Layer: stem/Conv]\u001e[ONNX Layer: stem/Relu]",
        },
        "a layer without details",
    ],
    "Bindings": ["image"],
}


def test_the_block_of_a_log() -> None:
    move, conv = parse_block(BLOCK)
    assert (move.name, move.type, move.onnx) == ("__myl_CastMove_myl0_0", "kgen", ("stem/Conv",))
    assert conv.onnx == ("stem/Conv", "stem/Relu")
    assert conv.inputs == (Tensor("x", "fp16", "(NHWC) Channel major format", (1, 3, 8, 16)),)
    assert [(t.name, t.dtype, t.shape) for t in conv.constants] == [
        ("w", "fp16", (4, 3, 1, 1)),
        ("b", "fp32", (4,)),
    ]
    assert conv.outputs[0].shape == (1, 4, -1, -1)
    assert move.is_reformat and not move.is_convolution and move.dtype == "fp32"
    assert conv.is_convolution and not conv.is_reformat and conv.dtype == "fp16"


def test_the_json_of_an_inspector() -> None:
    reformat, conv, bare = parse_json(json.dumps(JSON))
    assert reformat.is_reformat and reformat.inputs[0].dtype == "fp32"
    assert reformat.outputs[0].dtype == "int8"
    assert conv.dtype == "int8" and conv.is_convolution and conv.inputs[0].format == "CHW32"
    assert conv.onnx == ("stem/Conv", "stem/Relu")
    assert bare == Layer("a layer without details", "") and bare.dtype == ""


def test_a_convolution_counts_where_it_is_computed_not_where_it_begins() -> None:
    layers = parse_block(BLOCK)
    assert macs_by_dtype(layers, {"stem/Conv": 100}) == {"fp16": 100}
    assert macs_by_dtype(layers[:1], {"stem/Conv": 100}) == {"unknown": 100}
    assert macs_by_dtype(layers, {"lost": 7}) == {"unknown": 7}


def test_a_convolution_that_became_a_product() -> None:
    tensor = (Tensor("x", "int8"),)
    gemm = Layer("g", "runtime_fusion", tensor, (), tensor, ("head/Conv",))
    assert macs_by_dtype([gemm], {"head/Conv": 5}) == {"int8": 5}


def test_a_deconvolution_is_no_convolution() -> None:
    assert not Layer("d", "deconv").is_convolution
    assert not Layer("d", "CaskDeconvolutionV2").is_convolution


def test_generated_kernels_that_compute_are_no_reformats() -> None:
    names = {
        "__myl_Tran_myl0_1": True,
        "__myl_CastReshTran_myl0_12": True,
        "__myl_MulCastAdd_myl0_3": False,
        "__myl_Conc_myl0_3": False,
        "roi_align_myl0_3": False,
    }
    assert {name: Layer(name, "kgen").is_reformat for name in names} == names


def test_figures_and_the_way_through_a_file() -> None:
    layers = parse_block(BLOCK)
    summary = summarise(layers, {"stem/Conv": 9}, (1000, 50))
    assert (summary.count, summary.reformats) == (2, 1)
    assert summary.by_type == {"kgen": 1, "correlation": 1}
    assert summary.by_dtype == {"fp32": 1, "fp16": 1}
    assert (summary.activation_bytes, summary.weight_bytes) == (1000, 50)
    assert from_json(to_json(layers)) == layers
