"""Networks that are made to run their mask branch on given boxes, however many they find.

Decoding is not left out: the network decodes what it found, in outputs of their own, and then goes
on with the boxes it is given. So a frame costs what it would if these had been found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from int8_variants import Picture, ours

from centermask_edge.config import PRESETS, PreprocessConfig
from centermask_edge.engines.base import OUTPUTS, Detections, to_detections
from centermask_edge.engines.openvino import import_openvino
from centermask_edge.graph.export import build
from centermask_edge.graph.lowering import MIN_SCORE, lower_for_openvino
from centermask_edge.model.centermask import CenterMask
from centermask_edge.preprocess import Preprocess
from centermask_edge.quantize.collect import metadata_of
from centermask_edge.resources import shipped_model

SHIPPED = "shipped person model"
MODELS = (SHIPPED, "lite-v19-slim", "lite-v19")
CANDIDATES = 500  # of a random network on a calibration picture: about what a busy street has
_LITE = {"short_side": 360, "long_side": 640}  # 16:9 in 384 x 640
GIVEN = ("boxes", "scores", "classes", "count")
DECODED = [f"decoded/{name}" for name in GIVEN]


def network(name: str, pictures: Sequence[Picture]) -> onnx.ModelProto:
    """The ONNX model of a name in ``MODELS``; the Lite models have random weights.

    Their class scores are set so that ``CANDIDATES`` pass the threshold on the first picture.
    """
    if name == SHIPPED:
        return onnx.load(str(shipped_model()))
    import torch

    preset = PRESETS[name]
    config = preset.model_copy(update={"preprocess": preset.preprocess.model_copy(update=_LITE)})
    torch.manual_seed(0)
    model = CenterMask(config).eval()
    torch.nn.init.normal_(model.head.cls_logits.weight, std=0.05)
    image, _ = Preprocess(config.preprocess)(pictures[0])
    with torch.no_grad():
        _, dense = model.dense(torch.from_numpy(image)[None])
        logits = torch.cat([m.flatten() for m in dense.logits])
        limit = logits.topk(min(CANDIDATES, logits.numel())).values[-1]
        threshold = torch.logit(torch.tensor(config.decode.score_threshold))
        assert model.head.cls_logits.bias is not None
        model.head.cls_logits.bias += threshold - limit
    return build(model, {"run": "random weights"})


def quantized(model: onnx.ModelProto, pictures: Sequence[Picture]) -> onnx.ModelProto:
    """The model in INT8 by the plan for OpenVINO."""
    return ours(model, pictures)["ours, openvino plan"]


def forced(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inputs ``given/boxes`` and so on, which its mask branch and outputs follow.

    What it found itself is in ``decoded/boxes`` and so on.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, helper = result.graph, onnx.helper
    (decode,) = (node for node in graph.node if node.op_type == "CMDecodeNMS")
    outputs = {value.name: value for value in graph.output}
    decode.output[:] = [f"decoded/{name}" for name in decode.output]
    passed = []
    for name in GIVEN:
        for where, values in (("given", graph.input), ("decoded", graph.output)):
            value = onnx.ValueInfoProto()
            value.CopyFrom(outputs[name])
            value.name = f"{where}/{name}"
            values.append(value)
        passed.append(helper.make_node("Identity", [f"given/{name}"], [name], f"given/{name}/as"))
    nodes = [type(n).FromString(n.SerializeToString()) for n in (*passed, *graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


class ForcedEngine:
    """A forced network in OpenVINO, as ``OpenVinoEngine`` runs its own; and its part before masks.

    Args:
        model: not yet forced.
        threads: of OpenVINO.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        self.preprocess: PreprocessConfig = metadata_of(model).preprocess
        self._ov = import_openvino()
        self._core = self._ov.Core()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        self._lowered = lower_for_openvino(forced(model))
        dense = onnx.utils.Extractor(self._lowered).extract_model(["image", "image_size"], DECODED)
        self._models = {"whole": self._lowered, "dense": dense}
        self._requests: dict[tuple[str, tuple[int, ...]], Any] = {}

    def run(self, image: np.ndarray, size: np.ndarray, given: Detections) -> Detections:
        """What the mask branch makes of the boxes given, with room for K as in the model."""
        feed: dict[str, Any] = {"image": image, "image_size": size}
        feed[MIN_SCORE] = np.zeros(1, np.float32)
        feed |= {f"given/{name}": getattr(given, name) for name in GIVEN}
        request = self._request("whole", feed)
        request.infer(feed, share_inputs=True)
        return to_detections({name: request.get_tensor(name).data.copy() for name in OUTPUTS})

    def run_dense(self, image: np.ndarray, size: np.ndarray) -> int:
        """How many it finds itself; no masks are made."""
        request = self._request("dense", {"image": image, "image_size": size})
        request.infer({"image": image}, share_inputs=True)
        return int(request.get_tensor("decoded/count").data[0])

    def _request(self, part: str, feed: dict[str, Any]) -> Any:
        key = part, feed["image"].shape
        if key not in self._requests:
            model = self._core.read_model(self._models[part].SerializeToString())
            names = {name for port in model.inputs for name in port.get_names()}
            model.reshape({k: list(v.shape) for k, v in feed.items() if k in names})
            compiled = self._core.compile_model(model, "CPU", self._config)
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]
