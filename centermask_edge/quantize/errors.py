"""What can go wrong on the way to INT8 that a user can put right."""

from __future__ import annotations

from centermask_edge.errors import CenterMaskError


class QuantizationError(CenterMaskError):
    """A calibration that shows nothing, or that does not belong to the model."""
