"""The most memory that opening and running a network takes. What is seen differs by device, so each figure says it."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

from . import machine
from .protocol import Memory

RSS = "growth of the process's resident memory while the session opens and runs, at its peak"
RSS_NOW = "growth of the process's resident memory once the session has run"
TORCH = "torch.cuda's peak of allocated memory while the session opens and runs"
DEVICE = "growth of the GPU's used memory once the session has run, of all processes"

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MemoryWatch:
    """Start it before a session is opened, ask it after the session has run. Never raises."""

    def __init__(self, *, device: str, torch_allocates: bool) -> None:
        self._on_gpu, self._torch_allocates = device == "cuda", torch_allocates
        self._before: int | None = None
        self._has_peak = False

    def start(self) -> None:
        """Note what is in use now."""
        if self._on_gpu:
            self._before = machine.attempt(self._gpu_bytes_before)
            return
        # What was freed before would be taken again unseen.
        machine.attempt(_give_back_freed)
        # The kernel then counts the peak anew. Where that is not allowed, the peak of before would be counted.
        self._has_peak = machine.attempt(lambda: _CLEAR.write_text("5")) is not None
        self._before = machine.attempt(lambda: _status_bytes("VmRSS"))

    def seen(self) -> Memory | None:
        """What came on top of that at most; None where it cannot be read."""
        if self._before is None:
            return None
        if self._on_gpu:
            now = machine.attempt(self._gpu_bytes_after)
            how = TORCH if self._torch_allocates else DEVICE
        else:
            now = machine.attempt(lambda: _status_bytes("VmHWM" if self._has_peak else "VmRSS"))
            how = RSS if self._has_peak else RSS_NOW
        return None if now is None else Memory(max(0, now - self._before), how)

    def _gpu_bytes_before(self) -> int:
        import torch

        if self._torch_allocates:
            torch.cuda.reset_peak_memory_stats()
            return int(torch.cuda.memory_allocated())
        return _device_bytes()

    def _gpu_bytes_after(self) -> int:
        import torch

        return int(torch.cuda.max_memory_allocated()) if self._torch_allocates else _device_bytes()


def _device_bytes() -> int:
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def _give_back_freed() -> None:
    gc.collect()
    # Of the GNU C library; elsewhere there is no such function, and growth is seen less well.
    ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise LookupError(name)
