"""Writes the copies in this folder from a folder of reference outputs of the official code.

Run: ``make golden REFERENCE=folder``. The copies hold numbers only. Of the large maps every n-th
channel is kept, so that the parity command and the tests can run from a checkout alone.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
CONFIGS = ("lite_V_19", "lite_V_19_slim_dw", "lite_Mv2")
TRAIN = "train.lite_V_19.s0"
# Keep one channel of that many.
STEPS = {
    "fpn.p3": 8,
    "fpn.p4": 4,
    "fpn.p5": 2,
    "head.logits.p3": 8,
    "head.logits.p4": 4,
    "head.logits.p5": 2,
}
KEPT = ("fpn.p", "head.", "det.", "final.", "roi.level", "roi.mask_scores", "roi.feat_ch0")
ALSO = ("image_size", "n_candidates_per_level", "n_kept_per_level", "mask.logits", "maskiou.all")


def trimmed(case: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What of a small case is copied."""
    kept = {}
    for name, array in case.items():
        derived = name.endswith((".ch_mean", ".ch_std", ".crop"))
        if (name.startswith(KEPT) or name in ALSO) and not derived:
            kept[name] = array[:: STEPS.get(name, 1)]
    return kept


def write_json(path: Path, content: object) -> None:
    """Compressed, and the same bytes each time."""
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def main(reference: Path) -> None:
    golden = reference / "golden"
    shutil.copyfile(golden / "small_input.npy", HERE / "small_input.npy")
    shutil.copyfile(golden / f"{TRAIN}.npz", HERE / f"{TRAIN}.npz")
    train = json.loads((golden / f"{TRAIN}.json").read_text())
    (HERE / f"{TRAIN}.json").write_text(json.dumps(train) + "\n")
    for config in CONFIGS:
        with np.load(golden / f"small.{config}.s0.npz") as arrays:
            case = trimmed({name: arrays[name] for name in arrays.files})
        target = HERE / f"small.{config}.s0.npz"
        np.savez_compressed(target, **case)  # type: ignore[arg-type]
        masks = golden / f"rles.{config}.s0.json.gz"
        if masks.is_file():
            with gzip.open(masks) as file:
                write_json(HERE / masks.name, {"small": json.load(file)["small"]})
    descriptions = {}
    for path in sorted((reference / "keys").glob("*.keys.json")):
        config = path.name.removesuffix(".keys.json")
        content = json.loads(path.read_text())
        shapes = {key: value["shape"] for key, value in content["keys"].items()}
        descriptions[config] = {"counts": content["counts"], "keys": shapes}
    write_json(HERE / "keys.json.gz", descriptions)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
