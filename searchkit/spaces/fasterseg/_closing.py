"""What becomes pointless by what does not live any more."""

from __future__ import annotations

import numpy as np

from ...choices import Alive
from ._routes import Routes, live_ends, live_routes
from .decoding import SKIP
from .search_space import TEACHER, FasterSegSearchSpace


def closed(space: FasterSegSearchSpace, alive: Alive) -> Alive:
    """`alive` less the cells that no live path leads through, and the widths of connections that no convolution makes
    (skips pass on what they get)."""
    found = {name: mask.copy() for name, mask in alive.items()}
    ends = live_ends(space, alive)
    for prefix in ("", TEACHER) if space.teacher else ("",):
        open_ = live_routes(space, alive, ends, prefix)
        for rate, layer in space.cells():
            if not open_.cells[rate, layer]:
                found[f"{prefix}operator"][space.operator_row(rate, layer)] = False
            row = space.path_row(rate, layer)
            if row is not None and not open_.cells[rate, layer]:
                found[f"{prefix}{space.path_table(rate)}"][row] = False
    student = live_routes(space, alive, ends)
    for rate, layer in space.connections():
        if not _made(space, found, student, rate, layer):
            found["width"][space.width_row(rate, layer)] = False
    return found


def _made(space: FasterSegSearchSpace, alive: Alive, open_: Routes, rate: int, layer: int) -> bool:
    """Whether something but a skip of stride 1 comes into a cell."""
    if open_.finer[rate, layer]:
        return True
    if not open_.same[rate, layer]:
        return False
    operators = alive["operator"][space.operator_row(rate, layer - 1)]
    return bool(np.delete(operators, SKIP).any())
