"""The names of the feature extractors; nothing but the standard library."""

from __future__ import annotations

from enum import Enum


class Backbone(str, Enum):
    """Feature extractors; the values are the names used in presets and on the command line."""

    V19 = "v19"
    V19_SLIM = "v19-slim"
    V19_DW = "v19-dw"
    V19_SLIM_DW = "v19-slim-dw"
    V39 = "v39"
    MOBILENET_V2 = "mobilenet-v2"
    EFFICIENTNET_LITE0 = "efficientnet-lite0"
