"""Maps that are computed again in the backward pass instead of kept: activation checkpointing for supernets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, of whose maps only those among the arguments and the results are kept.

    Outputs, gradients and the statistics of BatchNorms are those of a plain call.

    Args:
        module: holds all BatchNorms that take part.
        function: draws nothing at random, and computes the same when it is called again.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    contexts = partial(_contexts, module)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _statistics_held(module)


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    """While it lasts, BatchNorms take in no batch: they have done so in the forward pass."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Statistics move by 0 times the batch's. Without them, fewer tensors would be saved than in the first pass.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
