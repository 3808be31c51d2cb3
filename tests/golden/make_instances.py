"""Writes instances.npz beside this file from a folder of reference outputs of the official code.

Run: ``python tests/golden/make_instances.py REFERENCE/golden``. Ten detections of one picture
(427 x 640, so the two scales differ): raw detections before clipping, and what the official
post-processing made of them, masks as COCO RLE in the order of the rows.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np

CONFIG = "lite_V_19"


def main(reference: Path) -> None:
    with np.load(reference / f"img_rocket.{CONFIG}.s0.npz") as arrays:
        case = {name: arrays[name] for name in arrays.files}
    with gzip.open(reference / f"rles.{CONFIG}.s0.json.gz") as file:
        rles = json.load(file)["rocket.jpg"]
    areas = case["final.mask_area"]
    # The smallest and the largest masks among those that have pixels at all.
    order = [int(i) for i in np.argsort(areas, kind="stable") if areas[i] > 0]
    rows = np.array(sorted(order[:5] + order[-5:]))
    logits = case["mask.logits"][rows]
    np.savez_compressed(
        Path(__file__).with_name("instances.npz"),
        source_size=np.array(rles[0]["size"]),
        resized_size=case["image_size"],
        raw_boxes=case["det.boxes"][rows],
        raw_scores=case["det.scores"][rows],
        raw_mask_scores=case["roi.mask_scores"][rows],
        raw_classes=case["det.classes"][rows],
        raw_masks=(1 / (1 + np.exp(-logits.astype(np.float32)))).astype(np.float32),
        boxes=case["final.boxes"][rows],
        rles=np.array([rles[i]["counts"] for i in rows]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
