"""Operators at their shapes: the units that costs are summed over and latencies measured for.

Each space says what kinds of operators it has, in its `operators.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from ..cost import StageCounter
from ..sizes import Size
from .expected import Grid, Operator


@dataclass(frozen=True)
class Shape(ABC):
    """An operator at its shape. Equal shapes have equal keys, and different ones never share a key.

    Attributes:
        size: of the map that it reads, or as its kind says.
    """

    size: Size

    @property
    @abstractmethod
    def key(self) -> str:
        """Under which a latency table has it."""

    @abstractmethod
    def count(self, counter: StageCounter) -> Size | None:
        """Add the operator's cost; may return the size of its output."""

    def operator(self) -> Operator:
        """The operator with its costs, batch 1."""
        counter = StageCounter(self.key)
        self.count(counter)
        stage = counter.stage()
        return Operator(self.key, stage.conv_macs, stage.params)

    def _key(self, name: str, *details: object) -> str:
        return "_".join([name, f"H{self.size.height}", f"W{self.size.width}", *map(str, details)])


@dataclass(frozen=True, eq=False)
class ShapeGrid(Grid):
    """A grid that remembers the shapes of its operators."""

    shapes: Sequence[Shape]

    @classmethod
    def of(cls, shapes: Iterable[Shape], *dimensions: int) -> Self:
        """The grid of these, in row-major order of the dimensions; in one row if there are none."""
        listed = tuple(shapes)
        return cls(tuple(shape.operator() for shape in listed), dimensions or (len(listed),), listed)
