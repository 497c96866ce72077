"""What a search writes down about its choices: probabilities, entropies, and how each choice was decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choices import Alive, ChoiceTable
from ..costs.expected import Prices, macs
from ..sizes import Size
from ..strategies import Strategy, Tables, total_entropy
from ..supernet import Supernet

Probabilities = dict[str, np.ndarray]
_DIGITS = 6


@dataclass(frozen=True)
class Decision:
    """How a choice came to have one candidate, as seen before the others were removed.

    Attributes:
        candidate: the one that stayed, or those, joined by `+`, where a choice keeps several.
        probability: its own, or the least of theirs; `runner_up` had `margin` less. Where a budget ruled, the margin
            may be negative.
        step: after how many steps.
        by: "shrinking", where the strategy removed the last of the others; "argmax", where the search was over.
    """

    candidate: str
    probability: float
    runner_up: str
    margin: float
    step: int
    by: str


def normalised(dense: Tensor) -> Tensor:
    """Rows that sum to 1, as expected costs need them; a row without any candidate stays 0."""
    totals = dense.sum(dim=1, keepdim=True)
    return torch.where(totals > 0, dense / totals.clamp(min=torch.finfo(dense.dtype).tiny), torch.zeros_like(dense))


def expected_weights(strategy: Strategy, tables: Tables) -> dict[str, Tensor]:
    """The strategy's probabilities with rows that sum to 1, differentiable."""
    return {name: normalised(strategy.probabilities(table)) for name, table in tables.items()}


def as_arrays(weights: Mapping[str, Tensor]) -> Probabilities:
    """Probabilities as float64 arrays."""
    return {name: dense.detach().cpu().double().numpy() for name, dense in weights.items()}


def measures(supernet: Supernet, probabilities: Probabilities, prices: Prices, size: Size) -> dict[str, Any]:
    """Total entropy and that of each level in nats, live candidates of each level, expected conv MACs of each stage.

    A choice that is decided has no entropy, also where it keeps several candidates.

    Args:
        prices: made once for a search; see `mac_prices`.
        size: of the input, for the MACs.
    """
    tables = supernet.tables
    by_level = dict.fromkeys(supernet.levels, 0.0)
    alive = dict.fromkeys(supernet.levels, 0)
    for name, table in tables.items():
        live = table.alive
        by_level[table.level] += total_entropy(probabilities[name][live.sum(axis=1) > table.keeps])
        alive[table.level] += int(live.sum())
    weights = {name: torch.from_numpy(p) for name, p in probabilities.items()}
    costs: dict[str, float] = {}
    for part in supernet.parts(weights, size):
        costs[part.stage] = costs.get(part.stage, 0.0) + float(prices.expected([part]))
    return {
        "entropy": sum(by_level.values()),
        "entropies": by_level,
        "alive": alive,
        "undecided": supernet.undecided(),
        "expected_macs": sum(costs.values()),
        "stage_macs": costs,
    }


def mac_prices() -> Prices:
    """Prices of operators in multiply-accumulates."""
    return Prices(macs)


def trajectory(supernet: Supernet, probabilities: Probabilities) -> dict[str, dict[str, dict[str, float]]]:
    """Probabilities of live candidates: table -> choice -> candidate."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, table in supernet.tables.items():
        rows = found[name] = {}
        for row, mask, dense in zip(table.rows, table.alive, probabilities[name], strict=True):
            if mask.any():
                columns = np.flatnonzero(mask)
                rows[row] = {table.candidates[c]: round(float(dense[c]), _DIGITS) for c in columns}
    return found


def decisions(
    tables: Mapping[str, ChoiceTable], after: Alive, probabilities: Probabilities, step: int, by: str
) -> dict[str, dict[str, Any]]:
    """By table and choice, how what is undecided now is decided in `after`."""
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        before = table.alive
        left = after[name].sum(axis=1)
        for row in np.flatnonzero((before.sum(axis=1) > table.keeps) & (left > 0) & (left <= table.keeps)):
            dense = probabilities[name][row]
            chosen = [int(column) for column in np.flatnonzero(after[name][row])]
            others = [int(column) for column in np.flatnonzero(before[row] & ~after[name][row])]
            last = min(chosen, key=lambda column: dense[column])
            second = max(others, key=lambda column: dense[column])
            decision = Decision(
                candidate="+".join(table.candidates[column] for column in chosen),
                probability=round(float(dense[last]), _DIGITS),
                runner_up=table.candidates[second],
                margin=round(float(dense[last] - dense[second]), _DIGITS),
                step=step,
                by=by,
            )
            found.setdefault(name, {})[table.rows[row]] = asdict(decision)
    return found


def standing(decided: Mapping[str, Mapping[str, Any]], tables: Mapping[str, ChoiceTable]) -> dict[str, Any]:
    """Of all decisions those whose choice is part of the network in the end, table by table."""
    found = {}
    for name, table in tables.items():
        rows = [row for row, mask in zip(table.rows, table.alive, strict=True) if mask.any()]
        found[name] = {row: decided[name][row] for row in rows if row in decided.get(name, {})}
    return found
