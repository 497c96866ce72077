"""Cells and fusion cell of the LGCNet supernet: every live operator on every edge, mixed by weights (Eq. 3).

Operators of weight 0 are not computed, so that a sampled one-hot weight runs what it samples; so are cells that nothing
reads then. Modules are named as those of the discrete network, with the operator's name between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...blocks import ConvNormAct
from ...choices import numbers_of
from ...recomputing import recomputed
from ...sizes import Size
from .network import cell_operator, edge_key, fused, fusion_operator, input_unit, up_operator
from .operators import CELL_OPERATORS, FUSION_OPERATORS, PRESENT, UP_OPERATORS
from .wiring import (
    CELL_EDGES,
    FUSION_INPUTS,
    INTO,
    READS,
    SEARCHED,
    UPS,
    Place,
    fusion_inputs_of,
)

#: The columns of a row of weights that are not 0.
Columns = frozenset[int]


def nonzero_columns(weights: Tensor) -> list[Columns]:
    """Of each row, the columns of what is to be computed: all where no number can be read, see `numbers_of`."""
    numbers = numbers_of(weights)
    if numbers is None:
        return [frozenset(range(weights.shape[1]))] * len(weights)
    return [frozenset(np.flatnonzero(row).tolist()) for row in numbers]


class MixedEdge(nn.ModuleDict):
    """The live operators of an edge, by name; none of them on an edge that is gone."""

    def __init__(self, operators: Mapping[str, nn.Module], candidates: Sequence[str]) -> None:
        super().__init__(operators)
        self.candidates = tuple(candidates)

    def computed(self, columns: Columns) -> list[tuple[int, nn.Module]]:
        """Columns and modules of what is computed."""
        return [(c, self[name]) for c, name in enumerate(self.candidates) if c in columns and name in self]

    def forward(self, weights: Tensor, columns: Columns, *inputs: object) -> Tensor:
        """The weighted sum over what is computed, which must not be nothing."""
        found = [weights[column] * module(*inputs) for column, module in self.computed(columns)]
        return sum(found[1:], start=found[0])

    def keep(self, alive: Sequence[bool]) -> None:
        """Remove the operators that do not live."""
        for name, lives in zip(self.candidates, alive, strict=True):
            if not lives and name in self:
                del self[name]


class MixedCell(nn.Module):
    """A cell with all live operators; see `network.Cell`."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.inputs = nn.ModuleDict({f"i{which + 1}": input_unit(place, which) for which in (0, 1)})
        self.edges = nn.ModuleDict(
            {
                edge_key(*CELL_EDGES[edge]): MixedEdge(
                    {name: cell_operator(name, place.channels, place.edge_stride(edge)) for name in PRESENT},
                    CELL_OPERATORS,
                )
                for edge in range(len(CELL_EDGES))
            }
        )

    def _edge(self, edge: int) -> MixedEdge:
        found = self.edges[edge_key(*CELL_EDGES[edge])]
        assert isinstance(found, MixedEdge)
        return found

    def reads(self, columns: Sequence[Columns]) -> tuple[bool, bool]:
        """Whether i1, and i2, is read by what is computed."""
        first, second = (any(self._edge(edge).computed(columns[edge]) for edge in edges) for edges in READS)
        return first, second

    def forward(
        self,
        maps: Mapping[int, Tensor],
        size: Size,
        weights: Tensor,
        columns: Sequence[Columns],
        *,
        checkpointing: bool = False,
    ) -> Tensor:
        """Mix the operators.

        Args:
            maps: what cells and stem gave, by their numbers.
            size: of the output.
            weights: 5 x 8; a node that nothing is computed for is zeros.
            columns: of each row of `weights`, what is not 0.
            checkpointing: compute the operators again in the backward pass.
        """
        if not checkpointing:
            return self._mixed(maps, size, weights, columns)
        # Held until the backward pass: no more than what is read, and what tells the type of zeros.
        sources = {place.source for place, read in zip(self.place.inputs, self.reads(columns), strict=True) if read}
        read = {source: maps[source] for source in sources | {-1}}
        found: Tensor = recomputed(self, self._mixed, read, size, weights, columns)
        return found

    def _mixed(self, maps: Mapping[int, Tensor], size: Size, weights: Tensor, columns: Sequence[Columns]) -> Tensor:
        nodes = {
            f"i{which + 1}": self.inputs[f"i{which + 1}"](maps[self.place.inputs[which].source])
            for which, read in enumerate(self.reads(columns))
            if read
        }
        for target, into in zip(("x1", "x2"), INTO, strict=True):
            found = [
                self._edge(i)(weights[i], columns[i], nodes[CELL_EDGES[i][0]])
                for i in into
                if self._edge(i).computed(columns[i])
            ]
            nodes[target] = sum(found[1:], start=found[0]) if found else self._zeros(maps[-1], size)
        return torch.cat([nodes["x1"], nodes["x2"]], dim=1)

    def _zeros(self, like: Tensor, size: Size) -> Tensor:
        return like.new_zeros(len(like), self.place.channels, *size)

    def keep(self, alive: Sequence[Sequence[bool]]) -> None:
        """Remove the operators that do not live, and what took inputs to them that nothing reads any more."""
        for edge, lives in enumerate(alive):
            self._edge(edge).keep(lives)
        for which, edges in enumerate(READS):
            name = f"i{which + 1}"
            if name in self.inputs and not any(len(self._edge(edge)) for edge in edges):
                del self.inputs[name]


