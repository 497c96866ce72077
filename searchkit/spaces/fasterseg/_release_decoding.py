"""FasterSeg's released decoder, flaws included: what its published networks were decoded by.

Where it differs from the rule "joint" of `decoding`:

- A path is chosen by the probabilities of its strides alone. To 1/16 the stride is put one layer before the one that
  its probability belongs to. To 1/32 at least two layers stand between the strides, and the last position is left out,
  as the first is for both.
- Parameters are changed in place. The branches are decoded in the order 1/8, 1/16, 1/32 on one set of them, so the
  softmax of `beta` is taken once more for each (of 1/32 three times), and a skip that was ruled out for one branch is
  ruled out for the next.
- A skip of stride 2 never stays: its cell takes the next operator.
- At least round(L / 3) layers stay, and two more for each halving: where there are too many skips, the most probable
  ones are removed and the others take their next operator. Between two halvings, and behind the last, at least one
  layer stays: the least probable skip there takes its next operator, and counts as removed all the same.
"""

from __future__ import annotations

import itertools

import numpy as np

from ...errors import UsageError
from .decoding import (
    FROM_FINER,
    OPERATORS,
    SKIP,
    ArchitectureParameters,
    DecodedLayer,
    log_softmax,
    rate_in,
    with_head_width,
)

# The first of the list of places for the stride to 1/16 must not be empty.
_LEAST_LAYERS = 5


def decode_release(parameters: ArchitectureParameters, last: int, teacher: bool) -> list[DecodedLayer]:
    """One branch, as the release leaves it after decoding those before it; see `decoding.decode`."""
    layers = parameters.layers
    if layers < _LEAST_LAYERS:
        raise UsageError(
            "too few layers for the release's decoder",
            where="operators",
            got=layers,
            allowed=f"{_LEAST_LAYERS} or more",
        )
    operators = [rows.copy() for rows in parameters.operators]
    beta = list(parameters.beta)
    for branch in range(last + 1):
        beta = [_softmax(rows) for rows in beta]
        halving = _halving(beta, branch, layers)
        chosen = _chosen(operators, halving, layers, teacher)
    found = []
    for layer, operator in chosen.items():
        rate, strided = rate_in(layer, halving), layer in halving
        width = None if layer == layers - 1 else parameters.width_column(layer + 1, rate + strided)
        found.append(DecodedLayer(layer, rate, OPERATORS[operator], width, 2 if strided else 1))
    return with_head_width(found)


def _softmax(rows: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(rows))


def _halving(beta: list[np.ndarray], last: int, layers: int) -> tuple[int, ...]:
    """The layers of stride 2, given probabilities."""
    to16, to32 = (rows[:, FROM_FINER] for rows in beta)
    if last == 0:
        return ()
    if last == 1:
        # Row i is of the cell in layer i + 2, which the stride is in front of, in layer i + 1; the release takes i.
        return (int(to16[1:-1].argmax()) + 1,)
    best, probability = (0, 1), 0.0
    for second in range(layers - 4):
        for first in range(1, second - 1):
            if to16[first] * to32[second] > probability:
                best, probability = (first, second), to16[first] * to32[second]
    return best[0] + 1, best[1] + 2


def _chosen(operators: list[np.ndarray], halving: tuple[int, ...], layers: int, teacher: bool) -> dict[int, int]:
    """The operator of each layer that stays, by layer. Rules skips out in `operators`."""
    rates = [rate_in(layer, halving) for layer in range(layers)]
    rows = [operators[rate][layer - rate] for layer, rate in enumerate(rates)]
    if teacher:
        for row in rows:
            row[SKIP] = -np.inf
    skips = {
        layer: float(_softmax(row)[SKIP])
        for layer, row in enumerate(rows)
        if row.argmax() == SKIP and layer not in halving
    }
    _keep_one_a_rate(rows, skips, halving)
    spare = layers - (round(layers / 3) + 2 * rates[-1])
    removed = set(sorted(skips, key=lambda layer: -skips[layer])[:spare]) if len(skips) > spare else set(skips)
    for layer, row in enumerate(rows):
        if row.argmax() == SKIP and layer not in removed:
            row[SKIP] = -np.inf
    return {layer: int(row.argmax()) for layer, row in enumerate(rows) if row.argmax() != SKIP}


def _keep_one_a_rate(rows: list[np.ndarray], skips: dict[int, float], halving: tuple[int, ...]) -> None:
    for first, second in itertools.pairwise((*halving, len(rows)) if halving else ()):
        between = range(first + 1, second)
        if between and all(layer in skips for layer in between):
            # The later one of two that are equal.
            rows[min(reversed(between), key=skips.__getitem__)][SKIP] = -np.inf
