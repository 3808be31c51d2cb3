"""A YOLO data set drawn on the spot: filled squares and discs on noise, with their polygons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("square", "disc")
COLORS = ((250, 240, 60), (60, 220, 250))
Point = tuple[float, float]


def outline(kind: int, x: float, y: float, side: float) -> list[Point]:
    """Corners of a square, or 16 points of a disc, in pixels."""
    if kind == 0:
        return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    turns = 2 * np.pi * np.arange(16) / 16
    radius = side / 2
    return [
        (x + radius + radius * float(np.cos(t)), y + radius + radius * float(np.sin(t)))
        for t in turns
    ]


def line(kind: int, points: list[Point], size: tuple[int, int]) -> str:
    """A label: the class and the points in parts of the picture's width and height."""
    values = (v / n for point in points for v, n in zip(point, size, strict=True))
    return " ".join([str(kind), *(f"{v:.6f}" for v in values)])


def write_yolo(
    folder: Path,
    counts: tuple[int, int] = (4, 2),
    size: tuple[int, int] = (96, 64),
    seed: int = 0,
) -> Path:
    """Pictures of (width, height) ``size`` for train and val; the path of the data.yaml."""
    rng = np.random.default_rng(seed)
    for split, count in zip(("train", "val"), counts, strict=True):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            _write_picture(folder, split, f"{number:03d}", size, rng)
    path = folder / "data.yaml"
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(NAMES))
    path.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}\n")
    return path


def _write_picture(
    folder: Path, split: str, name: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    noise = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    draw = ImageDraw.Draw(picture)
    lines = []
    for kind in (0, 1):  # one in each half of the picture
        side = float(rng.uniform(0.3, 0.45) * size[0])
        x = float(rng.uniform(0, size[0] / 2 - side)) + kind * size[0] / 2
        points = outline(kind, x, float(rng.uniform(0, size[1] - side)), side)
        draw.polygon(points, fill=COLORS[kind])
        lines.append(line(kind, points, size))
    picture.save(folder / "images" / split / f"{name}.png")
    (folder / "labels" / split / f"{name}.txt").write_text("\n".join(lines) + "\n")
