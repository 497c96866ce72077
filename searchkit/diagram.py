"""What a drawn network consists of: boxes in columns (depth) and rows (resolution), and arrows between them.

Spaces say what is drawn; `diagram_svg` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

MAX_LINES = 3


@dataclass(frozen=True)
class Box:
    """One layer, cell or head.

    Attributes:
        name: unique in its diagram; arrows refer to it.
        column: how deep it stands, from 0.
        rate: of its output: 4 is a quarter of the image's height and width. 1 for what is as large as the image.
        lines: words inside, the operator first, at most three.
        kind: what it is, such as `stem`, `conv`, `zoomed_conv` or `head`: boxes of a kind look alike, and the legend
            names them.
    """

    name: str
    column: int
    rate: int
    lines: tuple[str, ...]
    kind: str

    def __post_init__(self) -> None:
        if self.column < 0 or self.rate < 1 or not 1 <= len(self.lines) <= MAX_LINES:
            raise ValueError(f"box {self.name}: a column from 0, a rate from 1 and 1 to {MAX_LINES} lines")


@dataclass(frozen=True)
class Arrow:
    """What reads what, by the names of the boxes; `label` stands beside it."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Diagram:
    """A network, drawn.

    Attributes:
        boxes: no two in one place (column, rate), unless they are to be stacked there, in this order.
        arrows: each to a later column, or to a neighbour above or below in its own; no two from one box to one other.
        notes: sentences under the drawing, such as what was left out.

    Raises:
        ValueError: two boxes have one name, or an arrow is none of these.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = {box.name: box.column for box in self.boxes}
        neighbours = {frozenset(pair) for column in set(columns.values()) for pair in pairwise(self.in_column(column))}
        if len(columns) != len(self.boxes):
            raise ValueError("two boxes have one name")
        for arrow in self.arrows:
            if not {arrow.source, arrow.target} <= set(columns):
                raise ValueError(f"arrow {arrow.source} to {arrow.target}: no such box")
            beside = {arrow.source, arrow.target} in neighbours
            if columns[arrow.source] >= columns[arrow.target] and not beside:
                raise ValueError(f"arrow {arrow.source} to {arrow.target}: it leads neither on nor to a neighbour")
        if len({(arrow.source, arrow.target) for arrow in self.arrows}) != len(self.arrows):
            raise ValueError("two arrows lead from one box to one other")

    def in_column(self, column: int) -> list[str]:
        """Names of the boxes of a column from above to below."""
        return [box.name for box in sorted(self.boxes, key=lambda box: box.rate) if box.column == column]
