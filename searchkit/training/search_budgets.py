"""The limits and the price that a recipe asks for, with the latency tables they go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..costs.budget import Budget, latency_budget, macs_budget, params_budget
from ..costs.latency import LatencyTable, load_table
from ..costs.loss import CostLoss, count_loss, latency_loss
from ..files import sha256_bytes
from ..sizes import Size, parse_size
from .search_limits import Limits
from .search_recipe import Cost, SearchRecipe


class _Tables:
    """Those that were opened, each once, and checked."""

    def __init__(self, check: Callable[[LatencyTable], None]) -> None:
        self._check, self._opened = check, dict[str, LatencyTable]()

    def open(self, path: str) -> LatencyTable:
        if path not in self._opened:
            table = load_table(path)
            self._check(table)
            self._opened[path] = table
        return self._opened[path]

    def sha256(self) -> str | None:
        """Of all, joined; equal ones count once."""
        found = (sha256_bytes(table.to_json().encode()) for table in self._opened.values())
        return "+".join(dict.fromkeys(found)) or None


def asked_limits(
    recipe: SearchRecipe, size: Size, check_table: Callable[[LatencyTable], None]
) -> tuple[Limits, str | None]:
    """The limits and the price of a search at `size`, and the SHA-256 of its latency tables.

    Args:
        check_table: refuses a latency table that is of another place than is meant.

    Raises:
        UsageError: a limit is none, or a table is refused.
        InputFileError: a table cannot be read.
    """
    tables, budgets = _Tables(check_table), recipe.budgets
    at = parse_size(budgets.resolution, where="--budget-resolution") if budgets.resolution else size
    found: list[Budget] = []
    if budgets.macs is not None:
        found.append(macs_budget(budgets.macs, at, weight=budgets.weight))
    if budgets.params is not None:
        found.append(params_budget(budgets.params, at, weight=budgets.weight))
    if budgets.latency is not None and budgets.latency_table is not None:
        table = tables.open(budgets.latency_table)
        found.append(latency_budget(budgets.latency, table, at, weight=budgets.weight))
    costs = () if recipe.cost is None else (_loss(recipe.cost, size, budgets.latency_table, tables),)
    return Limits(tuple(replace(budget, levels=budgets.levels) for budget in found), costs), tables.sha256()


def _loss(cost: Cost, size: Size, path: str | None, tables: _Tables) -> CostLoss:
    if cost.price == "latency":
        wanted = cost.latency_table or path
        assert wanted is not None, "the recipe has one"
        return latency_loss(tables.open(wanted), cost.form, cost.weight, cost.levels, cost.fps)
    at = parse_size(cost.resolution, where="cost.resolution") if cost.resolution else size
    return count_loss(cost.price, cost.form, cost.weight, at, cost.levels)
