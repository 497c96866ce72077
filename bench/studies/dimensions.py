"""Which dimensions are searched: dilation, spatial resolution, widths and depth, without and with a limit on MACs.

In small what Table 7 of the SSR paper shows, by `ssr`. The limit is 0.7 of the MACs of the baseline, which is trained
beside: the fixed depths, full width, dilation 1. Dilations alone have no arm with a limit, as they change no MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import DIMENSIONS, Row, Study, StudyRecipe
from ._tables import number, percent, table

if TYPE_CHECKING:
    from ._workbench import Workbench

_BASELINE, _LIMITED = "baseline", ", at most 0.7"
_SHARE = 0.7
_ARMS = (_BASELINE, *DIMENSIONS, *(f"{name}{_LIMITED}" for name in DIMENSIONS if name != "Di"))


class DimensionsStudy(Study):
    """`ssr` on one dimension, several, and all."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe()

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return _ARMS

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        baseline = bench.baseline()
        baseline_macs = bench.costs(baseline)["conv_macs"]
        values: dict[str, Any] = {**bench.costs(baseline)}
        genotype = baseline
        if arm != _BASELINE:
            limit = int(_SHARE * baseline_macs) if arm.endswith(_LIMITED) else None
            found = bench.search(arm.removesuffix(_LIMITED), "ssr", seed, max_macs=limit)
            values, genotype = {**found.values, "max_macs": limit}, found.genotype
        training = bench.train(genotype, seed)
        more = {"miou_retrained": training.miou, "retrain_cpu_s": training.cpu_s}
        return {**values, "macs_of_baseline": values["conv_macs"] / baseline_macs, **more}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        columns = (
            number("params, k", "params", factor=1e-3),
            number("MACs, M", "conv_macs", factor=1e-6),
            number("MACs of the baseline's", "macs_of_baseline", digits=2),
            number("entropy at the end, nats", "entropy_end", digits=2),
            number("discrete after steps", "discrete_step", digits=0),
            number("search, CPU s", "search_cpu_s"),
            percent("mIoU from scratch, %", "miou_retrained"),
            percent("less the baseline", "miou_retrained", less=_BASELINE),
        )
        return table(rows, _ARMS, columns, first="dimensions")


STUDY = DimensionsStudy()
