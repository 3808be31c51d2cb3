"""A tiny COCO set drawn on the spot: bright boxes and triangles on noise, with exact polygons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def write_scenes(
    folder: Path,
    *,
    count: int = 6,
    size: tuple[int, int] = (96, 64),
    seed: int = 0,
    masks: bool = True,
) -> Path:
    """A COCO file of ``count`` pictures of (width, height) ``size``; the path of its json."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    width, height = size
    for index in range(count):
        noise = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)
        draw = ImageDraw.Draw(picture)
        for _ in range(2):
            w, h = rng.uniform(20, 40, 2)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            points = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
            if rng.random() < 0.5:
                points = [(x, y + h), (x + w / 2, y), (x + w, y + h)]
            draw.polygon(points, fill=(250, 240, 60))
            flat = [float(v) for point in points for v in point]
            area = w * h * (1.0 if len(points) == 4 else 0.5)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": [flat] if masks else [],
                }
            )
        name = f"{folder.name}_{index:03d}.png"
        picture.save(folder / "images" / name)
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    path = folder / "scenes.json"
    path.write_text(json.dumps(content))
    return path
