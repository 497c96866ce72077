"""What runs in one pass, and with which weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...choices import Alive, Weights
from ._cells import Scalar, Wanted, times
from ._routes import Routes, live_ends, routes
from .sampling import Pass, values_of
from .search_space import FINER, SAME, TEACHER, FasterSegSearchSpace


class Running:
    """One pass, resolved.

    What has the weight 0 and learns nothing by it does not run. Weights that learn nothing are numbers. Of a
    connection's widths, one that alone has a weight other than 0 runs alone even if others could learn (section 3.1.3:
    only one is activated and back-propagated).

    Attributes:
        teacher: whether it is the teacher's.
        stem, head: widths.
        pairs: candidates of `branches` whose heads run.
        ends: rate indices that branches end at.
        routes: what leads there.
    """

    def __init__(self, space: FasterSegSearchSpace, alive: Alive, weights: Weights, *, training: bool) -> None:
        self.space, self.weights, self.values = space, weights, values_of(weights)
        self.teacher = isinstance(weights, Pass) and weights.teacher
        self.columns = weights.columns if isinstance(weights, Pass) else None
        self.stem = space.widths[-1] if self.teacher else space.stem_width
        self.head = space.widths[-1] if self.teacher else space.head_width
        prefix = TEACHER if self.teacher else ""
        shared = ("branches", "width")
        self.alive: Mapping[str, np.ndarray] = {
            name: alive[name if name in shared else f"{prefix}{name}"]
            for name in weights
            if not name.startswith(TEACHER)
        }
        self.names = space.operators(prefix)
        pairs = [int(pair) for pair in np.flatnonzero(alive["branches"][0])]
        self.pairs = pairs if training else [pair for pair in pairs if self.used("branches", 0, pair)]
        if training:
            self.ends = live_ends(space, alive)
        else:
            self.ends = sorted({end for pair in self.pairs for end in space.ends(pair)})
        self.routes: Routes = routes(
            space, self.ends, lambda rate, row, column: self.used(space.path_table(rate), row, column)
        )
        self._reached = {end: self._reach(end) for end in self.ends}

    def used(self, table: str, row: int, column: int) -> bool:
        """Whether a candidate runs."""
        if not self.alive[table][row, column]:
            return False
        values = self.values[table]
        return values is None or values[row, column] != 0 or self.weights[table].requires_grad

    def scalar(self, table: str, row: int, column: int) -> Scalar:
        """Its weight."""
        tensor, values = self.weights[table], self.values[table]
        if values is None or tensor.requires_grad:
            return tensor[row, column]
        return float(values[row, column])

    def from_finer(self, rate: int, layer: int) -> Scalar:
        """Weight of the finer predecessor of a cell (Eq. 1); 0 where it is not used."""
        return self._path(self.routes.finer, rate, layer, FINER)

    def from_same(self, rate: int, layer: int) -> Scalar:
        """Weight of the predecessor of the same rate."""
        return self._path(self.routes.same, rate, layer, SAME)

    def _path(self, open_: np.ndarray, rate: int, layer: int, column: int) -> Scalar:
        if rate >= 3 or layer >= self.space.layers or not open_[rate, layer]:
            return 0.0
        row = self.space.path_row(rate, layer)
        return 1.0 if row is None else self.scalar(self.space.path_table(rate), row, column)

    def _reach(self, end: int) -> list[list[Scalar]]:
        """By rate and layer, how much of the branch to `end` goes through each cell."""
        layers = self.space.layers
        found: list[list[Scalar]] = [[0.0] * layers for _ in range(3)]
        found[end][layers - 1] = 1.0
        for layer in range(layers - 2, -1, -1):
            for rate in range(min(layer, 2) + 1):
                stays = times(found[rate][layer + 1], self.from_same(rate, layer + 1))
                leaves = self.exit(found, rate, layer)
                found[rate][layer] = _sum(stays, leaves)
        return found

    def exit(self, reached: list[list[Scalar]], rate: int, layer: int) -> Scalar:
        """How much of a branch halves the resolution in this cell, so that the cell's input is its last map at the
        rate."""
        if rate == 2 or layer + 1 >= self.space.layers:
            return 0.0
        return times(reached[rate + 1][layer + 1], self.from_finer(rate + 1, layer + 1))

    def exits(self, end: int, rate: int, layer: int) -> Scalar:
        """The same of the branch to `end`."""
        return self.exit(self._reached[end], rate, layer)

    def operators(self, rate: int, layer: int) -> list[tuple[str, Scalar]]:
        """Those of a cell that run."""
        row = self.space.operator_row(rate, layer)
        return [
            (name, self.scalar("operator", row, column))
            for column, name in enumerate(self.names)
            if self.used("operator", row, column)
        ]

    def widths(self, rate: int, layer: int) -> list[tuple[int, Scalar]]:
        """Those of the connection into the cell of a layer that run; behind the last layer, the head's."""
        if layer == self.space.layers or self.teacher:
            return [(self.head, 1.0)]
        row, widths = self.space.width_row(rate, layer), self.space.widths
        if self.columns is not None:
            column = int(self.columns[row])
            learns = self.weights["width"].requires_grad
            return [(widths[column], self.scalar("width", row, column) if learns else 1.0)]
        values = self.values["width"]
        columns = [column for column in range(len(widths)) if self.used("width", row, column)]
        if values is not None and np.count_nonzero(values[row]) == 1:
            columns = [int(np.flatnonzero(values[row])[0])]
        return [(widths[column], self.scalar("width", row, column)) for column in columns]

    def same(self, rate: int, layer: int) -> Wanted | None:
        """The output of stride 1 of a cell, where something reads it."""
        if layer + 1 == self.space.layers or self.routes.stays(rate, layer):
            return Wanted(self.operators(rate, layer), self.widths(rate, layer + 1))
        return None

    def down(self, rate: int, layer: int) -> Wanted | None:
        """The output of stride 2."""
        if not self.routes.leaves(rate, layer):
            return None
        return Wanted(self.operators(rate, layer), self.widths(rate + 1, layer + 1))

    def pair_weights(self) -> dict[int, Scalar]:
        """How much each pair is chosen."""
        return {pair: self.scalar("branches", 0, pair) for pair in self.pairs}

    def main_first(self) -> list[int]:
        """The pairs, the most chosen one first."""
        values = self.values["branches"]
        if values is None:
            return self.pairs
        return sorted(self.pairs, key=lambda pair: -values[0, pair])

    @property
    def learns_pair(self) -> bool:
        """Whether the choice of the pair can learn from this pass."""
        return len(self.pairs) > 1 and self.weights["branches"].requires_grad


def _sum(first: Scalar, second: Scalar) -> Scalar:
    """Without a tensor operation where one is 0."""
    if isinstance(first, float) and first == 0.0:
        return second
    if isinstance(second, float) and second == 0.0:
        return first
    return first + second
