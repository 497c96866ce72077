"""Budgets in a search: refused where nothing meets them, guarded at every removal, chosen within at the end.

What holds from the first step to the last: among what lives there is a network that meets every limit. A removal that
would end this is not made, so the candidate lives on, and the penalty in the loss goes on pulling at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Preferences = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """All budgets of a search; none is no limit."""

    budgets: tuple[Budget, ...] = ()

    def check(self, supernet: Supernet) -> None:
        """Raise `UsageError` with the smallest value where no network of the space meets a limit."""
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

    def broken(self, genotype: Genotype) -> list[str]:
        """What a network breaks, in words; counted on the whole network."""
        found = []
        for budget in self.budgets:
            met, value = budget.met(genotype)
            if not met:
                found.append(f"{budget.text(value, up=True)} where {budget.text(budget.limit)} are allowed")
        return found

    def values(self, genotype: Genotype) -> dict[str, dict[str, float]]:
        """Value and limit of each budget, by name."""
        return {b.name: {"value": float(b.met(genotype)[1]), "limit": float(b.limit)} for b in self.budgets}

    def penalty(self, supernet: Supernet, weights: Weights) -> Tensor:
        """What is added to the loss of an architecture step, a float64 scalar; see `Budget.penalty`."""
        device = next(iter(weights.values())).device
        total = torch.zeros((), dtype=torch.float64, device=device)
        for budget in self.budgets:
            total = total + budget.penalty(supernet, weights)
        return total

    def guarded(self, supernet: Supernet, wanted: Alive, preferences: Preferences) -> Alive:
        """What lives once the removals that leave `wanted` are made, but for those that leave no network in budget.

        The least preferred candidates are removed first.
        """
        return self._removed(supernet, wanted, preferences, keep_wanted=True)

    def chosen(self, supernet: Supernet, preferences: Preferences) -> Alive:
        """One candidate a choice: the most preferred ones as far as the budgets allow, the first of equals; closed."""
        found = supernet.closed(self._removed(supernet, supernet.alive(), preferences, keep_wanted=False))
        if all((mask.sum(axis=1) <= 1).all() for mask in found.values()):
            return found
        # Only where there are several limits, of which `feasible` may say no too early.
        for network in self._cheap(supernet, found):
            if self._met(supernet, network):
                return supernet.closed(network)
        raise SearchFailedError("no network was found that meets all limits at once", fix="raise one of them")

    def _removed(self, supernet: Supernet, wanted: Alive, preferences: Preferences, *, keep_wanted: bool) -> Alive:
        """Make removals, the least preferred first, all those that leave a choice a candidate and a feasible network.

        That one at a time is tried is what it amounts to; as a removal never makes a network feasible, runs of
        removals are tried together, twice as long after each that goes well.
        """
        alive = supernet.alive()
        waiting = _ranked(alive, wanted if keep_wanted else None, preferences)
        at, run = 0, len(waiting)
        while at < len(waiting):
            piece = waiting[at : at + run]
            after = _without(alive, piece)
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


def _without(alive: Alive, places: Sequence[Place]) -> Alive:
    """`alive` less these candidates, but for the last one of each choice."""
    after = {name: mask.copy() for name, mask in alive.items()}
    for name, row, column in places:
        if after[name][row].sum() > 1:
            after[name][row, column] = False
    return after
