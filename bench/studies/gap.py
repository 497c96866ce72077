"""Search against retraining: entropy, time and mIoU before and after discretisation, by strategy.

In small what Fig. 5 and 6 and Table 3 of the SSR paper show: the dilation dimension alone; whether the total entropy
reaches 0; mIoU of the supernet before the last decision, of the derived network with the weights it inherits, and of
the same network trained from scratch for as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import Row, Study, StudyRecipe
from ._tables import Column, Value, number, percent, table

if TYPE_CHECKING:
    from ._workbench import Workbench

_ARMS = ("ssr", "darts", "fairdarts", "pdarts", "sgas")


class GapStudy(Study):
    """Strategies on the dilation dimension."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe()

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return _ARMS

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        found = bench.search("Di", arm, seed)
        training = bench.train(found.genotype, seed)
        return {**found.values, "miou_retrained": training.miou, "retrain_cpu_s": training.cpu_s}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        steps = [recipe.steps * fifth // 5 for fifth in range(6)]
        entropies = [Column(f"after {step} steps", _entropy_at(step), digits=2) for step in steps]
        figures = table(rows, _ARMS, COLUMNS, first="strategy")
        return f"{figures}\n{table(rows, _ARMS, entropies, first='total entropy, nats')}"


def _entropy_at(step: int) -> Value:
    return lambda values: entropy_at(values.get("entropies", []), step)


def entropy_at(entropies: Sequence[Sequence[float]], step: int) -> float | None:
    """The total entropy behind the last row until `step`, decisions at that step included; None before the first."""
    return next((entropy for at, entropy in reversed(entropies) if at <= step), None)


def drop(values: dict[str, Any]) -> float | None:
    """By how much the discretised network, with the weights it inherits, is worse than the supernet was before the last
    decision."""
    if values.get("miou_supernet") is None or values.get("miou_inherited") is None:
        return None
    return float(values["miou_supernet"] - values["miou_inherited"])


COLUMNS = (
    number("entropy at the start, nats", "entropy_start"),
    number("before the last decision", "entropy_before_last_decision", digits=2),
    number("discrete after steps", "discrete_step", digits=0),
    number("search, CPU s", "search_cpu_s"),
    percent("mIoU of the supernet, %", "miou_supernet"),
    percent("discretised, inherited", "miou_inherited"),
    Column("drop", drop, 100.0),
    percent("from scratch", "miou_retrained"),
    percent("from scratch, less `ssr`", "miou_retrained", less="ssr"),
)

STUDY = GapStudy()
