"""What a relaxed network is expected to cost, as a part of the loss: a price for all of it, where a budget is a limit.

Forms: FasterSeg adds a multiple of the expected milliseconds (its Eq. 2), LGCNet of the logarithm of microseconds (its
Eq. 10, with 0.005).

FasterSeg's Eq. 3 gives each level of choices a weight of its own, for the term in which all other levels' weights are
constants. As such terms have the same value, and each a gradient for its own level alone, the cost is computed once and
the gradients of the levels are scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..choices import Weights
from ..errors import unknown_name
from ..sizes import Size
from .expected import Price, Prices, macs, params

if TYPE_CHECKING:
    from ..supernet import Supernet
    from .latency import LatencyTable

PriceName = Literal["latency", "macs", "params"]
Form = Literal["linear", "log"]

#: The unit of a price by form. A logarithm's unit moves the loss and not its gradient: it is LGCNet's, microseconds.
_UNITS: dict[PriceName, dict[Form, float]] = {
    "latency": {"linear": 1.0, "log": 1e-3},
    "macs": {"linear": 1e9, "log": 1.0},
    "params": {"linear": 1e6, "log": 1.0},
}


@dataclass(frozen=True, eq=False)
class CostLoss:
    """A multiple of the expected cost, or of its logarithm.

    Args:
        name: what is paid for.
        form: `linear` in ms, G MACs or M parameters; `log` of microseconds, MACs or parameters.
        weight: what it is multiplied by.
        price: of an operator, in ms, MACs or parameters.
        size: of the network's input.
        levels: how much the choices of each level count; levels that are not named do not at all. All 1 if None.
        fps: a band of the expected rate, 1000 / ms: `adapted` aims at it.
        table: whose entries a latency is the sum of.
    """

    name: PriceName
    form: Form
    weight: float
    price: Price
    size: Size
    levels: Mapping[str, float] | None = None
    fps: tuple[float, float] | None = None
    table: LatencyTable | None = None
    _prices: Prices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prices", Prices(self.price))

    def expected(self, supernet: Supernet, weights: Weights) -> Tensor:
        """The expected cost in units of the price: a float64 scalar, differentiable in `weights`.

        Raises:
            UsageError: the latency table lacks an operator of the space.
        """
        return self._prices.expected(supernet.parts(weights, self.size))

    def penalty(self, supernet: Supernet, weights: Weights, factor: float = 1.0) -> Tensor:
        """What is added to the loss of the architecture step: a float64 scalar.

        Args:
            factor: of the weight; see `adapted`.
        """
        counts = self.levels
        if counts is not None:
            weights = decoupled(supernet, weights, counts)
        cost = self.expected(supernet, weights) / _UNITS[self.name][self.form]
        term = cost.log() if self.form == "log" else cost
        if counts is not None:
            # The value of Eq. 3; the gradients are there.
            term = term + (sum(counts.values()) - 1) * term.detach()
        return factor * self.weight * term

    def adapted(self, supernet: Supernet, weights: Weights, factor: float) -> float:
        """FasterSeg's rule, which its code has and its paper has not: the weight is halved where the expected rate is
        above the band, and doubled where it is below; returns the new `factor`."""
        if self.fps is None:
            return factor
        with torch.no_grad():
            rate = 1000.0 / float(self.expected(supernet, weights))
        low, high = self.fps
        return factor / 2 if rate >= high else factor * 2 if rate <= low else factor

    def check(self, supernet: Supernet) -> None:
        """Raise `UsageError` where a level is none of the supernet's, or the table lacks an operator of the space."""
        from ..supernet import weights_of

        check_levels(supernet, self.levels, where="cost.levels")
        with torch.no_grad():
            self.expected(supernet, weights_of(supernet.alive()))


def decoupled(supernet: Supernet, weights: Weights, counts: Mapping[str, float]) -> dict[str, Tensor]:
    """The same weights, with gradients that are multiplied by what the level of each table counts; by 0 where it is not
    named (FasterSeg, Eq. 3)."""
    tables = supernet.tables
    return {name: _scaled(dense, counts.get(tables[name].level, 0.0)) for name, dense in weights.items()}


def check_levels(supernet: Supernet, counts: Mapping[str, float] | None, *, where: str) -> None:
    """Raise `UsageError` where a level is none of the supernet's."""
    for level in counts or {}:
        if level not in supernet.levels:
            raise unknown_name("level of choices", level, supernet.levels, where=where)


def _scaled(values: Tensor, scale: float) -> Tensor:
    """The same values, with gradients that are multiplied by `scale`."""
    constant = values.detach()
    return constant + scale * (values - constant) if scale else constant


def count_loss(
    name: Literal["macs", "params"],
    form: Form,
    weight: float,
    size: Size,
    levels: Mapping[str, float] | None = None,
) -> CostLoss:
    """Of MACs or parameters, at an input of `size`."""
    return CostLoss(name, form, weight, {"macs": macs, "params": params}[name], size, levels)


def latency_loss(
    table: LatencyTable,
    form: Form,
    weight: float,
    levels: Mapping[str, float] | None = None,
    fps: tuple[float, float] | None = None,
) -> CostLoss:
    """Of milliseconds by a latency table, at the input size of the table."""
    return CostLoss("latency", form, weight, table.price, Size(*table.network_input), levels, fps, table)
