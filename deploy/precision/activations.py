"""What flows through a model on given pictures, tensor by tensor, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..backends.onnxruntime import create_session
from .graph import Graph

#: Of the tensors that one run of the model hands out.
_MAX_BYTES = 256 * 2**20


def observe(model: bytes, names: Sequence[str], batches: Iterable[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Each named tensor on each batch, by ONNX Runtime on the CPU with its optimiser off.

    Large models run several times a batch, each time handing out as many tensors as 256 MiB hold.

    Args:
        model: serialised ONNX, float32.
        names: computed float32 tensors of it, its input included.
        batches: input tensors; iterated once a group of tensors, so an iterator will not do.
    """
    graph = Graph(model)
    (source,) = (value.name for value in graph.model.graph.input)
    if source in names:
        yield from ((source, batch) for batch in batches)
    for group in _groups(graph, [name for name in names if name != source]):
        session = create_session(graph.reading(group), device="cpu", optimise=False)
        for batch in batches:
            yield from zip(group, session.run(None, {source: batch}), strict=True)


def largest_magnitudes(model: bytes, names: Sequence[str], batches: Iterable[np.ndarray]) -> dict[str, float]:
    """Tensor -> the largest |x| over all batches; NaN where one occurs."""
    largest = dict.fromkeys(names, 0.0)
    for name, values in observe(model, names, batches):
        # np.maximum, unlike max, keeps a NaN.
        largest[name] = float(np.maximum(largest[name], np.abs(values).max()))
    return largest


def _groups(graph: Graph, names: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    held = 0
    for name in names:
        needed = 4 * math.prod(graph.shape(name))
        if group and held + needed > _MAX_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += needed
    if group:
        yield group
