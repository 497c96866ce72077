"""Which cells and connections lead to the ends of the branches: of what lives, and of what runs in a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from .search_space import FINER, SAME, FasterSegSearchSpace

#: Whether a candidate of a path table counts: (rate index, row, column).
Open = Callable[[int, int, int], bool]


@dataclass(frozen=True)
class Routes:
    """What one branch, or several, may pass; each 3 rates x layers.

    Attributes:
        cells: that a path leads through.
        finer, same: whether it may come into the cell from the finer rate, from its own.
    """

    cells: np.ndarray
    finer: np.ndarray
    same: np.ndarray

    def leaves(self, rate: int, layer: int) -> bool:
        """Whether the cell's output of stride 2 is used."""
        return self._has(self.finer, rate + 1, layer + 1)

    def stays(self, rate: int, layer: int) -> bool:
        """Whether the cell's output of stride 1 is used by another cell."""
        return self._has(self.same, rate, layer + 1)

    @staticmethod
    def _has(found: np.ndarray, rate: int, layer: int) -> bool:
        return rate < found.shape[0] and layer < found.shape[1] and bool(found[rate, layer])


def routes(space: FasterSegSearchSpace, ends: Iterable[int], is_open: Open) -> Routes:
    """Traced back from the ends (rate indices)."""
    layers = space.layers
    cells, finer, same = (np.zeros((3, layers), dtype=bool) for _ in range(3))
    for end in ends:
        cells[end, layers - 1] = True
    for layer in range(layers - 1, 0, -1):
        for rate in range(min(layer, 2) + 1):
            if not cells[rate, layer]:
                continue
            row = space.path_row(rate, layer)
            # The first cell at a rate is led to from the finer one alone, and cells at 1/8 from 1/8 alone.
            finer[rate, layer] = rate > 0 and (row is None or is_open(rate, row, FINER))
            same[rate, layer] = rate == 0 or (row is not None and is_open(rate, row, SAME))
            cells[rate - 1, layer - 1] |= finer[rate, layer]
            cells[rate, layer - 1] |= same[rate, layer]
    return Routes(cells, finer, same)


def live_routes(
    space: FasterSegSearchSpace, alive: Mapping[str, np.ndarray], ends: Iterable[int], prefix: str = ""
) -> Routes:
    """Of the student, or with the prefix of the teacher."""
    return routes(space, ends, lambda rate, row, column: bool(alive[prefix + space.path_table(rate)][row, column]))


def live_ends(space: FasterSegSearchSpace, alive: Mapping[str, np.ndarray]) -> list[int]:
    """Rate indices that branches may end at."""
    return sorted({end for pair in np.flatnonzero(alive["branches"][0]) for end in space.ends(int(pair))})
