"""What an `nn.Module` needs, measured on the meta device: nothing is allocated, nothing is computed.

Counted where PyTorch dispatches its operators, so that code that a tracer would drop is counted too. MACs here are
those of convolutions and matrix products; `bench profile` adds fvcore's count of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .cost import Cost
from .sizes import Size


def count_params(module: nn.Module) -> int:
    """Number of parameters, each counted once however often it is used."""
    return sum(p.numel() for p in module.parameters())


class PeakMemory(TorchDispatchMode):
    """Follows the storages that operators return; `peak_bytes` is the most that lived at one time.

    Counts the input if it is made inside the block; weights are not counted, as no operator returns them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._at_most = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                _, before = self._live.get(storage._cdata, (None, 0))
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self._at_most += storage.nbytes() - before
        # What died is only looked for where it decides: going through all of them at every operator is slow.
        if self._at_most > self.peak_bytes:
            self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
            self._at_most = sum(size for _, size in self._live.values())
            self.peak_bytes = max(self.peak_bytes, self._at_most)
        return result


@torch.no_grad()
def on_meta(module: nn.Module, size: Size) -> Cost:
    """Cost of one forward pass at batch 1.

    Args:
        module: built on the meta device, in evaluation mode, taking 1 x 3 x H x W.
        size: H and W.

    Returns:
        Parameters, convolution and matrix MACs, and the peak of what an eager forward pass keeps in memory at one time,
        input included, weights not.
    """
    memory = PeakMemory()
    with FlopCounterMode(display=False) as counter, memory:
        module(torch.empty(1, 3, size.height, size.width, device="meta"))
    return Cost(count_params(module), counter.get_total_flops() // 2, memory.peak_bytes)