class MixedFusionCell(nn.Module):
    """The fusion cell with all live operators; see `network.FusionCell`."""

    def __init__(self, cells: Sequence[Place], wide: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(
            {name: ConvNormAct(2 * place.channels, wide, 1) for name, place in zip(FUSION_INPUTS, cells, strict=True)}
        )
        made: dict[str, nn.Module] = {}
        for edge in SEARCHED:
            inputs = wide * fusion_inputs_of(edge.source)
            operators: dict[str, nn.Module] = {name: fusion_operator(name, inputs, wide) for name in FUSION_OPERATORS}
            made[edge_key(*edge)] = MixedEdge(operators, FUSION_OPERATORS)
        for edge in UPS:
            inputs = wide * fusion_inputs_of(edge.source)
            made[edge_key(*edge)] = MixedEdge({n: up_operator(n, inputs, wide) for n in UP_OPERATORS}, UP_OPERATORS)
        self.edges = nn.ModuleDict(made)

    def forward(self, maps: Sequence[Tensor], fusion: Tensor, ups: Tensor, *, checkpointing: bool = False) -> Tensor:
        """Of the maps of three cells, and the weights of `SEARCHED` and of `UPS`.

        Args:
            checkpointing: compute the operators of each edge again in the backward pass.
        """
        rows = {edge: fusion[index] for index, edge in enumerate(SEARCHED)}
        rows |= {edge: ups[index] for index, edge in enumerate(UPS)}
        read = dict(zip((*SEARCHED, *UPS), nonzero_columns(fusion) + nonzero_columns(ups), strict=True))

        def computed(source: str, target: str, x: Tensor, size: Sequence[int]) -> Tensor:
            edge = (source, target)
            module = self.edges[edge_key(source, target)]
            given = (rows[edge], read[edge], *((x, size) if edge in UPS else (x,)))  # type: ignore[index]
            out: Tensor = recomputed(module, module, *given) if checkpointing else module(*given)
            return out

        inputs = {name: unit(x) for (name, unit), x in zip(self.inputs.items(), maps, strict=True)}
        return fused(inputs, computed)

    def keep(self, fusion: Sequence[Sequence[bool]], ups: Sequence[Sequence[bool]]) -> None:
        """Remove the operators that do not live."""
        for edge, lives in zip((*SEARCHED, *UPS), (*fusion, *ups), strict=True):
            module = self.edges[edge_key(*edge)]
            assert isinstance(module, MixedEdge)
            module.keep(lives)
