"""P-DARTS: softmax; at the end of each stage the weakest of every choice go, down to 5, 3 and 1.

Source: Chen et al., ICCV 2019: three stages with 8, 5 and 3 candidates an edge. Stages divide the decision points
evenly; a choice with no more candidates than are kept is left alone. Logits and weights go on across stages. What has
no meaning in a space whose depth is itself chosen and which has no skip operators is left out: deeper networks in
later stages, dropout on skips and the limit of two of them. The ten epochs without architecture steps are the search's
warm-up.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, field_validator
from torch import Tensor

from ..choices import Alive, ChoiceTable
from . import Feasible, Progress, Settings, Strategy, Tables
from ._relaxations import as_array, softmax


class PDARTSSettings(Settings):
    """The published numbers of candidates."""

    keep: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=64)] = Field(
        default=(5, 3, 1), description="how many candidates a choice keeps at the end of each stage; the last is 1"
    )

    @field_validator("keep")
    @classmethod
    def _falls_to_one(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        if list(keep) != sorted(set(keep), reverse=True) or keep[-1] != 1:
            raise ValueError("numbers that fall from stage to stage, down to 1")
        return keep


def strongest(probabilities: np.ndarray, alive: np.ndarray, count: int) -> np.ndarray:
    """The `count` live candidates of the greatest probability in each row, the first of equals."""
    order = np.argsort(np.where(alive, -probabilities, np.inf), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1)
    kept: np.ndarray = alive & (ranks < count)
    return kept


class PDARTS(Strategy):
    """Softmax, pruned in stages."""

    settings_type = PDARTSSettings
    ends_discrete = True
    settings: PDARTSSettings

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Softmax over the live candidates."""
        return softmax(table)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """At the end of a stage, keep the strongest of every choice."""
        keep = self.settings.keep
        done = (progress.decision + 1) * len(keep) // progress.decisions
        if done == 0:
            return super().decide(tables, progress, feasible)
        count = keep[min(done, len(keep)) - 1]
        return {
            name: strongest(as_array(self.probabilities(table)), table.alive, count) for name, table in tables.items()
        }


STRATEGY = PDARTS
