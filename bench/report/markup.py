"""HTML and SVG as text. Whatever is not `Markup` is escaped: a network may be called `<script>`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape, unescape

_VOID = frozenset(("br", "img", "meta"))


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


Child = str | int | float | None


def plain(text: str) -> str:
    """Text without control and direction marks, which no escape makes harmless, and without lone surrogates."""
    return "".join("\ufffd" if unicodedata.category(c).startswith("C") and c != "\n" else c for c in text)


def words(child: Child) -> Markup:
    """A child as markup: escaped unless it is markup already; nothing for None."""
    if isinstance(child, Markup):
        return child
    return Markup("" if child is None else escape(plain(str(child))))


def el(tag: str, *children: Child, **attributes: Child) -> Markup:
    """One element. `class_` is the class; other underscores are hyphens; an attribute that is None is left out."""
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(plain(str(value)))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{text}>")
    return Markup(f"<{tag}{text}>{''.join(words(child) for child in children)}</{tag}>")


def prose(text: str) -> Markup:
    """A sentence of ours, in which `code` stands between backticks."""
    pieces = text.split("`")
    return Markup("".join(el("code", piece) if at % 2 else words(piece) for at, piece in enumerate(pieces)))


def joined(parts: Iterable[Child], between: str = "") -> Markup:
    """All parts, one after the other."""
    return Markup(words(between).join(words(part) for part in parts))


def bullets(items: Iterable[Child]) -> Markup:
    """An unordered list; nothing for no items."""
    made = [el("li", item) for item in items]
    return el("ul", *made) if made else Markup("")


def table(
    caption: Child,
    headings: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    text_columns: int = 1,
    also_text: Sequence[int] = (),
) -> Markup:
    """A table whose first column names the row; behind the first `text_columns` stand numbers, to the right, but for
    the columns `also_text`.

    It scrolls within itself where the page is too narrow, and can be reached by the keyboard for that.
    """

    def kind(column: int) -> str | None:
        return "words" if column in also_text else None if column < text_columns else "number"

    head = el("tr", *(el("th", heading, scope="col", class_=kind(at)) for at, heading in enumerate(headings)))
    body = [
        el("tr", el("th", row[0], scope="row"), *(el("td", cell, class_=kind(at)) for at, cell in enumerate(row) if at))
        for row in rows
    ]
    whole = el("table", el("caption", caption), el("thead", head), el("tbody", *body))
    return el("div", whole, class_="scroll", tabindex="0", role="group", aria_label=_bare(caption))


def _bare(caption: Child) -> str:
    """A caption as an attribute, which holds no elements."""
    return unescape(re.sub(r"<[^>]*>", "", words(caption)))
