"""Adaptive pooling of a known size as two 1x1 convolutions: the one rewrite that every export has.

It is done on the PyTorch network, because the exporter would unroll adaptive pooling into thousands of nodes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchkit.blocks import AdaptiveAvgPools


class FixedAvgPools(nn.Module):
    """`AdaptiveAvgPools` for one map size, as two 1x1 convolutions: rows first, then columns.

    Adaptive pooling is linear and separable: pooled = R x C' with constant matrices. Folding N and C into the batch
    makes each product a 1x1 convolution over the rows (columns) as channels, for all bins at once. The exporter
    unrolls the adaptive form into some 2,800 nodes for the SSR network; this one is about 20. Convolutions rather
    than MatMul, because TensorRT-RTX refuses FP32 matrix products on SM75.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, bins: Sequence[int], height: int, width: int) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.height, self.width = height, width
        self.register_buffer("rows", torch.cat([pooling_matrix(b, height) for b in bins])[:, :, None, None])
        self.register_buffer("columns", torch.cat([pooling_matrix(b, width) for b in bins])[:, :, None, None])

    def forward(self, x: Tensor) -> list[Tensor]:
        channels = x.shape[1]
        rows = F.conv2d(x.reshape(-1, self.height, 1, self.width), self.rows)
        both = F.conv2d(rows.transpose(1, 3), self.columns).transpose(1, 3)
        pooled, start = [], 0
        for size in self.bins:
            end = start + size
            pooled.append(both[:, start:end, :, start:end].reshape(-1, channels, size, size))
            start = end
        return pooled


def pooling_matrix(bins: int, length: int) -> Tensor:
    """The bins x length matrix that averages as `adaptive_avg_pool1d`: bin i covers floor(i L/b) to ceil((i+1) L/b)."""
    matrix = torch.zeros(bins, length)
    for i in range(bins):
        start, end = i * length // bins, -(-(i + 1) * length // bins)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


@torch.no_grad()
def lower(module: nn.Module, example: Tensor) -> nn.Module:
    """A rewritten copy of `module` in evaluation mode for inputs of the shape of `example`."""
    # A parent of its own, so that a module that is itself a pool can be replaced like any other.
    lowered = nn.ModuleDict({"module": copy.deepcopy(module).eval()})
    for name, (height, width) in _pool_shapes(lowered["module"], example).items():
        parent, _, child = f"module.{name}".rstrip(".").rpartition(".")
        pools = lowered.get_submodule(parent).get_submodule(child)
        # One in a block that stands in two places was replaced with the first.
        if isinstance(pools, AdaptiveAvgPools):
            setattr(lowered.get_submodule(parent), child, FixedAvgPools(pools.bins, height, width).eval())
    return lowered["module"]


def _pool_shapes(module: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of what reaches each `AdaptiveAvgPools`, found by one pass on the meta device.

    A pool that sees maps of several sizes, or none, is left out: it stays as it is. A pool that stands in two places
    appears under both names.
    """
    seen: dict[str, set[tuple[int, int]]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.setdefault(name, set()).add((int(inputs[0].shape[-2]), int(inputs[0].shape[-1])))

        return hook

    named = module.named_modules(remove_duplicate=False)
    names = [name for name, layer in named if isinstance(layer, AdaptiveAvgPools)]
    if not names:
        return {}
    probe = copy.deepcopy(module).to("meta")
    for name in names:
        probe.get_submodule(name).register_forward_pre_hook(remember(name))
    probe(example.to("meta"))
    return {name: shapes.pop() for name, shapes in seen.items() if len(shapes) == 1}
