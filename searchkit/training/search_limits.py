"""Budgets and prices in a search: refused where nothing meets them, guarded at every removal, chosen within at the end.

What holds from the first step to the last: among what lives there is a network that meets every limit. A removal that
would end this is not made, so the candidate lives on, and the penalty in the loss goes on pulling at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..choices import Alive, Weights
from ..errors import SearchFailedError, UsageError
from ..genotype import Genotype, Provenance
from ..supernet import Supernet

if TYPE_CHECKING:
    from ..costs.budget import Budget
    from ..costs.loss import CostLoss

Preferences = Mapping[str, np.ndarray]

#: Milliseconds of a whole network, measured.
Timer = Callable[[Genotype], float]


@dataclass(frozen=True)
class Outcome:
    """A budget and a whole network.

    Attributes:
        met: whether the network is within the limit.
        value: in the budget's unit; `how` it was found: "counted", "measured", or "predicted" by a latency table.
        predicted: what the table said of what was measured.
    """

    budget: Budget
    met: bool
    value: float
    how: str
    predicted: float | None = None

    @property
    def text(self) -> str:
        """For people: what was found and what is allowed."""
        found, limit = self.budget.text(self.value, up=True), self.budget.text(self.budget.limit)
        how = "" if self.how == "counted" else f" {self.how}"
        return f"{found}{how} where {limit} are allowed"

    def to_tree(self) -> dict[str, float | str]:
        """As `result.json` has it."""
        found: dict[str, float | str] = {"value": float(self.value), "limit": float(self.budget.limit), "how": self.how}
        return found if self.predicted is None else found | {"predicted": float(self.predicted)}


@dataclass(frozen=True)
class Limits:
    """All budgets of a search; none is no limit. Prices are beside them, and limit nothing."""

    budgets: tuple[Budget, ...] = ()
    costs: tuple[CostLoss, ...] = ()

    @property
    def pulls(self) -> bool:
        """Whether there is a `penalty`."""
        return bool(self.budgets or self.costs)

    def check(self, supernet: Supernet) -> None:
        """Raise `UsageError` with the smallest value where no network of the space meets a limit."""
        for cost in self.costs:
            cost.check(supernet)
        for budget in self.budgets:
            budget.check_reachable(supernet)
        if not self.feasible(supernet, supernet.alive()):
            names = " and ".join(f"--max-{budget.name}" for budget in self.budgets)
            raise UsageError("no network was found that meets all limits at once", where=names, fix="raise one of them")

    def feasible(self, supernet: Supernet, alive: Alive) -> bool:
        """Whether a network that meets all limits is among what lives (`alive` need not be closed).

        Exact for one limit. With several, the cheapest by each price and the cheapest by the sum of prices in shares
        of their limits are looked at: a yes is certain, a no may be wrong.
        """
        if not self.budgets:
            return True
        alive = supernet.closed(alive)
        if not all(budget.feasible(supernet, alive) for budget in self.budgets):
            return False
        return len(self.budgets) == 1 or any(self._met(supernet, network) for network in self._cheap(supernet, alive))

    def _cheap(self, supernet: Supernet, alive: Alive) -> list[Alive]:
        budgets = self.budgets
        found = [supernet.cheapest(alive, budget.price, budget.size) for budget in budgets]
        together = supernet.cheapest(alive, lambda o: sum(b.price(o) / b.limit for b in budgets), budgets[0].size)
        return [together, *found]

    def _met(self, supernet: Supernet, network: Alive) -> bool:
        genotype = supernet.derive(network, Provenance())
        return all(budget.met(genotype)[0] for budget in self.budgets)

    def judged(self, genotype: Genotype, timer: Timer | None = None) -> list[Outcome]:
        """What a whole network has of what is limited.

        Args:
            timer: measures milliseconds; None where they are predicted.
        """
        found = []
        for budget in self.budgets:
            met, value = budget.met(genotype)
            if budget.table is None or timer is None:
                found.append(Outcome(budget, met, value, "counted" if budget.table is None else "predicted"))
            else:
                measured = timer(genotype)
                found.append(Outcome(budget, budget.within(measured), measured, "measured", value))
        return found

    def broken(self, genotype: Genotype) -> list[str]:
        """What a network breaks, in words; counted or predicted."""
        return [outcome.text for outcome in self.judged(genotype) if not outcome.met]

    def penalty(self, supernet: Supernet, weights: Weights, factor: float = 1.0) -> Tensor:
        """What is added to the loss of an architecture step, a float64 scalar; see `Budget.penalty` and `CostLoss`.

        Args:
            factor: of the prices; see `adapted`.
        """
        device = next(iter(weights.values())).device
        total = torch.zeros((), dtype=torch.float64, device=device)
        for budget in self.budgets:
            total = total + budget.penalty(supernet, weights)
        for cost in self.costs:
            total = total + cost.penalty(supernet, weights, factor)
        return total

    def adapted(self, supernet: Supernet, weights: Weights, factor: float) -> float:
        """The factor of the prices from this decision point on; see `CostLoss.adapted`."""
        for cost in self.costs:
            factor = cost.adapted(supernet, weights, factor)
        return factor

    def milliseconds(self, supernet: Supernet, weights: Weights) -> float | None:
        """Expected, by the latency table of a limit or a price; None where there is none."""
        priced: list[Budget | CostLoss] = [*self.budgets, *self.costs]
        for each in priced:
            if each.table is not None:
                return float(each.expected(supernet, weights).detach())
        return None

    def guarded(self, supernet: Supernet, wanted: Alive, preferences: Preferences) -> Alive:
        """What lives once the removals that leave `wanted` are made, but for those that leave no network in budget.

        The least preferred candidates are removed first.
        """
        return self._removed(supernet, wanted, preferences, keep_wanted=True)

    def chosen(self, supernet: Supernet, preferences: Preferences) -> Alive:
        """Every choice decided: the most preferred candidates as far as the budgets allow, the first of equals.

        A choice that may keep several keeps none of preference 0 beside others, and fewer where the budgets demand it.
        What it returns is `closed`.
        """
        found = supernet.closed(self._removed(supernet, supernet.alive(), preferences, keep_wanted=False))
        if all((mask.sum(axis=1) <= supernet.tables[name].keeps).all() for name, mask in found.items()):
            found = self._thinned(supernet, found, preferences)
            if all((mask.sum(axis=1) <= 1).all() for mask in found.values()) or self._met(supernet, found):
                return found
        # Only where there are several limits, of which `feasible` may say no too early.
        for network in self._cheap(supernet, found):
            if self._met(supernet, network):
                return supernet.closed(network)
        raise SearchFailedError("no network was found that meets all limits at once", fix="raise one of them")

    def _thinned(self, supernet: Supernet, found: Alive, preferences: Preferences) -> Alive:
        """A network less the least preferred candidates of choices that keep several, until it is within the limits."""
        several = {name: mask & (mask.sum(axis=1, keepdims=True) > 1) for name, mask in found.items()}
        one = {name: np.ones_like(mask, dtype=int) for name, mask in found.items()}
        for place in _ranked(several, None, preferences):
            if self._met(supernet, found):
                break
            after = supernet.closed(_without(found, [place], one))
            if self.feasible(supernet, after):
                found = after
        return found

    def _removed(self, supernet: Supernet, wanted: Alive, preferences: Preferences, *, keep_wanted: bool) -> Alive:
        """Make removals, the least preferred first, all those that leave a choice a candidate and a feasible network.

        That one at a time is tried is what it amounts to; as a removal never makes a network feasible, runs of
        removals are tried together, twice as long after each that goes well.
        """
        alive = supernet.alive()
        waiting = _ranked(alive, wanted if keep_wanted else None, preferences)
        least = {
            name: np.where(preferences[name] > 0, 1 if keep_wanted else table.keeps, 1)
            for name, table in supernet.tables.items()
        }
        at, run = 0, len(waiting)
        while at < len(waiting):
            piece = waiting[at : at + run]
            after = _without(alive, piece, least)
            if self.feasible(supernet, after):
                alive, at, run = after, at + run, 2 * run
            elif run == 1:
                at += 1
            else:
                run = max(1, min(run, len(waiting) - at) // 2)
        return alive


UNLIMITED = Limits()

Place = tuple[str, int, int]


def shares(probabilities: np.ndarray) -> np.ndarray:
    """Each candidate's probability in shares of the greatest of its choice; 0 where a choice has none."""
    greatest = probabilities.max(axis=1, keepdims=True)
    return np.divide(probabilities, greatest, out=np.zeros_like(probabilities), where=greatest > 0)


def _ranked(alive: Alive, wanted: Alive | None, preferences: Preferences) -> list[Place]:
    """Candidates to remove, the least preferred first: what is not wanted (all if None); of equals the last."""
    found = []
    for number, (name, mask) in enumerate(alive.items()):
        ranks = shares(preferences[name])
        for row, column in zip(*np.nonzero(mask if wanted is None else mask & ~wanted[name]), strict=True):
            found.append((float(ranks[row, column]), number, -int(row), -int(column), name))
    return [(name, -row, -column) for _, _, row, column, name in sorted(found)]


def _without(alive: Alive, places: Sequence[Place], least: Mapping[str, np.ndarray]) -> Alive:
    """`alive` less these candidates, each unless no more than `least` of its choice are left.

    Args:
        least: by table, rows x candidates.
    """
    after = {name: mask.copy() for name, mask in alive.items()}
    for name, row, column in places:
        if after[name][row].sum() > least[name][row, column]:
            after[name][row, column] = False
    return after
