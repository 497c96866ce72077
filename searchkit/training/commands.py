"""What the commands that train and search share: devices, caches, progress, and an end behind the present step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..console import err

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from ..data import Dataset
    from ..sizes import Size
    from .cache import Cache


def find_device(name: str, *, verb: str = "train") -> torch.device:
    """The device of a name such as `cuda:1`; raises unless PyTorch has it here."""
    from ..errors import BackendUnavailableError, UsageError

    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise UsageError("unknown device", where="--device", got=name, allowed="cpu, cuda, or cuda:0, cuda:1, ...")
    import torch

    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and int(index or 0) >= count:
        raise BackendUnavailableError(
            "PyTorch finds no such GPU",
            where="--device",
            got=name,
            allowed=", ".join(["cpu", *(f"cuda:{i}" for i in range(count))]),
            fix=f"run `searchkit doctor`, or {verb} with --device cpu",
        )
    return torch.device(name)


def cached(dataset: Dataset, split: str, size: Size, folder: Path) -> Cache:
    """The samples of a split, decoded once, with a bar while that goes on."""
    from .cache import prepare

    with progress_bar() as bar:
        task = bar.add_task(f"decoding {dataset.kind} {split}", total=None, facts="")
        return prepare(
            dataset, split, size, folder, lambda done, count: bar.update(task, completed=done, total=count), wait=True
        )


def progress_bar(*, shown: bool = True) -> Progress:
    """A bar on standard error that says how much is done, how long the rest takes, and the task's `facts`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
        console=err(),
        transient=True,
        disable=not shown,
    )


@dataclass
class Stop:
    """Which signal asked for the end, if any."""

    signal: int = 0


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks for the end behind the present step; a second one ends the command at once."""
    stop = Stop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.signal = number
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
