"""What a relaxed DCNAS network costs, and the cheapest network that is left.

A connection is kept with the probability 1 - (1 - p)^n, that of being drawn at least once in n draws, n being what a
module may keep; a module is there where something that is there keeps a connection from it; the stem is as deep as
something reads it. Connections and modules are taken as independent, which is exact where all is decided and an
approximation before: a module that is read along two ways which both hang on a third is counted as too probable.

The cheapest network is exact. No price is negative, so it has one connection a module, and is a tree out of the stem
that ends in the four modules of the last layer: a Steiner tree in a graph without cycles, for four ends found by going
through the modules backwards with the cheapest tree for each set of ends (Dreyfus and Wagner, Networks 1971).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ...choices import Alive, Weights
from ...costs.expected import Part, Price
from ...costs.shapes import Shape, ShapeGrid
from ...errors import SearchFailedError
from ...sizes import Size
from .decoding import reached
from .genotype import RATES, stage_name
from .operators import Block, Classifier, Connection, HeadInput, StemLevel
from .search_space import DCNASSearchSpace

_ENDS = len(RATES)
_ALL = (1 << _ENDS) - 1
#: Of each set of ends, the ways to part it in two.
_PARTED = [[(a, ends ^ a) for a in range(1, ends) if a & ends == a and a < ends ^ a] for ends in range(_ALL + 1)]


@dataclass(frozen=True, eq=False)
class _Grids:
    """Operators of a space at an image size.

    Attributes:
        stem: by rate.
        connections: of each target rate, by the rate of the source.
        blocks: of each rate, by operator.
        head: all of it, always there.
    """

    stem: ShapeGrid
    connections: tuple[ShapeGrid, ...]
    blocks: tuple[ShapeGrid, ...]
    head: ShapeGrid

    def all(self) -> Iterator[ShapeGrid]:
        """Every grid."""
        yield from (self.stem, *self.connections, *self.blocks, self.head)


@lru_cache(maxsize=16)
def _grids(space: DCNASSearchSpace, classes: int, size: Size) -> _Grids:
    channels = space.channels
    return _Grids(
        stem=ShapeGrid.of(StemLevel.of(size, space.stem, channels, rate) for rate in RATES),
        connections=tuple(ShapeGrid.of(Connection(size, channels, s, rate) for s in RATES) for rate in RATES),
        blocks=tuple(ShapeGrid.of(Block(size, channels, rate, k, e) for k, e in space.operators()) for rate in RATES),
        head=ShapeGrid.of(
            [*(HeadInput(size, channels, rate, space.head) for rate in RATES), Classifier(size, space.head, classes)]
        ),
    )


def shapes_of_space(space: DCNASSearchSpace, classes: int, size: Size) -> dict[str, Shape]:
    """Every operator that a network of the space may have at an image of `size`, by its key."""
    return {shape.key: shape for grid in _grids(space, classes, size).all() for shape in grid.shapes}


def keeping(p: Tensor, alive: np.ndarray, keeps: int) -> Tensor:
    """How probable it is that each connection is kept: 1 - (1 - p)^keeps; for sure where the choice is decided.

    Args:
        p: modules x sources.
        alive: what lives in the table, the same shape.
    """
    chance = 1 - (1 - p).clamp(min=0) ** keeps
    decided = torch.from_numpy(alive.sum(axis=1, keepdims=True) <= keeps).to(p.device)
    return torch.where(decided, (p > 0).to(p.dtype), chance)


def presence(kept: Tensor) -> tuple[Tensor, Tensor]:
    """How probable it is that each module is there, and that the stem has each rate.

    Args:
        kept: modules x sources, as `keeping` gives it.
    """
    width = len(RATES)
    there = kept.new_ones(width)
    for layer in range(kept.shape[0] // width - 1, -1, -1):
        readers = kept[layer * width :, layer * width : (layer + 1) * width]
        there = torch.cat([1 - (1 - there[:, None] * readers).prod(dim=0), there])
    unread = 1 - there[:width]
    # A rate is there where it, or one behind it, is read; the first always is.
    levels = [unread.new_ones(()), *(1 - unread[index:].prod() for index in range(1, width))]
    return there[width:], torch.stack(levels)


def parts(space: DCNASSearchSpace, classes: int, weights: Weights, alive: Alive, size: Size) -> list[Part]:
    """What the derived network is made of, and how often each operator is expected in it.

    Args:
        classes: of the last convolution.
        weights: of the tables of `space`.
        alive: of the tables, as they are now: it says which modules are decided.
        size: of the image.

    Returns:
        Parts in float64, differentiable in `weights`, that sum to `DCNASGenotype.cost(size)` for a discrete network.
    """
    grids, width = _grids(space, classes, size), len(RATES)
    kept = keeping(weights["connection"].double(), alive["connection"], space.inputs)
    there, levels = presence(kept)
    # By target rate and source rate, and by rate and operator.
    connections = (there[:, None] * kept).unflatten(0, (-1, width)).unflatten(2, (-1, width)).sum((0, 2))
    blocks = (there[:, None] * weights["operator"].double()).unflatten(0, (-1, width)).sum(0)
    found = [Part("stem", grids.stem, levels)]
    for index, rate in enumerate(RATES):
        found.append(Part(stage_name(rate), grids.connections[index], connections[index]))
        found.append(Part(stage_name(rate), grids.blocks[index], blocks[index]))
    found.append(Part("head", grids.head, levels.new_ones(width + 1)))
    return found


@dataclass(frozen=True, eq=False)
class _Priced:
    """Prices: of the stem by rate, of connections by target and source rate, of blocks by rate and operator."""

    stem: np.ndarray
    connections: np.ndarray
    blocks: np.ndarray


@lru_cache(maxsize=8)
def _priced(space: DCNASSearchSpace, classes: int, size: Size, price: Price) -> _Priced:
    grids = _grids(space, classes, size)
    return _Priced(
        stem=grids.stem.priced(price),
        connections=np.stack([grid.priced(price) for grid in grids.connections]),
        blocks=np.stack([grid.priced(price) for grid in grids.blocks]),
    )


class _Trees:
    """The cheapest trees out of every map, for each set of ends (bits, by rate) that they lead to.

    Nodes are numbered as sources are: the stem's rates first, then the modules. A tree's cost has what follows its
    root, and not the root itself.
    """

    def __init__(self, alive: Alive, priced: _Priced) -> None:
        width = len(RATES)
        self.width, self.alive = width, alive
        blocks = np.where(alive["operator"], np.tile(priced.blocks, (len(alive["operator"]) // width, 1)), np.inf)
        self.operators, own = blocks.argmin(axis=1), blocks.min(axis=1)
        modules = len(own)
        self.costs = np.full((modules + width, _ALL + 1), np.inf)
        self.costs[:, 0] = 0.0
        #: Of each node and set: the next node, or minus the first part of a set that is parted here.
        self.steps = np.zeros((modules + width, _ALL + 1), dtype=int)
        for end in range(width):
            self.costs[modules + end, 1 << end] = 0.0
        rates = np.arange(modules) % width
        for node in range(modules - 1, -1, -1):
            follow = width + np.flatnonzero(alive["connection"][:, node])
            reach = own[follow - width] + priced.connections[rates[follow - width], node % width]
            if node < width - 1:
                follow, reach = np.append(follow, node + 1), np.append(reach, priced.stem[node + 1])
            self._grow(node, follow, reach)

    def _grow(self, node: int, follow: np.ndarray, reach: np.ndarray) -> None:
        costs, steps = self.costs[node], self.steps[node]
        if len(follow):
            through = reach[:, None] + self.costs[follow]
            best = through.argmin(axis=0)
            costs[1:], steps[1:] = through.min(axis=0)[1:], follow[best][1:]
        for ends in range(1, _ALL + 1):
            for one, other in _PARTED[ends]:
                if costs[one] + costs[other] < costs[ends]:
                    costs[ends], steps[ends] = costs[one] + costs[other], -one

    def network(self) -> Alive:
        """The connections and operators of the cheapest tree out of the stem."""
        connections = np.zeros_like(self.alive["connection"])
        waiting = [(0, _ALL)]
        while waiting:
            node, ends = waiting.pop()
            step = int(self.steps[node, ends])
            if not ends or step == 0:
                continue
            if step < 0:
                waiting += [(node, -step), (node, ends ^ -step)]
                continue
            # Where prices of 0 make two ways to a module equal, one is enough.
            if step >= self.width and not connections[step - self.width].any():
                connections[step - self.width, node] = True
            waiting.append((step, ends))
        connections &= reached(connections)[:, None]
        rows = connections.any(axis=1)
        operators = np.zeros_like(self.alive["operator"])
        operators[np.flatnonzero(rows), self.operators[rows]] = True
        return {"connection": connections, "operator": operators}


def cheapest(space: DCNASSearchSpace, classes: int, alive: Alive, price: Price, size: Size) -> Alive:
    """The cheapest network that is left, found exactly.

    Args:
        alive: of the tables of `space`; every choice that is not pointless has a candidate.
        price: of an operator, not negative; the network's is the sum. It is asked once an operator, and its answers are
            kept: a price must not change.

    Returns:
        One candidate a choice; modules that do not reach the head have none.

    Raises:
        SearchFailedError: `alive` holds no network.
    """
    trees = _Trees(alive, _priced(space, classes, size, price))
    if not np.isfinite(trees.costs[0, _ALL]):
        raise SearchFailedError("no network is left", where="connection", fix="lower the threshold of the strategy")
    return trees.network()
