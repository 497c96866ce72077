"""What the LGCNet search chooses: an operator for each edge of each cell, and for each edge of the fusion cell.

Source: Cheng et al. (LGCNet, which extends GAS), section III, Tables II and III. See `wiring` for what the paper leaves
open and is chosen here. Equal networks have one spelling: a cell that nothing reads is written with all edges `none`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...cost import Stage, StageCounter
from ...costs.shapes import Shape
from ...genotype import Genotype, Part
from ...sizes import Size, SizeRule
from .operators import CellEdge, CellOperator, ConvUnit, FusionEdge, FusionOperator, Head, UpEdge, UpOperator
from .wiring import (
    CELL_EDGES,
    FUSION_EDGES,
    FUSION_INPUTS,
    FUSION_NODES,
    FUSION_OUTPUTS,
    INTO,
    RATES,
    READS,
    SEARCHED,
    UPS,
    Place,
    fused_cells,
    fusion_inputs_of,
    living,
    maps_of,
    places,
    stem_channels,
)

MIN_CELLS, MAX_CELLS = 3, 64
Width = Annotated[int, Field(ge=1, le=1024)]


class LGCNetCell(Part):
    """A cell: which operator each edge has; `none` where there is no edge (Fig. 4)."""

    x1: tuple[CellOperator, CellOperator] = Field(description="of node x1: on i1 (the cell before) and i2")
    x2: tuple[CellOperator, CellOperator, CellOperator] = Field(description="of node x2: on i1, i2 and x1")

    @property
    def edges(self) -> tuple[CellOperator, ...]:
        """In the order of `wiring.CELL_EDGES`."""
        return (*self.x1, *self.x2)

    @property
    def reads(self) -> tuple[bool, bool]:
        """Whether it reads i1, and i2."""
        first, second = (any(self.edges[edge] != "none" for edge in edges) for edges in READS)
        return first, second


ABSENT = LGCNetCell(x1=("none", "none"), x2=("none", "none", "none"))


def cell_of(edges: tuple[CellOperator, ...]) -> LGCNetCell:
    """A cell with these operators, in the order of `wiring.CELL_EDGES`."""
    return LGCNetCell(x1=(edges[0], edges[1]), x2=(edges[2], edges[3], edges[4]))


class LGCNetGenotype(Genotype):
    """A discrete network of the LGCNet space."""

    space: Literal["lgcnet"]
    stem: Width = Field(
        description="channels of the first of the three convolutions; each doubles, and so does each reduction cell: "
        "nodes of the cells at 1/4 have four times as many"
    )
    reductions: tuple[Annotated[int, Field(ge=1, le=MAX_CELLS)], Annotated[int, Field(ge=1, le=MAX_CELLS)]] = Field(
        description="numbers of the cells that halve the resolution, to 1/8 and to 1/16 (published, of 14: 1 and 8)"
    )
    cells: Annotated[tuple[LGCNetCell, ...], Field(min_length=MIN_CELLS, max_length=MAX_CELLS)]
    fusion_channels: Width = Field(description="of each map in the fusion cell (published: 48)")
    fusion: Annotated[tuple[FusionOperator, ...], Field(min_length=len(SEARCHED), max_length=len(SEARCHED))] = Field(
        description="operators of the fusion cell's edges " + ", ".join(edge.name for edge in SEARCHED)
    )
    fusion_up: Annotated[tuple[UpOperator, ...], Field(min_length=len(UPS), max_length=len(UPS))] = Field(
        description='operators of its "Up x2" edges ' + ", ".join(edge.name for edge in UPS)
    )

    # Any size: maps are halved and rounded up, and "Up x2" goes to the finer map's size. At 1/16 there are 2 x 2.
    size_rule: ClassVar[SizeRule] = SizeRule(multiple=1, minimum=32)

    @model_validator(mode="after")
    def _reductions_in_order(self) -> Self:
        first, second = self.reductions
        if not first < second < len(self.cells):
            raise ValueError(
                f"reductions: got {first} and {second}, allowed two numbers of cells in ascending order, "
                f"the second at most {len(self.cells) - 1}"
            )
        return self

    @model_validator(mode="after")
    def _every_node_is_reached(self) -> Self:
        alive = self.live_cells()
        for index, cell in enumerate(self.cells):
            for node, edges in zip(("x1", "x2"), INTO, strict=True):
                if alive[index] and all(cell.edges[edge] == "none" for edge in edges):
                    raise ValueError(
                        f'cells[{index}].{node}: reads nothing, and the cell is read: got "none" on every edge, '
                        'allowed an operator other than "none" on one at least'
                    )
        for index, cell in enumerate(self.cells):
            if not alive[index] and cell != ABSENT:
                raise ValueError(
                    f"cells[{index}]: nothing reads it; equal networks must have one spelling, so write all its edges "
                    'as "none"'
                )
        return self

    def live_cells(self) -> list[bool]:
        """Which cells have a way to the fusion cell."""
        return living([cell.reads for cell in self.cells], fused_cells(len(self.cells), self.reductions))

    def places(self) -> tuple[Place, ...]:
        """Every cell in its place."""
        return places(len(self.cells), self.reductions, self.stem)

    def stage_costs(self, size: Size) -> Iterator[Stage]:
        counters: dict[str, StageCounter] = {}
        for stage, shape in shapes_of(self, size):
            shape.count(counters.setdefault(stage, StageCounter(stage)))
        return (counter.stage() for counter in counters.values())


def cell_stage(rate: int) -> str:
    """What the cells at a rate are called among the stages."""
    return f"cells 1/{rate}"


def shapes_of(genotype: LGCNetGenotype, image: Size) -> Iterator[tuple[str, Shape]]:
    """Every operator of a network with its stage, in the order they run, for an image of this size."""
    maps = maps_of(image)
    yield from (("stem", shape) for shape in stem_shapes(genotype.stem, maps))
    for place, cell in zip(genotype.places(), genotype.cells, strict=True):
        stage = cell_stage(place.rate)
        for which, read in enumerate(cell.reads):
            if read:
                yield stage, input_shape(place, which, maps)
        for edge, operator in enumerate(cell.edges):
            if operator != "none":
                yield stage, edge_shape(place, edge, operator, maps)
    wide = genotype.fusion_channels
    yield from (("fusion", shape) for shape in fusion_input_shapes(genotype.stem, wide, maps))
    for index, fusion in enumerate(genotype.fusion):
        yield "fusion", fusion_shape(index, fusion, wide, maps)
    for index, up in enumerate(genotype.fusion_up):
        yield "fusion", up_shape(index, up, wide, maps)
    yield "head", head_shape(wide, genotype.classes, maps)


def stem_shapes(stem: int, maps: dict[int, Size]) -> tuple[Shape, ...]:
    """The three convolutions, to 1/2, 1/4 and 1/4."""
    first, second, third = stem_channels(stem)
    return (
        ConvUnit(maps[1], 3, first, 3, 2),
        ConvUnit(maps[2], first, second, 3, 2),
        ConvUnit(maps[4], second, third, 3, 1),
    )


def input_shape(place: Place, which: int, maps: dict[int, Size]) -> Shape:
    """What takes i1 (`which` 0) or i2 (1) to the channels and the resolution of the cell."""
    source = place.inputs[which]
    # The cell's own rate is reached behind its edges, so the nodes' channels are met before.
    return ConvUnit(maps[source.rate], source.channels, place.channels, 1, source.stride)


def edge_shape(place: Place, edge: int, operator: CellOperator, maps: dict[int, Size]) -> Shape:
    """An operator on one of `CELL_EDGES` of a cell."""
    return CellEdge(maps[place.edge_rate(edge)], operator, place.channels, place.edge_stride(edge))


def fusion_input_shapes(stem: int, channels: int, maps: dict[int, Size]) -> tuple[Shape, ...]:
    """What takes the outputs of the three cells to the channels of the fusion cell."""
    return tuple(ConvUnit(maps[rate], 2 * stem * rate, channels, 1, 1) for rate in RATES)


def fusion_shape(index: int, operator: FusionOperator, channels: int, maps: dict[int, Size]) -> Shape:
    """An operator on one of `SEARCHED`."""
    source = SEARCHED[index].source
    return FusionEdge(maps[FUSION_NODES[source]], operator, channels * fusion_inputs_of(source), channels)


def up_shape(index: int, operator: UpOperator, channels: int, maps: dict[int, Size]) -> Shape:
    """An operator on one of `UPS`."""
    source, target = UPS[index]
    inputs = channels * fusion_inputs_of(source)
    return UpEdge(maps[FUSION_NODES[source]], operator, inputs, channels, maps[FUSION_NODES[target]])


def head_shape(channels: int, classes: int, maps: dict[int, Size]) -> Shape:
    """The sum of the final maps, and the classifier."""
    return Head(maps[4], channels * fusion_inputs_of(FUSION_OUTPUTS[0]), classes, maps[1])


# What the counts above and the network rest on.
assert len(FUSION_NODES) == 9
assert len(FUSION_EDGES) == 13
assert len({fusion_inputs_of(node) for node in FUSION_OUTPUTS}) == 1
assert len(CELL_EDGES) == 5
assert set(FUSION_INPUTS) < set(FUSION_NODES)
