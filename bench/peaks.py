"""Peak rates of this machine, measured: matrix products in each precision, and copies that no cache holds.

A limit must not be higher than what the machine can do, so the best of many is taken: all sizes and precisions take
turns, round by round, and the fastest single run of each counts. The CUDA path was not run where this was written:
there was no GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, UsageError

from . import _tree

if TYPE_CHECKING:
    import torch

#: Edges of the square matrices.
SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
#: Bytes of the array that is copied to another one; both exceed the caches of large servers (480 MiB) and GPUs.
COPY_BYTES = {"cpu": (1 << 28, 1 << 29), "cuda": (1 << 29, 1 << 30)}
ROUNDS = 7
QUICK_SIZES, QUICK_COPY_BYTES, QUICK_ROUNDS = (512, 1024), (1 << 27,), 4

_DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
_MAX_FIRST_S = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """The best that was reached at one size.

    Attributes:
        what: a precision, or `copy`.
        size: edge of the square matrices, or bytes of the array that was copied.
        per_s: multiply-accumulates, or bytes read plus bytes written, a second.
        runs: how many runs it is the best of.
    """

    what: str
    size: int
    per_s: float
    runs: int


@dataclass(frozen=True, slots=True)
class Peaks:
    """What this machine reached.

    Attributes:
        device: `cpu` or `cuda`.
        threads: of the CPU, in use.
        rates: all sizes of all that runs here.
        missing: precision to the reason why it has no rate.
    """

    device: str
    threads: int
    rates: tuple[Rate, ...]
    missing: dict[str, str]

    def macs_per_s(self, precision: str) -> float:
        """The best over the sizes.

        Raises:
            UsageError: it could not be measured here; the reason is said.
        """
        found = [rate.per_s for rate in self.rates if rate.what == precision]
        if not found:
            raise UsageError(
                f"no rate in this precision was measured here: {self.missing.get(precision, 'it was not asked for')}",
                where="--precision",
                got=precision,
                allowed=", ".join(dict.fromkeys(rate.what for rate in self.rates if rate.what != "copy")),
            )
        return max(found)

    @property
    def bytes_per_s(self) -> float:
        """Of copies, reading and writing counted both."""
        return max(rate.per_s for rate in self.rates if rate.what == "copy")

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        tree: dict[str, Any] = _tree.encode(self)
        return tree


def threads_here() -> int:
    """How many threads the processors that this process may use can run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Task:
    """One thing to time; `work` is in multiply-accumulates or bytes."""

    what: str
    size: int
    work: int
    run: Callable[[], object]
    best_s: float = float("inf")
    runs: int = 0


def measure(
    precisions: Sequence[str] = ("fp32",),
    *,
    device: str = "cpu",
    threads: int | None = None,
    quick: bool = False,
    progress: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Peaks:
    """Measure this machine. Some ten seconds; with `quick` about one, at sizes that a large cache may hold.

    Args:
        device: `cpu` or `cuda`.
        threads: of the CPU; PyTorch's own number if None.
        clock: seconds, monotonic.

    Raises:
        UsageError: an unknown precision.
        BackendUnavailableError: PyTorch finds no CUDA device.
    """
    import torch

    for precision in precisions:
        if precision not in _DTYPES:
            raise UsageError("unknown precision", where="--precision", got=precision, allowed=", ".join(_DTYPES))
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError("PyTorch finds no CUDA device", where="--device", got=device, allowed="cpu")
    sizes = QUICK_SIZES if quick else SIZES[device]
    copies = QUICK_COPY_BYTES if quick else COPY_BYTES[device]
    with _threads(threads) as used, torch.inference_mode():
        tasks, missing = _tasks(precisions, sizes, copies, device, clock)
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            progress(f"peak rates, round {number + 1}")
            for task in tasks:
                _time(task, device, clock)
    rates = tuple(Rate(task.what, task.size, task.work / task.best_s, task.runs) for task in tasks)
    return Peaks(device, used, rates, missing)


def _tasks(
    precisions: Sequence[str], sizes: Sequence[int], copies: Sequence[int], device: str, clock: Callable[[], float]
) -> tuple[list[_Task], dict[str, str]]:
    tasks: list[_Task] = []
    missing: dict[str, str] = {}
    for precision in dict.fromkeys(precisions):
        for size in sizes:
            task, reason = _product(precision, size, device, clock)
            if task is None:
                # At a larger size it is no faster to fail, and a slow emulation takes minutes.
                if not any(known.what == precision for known in tasks):
                    missing[precision] = reason
                break
            tasks.append(task)
    return tasks + [_copy(size, device) for size in copies], missing


def _product(
    precision: str, size: int, device: str, clock: Callable[[], float]
) -> tuple[_Task, str] | tuple[None, str]:
    """A square matrix product that ran once, or why there is none."""
    import torch

    if precision == "tf32" and device == "cpu":
        return None, "tf32 is a precision of GPUs"
    dtype: torch.dtype = getattr(torch, _DTYPES[precision])
    if precision == "int8":
        left, right = (torch.randint(-8, 8, (size, size), dtype=dtype, device=device) for _ in range(2))
        multiply = _integer_product(left, right.t().contiguous().t())
    else:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        multiply = _float_product(left, right, precision)
    task = _Task(precision, size, size**3, multiply)
    try:
        first = _seconds(task, device, clock)
    except (RuntimeError, AttributeError) as error:
        return None, f"PyTorch has no product for it here ({str(error).splitlines()[0][:80]})"
    if first > _MAX_FIRST_S:
        return None, f"{size} x {size} took {first:.1f} s: it is emulated"
    return task, ""


def _float_product(left: torch.Tensor, right: torch.Tensor, precision: str) -> Callable[[], object]:
    import torch

    def multiply() -> object:
        # fp32 means fp32: tf32 is its own row.
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        try:
            return torch.mm(left, right)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return multiply


def _integer_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    import torch

    # PyTorch's only int8 x int8 -> int32 product has no public name.
    return lambda: torch._int_mm(left, right)


def _copy(size: int, device: str) -> _Task:
    import torch

    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return _Task("copy", size, 2 * size, lambda: target.copy_(source))


def _time(task: _Task, device: str, clock: Callable[[], float]) -> None:
    task.best_s = min(task.best_s, _seconds(task, device, clock))
    task.runs += 1


def _seconds(task: _Task, device: str, clock: Callable[[], float]) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    task.run()
    if device == "cuda":
        torch.cuda.synchronize()
    return max(clock() - start, 1e-9)


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """PyTorch with so many threads, and what it had before afterwards."""
    import torch

    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
