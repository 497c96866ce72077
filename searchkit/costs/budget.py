"""Limits of the network that a search is to end in: MACs, parameters or milliseconds.

During the search a limit is a penalty on what the relaxed network is expected to cost, and a condition on what may be
removed; in the end the derived network is counted as a whole.

The penalty is `weight * max(0, E / limit - 0.95)^2`, E the expected cost. Its slope vanishes where it begins, so it
begins 5 % below the limit. The SSR release has `(E / full - 0.6)^2`, which pulls a network that is below its target
back up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..choices import Alive, Weights
from ..errors import UsageError
from ..sizes import Size
from .expected import Price, Prices, macs, params
from .loss import check_levels, decoupled

if TYPE_CHECKING:
    from ..genotype import Genotype
    from ..supernet import Supernet
    from .latency import LatencyTable

#: The part of a limit at which its penalty begins.
AIM = 0.95

#: Relative error that a sum of milliseconds in float64 may have; counts are exact.
_ROUNDING = 1e-9

_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?"
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_DURATIONS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, eq=False)
class Budget:
    """One limit.

    Args:
        name: `macs`, `params` or `latency`.
        limit: in units of the price.
        price: of an operator.
        unit: of limit and price, for messages: "MACs", "parameters", "ms".
        size: of the network's input at which the limit holds.
        weight: of the penalty.
        table: whose entries a latency is the sum of.
        levels: how much the choices of each level feel the penalty; levels that are not named do not at all (FasterSeg,
            Eq. 3). All alike if None.
    """

    name: str
    limit: float
    price: Price
    unit: str
    size: Size
    weight: float = 1.0
    table: LatencyTable | None = None
    levels: Mapping[str, float] | None = None
    _prices: Prices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prices", Prices(self.price))

    def expected(self, supernet: Supernet, weights: Weights) -> Tensor:
        """What the derived network is expected to cost: a float64 scalar, differentiable in `weights`.

        Raises:
            UsageError: the latency table lacks an operator of the space.
        """
        return self._prices.expected(supernet.parts(weights, self.size))

    def penalty(self, supernet: Supernet, weights: Weights) -> Tensor:
        """What is added to the loss of the architecture step: a float64 scalar."""
        if self.levels is not None:
            weights = decoupled(supernet, weights, self.levels)
        excess = torch.clamp(self.expected(supernet, weights) / self.limit - AIM, min=0.0)
        return self.weight * excess.square()

    def least(self, supernet: Supernet, alive: Alive) -> float:
        """Cost of the cheapest network that `alive` holds."""
        from ..supernet import weights_of

        cheapest = supernet.cheapest(alive, self.price, self.size)
        with torch.no_grad():
            return float(self._prices.expected(supernet.parts(weights_of(cheapest), self.size)))

    def feasible(self, supernet: Supernet, alive: Alive) -> bool:
        """Whether `alive` holds a network within the limit."""
        return self.within(self.least(supernet, alive))

    def within(self, value: float) -> bool:
        """Whether a cost is within the limit."""
        return value <= self.limit * (1 + (_ROUNDING if self.table else 0))

    def cost(self, genotype: Genotype) -> float:
        """Of the whole network: counted, or for a latency the sum of the table's entries, which is a prediction.

        Raises:
            UsageError: the latency table lacks an operator of the network.
        """
        if self.table is not None:
            from ..spaces import SPACES

            return self.table.predict_ms(SPACES.load(genotype.space).operator_keys(genotype, self.size))
        cost = genotype.cost(self.size)
        return float(cost.conv_macs if self.name == "macs" else cost.params)

    def met(self, genotype: Genotype) -> tuple[bool, float]:
        """Whether the network is within the limit, and its `cost`."""
        value = self.cost(genotype)
        return self.within(value), value

    def check_reachable(self, supernet: Supernet) -> None:
        """Raise `UsageError` where not even the smallest network of the space is within the limit; it is named. Also
        where `levels` names one that the space has not."""
        check_levels(supernet, self.levels, where="budgets.levels")
        least = self.least(supernet, supernet.alive())
        if not self.within(least):
            raise UsageError(
                "no network of this space is within the budget",
                where=f"--max-{self.name}",
                got=self.text(self.limit),
                allowed=f"at least {self.text(least, up=True)}, what its smallest network has at {self.size}",
            )

    def text(self, value: float, *, up: bool = False) -> str:
        """A cost for people, such as `7.8 G MACs`; in messages about the least that is allowed, rounded `up`."""
        if self.table is not None:
            return f"{_digits(value, up)} {self.unit}"
        for suffix in ("G", "M", "k"):
            if value >= _COUNTS[suffix]:
                return f"{_digits(value / _COUNTS[suffix], up)} {suffix} {self.unit}"
        return f"{value:g} {self.unit}"


def _digits(value: float, up: bool) -> str:
    """Four significant digits."""
    if up and value > 0:
        step = 10.0 ** (math.floor(math.log10(value)) - 3)
        value = math.ceil(value / step - 1e-9) * step
    return f"{value:.4g}"


def macs_budget(text: str, size: Size, *, weight: float = 1.0) -> Budget:
    """From text such as `7.8G`; raises `UsageError` for anything else."""
    return Budget("macs", parse_count(text, where="--max-macs"), macs, "MACs", size, weight)


def params_budget(text: str, size: Size, *, weight: float = 1.0) -> Budget:
    """From text such as `1.1M`; raises `UsageError` for anything else."""
    return Budget("params", parse_count(text, where="--max-params"), params, "parameters", size, weight)


def latency_budget(text: str, table: LatencyTable, size: Size, *, weight: float = 1.0) -> Budget:
    """From text such as `5ms`.

    Raises:
        UsageError: it is no duration, or the table is of another input size.
    """
    limit = parse_duration_ms(text, where="--max-latency")
    table.check_size(size)
    return Budget("latency", limit, table.price, "ms", size, weight, table)


def parse_count(text: str, *, where: str) -> float:
    """`7.8G` to 7.8e9; suffixes k, M, G and T; raises `UsageError` for anything else and for what is not above 0."""
    return _parse(text, _COUNTS, where, "a number such as 7.8G, with k, M, G or T for thousands")


def parse_duration_ms(text: str, *, where: str) -> float:
    """`5ms` to 5.0; the units are us, ms and s; raises `UsageError` for anything else and for what is not above 0."""
    return _parse(text, _DURATIONS_MS, where, "a duration such as 5ms, in us, ms or s")


def _parse(text: str, units: dict[str, float], where: str, allowed: str) -> float:
    match = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(units)})", text.strip())
    value = float(f"{match[1]}e{match[2] or 0}") * units[match[3]] if match else 0.0
    if not (match and 0 < value < math.inf):
        raise UsageError("not a limit", where=where, got=text, allowed=allowed)
    return value


def all_feasible(budgets: Iterable[Budget], supernet: Supernet, alive: Alive) -> bool:
    """Whether `alive` holds a network within each limit: a necessary condition for one within all of them.

    The cheapest network of one price is looked at for each; where two limits are tight at once, what is within both
    may be missing still, and the end of the search says so.
    """
    return all(budget.feasible(supernet, alive) for budget in budgets)
