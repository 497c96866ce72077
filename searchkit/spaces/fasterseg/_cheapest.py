"""The cheapest FasterSeg network that is left, found exactly: from the last layer to the first, for each map that may
come into a cell.

Two branches begin together, in the trunk, and part in one cell, the fork, whose operator both outputs have in common.
From there each goes its own way, in cells of its own. One thing still ties them: which predecessor a cell takes is one
choice. So where the branches to 1/16 and 1/32 part at 1/8, the first comes to 1/16 only in a layer behind the last that
the second is there: for a layer m, it takes its stride of 2 in layer m or later, and the other, at 1/16, in m or
earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...choices import Alive, one_hot
from ...costs.expected import Price
from ...errors import SearchFailedError
from ...sizes import Size
from ._closing import closed
from .decoding import OPERATORS, SKIP
from .expected import Grids, grids_of
from .search_space import FINER, SAME, TEACHER, FasterSegSearchSpace

_CONVOLUTIONS = [index for index in range(len(OPERATORS)) if index != SKIP]


@dataclass(frozen=True, eq=False)
class _Priced:
    """Prices of the grids: by rate, cells by (operator, size, width in, width out), skips of stride 1 costing nothing;
    what leaving a rate, or ending there, adds for the merges by (size, width)."""

    grids: Grids
    same: list[np.ndarray]
    down: list[np.ndarray]
    leaving: list[np.ndarray]
    ending: list[np.ndarray]


@lru_cache(maxsize=8)
def _priced(space: FasterSegSearchSpace, classes: int, size: Size, price: Price) -> _Priced:
    grids = grids_of(space, classes, size)
    reduce = [np.zeros(len(grids.sizes[0])), *(grid.priced(price) for grid in grids.reduce)]
    return _Priced(
        grids=grids,
        same=[np.insert(grid.priced(price), SKIP, 0.0, axis=0) for grid in grids.same],
        down=[grid.priced(price) for grid in grids.down],
        leaving=[grids.refine[rate].priced(price) + reduce[rate][:, None] for rate in range(2)],
        ending=[np.repeat(each[:, None], len(grids.widths), axis=1) for each in reduce],
    )


@dataclass(frozen=True)
class _At:
    """Where a branch is: a cell, and the size and width of the map that comes into it, by their indices."""

    rate: int
    layer: int
    size: int
    width: int


class _Search:
    """Costs from each cell to the end, by (m, size, width) of the map that comes in.

    Attributes:
        tails: by end, rate and layer, of a branch by itself; inf where the end cannot be reached. A branch to 1/16
            takes its stride of 2 in layer m or later; one to 1/32 takes its second in layer m or earlier.
    """

    def __init__(self, space: FasterSegSearchSpace, alive: Alive, priced: _Priced) -> None:
        self.space, self.alive, self.priced, self.layers = space, alive, priced, space.layers
        self.widths = priced.grids.widths
        self.columns = [self.widths.index(width) for width in space.widths]
        self.tails = [self._tail(end) for end in range(3)]

    def infinite(self, rate: int) -> np.ndarray:
        """No way on from a rate."""
        return np.full((self.layers, len(self.priced.grids.sizes[rate]), len(self.widths)), np.inf)

    def operators(self, rate: int, layer: int) -> np.ndarray:
        """0 for those that live in a cell, inf for others; operators x 1 x 1."""
        return np.where(self.alive["operator"][self.space.operator_row(rate, layer)], 0.0, np.inf)[:, None, None]

    def outputs(self, rate: int, layer: int) -> np.ndarray:
        """The same for the widths of what is made for the cell of a layer; behind the last, the head's."""
        found = np.full(len(self.widths), np.inf)
        if layer == self.layers:
            found[self.widths.index(self.space.head_width)] = 0.0
        else:
            live = self.alive["width"][self.space.width_row(rate, layer)]
            found[self.columns] = np.where(live, 0.0, np.inf)
        return found

    def opens(self, rate: int, layer: int, column: int) -> bool:
        """Whether a cell may have this predecessor."""
        if rate > 2 or layer >= self.layers:
            return False
        row = self.space.path_row(rate, layer)
        return row is None or bool(self.alive[self.space.path_table(rate)][row, column])

    def by_width(self, at: _At, operator: int, stride: int, after: np.ndarray) -> np.ndarray:
        """Cost of an operator and all behind it, by the width that it makes; `after` by (size, width)."""
        if stride == 1:
            costs = self.priced.same[at.rate][operator, at.size, at.width] + after[at.size]
            return costs + self.outputs(at.rate, at.layer + 1)
        size = self.priced.grids.follow[at.rate][operator][at.size]
        costs = self.priced.down[at.rate][operator, at.size, at.width] + after[size]
        return costs + self.outputs(at.rate + 1, at.layer + 1)

    def staying(self, rate: int, layer: int, after: np.ndarray) -> np.ndarray:
        """By (m, operator, size, width): the output of stride 1, and then `after` by (m, size, width)."""
        costs = self.priced.same[rate] + self.outputs(rate, layer + 1)
        found: np.ndarray = (costs[None] + after[:, None, :, None, :]).min(axis=-1)
        if layer + 1 < self.layers:
            found[:, SKIP] = after
        return found + self.operators(rate, layer)

    def leaving(self, rate: int, layer: int, after: np.ndarray) -> np.ndarray:
        """The same for the output of stride 2, merges not counted."""
        follow = np.array(self.priced.grids.follow[rate])
        costs = self.priced.down[rate] + self.outputs(rate + 1, layer + 1)
        found: np.ndarray = (costs[None] + after[:, follow][:, :, :, None, :]).min(axis=-1)
        return found + self.operators(rate, layer)

    def _tail(self, end: int) -> list[list[np.ndarray]]:
        found = [[self.infinite(rate)] * self.layers for rate in range(3)]
        found[end][-1] = self.staying(end, self.layers - 1, self.ending(end)).min(axis=1)
        for layer in range(self.layers - 2, -1, -1):
            for rate in range(min(layer, end) + 1):
                best = self.infinite(rate)
                if self.opens(rate, layer + 1, SAME):
                    best = self.staying(rate, layer, found[rate][layer + 1]).min(axis=1)
                if rate < end and self.opens(rate + 1, layer + 1, FINER):
                    left = self.leaving(rate, layer, found[rate + 1][layer + 1]).min(axis=1)
                    left = left + self.priced.leaving[rate]
                    best = np.minimum(best, np.where(self._may_leave(end, rate, layer), left, np.inf))
                found[rate][layer] = best
        return found

    def ending(self, end: int) -> np.ndarray:
        """Behind the last layer: what the branch's first merge reads."""
        return np.repeat(self.priced.ending[end][None], self.layers, axis=0)

    def _may_leave(self, end: int, rate: int, layer: int) -> np.ndarray:
        m = np.arange(self.layers)[:, None, None]
        if (end, rate) == (1, 0):
            return layer >= m
        if (end, rate) == (2, 1):
            return layer <= m
        return np.ones_like(m, dtype=bool)


