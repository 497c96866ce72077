"""Plain SVG text: words, lines, rectangles, and a line chart's axes with scale, ticks and marks. Lengths are in px.

Coordinates are written with one decimal, and text is the reader's sans-serif font, so the same data give the same bytes
on every machine.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Colour = tuple[int, int, int]

GREY = (110, 110, 110)
FRAME, GRID = (60, 60, 60), (228, 228, 228)

# Words have a white rim, so that they can be read in front of a line.
_RIM = "<style>text { stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round; paint-order: stroke }</style>"

# Sorts of characters by their width in DejaVu Sans, which is wider than the other typefaces that a reader may have.
_NARROW, _WIDE = " ijlftrI.,:;'|!()[]-/", "mwMW@%"

Point = tuple[float, float]


def hexadecimal(colour: Colour) -> str:
    """A colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def text(
    at: Point, words: str, *, anchor: str = "start", colour: Colour = (0, 0, 0), size_px: int = 12, more: str = ""
) -> str:
    """Words at a point on their base line, in front of whatever they cross."""
    place = f'x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" font-size="{size_px}"'
    return f'<text {place} fill="{hexadecimal(colour)}"{more}>{_plain(words)}</text>'


def _plain(words: str) -> str:
    """What XML takes: a class may be called anything, and no escape makes a control character allowed."""
    return escape("".join("\ufffd" if unicodedata.category(c).startswith("C") else c for c in words))


def line(start: Point, end: Point, colour: Colour, *, dashed: bool = False, width_px: float = 1.0) -> str:
    """A straight line."""
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {ends} stroke="{hexadecimal(colour)}" stroke-width="{width_px:g}"{dashes}/>'


def rectangle(corner: Point, size: Point, *, fill: str = "none", stroke: Colour = FRAME) -> str:
    """A rectangle from its upper left corner, width and height."""
    place = f'x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}"'
    return f'<rect {place} fill="{fill}" stroke="{hexadecimal(stroke)}"/>'


def polyline(points: Sequence[Point], colour: Colour, *, width_px: float = 1.5) -> str:
    """Points joined by straight lines."""
    style = f'fill="none" stroke="{hexadecimal(colour)}" stroke-width="{width_px:g}"'
    return f'<polyline points="{_places(points)}" {style}/>'


def polygon(points: Sequence[Point], fill: Colour) -> str:
    """A filled figure without an outline."""
    return f'<polygon points="{_places(points)}" fill="{hexadecimal(fill)}"/>'


def _places(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def text_width(words: str, size_px: float = 12) -> float:
    """How wide words are at most, in px: each character as wide as DejaVu Sans has the widest of its sort."""
    ems = (0.42 if c in _NARROW else 0.68 if c.islower() or c.isdigit() else 1.0 for c in words)
    return size_px * sum(1.0 if c in _WIDE else em for c, em in zip(words, ems, strict=True))


def document(parts: Sequence[str], width: int, height: int, title: str) -> str:
    """A whole file, on white, with a title for those who cannot see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = 'font-family="DejaVu Sans, Verdana, Arial, sans-serif" role="img"'
    whole = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([f"{head} {style}>", f"<title>{_plain(title)}</title>", _RIM, whole, *parts, "</svg>"]) + "\n"


def number(value: float) -> str:
    """A number as it stands at a tick: 12 000, 0.25."""
    return f"{value:,.0f}".replace(",", "\u2009") if abs(value) >= 1000 else f"{value:g}"


def ticks(end: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers from 0 to `end`, at most `most` steps of 1, 2 or 5 times a power of ten; integers if `whole`."""
    rough = max(end / most, float(whole))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
    # The end is often a round number itself, and must not fall to rounding.
    return [index * step for index in range(math.floor(end / step + 1e-9) + 1)]


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most about `most` points that look the same: of each run of neighbours the lowest and the highest."""
    if len(points) <= most:
        return list(points)
    length = math.ceil(2 * len(points) / most)
    kept: list[Point] = []
    for start in range(0, len(points), length):
        run = points[start : start + length]
        kept += sorted({min(run, key=lambda point: point[1]), max(run, key=lambda point: point[1])})
    return kept


@dataclass(frozen=True)
class Axes:
    """Where data lie on the picture.

    Args:
        left, top, width, height: the frame.
        x_end, y_end: the values at its right and upper side; both axes start at 0, and the ends are over 0.
    """

    left: float
    top: float
    width: float
    height: float
    x_end: float
    y_end: float

    @property
    def bottom(self) -> float:
        """y of the frame's lower side."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """x of the frame's right side."""
        return self.left + self.width

    def at(self, point: Point) -> Point:
        """Where a pair of values lies."""
        x, y = point
        return self.left + self.width * x / self.x_end, self.bottom - self.height * y / self.y_end

    def frame(self, x_name: str, y_name: str) -> list[str]:
        """Grid, frame, ticks with their numbers, and the names of both axes with their units."""
        parts = []
        for value in ticks(self.y_end, 5):
            _, y = self.at((0, value))
            parts += [line((self.left, y), (self.right, y), GRID)]
            parts += [text((self.left - 7, y + 4), number(value), anchor="end")]
        for value in ticks(self.x_end, 6, whole=True):
            x, _ = self.at((value, 0))
            parts += [line((x, self.bottom), (x, self.bottom + 5), FRAME)]
            parts += [text((x, self.bottom + 18), number(value), anchor="middle")]
        parts.append(rectangle((self.left, self.top), (self.width, self.height)))
        parts.append(text((self.right, self.bottom + 33), x_name, anchor="end", colour=GREY))
        middle = (self.left - 58, self.top + self.height / 2)
        turn = f' transform="rotate(-90 {middle[0]:.1f} {middle[1]:.1f})"'
        return [*parts, text(middle, y_name, anchor="middle", colour=GREY, more=turn)]

    def curve(self, points: Sequence[Point], colour: Colour) -> str:
        """The points joined by straight lines."""
        return polyline([self.at(point) for point in thinned(points, int(2 * self.width))], colour)

    def dot(self, point: Point, colour: Colour, *, radius_px: float = 2.5, filled: bool = True) -> str:
        """One mark."""
        x, y = self.at(point)
        fill = hexadecimal(colour) if filled else "none"
        return (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius_px:g}" fill="{fill}" '
            f'stroke="{hexadecimal(colour)}" stroke-width="1.5"/>'
        )
