"""How a recipe has a supernet compute: number format, memory layout, checkpointing, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..choices import Weights
from ..supernet import Supernet
from .carry_over import Parameters
from .losses import aligned, pixel_loss
from .recipe import CrossEntropy, Ohem
from .search_recipe import SearchRecipe

Logits = Tensor | tuple[Tensor, ...]
Forward = Callable[[Tensor, Weights], Logits]


def channels_last(recipe: SearchRecipe, device: torch.device) -> bool:
    """Whether maps are stored channels-last; never in bfloat16 on a CPU, see `train.channels_last`."""
    return recipe.channels_last and not (device.type == "cpu" and recipe.amp == "bf16")


def configured(supernet: Supernet, recipe: SearchRecipe, device: torch.device) -> Forward:
    """Set what the recipe says; to be called again after every change of structure.

    Returns:
        The forward pass: the supernet itself, or what torch.compile made of it as it is now.
    """
    attributes: Any = supernet
    if hasattr(supernet, "compute_dtype"):
        attributes.compute_dtype = torch.bfloat16 if recipe.amp == "bf16" else torch.float32
    if hasattr(supernet, "checkpointing"):
        attributes.checkpointing = recipe.checkpointing
    if channels_last(recipe, device):
        for parameter in supernet.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if not recipe.compile:
        return supernet
    # What was compiled for the shapes before is let go.
    torch.compiler.reset()
    compiled: Forward = torch.compile(supernet, dynamic=False)
    return compiled


def precision(supernet: Supernet, recipe: SearchRecipe, device: torch.device) -> AbstractContextManager[Any]:
    """Around every forward pass: bfloat16 by autocast for supernets that have no `compute_dtype` of their own."""
    if recipe.amp == "none" or hasattr(supernet, "compute_dtype"):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def heads_loss(
    logits: Logits, labels: Tensor, head_weights: Sequence[float] | None, loss: Ohem | CrossEntropy
) -> Tensor:
    """The loss of one pass, at 1/8 of the resolution: the sum over its heads.

    Args:
        labels: N x H x W, int64.
        head_weights: how much each head counts; 1 each if None. A supernet in evaluation mode has the first alone.
    """
    heads = logits if isinstance(logits, tuple) else (logits,)
    counts = head_weights[: len(heads)] if head_weights is not None else (1.0,) * len(heads)
    losses = [
        count * pixel_loss(*aligned(head, labels, "eighth"), loss) for head, count in zip(heads, counts, strict=True)
    ]
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


@contextmanager
def held_still(parameters: Parameters) -> Iterator[None]:
    """No gradients are computed for these."""
    for parameter in parameters.values():
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in parameters.values():
            parameter.requires_grad = True
