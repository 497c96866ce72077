"""SGAS: softmax; the most certain and most stable choices are decided first, a few at a time.

Source: Li et al., CVPR 2020, criterion 2: importance x certainty x stability, each scaled to 0..1 over the choices that
are still open. Certainty is 1 - entropy / log n; stability is the histogram intersection of a choice's probabilities
with those of the last 4 decision points; importance is the weight of all candidates but `none`, so 1 in spaces without
one. Published: 9 of 50 epochs to warm up, then one edge every 5 epochs. Spaces here have hundreds of choices instead of
eight, so by default as many are decided at a time as end the search with its last decision point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from ..choices import Alive, ChoiceTable, one_hot
from . import Feasible, Progress, Settings, Strategy, Tables
from ._relaxations import as_array, softmax

Probabilities = dict[str, np.ndarray]


class SGASSettings(Settings):
    """The published criterion and warm-up; how many choices at a time is left to the number of decision points."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.18, description="share of the decision points that pass before anything is decided (9 of 50 epochs)"
    )
    every: Annotated[int, Field(ge=1)] = Field(
        default=1, description="decide at every so many decision points (published: 5 epochs)"
    )
    choices_a_decision: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="how many choices at a time (published: 1); spread evenly if left out"
    )
    history: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="how many earlier decision points stability looks back on"
    )


class SGAS(Strategy):
    """Softmax, decided greedily choice by choice; the last decision point takes all that are left."""

    settings_type = SGASSettings
    ends_discrete = True
    settings: SGASSettings

    def __init__(self, settings: SGASSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        self._history: list[Probabilities] = []

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Softmax over the live candidates."""
        return softmax(table)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """Decide the best choices by the criterion, where it is time."""
        now = {name: as_array(self.probabilities(table)) for name, table in tables.items()}
        alive = super().decide(tables, progress, feasible)
        places = [(name, row) for name, mask in alive.items() for row in open_rows(mask)]
        count = self._how_many(len(places), progress)
        if count:
            decided = one_hot(now, alive)
            best = np.argsort(-self._scores(places, now, alive), kind="stable")[:count]
            for name, row in (places[index] for index in best):
                alive[name][row] = decided[name][row]
        self._history = [*self._history, now][-self.settings.history :]
        return alive

    def _how_many(self, undecided: int, progress: Progress) -> int:
        """How many of the choices are decided now."""
        first = math.floor(self.settings.warmup * progress.decisions)
        last = progress.decisions - 1
        due = {*range(first, progress.decisions, self.settings.every), last}
        if progress.decision >= last:
            return undecided
        if progress.decision not in due:
            return 0
        if self.settings.choices_a_decision is not None:
            return self.settings.choices_a_decision
        return math.ceil(undecided / sum(point >= progress.decision for point in due))

    def _scores(self, places: list[tuple[str, int]], now: Probabilities, alive: Alive) -> np.ndarray:
        certainty = {name: certainties(now[name], mask) for name, mask in alive.items()}
        stability = {name: self._stabilities(name, p) for name, p in now.items()}
        scores = [np.array([of[name][row] for name, row in places]) for of in (certainty, stability)]
        product: np.ndarray = scaled(scores[0]) * scaled(scores[1])
        return product

    def _stabilities(self, name: str, now: np.ndarray) -> np.ndarray:
        """Mean intersection with what is remembered, by row; 1 where nothing is."""
        past = [np.minimum(now, earlier[name]).sum(axis=1) for earlier in self._history]
        found: np.ndarray = np.mean(past, axis=0) if past else np.ones(len(now))
        return found

    def state(self) -> dict[str, Any]:
        """The probabilities at the last decision points, oldest first."""
        return {"history": [{name: p.tolist() for name, p in earlier.items()} for earlier in self._history]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        if set(state) != {"history"}:
            raise ValueError("not the state of this strategy: it has `history` alone")
        self._history = [
            {name: np.array(p, dtype=np.float64) for name, p in earlier.items()} for earlier in state["history"]
        ]


def open_rows(alive: np.ndarray) -> list[int]:
    """Rows with more than one live candidate."""
    return [int(row) for row in np.flatnonzero(alive.sum(axis=1) > 1)]


def certainties(probabilities: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """1 - entropy / log n of each row over its n live candidates; 1 where it is decided."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    entropies = -(probabilities * logs).sum(axis=1)
    most = np.log(np.maximum(alive.sum(axis=1), 1))
    found: np.ndarray = 1 - np.divide(entropies, most, out=np.zeros_like(entropies), where=most > 0)
    return found


def scaled(values: np.ndarray) -> np.ndarray:
    """To 0..1, the least to 0 and the greatest to 1; all 1 where all are equal."""
    span = np.ptp(values) if values.size else 0.0
    found: np.ndarray = (values - values.min()) / span if span > 0 else np.ones_like(values)
    return found


STRATEGY = SGAS
