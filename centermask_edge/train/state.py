"""What a run needs to continue: one file, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from centermask_edge.data.sampling import BatchSampler
from centermask_edge.errors import ModelFileError
from centermask_edge.train.optim import Ema

STATE_FILE = "state.pt"


def save_state(
    folder: Path,
    step: int,
    model: nn.Module,
    ema: Ema | None,
    optimizer: torch.optim.Optimizer,
    sampler_state: dict[str, int],
    generator: torch.Generator,
) -> None:
    """Write ``state.pt`` after ``step`` finished steps.

    Raises:
        ModelFileError: the file cannot be written.
    """
    content = {
        "step": step,
        "model": model.state_dict(),
        "ema": None if ema is None else {"steps": ema.steps, "shadow": ema.shadow},
        "optimizer": optimizer.state_dict(),
        "sampler": sampler_state,
        "generator": generator.get_state(),
    }
    path = folder / STATE_FILE
    partial = path.with_suffix(".partial")
    try:
        torch.save(content, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise ModelFileError(f"cannot write the training state {path}: {error}") from None


def load_state(
    folder: Path,
    model: nn.Module,
    ema: Ema | None,
    optimizer: torch.optim.Optimizer,
    sampler: BatchSampler,
    generator: torch.Generator,
) -> int:
    """Continue from ``state.pt``; the number of finished steps, 0 where there is none.

    Raises:
        ModelFileError: the file is damaged or of another run.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        sampler.restore(content["sampler"])
        generator.set_state(content["generator"])
        if ema is not None and content["ema"] is not None:
            ema.steps = content["ema"]["steps"]
            for name, value in content["ema"]["shadow"].items():
                ema.shadow[name].copy_(value)
        return int(content["step"])
    # Damaged bytes make the unpickler fail in any way: IndexError, struct.error, AssertionError.
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ModelFileError(
            f"cannot resume from {path}: {first}; it is damaged or of another run: "
            "choose another --output or delete it"
        ) from None
