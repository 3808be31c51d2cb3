"""Real-time instance segmentation on the edge: CenterMask-Lite from training to a camera."""

from __future__ import annotations

__version__ = "0.1.0"
