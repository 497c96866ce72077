"""What a relaxed network costs: probabilities of operators times their prices, differentiable.

A supernet lists its parts: each a grid of operators (over input and output widths, say) and how probable each is. MACs,
parameters and milliseconds are three prices of the same operators, so a space says once what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Operator:
    """One layer at one shape.

    Attributes:
        key: under which a latency table has it; see the space's own documentation.
        macs, params: as `searchkit.cost` counts them.
    """

    key: str
    macs: int
    params: int


@dataclass(frozen=True, eq=False)
class Grid:
    """Operators that alternatives choose from, made once and used at every step: it is compared by identity.

    Attributes:
        operators: in row-major order of `shape`.
    """

    operators: Sequence[Operator]
    shape: tuple[int, ...]

    def priced(self, price: Price) -> np.ndarray:
        """The price of each operator: float64, of the grid's shape."""
        return np.array([price(operator) for operator in self.operators], dtype=np.float64).reshape(self.shape)


@dataclass(frozen=True)
class Part:
    """Operators of a supernet and how probable each is; a stem that always runs has probability 1.

    Attributes:
        stage: what it belongs to, as in `Genotype.stage_costs`.
        probabilities: of the grid's shape, differentiable; where several layers share a grid, how often each operator
            is expected.
    """

    stage: str
    grid: Grid
    probabilities: Tensor


Price = Callable[[Operator], float]


def macs(operator: Operator) -> float:
    """The price of an operator in multiply-accumulates."""
    return float(operator.macs)


def params(operator: Operator) -> float:
    """The price of an operator in parameters."""
    return float(operator.params)


@dataclass
class Prices:
    """Prices of grids, looked up once each.

    Args:
        price: of one operator; may raise, as a latency table does for what it lacks.
    """

    price: Price
    _tensors: dict[int, tuple[Grid, Tensor]] = field(default_factory=dict)

    def of(self, grid: Grid, device: torch.device) -> Tensor:
        """Float64, of the grid's shape."""
        found = self._tensors.get(id(grid))
        if found is None or found[1].device != device:
            values = grid.priced(self.price)
            # The grid is kept too, or its number could be given to another.
            # Usable in training later, even if the first to ask is a validation.
            with torch.inference_mode(False):
                found = (grid, torch.tensor(values, device=device))
            self._tensors[id(grid)] = found
        return found[1]

    def expected(self, parts: Iterable[Part]) -> Tensor:
        """Sum of probability x price over all operators: a float64 scalar."""
        total = torch.zeros((), dtype=torch.float64)
        for part in parts:
            cost = (part.probabilities.double() * self.of(part.grid, part.probabilities.device)).sum()
            total = total.to(cost.device) + cost
        return total
