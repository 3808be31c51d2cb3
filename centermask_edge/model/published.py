"""Accuracy that others published for these networks, by preset: not measured with this code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """AP in percent, and whose it is.

    Attributes:
        mask_ap: COCO mask AP.
        box_ap: COCO box AP.
        source: who printed it, for which training and which images.
    """

    mask_ap: float
    box_ap: float
    source: str


_LATER_LITE = "centermask2, 4x, val2017"
_LATER = "centermask2, 3x, val2017"
_FIRST = "first release, 3x, val2017"
_FIRST_LITE = "first release, 4x, test-dev"
_PAPER = "paper table 3, 12 epochs, val2017"

PUBLISHED: dict[str, Published] = {
    "lite-mobilenet-v2": Published(27.2, 29.8, _LATER_LITE),
    "lite-v19": Published(32.8, 35.9, _LATER_LITE),
    "lite-v19-slim": Published(29.8, 32.5, _LATER_LITE),
    "lite-v19-slim-dw": Published(27.1, 29.5, _LATER_LITE),
    "lite-v39": Published(36.7, 40.9, _LATER_LITE),
    "lite-r50": Published(32.9, 36.7, _FIRST_LITE),
    "v39": Published(39.7, 44.2, _LATER),
    "v57": Published(40.5, 45.1, _LATER),
    "v99": Published(41.4, 46.0, _LATER),
    "v39-dcn": Published(40.3, 45.1, _LATER),
    "v57-dcn": Published(40.9, 45.5, _LATER),
    "v99-dcn": Published(42.0, 46.9, _LATER),
    "mobilenet-v2": Published(31.2, 35.5, _FIRST),
    "v19": Published(34.7, 39.7, _FIRST),
    "r50": Published(37.0, 41.7, _FIRST),
    "r101": Published(38.6, 43.7, _FIRST),
    "x101": Published(39.1, 44.4, _FIRST),
    "v39-v1": Published(35.3, 39.7, _PAPER),
    "v57-v1": Published(36.1, 40.8, _PAPER),
    "v99-v1": Published(31.5, 35.3, _PAPER),
    "hrnet-w18": Published(33.0, 36.7, _PAPER),
    "hrnet-w32": Published(36.2, 40.6, _PAPER),
    "hrnet-w48": Published(38.1, 43.0, _PAPER),
}
