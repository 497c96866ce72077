"""Which layers int8 hurts: each one alone in int8, and what that does to the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Graph
from .qdq import Layer, quantised_nodes
from .quality import centred_logits, signal_to_noise_db


@dataclass(frozen=True)
class Sensitivity:
    """Of one layer: signal to noise of the logits where this layer alone is int8, in dB. Lower is worse."""

    layer: Layer
    signal_to_noise_db: float


def sensitivities(
    model: bytes,
    layers: Sequence[Layer],
    thresholds: Mapping[str, float],
    batches: Iterable[np.ndarray],
    tell: Callable[[int, int], None],
) -> list[Sensitivity]:
    """One figure a layer, the worst layer first, equal ones in the order of execution.

    The noise is measured at the logits, so a layer whose errors the rest of the network damps counts for little.

    Args:
        model: serialised ONNX, float32.
        layers, thresholds: see `qdq.quantise`.
        batches: a few pictures; iterated once a layer.
        tell: called with the number of layers that are done, and of how many.
    """
    graph = Graph(model)
    logits = [graph.logits()]
    reference = list(centred_logits(graph.reading(logits), batches))
    table = []
    for done, layer in enumerate(layers, 1):
        nodes, constants = quantised_nodes(graph, [layer], thresholds)
        alone = graph.assembled(nodes, constants, logits).SerializeToString()
        table.append(Sensitivity(layer, signal_to_noise_db(reference, centred_logits(alone, batches))))
        tell(done, len(layers))
    return sorted(table, key=lambda row: row.signal_to_noise_db)
