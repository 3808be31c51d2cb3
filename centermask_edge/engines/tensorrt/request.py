"""What is said between the command and the process that builds: one request, then lines of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from centermask_edge.engines.tensorrt.api import Flavor

Sizes = tuple[int, int, int]  # smallest, usual, largest


@dataclass(frozen=True, slots=True)
class Request:
    """One engine to build. Paths are text, for the way through JSON.

    Attributes:
        flavor: who builds.
        model: the lowered ONNX file.
        plugins: the plugin library.
        engine: the file to write.
        log: the file to write every message of TensorRT to.
        layers: the file to write the layers to.
        timing_cache: read if it exists, written afterwards.
        batch: pictures.
        height: padded, pixels.
        width: padded, pixels.
        capabilities: compute capabilities to build for; none means this GPU.
        workspace_mib: scratch memory a layer may use; None leaves it to TensorRT.
    """

    flavor: Flavor
    model: str
    plugins: str
    engine: str
    log: str
    layers: str
    timing_cache: str
    batch: Sizes
    height: Sizes
    width: Sizes
    capabilities: tuple[int, ...] = ()
    workspace_mib: int | None = None

    def to_json(self) -> str:
        """The request as one line of text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Request:
        """What :meth:`to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        content["flavor"] = Flavor(content["flavor"])
        for name in ("batch", "height", "width", "capabilities"):
            content[name] = tuple(content[name])
        return Request(**content)

    def shape(self, which: int) -> tuple[int, int, int, int]:
        """The shape of ``image``; 0 for the smallest, 1 for the usual, 2 for the largest."""
        return self.batch[which], 3, self.height[which], self.width[which]

    @property
    def fixed(self) -> bool:
        """Whether the input has one shape only."""
        return self.shape(0) == self.shape(2)
