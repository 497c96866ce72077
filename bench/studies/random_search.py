"""Random search at the same budget: networks drawn by lot, each trained as long as the one that `ssr` finds.

Their number is set so that training them takes as long as the search and the retraining together; both times are
in the rows. The best of them is chosen by mIoU on the validation pictures; what is compared is mIoU on the test split,
by which nothing was chosen. All dimensions are searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from . import Row, Study, StudyRecipe
from ._tables import Column, number, percent, table

if TYPE_CHECKING:
    from ._workbench import Workbench

_ARMS = ("ssr", "random")
# Draws of different seeds are different networks.
_STRIDE = 1000


class RandomSearchStudy(Study):
    """`ssr` against drawing by lot."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe(networks=7)

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return _ARMS

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        if arm == "ssr":
            found = bench.search("all", "ssr", seed)
            training = bench.train(found.genotype, seed, test=True)
            tested = {"miou_val": training.miou, "miou_test": training.test_miou}
            return {**found.values, **tested, "total_cpu_s": found.values["search_cpu_s"] + training.cpu_s}
        trials: list[dict[str, Any]] = []
        for number_of in range(bench.recipe.networks):
            genotype = bench.drawn("all", _STRIDE * (seed + 1) + number_of)
            training = bench.train(genotype, seed, test=True)
            measured = {"miou_val": training.miou, "miou_test": training.test_miou, "cpu_s": training.cpu_s}
            trials.append({"digest": genotype.digest, **bench.costs(genotype), **measured})
        best = max(trials, key=lambda trial: trial["miou_val"])
        chosen = {name: best[name] for name in ("digest", "params", "conv_macs", "miou_val", "miou_test")}
        return {**chosen, "total_cpu_s": sum(trial["cpu_s"] for trial in trials), "trials": trials}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        columns = (
            number("search and training, CPU s", "total_cpu_s"),
            number("MACs, M", "conv_macs", factor=1e-6),
            percent("mIoU on validation, %", "miou_val"),
            percent("on test", "miou_test"),
            percent("on test, less `ssr`", "miou_test", less="ssr"),
            Column("on test, mean of all drawn", mean_of_trials, 100.0),
        )
        return table(rows, _ARMS, columns, first="search")


def mean_of_trials(values: dict[str, Any]) -> float | None:
    """mIoU on the test split of the networks drawn, chosen or not."""
    found = [trial["miou_test"] for trial in values.get("trials", [])]
    return sum(found) / len(found) if found else None


STUDY = RandomSearchStudy()
