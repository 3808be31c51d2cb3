"""``python -m centermask_edge`` is ``centermask-edge``."""

from __future__ import annotations

from centermask_edge.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
