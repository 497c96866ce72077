"""Which cells and edges a network can still have, given what lives; and that there always is a network.

Chosen here, as the paper says nothing of nodes that read nothing: in a cell that is read, each node keeps an edge that
is there. Where a decision takes the last such edges of a node at once, the edge whose best live operator scores least
below `none` keeps that operator; an edge that is a node's last cannot be `none`. A cell that nothing reads any more has
no choices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...choices import Alive
from .operators import CELL_OPERATORS
from .search_space import LGCNetSearchSpace
from .wiring import CELL_EDGES, INTO, READS, living

NONE = CELL_OPERATORS.index("none")
#: Columns of the operators other than `none`.
HERE = np.array([column for column in range(len(CELL_OPERATORS)) if column != NONE])


def by_group(mask: np.ndarray) -> np.ndarray:
    """The table `cell` as groups x edges x candidates; a view."""
    return mask.reshape(-1, len(CELL_EDGES), len(CELL_OPERATORS))


def live_cells(space: LGCNetSearchSpace, mask: np.ndarray) -> np.ndarray:
    """Which cells the fusion cell can still have a way to.

    Args:
        mask: of the table `cell`.
    """
    present: np.ndarray = np.any(by_group(mask)[:, :, HERE], axis=2)
    present = present[list(space.group_of)]
    reads = np.stack([present[:, list(edges)].any(axis=1) for edges in READS], axis=1)
    return np.array(living([(bool(first), bool(second)) for first, second in reads], space.fused))


def live_groups(space: LGCNetSearchSpace, mask: np.ndarray) -> np.ndarray:
    """Which groups have a live cell."""
    found = np.zeros(len(space.groups), dtype=bool)
    np.logical_or.at(found, list(space.group_of), live_cells(space, mask))
    return found


def closed(space: LGCNetSearchSpace, alive: Alive, candidates: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Alive:
    """`alive` less what is pointless, and with what a network cannot do without.

    Args:
        candidates: of the table `cell`: what lives in the supernet, and the scores; asked for where something has to be
            kept.
    """
    alive = {name: mask.copy() for name, mask in alive.items()}
    groups = by_group(alive["cell"])
    settled = np.zeros(len(groups), dtype=bool)
    # What is kept may make a cell live that was not.
    while True:
        open_groups: np.ndarray = live_groups(space, alive["cell"]) & ~settled
        if not open_groups.any():
            break
        for group in np.flatnonzero(open_groups):
            for edges in INTO:
                _keep_an_edge(groups, int(group), edges, candidates)
        settled |= open_groups
    groups[~settled] = False
    return alive


def _keep_an_edge(
    groups: np.ndarray, group: int, edges: tuple[int, ...], candidates: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> None:
    there = [edge for edge in edges if groups[group, edge, HERE].any()]
    if len(there) == 1:
        groups[group, there[0], NONE] = False
    if there:
        return
    mask, scores = (by_group(array)[group] for array in candidates())
    best, least = None, np.inf
    for edge in edges:
        for column in HERE:
            loss = scores[edge, NONE] - scores[edge, column]
            if mask[edge, column] and (best is None or loss < least):
                best, least = (edge, column), loss
    assert best is not None, "a node of a live cell has an edge in the supernet"
    groups[group, best[0]] = False
    groups[group, best[0], best[1]] = True
