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
    V57 = "v57"
    V99 = "v99"
    V39_DCN = "v39-dcn"
    V57_DCN = "v57-dcn"
    V99_DCN = "v99-dcn"
    R50 = "r50"
    R101 = "r101"
    X101 = "x101"
    MOBILENET_V2 = "mobilenet-v2"
    HRNET_W18 = "hrnet-w18"
    HRNET_W32 = "hrnet-w32"
    HRNET_W48 = "hrnet-w48"
    EFFICIENTNET_LITE0 = "efficientnet-lite0"
    EFFICIENTNET_LITE1 = "efficientnet-lite1"
    EFFICIENTNET_LITE2 = "efficientnet-lite2"

    @property
    def is_vovnet(self) -> bool:
        """Whether channel attention and residual connections can be switched.

        >>> Backbone.V99_DCN.is_vovnet, Backbone.R50.is_vovnet
        (True, False)
        """
        return self.value.startswith("v")

    @property
    def is_official(self) -> bool:
        """Whether centermask2 had it, so that its checkpoints have names there."""
        return not self.value.startswith(("hrnet", "efficientnet"))
