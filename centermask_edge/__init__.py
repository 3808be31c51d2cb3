"""Real-time instance segmentation on the edge: CenterMask-Lite from training to a camera.

>>> import centermask_edge
>>> callable(centermask_edge.predict)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from centermask_edge.live.predict import predict as predict

__version__ = "0.1.0"
__all__ = ["predict"]


def __getattr__(name: str) -> Any:
    """Loads ``predict`` when it is first used, so that importing the package stays light."""
    if name == "predict":
        from importlib import import_module

        function = import_module("centermask_edge.live.predict").predict
        globals()["predict"] = function
        return function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
