"""Progressive shrinking of the SSR paper (section 3.5), shared by all losses that it is compared with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from ..choices import Alive, ChoiceTable
from . import Feasible, Progress, Settings, Strategy, Tables
from ._levels import OTHER, PerLevel, by_level, level_losses, weighted_sum
from ._relaxations import as_array, normalized_sigmoid


class ShrinkingSettings(Settings):
    """What every strategy has that shrinks as SSR does."""

    weight: PerLevel = Field(
        default={"depth": 0.15, "dilation-spatial": 0.3, "channel": 0.3, OTHER: 0.3},
        description="of the loss of a level, beside a task loss of weight 1: a number, or one by level",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="a candidate goes whose probability is at most this share of its choice's greatest",
    )


def above(probabilities: np.ndarray, alive: np.ndarray, threshold: float) -> np.ndarray:
    """What is left of `alive` when candidates of p / max p <= threshold are dropped (Eq. 11), max over the choice.

    The greatest of a choice has the ratio 1, so that no choice is emptied; nor is one whose values are no numbers.
    """
    greatest = np.where(alive, probabilities, 0.0).max(axis=1, keepdims=True)
    ratios = np.divide(probabilities, greatest, out=np.ones_like(probabilities), where=greatest > 0)
    left: np.ndarray = alive & ~(ratios <= threshold)
    return left


class ShrinkingStrategy(Strategy):
    """Normalised sigmoids, a loss for each level, and Eq. 11 at every decision point.

    Hierarchical means: at every decision point, level after level in the supernet's order, each over all its choices
    at once. As Eq. 11 compares within one choice, what an earlier level removed cannot change what a later one keeps in
    the choices that remain; those that became pointless are the supernet's to remove (`Supernet.closed`).
    """

    settings: ShrinkingSettings
    combine: Literal["mean", "sum"] = "mean"

    def __init__(self, settings: ShrinkingSettings, levels: tuple[str, ...]) -> None:
        super().__init__(settings, levels)
        self.weights = by_level(settings, "weight", levels)

    @abstractmethod
    def row_losses(self, table: ChoiceTable) -> Tensor:
        """The loss of each choice; 0 where it is decided or pointless."""

    def probabilities(self, table: ChoiceTable) -> Tensor:
        """Sigmoids, normalised over the live candidates."""
        return normalized_sigmoid(table)

    def regularize(self, tables: Tables) -> Tensor:
        """Sum over levels of weight x loss (Eq. 10)."""
        return weighted_sum(level_losses(tables, self.row_losses, self.combine), self.weights)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """Drop what Eq. 11 drops, everywhere."""
        return {
            name: above(as_array(self.probabilities(table)), table.alive, self.settings.threshold)
            for name, table in tables.items()
        }
