"""A plot in two widths, of which the page shows the one that fits."""

from __future__ import annotations

from collections.abc import Callable

from .markup import Child, Markup, el

WIDE_PX, NARROW_PX = 760, 344


def both(draw: Callable[[int], Markup], caption: Child) -> Markup:
    """A plot drawn for wide and for narrow pages, with its caption."""
    wide = el("div", draw(WIDE_PX), class_="wide")
    narrow = el("div", draw(NARROW_PX), class_="narrow")
    return el("figure", wide, narrow, el("figcaption", caption))
