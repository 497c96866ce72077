"""Axes and marks in SVG. Lengths are in px; colours are classes, which the page's style defines for light and dark.

Coordinates are written with one decimal and text is the reader's own font, so that equal data give equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Child, Markup, el

FONT_PX = 12
# Of a wide sans-serif font, so that what is kept free suffices for others.
_CHARACTER_PX = 0.6 * FONT_PX
_LOG_FROM = 25

Box = tuple[float, float, float, float]


def text_width(text: str) -> float:
    """About how wide a text is, in px; rather too wide."""
    return _CHARACTER_PX * len(text)


def shortened(text: str, width_px: float) -> str:
    """The text, or its beginning where it would be wider than `width_px`."""
    most = max(3, int(width_px / _CHARACTER_PX))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: float) -> str:
    """A number as it stands at a tick: 1200, 0.25."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:g}"


@dataclass(frozen=True)
class Scale:
    """Values along one axis.

    Attributes:
        low, high: its ends; `low` is below `high`, and above 0 where the axis is logarithmic.
    """

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], *, from_zero: bool = False, may_be_log: bool = False) -> Scale:
        """A scale with some room around the values."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        if may_be_log and low > 0 and high / low > _LOG_FROM:
            return cls(low / 1.3, high * 1.3, log=True)
        room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
        return cls(0.0 if from_zero and low >= 0 else low - room, high + room)

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Round numbers within the ends, about `most` at the most."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [step * 10.0**power for power in powers for step in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= most:
                    break
            return found
        rough = (self.high - self.low) / max(1, most)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True)
class Axes:
    """Where data lie on the picture."""

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale

    @property
    def right(self) -> float:
        """x of the frame's right side."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """y of the frame's lower side."""
        return self.top + self.height

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values lies."""
        return self.left + self.width * self.x.share(x), self.bottom - self.height * self.y.share(y)

    def x_axis(self, name: str) -> list[Markup]:
        """Ticks with their numbers below the frame, a grid inside it, and the axis's name."""
        parts = []
        for value in self.x.ticks(max(2, int(self.width / 62))):
            x = self.left + self.width * self.x.share(value)
            parts.append(line(x, self.top, x, self.bottom, "grid"))
            parts.append(text(x, self.bottom + 16, number(value), anchor="middle"))
        parts.append(text(self.right, self.bottom + 33, name, anchor="end", class_="muted"))
        return parts

    def y_axis(self, name: str) -> list[Markup]:
        """Ticks with their numbers left of the frame, a grid inside it, and the axis's name above it."""
        parts = []
        for value in self.y.ticks(max(2, int(self.height / 42))):
            y = self.bottom - self.height * self.y.share(value)
            parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(text(self.left - 6, y + 4, number(value), anchor="end"))
        parts.append(text(4, self.top - 9, name, class_="muted"))
        return parts

    def frame(self) -> Markup:
        """The frame itself."""
        return rectangle(self.left, self.top, self.width, self.height, "frame")


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str, *, radius: float | None = None) -> Markup:
    """A rectangle from its upper left corner."""
    size = {"width": f"{max(0.0, width):.1f}", "height": f"{max(0.0, height):.1f}"}
    return el("rect", x=f"{x:.1f}", y=f"{y:.1f}", **size, rx=radius, class_=class_)


def text(x: float, y: float, words: Child, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """Words at a point on their base line."""
    where = anchor if anchor != "start" else None
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=where, class_=class_)


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Points joined by straight lines."""
    return el("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def mark(x: float, y: float, shape: str, class_: str, *, title: str | None = None, radius: float = 5) -> Markup:
    """One mark: "circle", "square" or "diamond", with a title that a pointer brings up."""
    inner = el("title", title) if title else None
    if shape == "circle":
        return el("circle", inner, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:g}", class_=class_)
    side = radius * 0.9 if shape == "square" else radius * 1.25
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1)) if shape == "square" else ((0, -1), (1, 0), (0, 1), (-1, 0))
    points = " ".join(f"{x + a * side:.1f},{y + b * side:.1f}" for a, b in corners)
    return el("polygon", inner, points=points, class_=class_)


def drawing(parts: Sequence[Markup], width: float, height: float, label: str, *, class_: str = "plot") -> Markup:
    """An SVG element that is as wide as there is room, up to its own width; `label` is for those who cannot see it."""
    size = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    return el("svg", *parts, xmlns="http://www.w3.org/2000/svg", **size, role="img", aria_label=label, class_=class_)


class Labels:
    """Puts words beside points so that none covers another or a mark; what finds no room is left out."""

    _PLACES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))

    def __init__(self, bounds: Box, marks: Sequence[tuple[float, float]], *, radius: float = 7) -> None:
        self._bounds = bounds
        self._taken: list[Box] = [(x - radius, y - radius, x + radius, y + radius) for x, y in marks]

    def put(self, x: float, y: float, words: str, class_: str | None = None) -> Markup | None:
        """The words beside the mark at a point, or None."""
        wide, high = text_width(words), FONT_PX * 1.1
        for distance in (9, 20):
            for right, down in self._PLACES:
                left = x + distance if right > 0 else x - distance - wide if right < 0 else x - wide / 2
                top = y - high / 2 + down * (distance + high / 3)
                box = (left, top, left + wide, top + high)
                if self._is_free(box):
                    self._taken.append(box)
                    written = text(left, top + high * 0.8, words, class_=class_)
                    if distance == 9:
                        return written
                    near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
                    return Markup(line(x, y, near[0], near[1], "leader") + written)
        return None

    def _is_free(self, box: Box) -> bool:
        low_x, low_y, high_x, high_y = self._bounds
        if box[0] < low_x or box[1] < low_y or box[2] > high_x or box[3] > high_y:
            return False
        return not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in self._taken
        )
