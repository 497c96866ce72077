"""Supernet against stand-alone accuracy over networks drawn by lot: Pearson and Kendall with bootstrap intervals.

The same networks with every seed, of all dimensions. Two supernets are trained without searching: `random path` runs
one sampled candidate a choice at each step, `mixture` is the warm-up of `ssr`, all candidates at once. Each network is
measured with the weights it inherits, and trained from scratch. For scale: how well stand-alone accuracies of two seeds
agree with each other, and with the networks' MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from . import Row, Study, StudyRecipe
from ._coefficients import Coefficient, bootstrap_interval, kendall, pearson
from ._tables import shown

if TYPE_CHECKING:
    from ._workbench import Workbench

#: The strategies whose relaxation before the first architecture step is wanted, by arm.
_SUPERNETS = {"random path": "gumbel", "mixture": "ssr"}
_NETWORK = "network "
_COEFFICIENTS: dict[str, Coefficient] = {"Pearson": pearson, "Kendall": kendall}


class CorrelationStudy(Study):
    """What a supernet says of networks that are trained alone."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe(networks=20, supernet_steps=200)

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return (*_SUPERNETS, *(f"{_NETWORK}{number}" for number in range(recipe.networks)))

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        if arm in _SUPERNETS:
            supernet = bench.trained_supernet("all", _SUPERNETS[arm], seed)
            found = [bench.inherited(supernet, number, seed) for number in range(bench.recipe.networks)]
            return {name: [each[name] for each in found] for name in ("as_is", "recalibrated")}
        genotype = bench.drawn("all", int(arm.removeprefix(_NETWORK)))
        training = bench.train(genotype, seed)
        return {"digest": genotype.digest, **bench.costs(genotype), "miou": training.miou, "cpu_s": training.cpu_s}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        alone = _stand_alone(rows, recipe.networks)
        lines = ["| predictor | of stand-alone mIoU | seed | Pearson | Kendall tau-b |", "|---|---|---|---|---|"]
        if alone:
            means = [sum(values) / len(values) for values in zip(*alone.values(), strict=True)]
            for arm in _SUPERNETS:
                for name in ("as_is", "recalibrated"):
                    own = {row.seed: row.values[name] for row in rows if row.arm == arm and row.values}
                    lines += _predictor(f"{arm}, BatchNorm {name.replace('_', ' ')}", own, means)
            for one, other in combinations(alone, 2):
                lines.append(_line(f"stand-alone, seed {one}", f"seed {other}", "", alone[one], alone[other]))
            macs = [row.values["conv_macs"] for row in _networks(rows, next(iter(alone)), recipe.networks)]
            lines.append(_line("MACs", "mean over seeds", "", macs, means))
        spread = ", ".join(f"{min(v) * 100:.1f} to {max(v) * 100:.1f} (seed {seed})" for seed, v in alone.items())
        networks = f"{recipe.networks} networks; stand-alone mIoU in %: {spread or 'not complete'}."
        return "\n".join([*lines, "", f"In brackets: 95 % bootstrap intervals over networks. {networks}"]) + "\n"


def _networks(rows: Sequence[Row], seed: int, count: int) -> list[Row]:
    """The rows of all networks with a seed, in order; fewer where some are missing or failed."""
    found = {row.arm: row for row in rows if row.seed == seed and row.values}
    return [found[arm] for arm in (f"{_NETWORK}{number}" for number in range(count)) if arm in found]


def _stand_alone(rows: Sequence[Row], count: int) -> dict[int, list[float]]:
    """By seed with all networks, the mIoU of each."""
    complete = {seed: _networks(rows, seed, count) for seed in dict.fromkeys(row.seed for row in rows)}
    return {seed: [row.values["miou"] for row in own] for seed, own in complete.items() if len(own) == count}


def _predictor(name: str, own: dict[int, list[float]], means: list[float]) -> list[str]:
    lines = [_line(name, "mean over seeds", str(seed), values, means) for seed, values in own.items()]
    found = [[of(values, means) for values in own.values()] for of in _COEFFICIENTS.values()]
    cells = [shown([value for value in values if value is not None], digits=2) for values in found]
    if len(own) > 1:
        lines.append(f"| {name} | mean over seeds | mean ± t interval | {' | '.join(cells)} |")
    return lines


def _line(name: str, of: str, seed: str, one: Sequence[float], other: Sequence[float]) -> str:
    cells = []
    for coefficient in _COEFFICIENTS.values():
        value, interval = coefficient(one, other), bootstrap_interval(coefficient, one, other)
        text = "-" if value is None else f"{value:.2f}"
        cells.append(text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]")
    return f"| {' | '.join([name, of, seed, *cells])} |"


STUDY = CorrelationStudy()
