"""How an LGCNet network is wired: what each cell reads, which cells live, and the graph of the fusion cell.

Source: Cheng et al., section III and Fig. 3 to 5. A cell has two input nodes (i1: the cell before, i2: the one before
that), two intermediate nodes x1 and x2, and gives out both, concatenated (Eq. 2).

What the paper leaves open and is chosen here: cell 0 stands at stride 4, so that behind a stem with strides 2, 2 and 1
the reduction cells of 14 are 1 and 8; i1 and i2 of cell 0 are the outputs of the third and the second convolution of
the stem; 1x1 convolutions (strided where a resolution lies between) take what a cell reads to its own channels, and are
absent where none of its edges reads that input; the fusion cell reads the last cell of each resolution (0, 7 and 13);
its 13 edges over 9 nodes are `FUSION_EDGES`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...cost import shrink
from ...sizes import Size

#: Edges of a cell, in the order of the architecture parameters.
CELL_EDGES = (("i1", "x1"), ("i2", "x1"), ("i1", "x2"), ("i2", "x2"), ("x1", "x2"))
EDGE_NAMES = tuple(f"{source}-{target}" for source, target in CELL_EDGES)
#: Edges that read i1, and i2; edges that lead to x1, and to x2.
READS = ((0, 2), (1, 3))
INTO = ((0, 1), (2, 3, 4))
RATES = (4, 8, 16)


class Edge(NamedTuple):
    """Of the fusion cell."""

    source: str
    target: str

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"


#: Rate of each node: three branches that begin with what cells 0, 7 and 13 give and end at 1/4, where they are summed.
FUSION_NODES = {"a0": 4, "b0": 8, "c0": 16, "c1": 16, "b1": 8, "c2": 8, "c3": 4, "b2": 4, "a1": 4}
FUSION_INPUTS = ("a0", "b0", "c0")
FUSION_OUTPUTS = ("a1", "b2", "c3")
#: In an order in which they can be computed. Where the rate changes it is an "Up x2" edge; a node concatenates.
FUSION_EDGES = tuple(
    Edge(*pair.split("-"))
    for pair in (
        "c0-c1",
        "b0-b1",
        "c1-c2",
        "b1-c2",
        "c2-c3",
        "b1-c3",
        "a0-c3",
        "b1-b2",
        "c3-b2",
        "a0-b2",
        "c3-a1",
        "b2-a1",
        "a0-a1",
    )
)
#: Those with the operators of Table III, and the "Up x2" ones, in that order.
SEARCHED = tuple(edge for edge in FUSION_EDGES if FUSION_NODES[edge.source] == FUSION_NODES[edge.target])
UPS = tuple(edge for edge in FUSION_EDGES if FUSION_NODES[edge.source] != FUSION_NODES[edge.target])


def fusion_inputs_of(node: str) -> int:
    """How many maps a node of the fusion cell concatenates; 1 for its inputs."""
    return max(1, sum(edge.target == node for edge in FUSION_EDGES))


@dataclass(frozen=True)
class Input:
    """What an input node of a cell is.

    Attributes:
        source: a cell's number; -1 and -2 are the third and the second convolution of the stem.
        channels: that it gives.
        stride: of the 1x1 convolution that takes it to the cell's channels and resolution.
        rate: of its map.
    """

    source: int
    channels: int
    stride: int
    rate: int


@dataclass(frozen=True)
class Place:
    """A cell in its network.

    Attributes:
        channels: of each of its nodes; it gives out twice as many.
        stride: of the operators that read the input nodes: 2 in a reduction cell.
        rate: of its output.
        inputs: i1 and i2.
    """

    index: int
    channels: int
    stride: int
    rate: int
    inputs: tuple[Input, Input]

    @property
    def rate_in(self) -> int:
        """Of the map that its edges read."""
        return self.rate // self.stride

    def edge_stride(self, edge: int) -> int:
        """Of the operators of one of `CELL_EDGES`."""
        return self.stride if CELL_EDGES[edge][0] != "x1" else 1

    def edge_rate(self, edge: int) -> int:
        """Of the map that the operators of one of `CELL_EDGES` read."""
        return self.rate // self.edge_stride(edge)


def stem_channels(stem: int) -> tuple[int, int, int]:
    """Of the three convolutions: each doubles, so that 8 gives the cells at 1/4 32 channels a node."""
    return stem, 2 * stem, 4 * stem


def places(cells: int, reductions: Sequence[int], stem: int) -> tuple[Place, ...]:
    """Every cell in its place; nodes have 4 times the stem's channels at 1/4, twice as many behind each reduction."""
    _, second, third = stem_channels(stem)
    gives = {-2: (second, 4), -1: (third, 4)}
    found = []
    for index in range(cells):
        rate_in = gives[index - 1][1]
        stride = 2 if index in reductions else 1
        channels = stem * rate_in * stride
        sources = [(source, *gives[source]) for source in (index - 1, index - 2)]
        i1, i2 = (Input(source, wide, rate_in // rate, rate) for source, wide, rate in sources)
        found.append(Place(index, channels, stride, rate_in * stride, (i1, i2)))
        gives[index] = (2 * channels, rate_in * stride)
    return tuple(found)


def fused_cells(cells: int, reductions: Sequence[int]) -> tuple[int, int, int]:
    """The last cell at 1/4, 1/8 and 1/16: what the fusion cell reads."""
    first, second = reductions
    return first - 1, second - 1, cells - 1


def living(reads: Sequence[tuple[bool, bool]], fused: Collection[int]) -> list[bool]:
    """Which cells have a way to the fusion cell.

    Args:
        reads: of each cell, whether it reads i1, and i2.
        fused: cells that the fusion cell reads.
    """
    alive = [index in fused for index in range(len(reads))]
    for index in range(len(reads) - 1, 0, -1):
        if alive[index]:
            first, second = reads[index]
            alive[index - 1] |= first
            if index > 1:
                alive[index - 2] |= second
    return alive


def maps_of(image: Size) -> dict[int, Size]:
    """Size of the maps at each rate, from 1 to 16: halved and rounded up."""
    found = {1: image}
    for rate in (2, 4, 8, 16):
        found[rate] = shrink(found[rate // 2], 2)
    return found
