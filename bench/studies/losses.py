"""Losses that make a search discrete: SSR averaged in three ways, entropy, L1 and L2, all with progressive shrinking.

In small what Tables 4 to 6 and 13 of the SSR paper show, and the measured basis of the default of `ssr`'s setting
`average`: entropy reached, steps until every choice is decided, mIoU of the derived network trained from scratch. The
dilation dimension alone. `choices` and `sum` are Eq. 9 as printed, a sum over candidates; the one averages it over
choices, the other does not. Each setting of `average` is a factor on the loss: with 5 candidates and 8 choices, at the
start, `choices` is 5 times `mean`, and `sum` 40 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import Row, Study, StudyRecipe
from ._tables import number, percent, table

if TYPE_CHECKING:
    from ._workbench import Workbench

_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ssr, mean": ("ssr", {"average": "mean"}),
    "ssr, choices": ("ssr", {"average": "choices"}),
    "ssr, sum": ("ssr", {"average": "sum"}),
    "entropy x1": ("entropy", {"multiplier": 1.0}),
    "entropy x2": ("entropy", {"multiplier": 2.0}),
    "entropy x3": ("entropy", {"multiplier": 3.0}),
    "l1": ("l1", {}),
    "l2": ("l2", {}),
}


class LossesStudy(Study):
    """Regularisers on the dilation dimension."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe()

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return tuple(_ARMS)

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        strategy, settings = _ARMS[arm]
        found = bench.search("Di", strategy, seed, settings=settings)
        training = bench.train(found.genotype, seed)
        return {**found.values, "miou_retrained": training.miou, "retrain_cpu_s": training.cpu_s}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        columns = (
            number("entropy at the start, nats", "entropy_start"),
            number("at the end", "entropy_end", digits=2),
            number("discrete after steps", "discrete_step", digits=0),
            number("undecided at the end", "undecided_at_end"),
            number("search, CPU s", "search_cpu_s"),
            percent("mIoU discretised, inherited, %", "miou_inherited"),
            percent("from scratch", "miou_retrained"),
            percent("from scratch, less `ssr, mean`", "miou_retrained", less="ssr, mean"),
        )
        return table(rows, tuple(_ARMS), columns, first="loss")


STUDY = LossesStudy()
