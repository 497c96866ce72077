"""Search strategies, one file each: how choices become weights, and what is removed when.

Adding a strategy is adding one file that defines `STRATEGY`, a subclass of `Strategy`; its file name is its name on the
command line. A strategy knows tables of choices and nothing of the space they belong to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ..choices import Alive, ChoiceTable
from ..registry import Registry

Tables = Mapping[str, ChoiceTable]


class Settings(BaseModel):
    """What can be set of a strategy; each subclass adds its fields with the published values as defaults."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        step, steps: architecture steps that are done, and all of them.
        decision, decisions: which decision point this is (0 is the first), and how many there are.
    """

    step: int
    steps: int
    decision: int
    decisions: int


#: Whether a network within the budgets is left among what would live.
Feasible = Callable[[Alive], bool]


class Strategy(ABC):
    """How a search is led.

    `relax` is called at every step and must be differentiable in the logits; `regularize` is added to the loss of the
    architecture step; `decide` is called at every decision point. What a strategy remembers besides the logits is in
    `state`, so that a search can be resumed to the same bytes; random numbers come from torch's generator, which the
    search seeds at every step.

    Args:
        settings: of the type `settings_type`.
        levels: the supernet's, in order.
    """

    settings_type: ClassVar[type[Settings]] = Settings
    #: Whether the logits are trained: a search with a strategy that does not need it has no architecture steps.
    learns: ClassVar[bool] = True
    #: Whether the last decision point is sure to leave every choice decided, budgets permitting. Elsewhere the search
    #: takes the candidate of the greatest probability where more than one is left.
    ends_discrete: ClassVar[bool] = False
    #: Whether the probabilities of a choice sum to 1.
    sums_to_one: ClassVar[bool] = True

    def __init__(self, settings: Settings, levels: tuple[str, ...]) -> None:
        self.settings, self.levels = settings, levels

    @abstractmethod
    def probabilities(self, table: ChoiceTable) -> Tensor:
        """How much each candidate is preferred, rows x candidates: what decisions, entropies and expected costs are
        computed from. Deterministic, differentiable; 0 where a candidate is gone; a row sums to 1 unless `sums_to_one`
        says otherwise."""

    def relax(self, table: ChoiceTable) -> Tensor:
        """Weights of the candidates in the forward pass, as `probabilities`; sampling strategies draw here."""
        return self.probabilities(table)

    def regularize(self, tables: Tables) -> Tensor:
        """What is added to the loss of the architecture step: a scalar; 0 by default."""
        return torch.zeros((), device=next(iter(tables.values())).logits.device)

    def decide(self, tables: Tables, progress: Progress, feasible: Feasible) -> Alive:
        """What is to live from now on; by default all that does.

        Every choice that has candidates must keep one. What becomes pointless by this is the supernet's to remove, and
        the search's to refuse is what would leave no network within the budgets.
        """
        return {name: table.alive for name, table in tables.items()}

    def state(self) -> dict[str, Any]:
        """What is remembered besides the logits, as plain JSON values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; raises `ValueError` for anything else."""
        if state:
            raise ValueError("this strategy has no state")


def total_entropy(probabilities: np.ndarray) -> float:
    """Sum over all choices of -sum p log p, in nats, of rows normalised to 1 (Fig. 5f of the SSR paper).

    It is 0 when all are decided. (Its name is not `entropy`, as the strategy of that name is a module here.)
    """
    totals = probabilities.sum(axis=1, keepdims=True)
    p = np.divide(probabilities, totals, out=np.zeros_like(probabilities, dtype=np.float64), where=totals > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return float(-(p * logs).sum()) + 0.0


STRATEGIES: Registry[type[Strategy]] = Registry("searchkit.strategies", "STRATEGY", "search strategy")
