"""Section on the presets: their sizes, their costs, and what others published of them."""

from __future__ import annotations

from tables import not_measured, results, table

_HEAD = (
    *("model", "input", "parameters, M", "backbone", "FPN", "P6 and P7", "box head", "mask head"),
    *("mask-IoU head", "G multiply-adds", "mask AP*", "box AP*", "* published by"),
)


def models() -> str:
    """Every preset as one row."""
    data = results("models")
    if data is None:
        return not_measured("models", "centermask-edge models --json docs/results/models.json")
    rows = []
    for row in data["rows"]:
        published = row["published"] or {"mask_ap": "-", "box_ap": "-", "source": "-"}
        parts = [f"{value / 1e6:.3f}" for value in row["parameters"].values()]
        gmac = f"{row['macs']['total'] / 1e9:.2f}"
        rows.append([row["name"], row["input"], *parts, gmac, *published.values()])
    return table(_HEAD, rows)


SECTIONS = {"models": models}
