"""What the backends on PyTorch have in common: its process-wide settings, and a copy of the reference network."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@contextmanager
def settings_held(threads: int | None, device: str) -> Iterator[None]:
    """Inside the block PyTorch computes with `threads` CPU threads (None: as it is), and without TF32 on `cuda`.

    PyTorch knows one such setting a process. Sessions hold theirs while they run and put back what they found, so that
    none is left behind and two open sessions do not disturb each other.
    """
    with (
        _threads_held(threads) if threads is not None else nullcontext(),
        _without_tf32() if device == "cuda" else nullcontext(),
    ):
        yield


@dataclass
class _Holders:
    """How many blocks hold a thread count at the moment, and the count that was there before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    found: int = 0


_HOLDERS = _Holders()


@contextmanager
def _threads_held(threads: int) -> Iterator[None]:
    """OpenMP keeps the count a host thread, PyTorch a process: what is put back is what no session had set."""
    import torch

    with _HOLDERS.lock:
        if _HOLDERS.count == 0:
            _HOLDERS.found = torch.get_num_threads()
        _HOLDERS.count += 1
    # A call takes 5 us, which a small network would show.
    changes = torch.get_num_threads() != threads
    try:
        if changes:
            torch.set_num_threads(threads)
        yield
    finally:
        with _HOLDERS.lock:
            _HOLDERS.count -= 1
            if changes:
                torch.set_num_threads(_HOLDERS.found)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """TF32 keeps 10 bits of a factor's fraction: another network than the one that was verified."""
    import torch

    switches: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    found = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, found, strict=True):
            switch.allow_tf32 = value


def tensor_of(batch: np.ndarray) -> Tensor:
    """The array as a tensor, in the same memory unless it has gaps or is read-only, which PyTorch does not take."""
    import numpy as np
    import torch

    return torch.from_numpy(np.require(batch, requirements=("C", "W")))


def private_copy(module: nn.Module, device: str) -> nn.Module:
    """A copy on `device` without gradients; the reference stays where and as it is.

    Copied tensors are ordinary ones even where the reference was built in inference mode, which `torch.export` refuses.
    """
    return copy.deepcopy(module).requires_grad_(False).to(device)


def first_line(error: Exception) -> str:
    """What it says, without the compiler command or the stack trace that PyTorch's compilers write below."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
