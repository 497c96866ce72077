"""What can be chosen in a FasterSeg search, and how its choices are named.

Source: Chen et al., ICLR 2020, sections 3.1 and 3.3, appendix B. Cells stand in layers 0 to L - 1 and at the rates 1/8
(from layer 0), 1/16 (from layer 1) and 1/32 (from layer 2). The tables of choices, in hierarchical order:

| table | level | a row is | candidates |
|---|---|---|---|
| `branches` | `branches` | the network | `8+32`, `16+32`: where its two branches end (appendix B) |
| `path16`, `path32` | `path` | a cell that two others lead to: `16.2` in layer 2 | `finer`, `same` (beta, Eq. 1) |
| `operator` | `operator` | a cell, `8.0` | `skip`, `conv`, `zoomed_conv`, `conv_x2`, `zoomed_conv_x2` (alpha, Eq. 2) |
| `width` | `width` | a connection, `16.2` into the cells at 1/16 of layer 2 | widths (gamma, section 3.1.3) |
| `teacher_path16`, `teacher_path32` | `path` | as above, of the teacher | as above |
| `teacher_operator` | `operator` | as above, of the teacher | as above, without `skip` |

The teacher (section 3.3) has the widest connections, stem and head, and the student's branches. The authors' decoder
forbids it to skip; here skips are no candidates of it.

What the paper does not settle is chosen so that a supernet whose choices are all decided is the derived network: a skip
of stride 1 is the identity, of whatever width comes in (the release has a 1x1 convolution in its place and removes it
afterwards); the last cell of a branch is no skip, as its output has the head's width.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ...choices import ChoiceTable
from ...genotype import Part
from .decoding import OPERATORS, SKIP
from .genotype import WIDTHS, Width

Pair = Literal["8+16", "8+32", "16+32"]

RATES = (8, 16, 32)
#: Columns of the tables of paths.
PATHS = ("finer", "same")
FINER, SAME = 0, 1
TEACHER = "teacher_"


class FasterSegSearchSpace(Part):
    """The candidates; the defaults are the paper's.

    Widths are channels divided by the rate: the paper's Fch = 12 at 1/8 is 96 channels.
    """

    layers: Annotated[int, Field(ge=4, le=64)] = 16
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = WIDTHS
    stem_width: Width = 8
    head_width: Width = 8
    branches: Annotated[tuple[Pair, ...], Field(min_length=1)] = Field(
        default=("8+32", "16+32"), description="pairs of ends; the release compares these two, the paper names 8+16 too"
    )
    teacher: bool = True
    sampled_widths: bool = Field(
        default=True,
        description="training passes run one width a connection, drawn by Gumbel straight-through (appendix C), "
        "whatever the strategy",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if list(self.widths) != sorted(set(self.widths)):
            raise ValueError("widths: not in ascending order, or one is named twice")
        if len(set(self.branches)) != len(self.branches):
            raise ValueError("branches: a pair is named twice")
        if self.teacher and self.widths[-1] < max(self.stem_width, self.head_width):
            raise ValueError("widths: the teacher's stem and head have the greatest, which is under the student's")
        return self

    @property
    def widest(self) -> int:
        """The greatest width of all."""
        return max(*self.widths, self.stem_width, self.head_width)

    def cells(self) -> list[tuple[int, int]]:
        """(rate index, layer) of every cell, rate by rate: the rows of `operator`."""
        return [(rate, layer) for rate in range(3) for layer in range(rate, self.layers)]

    def operator_row(self, rate: int, layer: int) -> int:
        """Of the cell at a rate index."""
        return sum(self.layers - finer for finer in range(rate)) + layer - rate

    def path_row(self, rate: int, layer: int) -> int | None:
        """Of a cell in `path16` or `path32`; None where only one cell leads to it."""
        return layer - rate - 1 if 0 < rate < layer else None

    def path_table(self, rate: int) -> str:
        """The table that the paths into a rate (index 1 or 2) are decided in."""
        return f"path{RATES[rate]}"

    def connections(self) -> list[tuple[int, int]]:
        """(rate index, layer) of the connections into cells of layer 1 and up: the rows of `width`."""
        return [(rate, layer) for rate in range(3) for layer in range(max(rate, 1), self.layers)]

    def width_row(self, rate: int, layer: int) -> int:
        """Of the connection into the cell at a rate index in `layer`, 1 and up."""
        return sum(self.layers - max(finer, 1) for finer in range(rate)) + layer - max(rate, 1)

    def ends(self, pair: int) -> tuple[int, int]:
        """Rate indices that the branches of a candidate end at."""
        first, second = (RATES.index(int(rate)) for rate in self.branches[pair].split("+"))
        return first, second

    def operators(self, prefix: str = "") -> tuple[str, ...]:
        """Candidates of the student's cells, or of the teacher's."""
        return tuple(name for index, name in enumerate(OPERATORS) if index != SKIP or prefix != TEACHER)

    def tables(self) -> dict[str, ChoiceTable]:
        """All tables of choices; alive is everything but skips in the last layer."""
        tables = [ChoiceTable("branches", "branches", ("pair",), self.branches)]
        for prefix in ("", TEACHER) if self.teacher else ("",):
            for rate in (1, 2):
                rows = [f"{RATES[rate]}.{layer}" for layer in range(rate + 1, self.layers)]
                tables.append(ChoiceTable(f"{prefix}{self.path_table(rate)}", "path", rows, PATHS))
            names = [f"{RATES[rate]}.{layer}" for rate, layer in self.cells()]
            operators = ChoiceTable(f"{prefix}operator", "operator", names, self.operators(prefix))
            if not prefix:
                operators.shrink(self._no_skips_at_the_end(operators.alive))
            tables.append(operators)
            if not prefix:
                names = [f"{RATES[rate]}.{layer}" for rate, layer in self.connections()]
                tables.append(ChoiceTable("width", "width", names, tuple(map(str, self.widths))))
        return {table.name: table for table in tables}

    def _no_skips_at_the_end(self, alive: np.ndarray) -> np.ndarray:
        for rate in range(3):
            alive[self.operator_row(rate, self.layers - 1), SKIP] = False
        return alive
