"""Results handed to a function of the user's."""

from __future__ import annotations

from collections.abc import Callable

from centermask_edge.live.outputs.outlet import PICTURES, Queue
from centermask_edge.live.result import Result


class Callback:
    """Calls a function with each result, in the outlet's thread.

    Args:
        function: may be slow, raise or hang; inference goes on.
        name: for messages and metrics.
        queue: ``PICTURES``, or ``LINES`` for one that does not look at the pixels and wants
            every result.
    """

    def __init__(
        self, function: Callable[[Result], object], name: str = "", queue: Queue = PICTURES
    ) -> None:
        self.name = name or f"callback {getattr(function, '__name__', 'function')}"
        self.queue = queue
        self._function = function

    def write(self, result: Result) -> None:
        """One call; what it raises is the outlet's to report."""
        self._function(result)

    def close(self) -> None:
        """Nothing to finish."""
