"""What a relaxed LGCNet network costs: its operators with their probabilities, and the cheapest network that is left.

Choices are taken as independent. A cell is there if it is read by one that is, so the probability is followed from the
last cell to the first; operators of equal shapes are added up. The expectation is exact for independent cells; where
cells share their choices it is exact once those are decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from ...choices import Alive, Weights
from ...costs.expected import Part, Price
from ...costs.shapes import Shape, ShapeGrid
from ...errors import SearchFailedError
from ...sizes import Size
from .genotype import (
    cell_stage,
    edge_shape,
    fusion_input_shapes,
    fusion_shape,
    head_shape,
    input_shape,
    stem_shapes,
    up_shape,
)
from .operators import FUSION_OPERATORS, PRESENT, UP_OPERATORS
from .search_space import LGCNetSearchSpace
from .validity import HERE, NONE, by_group
from .wiring import CELL_EDGES, INTO, RATES, READS, SEARCHED, UPS, living, maps_of


@dataclass(frozen=True, eq=False)
class Grids:
    """Operators of a space at an image size.

    Attributes:
        edges: of the cells: shapes x `PRESENT`, with the rate of the cells that have them.
        edge_grid: cells x `CELL_EDGES`, the number of its grid in `edges`.
        inputs: by rate of the cells: cells x (i1, i2).
        stem, fusion_inputs, head: what every network has.
        fusion, ups: edges x candidates.
    """

    stem: ShapeGrid
    edges: tuple[tuple[int, ShapeGrid], ...]
    edge_grid: np.ndarray
    inputs: dict[int, ShapeGrid]
    fusion_inputs: ShapeGrid
    fusion: ShapeGrid
    ups: ShapeGrid
    head: ShapeGrid

    def all(self) -> Iterator[ShapeGrid]:
        """Every grid."""
        yield self.stem
        yield from (grid for _, grid in self.edges)
        yield from self.inputs.values()
        yield from (self.fusion_inputs, self.fusion, self.ups, self.head)


@lru_cache(maxsize=16)
def grids(space: LGCNetSearchSpace, classes: int, size: Size) -> Grids:
    """All operators that a network of the space may have."""
    maps, wide, cells = maps_of(size), space.fusion_channels, space.places
    found: dict[tuple[int, tuple[Shape, ...]], int] = {}
    edge_grid = np.zeros((len(cells), len(CELL_EDGES)), dtype=int)
    for place in cells:
        for edge in range(len(CELL_EDGES)):
            shapes = tuple(edge_shape(place, edge, operator, maps) for operator in PRESENT)
            edge_grid[place.index, edge] = found.setdefault((place.rate, shapes), len(found))
    inputs = {}
    for rate in RATES:
        there = [place for place in cells if place.rate == rate]
        inputs[rate] = ShapeGrid.of((input_shape(place, i, maps) for place in there for i in (0, 1)), len(there), 2)
    fusion = (fusion_shape(i, name, wide, maps) for i in range(len(SEARCHED)) for name in FUSION_OPERATORS)
    ups = (up_shape(i, name, wide, maps) for i in range(len(UPS)) for name in UP_OPERATORS)
    return Grids(
        stem=ShapeGrid.of(stem_shapes(space.stem, maps)),
        edges=tuple((rate, ShapeGrid.of(shapes)) for rate, shapes in found),
        edge_grid=edge_grid,
        inputs=inputs,
        fusion_inputs=ShapeGrid.of(fusion_input_shapes(space.stem, wide, maps)),
        fusion=ShapeGrid.of(fusion, len(SEARCHED), len(FUSION_OPERATORS)),
        ups=ShapeGrid.of(ups, len(UPS), len(UP_OPERATORS)),
        head=ShapeGrid.of([head_shape(wide, classes, maps)]),
    )


def shapes_of_space(space: LGCNetSearchSpace, classes: int, size: Size) -> dict[str, Shape]:
    """Every operator that a network of the space may have at an image of `size`, by its key."""
    return {shape.key: shape for grid in grids(space, classes, size).all() for shape in grid.shapes}


def _either(present: Tensor, edges: tuple[int, ...]) -> Tensor:
    """How probable it is that one of some edges at least is there."""
    return 1 - torch.stack([1 - present[:, edge] for edge in edges]).prod(dim=0)


def _there(space: LGCNetSearchSpace, reads: Tensor) -> Tensor:
    """How probable it is that each cell is there.

    Args:
        reads: cells x 2, how probable it is that a cell reads i1, and i2, if it is there.
    """
    fused, last = set(space.fused), len(space.places) - 1
    one = reads.new_ones(())
    # Of (this cell is read, the one before it is read): both, this alone, the other alone, none.
    above = one * float(last - 1 in fused)
    both, alone, other, neither = above, 1 - above, 0 * one, 0 * one
    found = []
    for index in range(last, -1, -1):
        found.append(both + alone)
        first, second = reads[index]
        kept = float(index - 2 in fused)
        reached = second + (1 - second) * kept
        with_, without = both + alone * first, alone * (1 - first)
        both, alone, other, neither = (
            with_ * reached + other * kept,
            with_ * (1 - reached) + other * (1 - kept),
            without * reached + neither * kept,
            without * (1 - reached) + neither * (1 - kept),
        )
    return torch.stack(found[::-1])


def parts(space: LGCNetSearchSpace, classes: int, weights: Weights, size: Size) -> list[Part]:
    """What the derived network is made of, and how often each operator is expected in it.

    Args:
        classes: of the last convolution.
        weights: of the tables of `space`.
        size: of the image.

    Returns:
        Parts in float64, differentiable in `weights`, that sum to `LGCNetGenotype.cost(size)` for one-hot weights.
    """
    made = grids(space, classes, size)
    dense = weights["cell"].double().view(len(space.groups), len(CELL_EDGES), -1)[list(space.group_of)]
    operators = dense[:, :, HERE.tolist()]
    present = operators.sum(dim=2)
    reads = torch.stack([_either(present, edges) for edges in READS], dim=1)
    there = _there(space, reads)
    always = there.new_ones
    found = [Part("stem", made.stem, always(len(made.stem.operators)))]
    expected = (there[:, None, None] * operators).flatten(0, 1)
    number = torch.as_tensor(made.edge_grid.ravel(), device=expected.device)
    sums = expected.new_zeros(len(made.edges), expected.shape[1]).index_add(0, number, expected)
    for rate in RATES:
        rows = [place.index for place in space.places if place.rate == rate]
        found.append(Part(cell_stage(rate), made.inputs[rate], there[rows, None] * reads[rows]))
        found += [
            Part(cell_stage(rate), grid, row) for row, (at, grid) in zip(sums, made.edges, strict=True) if at == rate
        ]
    found.append(Part("fusion", made.fusion_inputs, always(len(made.fusion_inputs.operators))))
    found.append(Part("fusion", made.fusion, weights["fusion"].double()))
    found.append(Part("fusion", made.ups, weights["fusion_up"].double()))
    found.append(Part("head", made.head, always(1)))
    return found


def _patterns() -> np.ndarray:
    """Which edges of a cell may be there: patterns x edges; every node has one at least."""
    every = np.array(list(product((False, True), repeat=len(CELL_EDGES))))
    return every[np.all([every[:, list(edges)].any(axis=1) for edges in INTO], axis=0)]


_PATTERNS = _patterns()
_PATTERN_READS = np.stack([_PATTERNS[:, list(edges)].any(axis=1) for edges in READS], axis=1)


@dataclass(frozen=True, eq=False)
class _Priced:
    """Prices of a space's operators: cells x edges x `PRESENT`, and cells x (i1, i2)."""

    edges: np.ndarray
    inputs: np.ndarray


