"""From probabilities of connections to a network (section 3.5): breadth-first search backwards from the head.

The paper names the algorithm and leaves its rules to a supplement. Here: a module that is reached keeps those
connections whose probability is at least `threshold` times its greatest, at most `keeps` of them, and what they come
from is reached in turn. Modules that are not reached are left out. As each keeps a connection, and connections come
from earlier layers only, whatever is kept is connected to the stem; no module of the last layer can be missing.
"""

from __future__ import annotations

import numpy as np

from .genotype import RATES


def kept(probabilities: np.ndarray, alive: np.ndarray, threshold: float, keeps: int) -> np.ndarray:
    """The connections of each module by themselves.

    Args:
        probabilities: modules x sources; of a live row some may be 0.
        alive: the same shape; a row without any stays so.

    Returns:
        Of each row those of p >= threshold * max p, at most `keeps`, the first of equals; at least the greatest. A row
        that has no more than `keeps` is decided, and stays as it is.
    """
    p = np.where(alive, probabilities, -np.inf)
    order = np.argsort(-p, axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")
    greatest = p.max(axis=1, keepdims=True)
    enough = (p >= threshold * greatest) & (p > 0)
    decided = alive.sum(axis=1, keepdims=True) <= keeps
    found: np.ndarray = alive & (decided | (ranks < keeps) & (enough | (ranks == 0)))
    return found


def reached(connections: np.ndarray) -> np.ndarray:
    """Which modules the head is reached from, bool: breadth-first search, one layer of the search at a time.

    Args:
        connections: modules x sources, as in `DCNASSearchSpace`: source k + 4 is module k, and the head reads the last
            four modules.
    """
    modules, first = connections.shape[0], len(RATES)
    found = np.zeros(modules, dtype=bool)
    front = np.arange(modules) >= modules - len(RATES)
    while front.any():
        found |= front
        sources = connections[front].any(axis=0)
        front = np.zeros(modules, dtype=bool)
        front[: len(sources) - first] = sources[first:]
        front &= ~found
    return found
