"""Supernet against stand-alone accuracy over networks drawn by lot: Pearson and Kendall with bootstrap intervals.

The same networks with every seed, of all dimensions. Two supernets are trained without searching: `random path` runs
one sampled candidate a choice at each step, `mixture` is the warm-up of `ssr`, all candidates at once. Each network is
measured with the weights it inherits, and trained from scratch. For scale: how well stand-alone accuracies of two seeds
agree with each other, and with the networks' MACs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from . import Row, Study, StudyRecipe
from ._coefficients import Coefficient, bootstrap_interval, kendall, pearson
from ._tables import shown

if TYPE_CHECKING:
    from ._workbench import Workbench

_NETWORK = "network "
_COEFFICIENTS: dict[str, Coefficient] = {"Pearson": pearson, "Kendall": kendall}


class CorrelationStudy(Study):
    """What a supernet says of networks that are trained alone."""

    recipe: ClassVar[StudyRecipe] = StudyRecipe(networks=20, supernet_steps=200)
    #: By arm: which supernet (`Workbench.supernet`), and the strategy whose relaxation before the first architecture
    #: step it is trained under.
    supernets: ClassVar[Mapping[str, tuple[str, str]]] = {"random path": ("all", "gumbel"), "mixture": ("all", "ssr")}
    #: The supernet whose networks are drawn.
    drawn: ClassVar[str] = "all"

    def arms(self, recipe: StudyRecipe) -> tuple[str, ...]:
        return (*self.supernets, *(f"{_NETWORK}{number}" for number in range(recipe.networks)))

    def run(self, arm: str, seed: int, bench: Workbench) -> dict[str, Any]:
        if arm in self.supernets:
            supernet = bench.trained_supernet(*self.supernets[arm], seed)
            found = [bench.inherited(supernet, number, seed) for number in range(bench.recipe.networks)]
            return {name: [each[name] for each in found] for name in ("as_is", "recalibrated")}
        genotype = bench.drawn(self.drawn, int(arm.removeprefix(_NETWORK)))
        training = bench.train(genotype, seed)
        return {"digest": genotype.digest, **bench.costs(genotype), "miou": training.miou, "cpu_s": training.cpu_s}

    def tables(self, rows: Sequence[Row], recipe: StudyRecipe) -> str:
        alone = _stand_alone(rows, recipe.networks)
        lines = ["| predictor | of stand-alone mIoU | seed | Pearson | Kendall tau-b |", "|---|---|---|---|---|"]
        if alone:
            means = [sum(values) / len(values) for values in zip(*alone.values(), strict=True)]
            for arm in self.supernets:
                for name in ("as_is", "recalibrated"):
                    own = {row.seed: row.values[name] for row in rows if row.arm == arm and row.values}
                    lines += _predictor(f"{arm}, BatchNorm {name.replace('_', ' ')}", own, means)
            if len(alone) > 1:
                lines.append(_agreement(alone))
            macs = [row.values["conv_macs"] for row in _networks(rows, next(iter(alone)), recipe.networks)]
            lines.append(_line("MACs", "mean over seeds", "", macs, means))
        spread = ", ".join(f"{min(v) * 100:.1f} to {max(v) * 100:.1f} (seed {seed})" for seed, v in alone.items())
        networks = f"{recipe.networks} networks; stand-alone mIoU in %: {spread or 'not complete'}."
        return "\n".join([*lines, "", f"{_NOTE} {networks}"]) + "\n"


_NOTE = (
    "In square brackets 95 % bootstrap intervals over networks; mean ± half of the 95 % t interval over seeds; in "
    "parentheses the least and the greatest."
)


def _networks(rows: Sequence[Row], seed: int, count: int) -> list[Row]:
    """The rows of all networks with a seed, in order; fewer where some are missing or failed."""
    found = {row.arm: row for row in rows if row.seed == seed and row.values}
    return [found[arm] for arm in (f"{_NETWORK}{number}" for number in range(count)) if arm in found]


def _stand_alone(rows: Sequence[Row], count: int) -> dict[int, list[float]]:
    """By seed with all networks, the mIoU of each."""
    complete = {seed: _networks(rows, seed, count) for seed in dict.fromkeys(row.seed for row in rows)}
    return {seed: [row.values["miou"] for row in own] for seed, own in complete.items() if len(own) == count}


def _predictor(name: str, own: dict[int, list[float]], means: list[float]) -> list[str]:
    """One seed with its interval over networks, several by their mean."""
    if len(own) == 1:
        return [_line(name, "mean over seeds", str(seed), values, means) for seed, values in own.items()]
    cells = [_over([of(values, means) for values in own.values()]) for of in _COEFFICIENTS.values()]
    return [f"| {name} | mean over seeds | {len(own)} seeds | {' | '.join(cells)} |"] if own else []


def _agreement(alone: dict[int, list[float]]) -> str:
    """How far trainings with different seeds agree on the same networks: what bounds any predictor."""
    pairs = list(combinations(alone.values(), 2))
    cells = [_range([of(one, other) for one, other in pairs]) for of in _COEFFICIENTS.values()]
    return f"| stand-alone, another seed | one seed | {len(pairs)} pairs | {' | '.join(cells)} |"


def _over(values: Sequence[float | None]) -> str:
    """Mean ± half of the t interval, least and greatest."""
    known = [value for value in values if value is not None]
    return f"{shown(known, digits=2)} ({min(known):.2f} to {max(known):.2f})" if known else "-"


def _range(values: Sequence[float | None]) -> str:
    """Mean, least and greatest; pairs share seeds, so there is no interval."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f} ({min(known):.2f} to {max(known):.2f})" if known else "-"


def _line(name: str, of: str, seed: str, one: Sequence[float], other: Sequence[float]) -> str:
    cells = []
    for coefficient in _COEFFICIENTS.values():
        value, interval = coefficient(one, other), bootstrap_interval(coefficient, one, other)
        text = "-" if value is None else f"{value:.2f}"
        cells.append(text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]")
    return f"| {' | '.join([name, of, seed, *cells])} |"


STUDY = CorrelationStudy()