def _priced(space: LGCNetSearchSpace, made: Grids, price: Price) -> _Priced:
    by_grid = np.stack([grid.priced(price) for _, grid in made.edges])
    inputs = np.zeros((len(space.places), 2))
    for rate, grid in made.inputs.items():
        inputs[[place.index for place in space.places if place.rate == rate]] = grid.priced(price)
    return _Priced(by_grid[made.edge_grid], inputs)


def cheapest(space: LGCNetSearchSpace, classes: int, alive: Alive, price: Price, size: Size) -> Alive:
    """The cheapest network that is left, found exactly: edges of a cell depend on each other by what they read alone.

    Args:
        alive: of the tables of `space`.
        price: of an operator, not negative; the network's is the sum.

    Returns:
        One candidate a choice; those of cells that nothing reads have none.

    Raises:
        SearchFailedError: `alive` holds no network.
    """
    made = grids(space, classes, size)
    found = {name: np.zeros_like(mask) for name, mask in alive.items()}
    for name, grid in (("fusion", made.fusion), ("fusion_up", made.ups)):
        costs = np.where(alive[name], grid.priced(price), np.inf)
        found[name][np.arange(len(costs)), costs.argmin(axis=1)] = True
    priced, mask, groups = _priced(space, made, price), by_group(alive["cell"]), by_group(found["cell"])
    decide = _shared if space.cells == "shared" else _independent
    for group, pattern, members in decide(space, priced, mask):
        costs = np.where(mask[group][:, HERE], priced.edges[members].sum(axis=0), np.inf)
        for edge, taken in enumerate(_PATTERNS[pattern]):
            groups[group, edge, HERE[costs[edge].argmin()] if taken else NONE] = True
    return found


