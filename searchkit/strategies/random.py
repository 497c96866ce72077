"""Random search: at the first decision point every choice is decided by lot; nothing is learnt.

The baseline that a search has to beat at the same budget and with the same training. Draws that no network within the
budgets is left in are thrown away; after `tries` of them, choices are settled by lot one group after the other, so that
a network within the budgets stays reachable. Such a network is then not quite uniformly drawn.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..choices import Alive, ChoiceTable, one_hot
from . import Feasible, Progress, Settings, Strategy, Tables

Place = tuple[str, int]


class RandomSettings(Settings):
    """How long to draw."""

    tries: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=100, description="whole draws, before choices are settled group by group"
    )


class Random(Strategy):
    """Uniform over the live candidates of each choice, choices independent of one another."""

    settings_type = RandomSettings
    learns = False
    ends_discrete = True
    settings: RandomSettings

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """1/n for each of n live candidates."""
        mask = table.alive_mask.to(table.logits.dtype)
        # The logits take part, with no weight, so that this is differentiable like all others.
        return mask / mask.sum(dim=1, keepdim=True).clamp(min=1) + table.dense(table.logits * 0, fill=0.0)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """Decide all that is undecided."""
        alive = super().decide(tables, progress, feasible)
        places = [(name, int(row)) for name, mask in alive.items() for row in np.flatnonzero(mask.sum(axis=1) > 1)]
        if not places:
            return alive
        for _ in range(self.settings.tries):
            drawn = one_hot(_lots(alive), alive)
            if feasible(drawn):
                return drawn
        order = torch.randperm(len(places)).tolist()
        return _settled(alive, [places[index] for index in order], feasible)


def _lots(alive: Alive) -> dict[str, np.ndarray]:
    """Random numbers, from torch's generator."""
    return {name: torch.rand(mask.shape, dtype=torch.float64).numpy() for name, mask in alive.items()}


def _settled(alive: Alive, places: list[Place], feasible: Feasible) -> Alive:
    """`alive` with the choices at `places` decided by lot: all at once where that is feasible, else half after half.

    A single choice takes its candidates in a random order until one is feasible, and stays open if none is.
    """
    lots = _lots({name: alive[name] for name, _ in places})
    trial = _with(alive, places, one_hot(lots, alive={name: alive[name] for name in lots}))
    if feasible(trial):
        return trial
    if len(places) > 1:
        half = len(places) // 2
        return _settled(_settled(alive, places[:half], feasible), places[half:], feasible)
    name, row = places[0]
    for column in np.argsort(np.where(alive[name][row], -lots[name][row], np.inf))[1 : alive[name][row].sum()]:
        decided = np.zeros_like(alive[name])
        decided[row, column] = True
        trial = _with(alive, places, {name: decided})
        if feasible(trial):
            return trial
    return alive


def _with(alive: Alive, places: list[Place], decided: Alive) -> Alive:
    changed = {name: mask.copy() for name, mask in alive.items()}
    for name, row in places:
        changed[name][row] = decided[name][row]
    return changed


STRATEGY = Random
