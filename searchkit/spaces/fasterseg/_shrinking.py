"""How the supernet's modules are cut to what lives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ...choices import Alive, Cuts
from ._cells import Cell
from ._routes import live_ends, live_routes
from ._supernet_heads import SuperMerge
from .search_space import RATES, TEACHER, FasterSegSearchSpace

if TYPE_CHECKING:
    from .supernet import FasterSegSupernet

#: Of the operators of one output of a cell: input channels and widths that are needed.
Needs = dict[str, tuple[int, set[int]]]


class Demands:
    """What the student needs, or the teacher.

    Attributes:
        widest: 3 rates x layers, the greatest width that may come into each cell; 0 where none does.
    """

    def __init__(self, space: FasterSegSearchSpace, alive: Alive, prefix: str, ends: Sequence[int]) -> None:
        self.space, self.alive, self.prefix = space, alive, prefix
        self.routes = live_routes(space, alive, ends, prefix)
        self.stem = space.widths[-1] if prefix else space.stem_width
        self.head = space.widths[-1] if prefix else space.head_width
        self.widest = self._widest()

    def operators(self, rate: int, layer: int) -> list[str]:
        """Those that live in a cell."""
        mask = self.alive[f"{self.prefix}operator"][self.space.operator_row(rate, layer)]
        names = self.space.operators(self.prefix)
        return [name for name, lives in zip(names, mask, strict=True) if lives]

    def widths(self, rate: int, layer: int) -> set[int]:
        """Those that live of the connection into a cell; behind the last layer, the head's."""
        if layer == self.space.layers or self.prefix:
            return {self.head}
        mask = self.alive["width"][self.space.width_row(rate, layer)]
        return {width for width, lives in zip(self.space.widths, mask, strict=True) if lives}

    def _widest(self) -> np.ndarray:
        found = np.zeros((3, self.space.layers), dtype=int)
        found[0, 0] = self.stem
        for layer in range(1, self.space.layers):
            for rate in range(min(layer, 2) + 1):
                finer, same = self.routes.finer[rate, layer], self.routes.same[rate, layer]
                before = self.operators(rate, layer - 1) if same else []
                widths = self.widths(rate, layer) if finer or set(before) - {"skip"} else set()
                if "skip" in before:
                    widths = {*widths, int(found[rate, layer - 1])}
                found[rate, layer] = max(widths, default=0)
        return found

    def needs(self, rate: int, layer: int) -> tuple[Needs, Needs]:
        """Of the outputs of stride 1 and 2 of a cell."""
        inputs = int(self.widest[rate, layer]) * RATES[rate]
        same, down = {}, {}
        last = layer + 1 == self.space.layers
        if self.routes.cells[rate, layer] and (last or self.routes.stays(rate, layer)):
            names = [name for name in self.operators(rate, layer) if name != "skip"]
            same = {name: (inputs, self.widths(rate, layer + 1)) for name in names}
        if self.routes.leaves(rate, layer):
            down = {name: (inputs, self.widths(rate + 1, layer + 1)) for name in self.operators(rate, layer)}
        return same, down

    def leaving(self, rate: int) -> int:
        """The greatest width of a map at a rate that the branch halves."""
        layers = range(self.space.layers)
        return max((int(self.widest[rate, layer]) for layer in layers if self.routes.leaves(rate, layer)), default=0)


def shrink_modules(supernet: FasterSegSupernet, alive: Alive, cuts: Cuts) -> None:
    """Cut cells, merges and heads."""
    space, ends = supernet.space, live_ends(supernet.space, alive)
    prefixes = ("", TEACHER) if space.teacher else ("",)
    demands = [Demands(space, alive, prefix, ends) for prefix in prefixes]
    for rate, layer in space.cells():
        name = f"{RATES[rate]}_{layer}"
        if name not in supernet.cells:
            continue
        if not any(demand.routes.cells[rate, layer] for demand in demands):
            del supernet.cells[name]
            continue
        same, down = (_union(needs) for needs in zip(*(demand.needs(rate, layer) for demand in demands), strict=True))
        cell = supernet.cells[name]
        assert isinstance(cell, Cell)
        cell.shrink(f"cells.{name}.", same, down, cuts)
    kept = {space.branches[int(pair)] for pair in np.flatnonzero(alive["branches"][0])}
    _keep(supernet.pairs, kept)
    for modules in (supernet.merges, supernet.singles):
        _keep(modules, {str(RATES[end]) for end in ends})
    for end in ends:
        own = [Demands(space, alive, prefix, [end]) for prefix in prefixes]
        _shrink_merges(supernet, end, own, cuts)


def _shrink_merges(supernet: FasterSegSupernet, end: int, demands: Sequence[Demands], cuts: Cuts) -> None:
    merges, heads = supernet.merges[str(RATES[end])], {demand.head for demand in demands}
    coarse = max(heads) * RATES[end]
    for rate in range(end, 0, -1):
        name = f"from{RATES[rate]}"
        merge = merges[name]  # type: ignore[index]
        assert isinstance(merge, SuperMerge)
        fine = max(demand.leaving(rate - 1) for demand in demands) * RATES[rate - 1]
        merge.cut(f"merges.{RATES[end]}.{name}.", coarse, fine, heads, cuts)
        coarse = max(heads) * RATES[rate - 1]


def _union(needs: Sequence[Needs]) -> Needs:
    """What student and teacher need together."""
    found: Needs = {}
    for each in needs:
        for name, (inputs, widths) in each.items():
            most, all_ = found.get(name, (0, set()))
            found[name] = (max(most, inputs), all_ | widths)
    return found


def _keep(modules: nn.ModuleDict, names: Collection[str]) -> None:
    for name in list(modules):
        if name not in names:
            del modules[name]
