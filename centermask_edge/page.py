"""HTML pages that need nothing but a browser: the frame, and the parts they are made of.

Every part is a string of HTML in which whatever came from outside is escaped. A page holds its
style and its pictures; its policy forbids it to load or to run anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

_SPACES = re.compile(r"\s+")
_FRAME = (
    "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
    "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'\">\n<meta name='color-scheme' content='light dark'>\n"
    "<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
    "</main>\n</body>\n</html>\n"
)


def style() -> str:
    """The style that all pages share, light and dark."""
    return (files("centermask_edge") / "page.css").read_text(encoding="utf-8")


def page(title: str, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: parts in HTML.
    """
    return _FRAME.format(title=escape(title), style=style(), body="\n".join(filter(None, body)))


def header(over: str, headline: str, badge: str = "", kind: str = "", under: str = "") -> str:
    """What a page opens with, of plain texts.

    Args:
        over: what this is.
        headline: its outcome in one sentence.
        badge: the outcome in a word or two.
        kind: of the badge, ``good`` or ``bad``.
        under: what to know about it.
    """
    mark = f"<span class='badge {kind}'>{escape(badge)}</span>" if badge else ""
    more = f"<p class='soft'>{escape(under)}</p>" if under else ""
    return (
        f"<header><h1>{escape(over)}</h1>{mark}<p class='headline'>{escape(headline)}</p>"
        f"{more}</header>"
    )


def section(title: str, *parts: str, note: str = "") -> str:
    """A section of parts in HTML under a heading; nothing where every part is empty."""
    if not any(parts):
        return ""
    under = f"<p class='under'><small>{escape(note)}</small></p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}{under}</section>"


def card(title: str, *parts: str, note: str = "") -> str:
    """A box of parts in HTML."""
    under = f"<p class='under'><small>{escape(note)}</small></p>" if note else ""
    return f"<div class='card'><h3>{escape(title)}</h3>{''.join(parts)}{under}</div>"


def side_by_side(*cards: str) -> str:
    """Boxes beside each other where the window is wide enough."""
    return f"<div class='side-by-side'>{''.join(cards)}</div>"


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Figures in short: name, value and what to know about it."""
    found = "".join(
        f"<div class='card tile'><div class='name'>{escape(name)}</div>"
        f"<div class='value'>{escape(value)}</div><div class='more'>{escape(more)}</div></div>"
        for name, value, more in rows
    )
    return f"<section class='tiles' aria-label='In short'>{found}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = ()) -> str:
    """A table that scrolls where it is too wide; the first cell of a row names it.

    Args:
        head: titles of the columns.
        rows: cells; a row of one cell is a heading of its own.
        words: columns that hold sentences.
    """
    kinds = [" class='words'" if i in words else "" for i in range(len(head))]
    titles = "".join(
        f"<th scope='col'{kind}>{escape(title)}</th>"
        for title, kind in zip(head, kinds, strict=True)
    )
    body = "".join(_row([str(c) for c in row], kinds) for row in rows)
    return (
        f"<div class='card scroll'><table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def folded_table(head: Sequence[str], rows: Sequence[Sequence[object]], shown: int) -> str:
    """A table whose rows after the first ``shown`` are folded away, unless they are few."""
    if len(rows) <= shown + shown // 2:
        return table(head, rows)
    rest = details(f"{len(rows) - shown} more", table(head, rows[shown:]))
    return table(head, rows[:shown]) + rest


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    name = escape(cells[0])
    if len(cells) == 1:
        return f"<tr class='kind'><th scope='rowgroup' colspan='{len(kinds)}'>{name}</th></tr>"
    values = "".join(
        f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells[1:], kinds[1:], strict=True)
    )
    return f"<tr><th scope='row'{kinds[0]}>{name}</th>{values}</tr>"


def bars(rows: Iterable[tuple[str, float, str]], kind: str = "") -> str:
    """Bars: name, length as a share of the longest possible, and the figure beside it."""
    found = "".join(
        f"<span>{escape(name)}</span><span class='bar'><i class='{kind}' "
        f"style='width: {100 * min(max(share, 0.0), 1.0):.1f}%'></i></span>"
        f"<span class='figure'>{escape(figure)}</span>"
        for name, share, figure in rows
    )
    return f"<div class='bars'>{found}</div>"


def counts(rows: Sequence[tuple[str, int]]) -> str:
    """Bars of counts, the longest of them full, each with its share of all."""
    most = max((n for _, n in rows), default=0) or 1
    total = sum(n for _, n in rows) or 1
    return bars((name, n / most, f"{n} ({100 * n / total:.0f} %)") for name, n in rows)


def details(summary: str, content: str, is_open: bool = False) -> str:
    """Content in HTML that is folded away."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{content}</details>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    return f"<dl class='card facts'>{lines}</dl>"


def image(data: str, text: str) -> str:
    """A picture from a data URI, with a text for those who do not see it."""
    return f"<img src='{data}' alt='{escape(text)}' loading='lazy' decoding='async'>"


def key(rows: Iterable[tuple[str, str]]) -> str:
    """What colours mean: a CSS colour and its meaning each."""
    found = "".join(f"<li><i style='background: {c}'></i>{escape(t)}</li>" for c, t in rows)
    return f"<ul class='key'>{found}</ul>"


def one_line(text: str, limit: int = 160) -> str:
    r"""A text without line breaks, cut at ``limit`` characters.

    >>> one_line("a\n b", 10), one_line("abcdef", 4)
    ('a b', 'abc…')
    """
    flat = _SPACES.sub(" ", text).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
