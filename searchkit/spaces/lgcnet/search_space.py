"""What can be chosen in an LGCNet search, and how its choices are named.

Source: Cheng et al., section III, Tables II and III, section IV-A. The tables of choices:

| table | level | a row is | candidates |
|---|---|---|---|
| `cell` | `cell` | an edge of a cell, `7.i1-x2` | the 8 operators of Table II, `none` among them |
| `fusion` | `fusion` | an edge of the fusion cell, `c0-c1` | the 10 operators of Table III |
| `fusion_up` | `fusion` | an "Up x2" edge of it, `b1-c3` | `deconvolution`, `resize` |

Where cells share their choices (Table VI, a) the rows of `cell` are `normal.i1-x1` and `reduction.i1-x1`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...choices import ChoiceTable
from ...genotype import SCHEMA, Part
from ...sizes import Size
from .genotype import MAX_CELLS, MIN_CELLS, LGCNetGenotype, Width, cell_of
from .guidance import GuidedTable
from .operators import CELL_OPERATORS, FUSION_OPERATORS, UP_OPERATORS, CellOperator, FusionOperator, UpOperator
from .sampling import CELLS, FUSION_CHANNELS, REDUCTIONS, STEM
from .wiring import CELL_EDGES, EDGE_NAMES, SEARCHED, UPS, Place, fused_cells, places

_Number = Annotated[int, Field(ge=1, le=MAX_CELLS)]


class LGCNetSearchSpace(Part):
    """The candidates; the defaults are the paper's.

    The base width is a setting, as the published one (8) cannot give the published 2.09 M parameters with cells that
    have 8 channels a node at 1/4; here the stem doubles 8, 16, 32. `max_params` says what a width can give at most.
    """

    cells: Literal["independent", "shared"] = Field(
        default="independent", description="each cell its own choices, or one normal and one reduction cell (Table VI)"
    )
    length: Annotated[int, Field(ge=MIN_CELLS, le=MAX_CELLS)] = CELLS
    reductions: tuple[_Number, _Number] = REDUCTIONS
    stem: Width = STEM
    fusion_channels: Width = FUSION_CHANNELS
    guidance: Literal["none", "fc", "gcn"] = Field(
        default="gcn", description="what a cell's architecture parameters learn from those of the cell before it"
    )
    guidance_width: Annotated[int, Field(ge=1, le=4096)] = Field(default=64, description="d of Eq. 7 (Table VIII)")
    guidance_weight: Annotated[float, Field(ge=0, le=100)] = Field(default=0.5, description="gamma of Eq. 5")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        first, second = self.reductions
        if not first < second < self.length:
            raise ValueError(
                f"reductions: two numbers of cells in ascending order, the second at most {self.length - 1}"
            )
        if self.cells == "shared" and self.guidance != "none":
            raise ValueError('guidance: cells that share their choices have nothing to exchange; allowed "none"')
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the cells that have choices of their own."""
        return ("normal", "reduction") if self.cells == "shared" else tuple(map(str, range(self.length)))

    @cached_property
    def group_of(self) -> tuple[int, ...]:
        """Of each cell, the number of its group."""
        if self.cells == "shared":
            return tuple(int(index in self.reductions) for index in range(self.length))
        return tuple(range(self.length))

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every cell in its place."""
        return places(self.length, self.reductions, self.stem)

    @property
    def fused(self) -> tuple[int, int, int]:
        """The cells that the fusion cell reads."""
        return fused_cells(self.length, self.reductions)

    def tables(self) -> dict[str, ChoiceTable]:
        """All tables of choices, everything alive."""
        rows = [f"{group}.{edge}" for group in self.groups for edge in EDGE_NAMES]
        cell = ChoiceTable("cell", "cell", rows, CELL_OPERATORS)
        if self.guidance != "none":
            cell = GuidedTable(
                "cell",
                "cell",
                rows,
                CELL_OPERATORS,
                edges=len(CELL_EDGES),
                kind=self.guidance,
                width=self.guidance_width,
                weight=self.guidance_weight,
            )
        fusion = ChoiceTable("fusion", "fusion", [edge.name for edge in SEARCHED], FUSION_OPERATORS)
        up = ChoiceTable("fusion_up", "fusion", [edge.name for edge in UPS], UP_OPERATORS)
        return {table.name: table for table in (cell, fusion, up)}

    def log10_size(self) -> float:
        """Of the number of ways to choose (those that leave a node without inputs, or give equal networks, counted)."""
        edges = len(self.groups) * len(CELL_EDGES)
        return (
            edges * math.log10(len(CELL_OPERATORS))
            + len(SEARCHED) * math.log10(len(FUSION_OPERATORS))
            + len(UPS) * math.log10(len(UP_OPERATORS))
        )

    def widest(self, classes: int) -> LGCNetGenotype:
        """The network with the most parameters: a 3x3 convolution on every edge, deconvolutions."""
        conv: CellOperator = "conv"
        fusion: FusionOperator = "conv3x3"
        up: UpOperator = "deconvolution"
        return LGCNetGenotype(
            schema=SCHEMA,
            space="lgcnet",
            classes=classes,
            stem=self.stem,
            reductions=self.reductions,
            cells=(cell_of((conv,) * len(CELL_EDGES)),) * self.length,
            fusion_channels=self.fusion_channels,
            fusion=(fusion,) * len(SEARCHED),
            fusion_up=(up,) * len(UPS),
        )

    def max_params(self, classes: int) -> int:
        """The upper bound of the parameters of a network of this space."""
        return self.widest(classes).cost(LGCNetGenotype.size_rule.nearest(Size(1, 1))).params