class _Pair:
    """Both branches of a pair of ends, the finer one first.

    Attributes:
        trunk: by rate and layer, the cost by (1, size, width) while they are together.
    """

    def __init__(self, search: _Search, ends: tuple[int, int]) -> None:
        self.search, self.ends = search, ends
        layers = search.layers
        self.trunk = [[search.infinite(rate)[:1]] * layers for rate in range(3)]
        for layer in range(layers - 2, -1, -1):
            for rate in range(min(layer, ends[0]) + 1):
                options = [found.min(axis=(0, 1)) for found in self.options(rate, layer).values()]
                if options:
                    self.trunk[rate][layer] = np.min(options, axis=0)[None]

    def options(self, rate: int, layer: int) -> dict[str, np.ndarray]:
        """What both may do in a cell, by (m, operator, size, width): `stay`, `leave`, `fork`."""
        search, found = self.search, {}
        stays = search.opens(rate, layer + 1, SAME)
        leaves = rate < 2 and search.opens(rate + 1, layer + 1, FINER)
        if stays:
            found["stay"] = search.staying(rate, layer, self.trunk[rate][layer + 1])
        if leaves and rate < self.ends[0]:
            left = search.leaving(rate, layer, self.trunk[rate + 1][layer + 1])
            # Each branch has merges of its own.
            found["leave"] = left + 2 * search.priced.leaving[rate]
        if leaves and stays and rate < self.ends[1]:
            stay, leave = self.tails(rate)
            first = search.staying(rate, layer, stay[rate][layer + 1])
            second = search.leaving(rate, layer, leave[rate + 1][layer + 1])
            found["fork"] = first + second + search.priced.leaving[rate]
        return found

    def tails(self, rate: int) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Of both branches behind a fork at a rate, by m where it ties them; elsewhere the m that allows all."""
        stay, leave = (self.search.tails[end] for end in self.ends)
        if self.ends == (1, 2) and rate == 0:
            return stay, leave
        free = [[each[:1] for each in row] for row in stay]
        return free, [[each[-1:] for each in row] for row in leave]


class _Trace:
    """Follows the least costs from the first layer on, and writes down what is taken."""

    def __init__(self, pair: _Pair, found: Alive) -> None:
        self.pair, self.search, self.space, self.found = pair, pair.search, pair.search.space, found

    def run(self) -> None:
        """From the stem on."""
        at: _At | None = _At(0, 0, 0, self.search.widths.index(self.space.stem_width))
        trunk = self.pair.trunk
        while at is not None:
            options = self.pair.options(at.rate, at.layer)
            here = {name: costs[:, :, at.size, at.width] for name, costs in options.items()}
            name = min(here, key=lambda option: here[option].min())
            m, operator = (int(i) for i in np.unravel_index(here[name].argmin(), here[name].shape))
            if name == "fork":
                stay, leave = self.pair.tails(at.rate)
                ways = [(1, stay[at.rate][at.layer + 1][m]), (2, leave[at.rate + 1][at.layer + 1][m])]
                for tail, end, (stride, after) in zip((stay, leave), self.pair.ends, ways, strict=True):
                    self._tail(tail, end, m, self._take(at, operator, stride, after))
                at = None
            else:
                stride = 1 if name == "stay" else 2
                after = trunk[at.rate + stride - 1][at.layer + 1][0]
                at = self._take(at, operator, stride, after)

    def _tail(self, tail: list[list[np.ndarray]], end: int, m: int, at: _At) -> None:
        """A branch by itself, to the last layer."""
        search = self.search
        while at.layer + 1 < search.layers:
            options: dict[int, np.ndarray] = {}
            if search.opens(at.rate, at.layer + 1, SAME):
                after = tail[at.rate][at.layer + 1][m]
                options[1] = search.staying(at.rate, at.layer, after[None])[0, :, at.size, at.width]
            if at.rate < end and search.opens(at.rate + 1, at.layer + 1, FINER):
                after = tail[at.rate + 1][at.layer + 1][m]
                left = search.leaving(at.rate, at.layer, after[None])[0, :, at.size, at.width]
                options[2] = left + search.priced.leaving[at.rate][at.size, at.width]
            whole = tail[at.rate][at.layer][m, at.size, at.width]
            # Where m forbids a stride of 2 it may look cheaper than what is allowed.
            stride = min(options, key=lambda stride: abs(options[stride].min() - whole))
            after = tail[at.rate + stride - 1][at.layer + 1][m]
            at = self._take(at, int(options[stride].argmin()), stride, after)
        costs = search.staying(end, at.layer, search.ending(end)[:1])[0, :, at.size, at.width]
        self.found["operator"][self.space.operator_row(end, at.layer), int(costs.argmin())] = True

    def _take(self, at: _At, operator: int, stride: int, after: np.ndarray) -> _At:
        """Write down an operator, the path behind it and the width that it makes; returns where it leads."""
        space, rate, layer = self.space, at.rate + stride - 1, at.layer + 1
        self.found["operator"][space.operator_row(at.rate, at.layer), operator] = True
        row = space.path_row(rate, layer)
        if row is not None:
            self.found[space.path_table(rate)][row, SAME if stride == 1 else FINER] = True
        if operator == SKIP and stride == 1:
            return _At(rate, layer, at.size, at.width)
        width = int(self.search.by_width(at, operator, stride, after).argmin())
        self.found["width"][space.width_row(rate, layer), self.search.columns.index(width)] = True
        size = at.size if stride == 1 else self.search.priced.grids.follow[at.rate][operator][at.size]
        return _At(rate, layer, size, width)


def cheapest(space: FasterSegSearchSpace, classes: int, alive: Alive, price: Price, size: Size) -> Alive:
    """The cheapest network of the student that is left.

    Args:
        alive: of the tables of `space`; every choice that is not pointless has a candidate.
        price: of an operator, not negative. It is asked once an operator, and its answers are kept.

    Returns:
        One candidate a choice, pointless choices without any; of the teacher, the first candidates.

    Raises:
        SearchFailedError: `alive` holds no network.
    """
    priced = _priced(space, classes, size, price)
    search = _Search(space, alive, priced)
    stem = search.widths.index(space.stem_width)
    pairs = {int(pair): _Pair(search, space.ends(int(pair))) for pair in np.flatnonzero(alive["branches"][0])}
    costs = {pair: float(each.trunk[0][0][0, 0, stem]) for pair, each in pairs.items()}
    best = min(costs, key=lambda pair: costs[pair], default=None)
    if best is None or not np.isfinite(costs[best]):
        raise SearchFailedError("no network is left", where="branches", fix="lower the threshold of the strategy")
    found = {name: np.zeros_like(mask) for name, mask in alive.items()}
    found["branches"][0, best] = True
    _Trace(pairs[best], found).run()
    teacher = {name: mask for name, mask in alive.items() if name.startswith(TEACHER)}
    return closed(space, found | one_hot({name: mask.astype(float) for name, mask in teacher.items()}, teacher))
