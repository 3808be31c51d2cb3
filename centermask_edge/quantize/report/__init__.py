"""The verdict as one HTML file that needs nothing but a browser."""

from __future__ import annotations

from centermask_edge.quantize.report.page import write_report

__all__ = ["write_report"]
