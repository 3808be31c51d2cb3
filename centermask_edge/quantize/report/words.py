"""What changed about an instance, in words; and figures as people write them."""

from __future__ import annotations

from centermask_edge.quantize.compare import Change, Kind


def sentence(change: Change, judged: str, threshold: float) -> str:
    """One change in plain words.

    Args:
        change: of one instance.
        judged: name of the file that is compared with FP32.
        threshold: box score from which an instance is shown.
    """
    if change.kind is Kind.CHANGED:
        return _changed(change)
    mine, other = ("FP32", judged) if change.kind is Kind.LOST else (judged, "FP32")
    score, rest = change.before, change.after
    if change.kind is Kind.NEW:
        score, rest = rest, score
    text = f"{mine} scores it {score or 0:.2f}, {other} "
    text += "has nothing there" if rest is None else f"{rest:.2f}, below {threshold:.2f}"
    return f"{text}; {_annotated(change.annotated)}" if change.annotated is not None else text


def _changed(change: Change) -> str:
    before, after = change.before or 0.0, change.after or 0.0
    overlap = 0.0 if change.mask_iou is None else change.mask_iou
    text = f"masks overlap by {100 * overlap:.0f} %"
    if f"{before:.2f}" == f"{after:.2f}":
        return f"{text}, score stays {before:.2f}"
    return f"{text}, score {before:.2f} to {after:.2f}"


def _annotated(annotated: bool | None) -> str:
    return "an annotated object" if annotated else "nothing is annotated there"


def points(value: float | None, signed: bool = False) -> str:
    """AP as text; a dash where there is none.

    >>> points(12.345), points(None), points(-0.5, signed=True)
    ('12.35', '-', '-0.50')
    """
    if value is None:
        return "-"
    # Not "-0.00": a loss of nothing has no sign.
    value = round(value, 2) + 0.0
    return f"{value:+.2f}" if signed and value else f"{value:.2f}"


def percent(share: float) -> str:
    """A share as text that says 100 only where it is all.

    >>> percent(1.0), percent(0.99998), percent(0.5)
    ('100 %', '99.9 %', '50.0 %')
    """
    if share >= 1:
        return "100 %"
    return f"{min(100 * share, 99.9):.1f} %"


def megabytes(count: int) -> str:
    """A file size as text.

    >>> megabytes(13_538_041), megabytes(4_200)
    ('13.5 MB', '4.2 kB')
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def macs(count: int) -> str:
    """Multiply-adds as text.

    >>> macs(1_456_358_400), macs(176_400)
    ('1456 M', '0.2 M')
    """
    return f"{count / 1e6:.0f} M" if count >= 1e7 else f"{count / 1e6:.1f} M"
