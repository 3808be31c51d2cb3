"""A verdict on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from centermask_edge.quantize.verdict import Verdict


def show(verdict: Verdict) -> None:
    """Prints it: figures on stdout, as those of ``evaluate``."""
    from centermask_edge.quantize.summary import summary

    Console(soft_wrap=True).print(summary(verdict), highlight=False)
