"""Rewrites of a network for export; each is the same function, and `verify` proves it at every export.

The PyTorch network stays as the paper has it and is the reference; what is exported is a rewritten copy. Adaptive pools
are always rewritten (`pools`). All other rewrites take the exported float32 ONNX graph, one file each in `rewrites`,
and are applied only where they are asked for, or where a measurement found them faster (`choice`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from searchkit.registry import Registry


@dataclass(frozen=True)
class Rewrite:
    """One rewrite of an ONNX graph.

    Attributes:
        apply: a serialised float32 model to the rewritten one, or None where the graph holds nothing to rewrite. Same
            function, input, output and metadata; activations differ by rounding at most.
    """

    apply: Callable[[bytes], bytes | None]


REWRITES: Registry[Rewrite] = Registry("deploy.lowering.rewrites", "REWRITE", "rewrite")


def rewritten(model: bytes, names: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    """The model after these rewrites, in this order, and those of them that found something to rewrite.

    Raises:
        UsageError: there is no such rewrite.
    """
    applied = []
    for name in names:
        found = REWRITES.load(name).apply(model)
        if found is not None:
            model = found
            applied.append(name)
    return model, tuple(applied)