Decided = list[tuple[int, int, list[int]]]


def _pattern_costs(edges: np.ndarray, inputs: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What each of `_PATTERNS` costs at least, infinite where it is not left.

    Args:
        edges, inputs: prices, edges x `PRESENT`, and those of i1 and i2.
        mask: edges x candidates.
    """
    taken = np.where(mask[:, HERE], edges, np.inf).min(axis=1)
    left = np.where(mask[:, NONE], 0.0, np.inf)
    total: np.ndarray = np.where(_PATTERNS, taken, left).sum(axis=1) + np.where(_PATTERN_READS, inputs, 0.0).sum(axis=1)
    return total


def _failed() -> SearchFailedError:
    return SearchFailedError("no network is left", where="cell", fix="lower the threshold of the strategy")


def _independent(space: LGCNetSearchSpace, priced: _Priced, mask: np.ndarray) -> Decided:
    """Group, pattern and cells of each group that is there."""
    cells, fused = len(space.places), set(space.fused)
    costs = [_pattern_costs(priced.edges[k], priced.inputs[k], mask[k]) for k in range(cells)]

    @cache
    def best(index: int, read: bool, before: bool) -> tuple[float, int]:
        """The least that cells 0 to `index` cost, and the pattern of this one (-1 where it is not there).

        Args:
            read, before: whether this cell is read, and the one before it.
        """
        if index < 0:
            return 0.0, -1
        above = index - 2 in fused
        if not read:
            return best(index - 1, before, above)[0], -1
        totals = [
            cost + best(index - 1, before or bool(first), above or bool(second))[0]
            for cost, (first, second) in zip(costs[index], _PATTERN_READS, strict=True)
        ]
        least = int(np.argmin(totals))
        return totals[least], least

    if not np.isfinite(best(cells - 1, True, cells - 2 in fused)[0]):
        raise _failed()
    found, read, before = [], True, cells - 2 in fused
    for index in range(cells - 1, -1, -1):
        pattern, above = best(index, read, before)[1], index - 2 in fused
        if pattern >= 0:
            found.append((index, pattern, [index]))
            before, above = before or bool(_PATTERN_READS[pattern, 0]), above or bool(_PATTERN_READS[pattern, 1])
        read, before = before, above
    return found


def _shared(space: LGCNetSearchSpace, priced: _Priced, mask: np.ndarray) -> Decided:
    """As `_independent`, by trying all patterns of both cells."""
    best: tuple[float, Decided] = (np.inf, [])
    reads = [(bool(first), bool(second)) for first, second in _PATTERN_READS]
    costs = cache(partial(_of_members, priced, mask))
    for pair in product(range(len(_PATTERNS)), repeat=2):
        alive = living([reads[pair[group]] for group in space.group_of], space.fused)
        decided, total = [], 0.0
        for group in (0, 1):
            members = tuple(k for k, lives in enumerate(alive) if lives and space.group_of[k] == group)
            if members:
                decided.append((group, pair[group], list(members)))
                total += float(costs(group, members)[pair[group]])
        if total < best[0]:
            best = total, decided
    if not np.isfinite(best[0]):
        raise _failed()
    return best[1]


def _of_members(priced: _Priced, mask: np.ndarray, group: int, members: tuple[int, ...]) -> np.ndarray:
    rows = list(members)
    return _pattern_costs(priced.edges[rows].sum(axis=0), priced.inputs[rows].sum(axis=0), mask[group])
