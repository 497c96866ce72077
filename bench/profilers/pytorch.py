"""PyTorch's profile of the eager network: each module without children, and each operator called outside of one.

Eager PyTorch has no graph, so a module is matched to the convolution that was exported with its weight, and a BatchNorm
to none: the exported model has it folded into the convolution before. Functional operators have no name to match by.
"""

from __future__ import annotations

import copy
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import onnx
import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from deploy.backends.pytorch import BACKEND
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import UsageError

from . import WARM_UP_RUNS, Profiled, Step, summed

_RUN = "searchkit run"
_MODULE = "searchkit module "
_MODES = ("eager", "channels_last")


def profile(model: Deployable, *, mode: str, threads: int | None, runs: int) -> Profiled:
    """As `Profiler`; on the CPU, the modes `eager` and `channels_last`."""
    if mode not in _MODES:
        raise UsageError(f"the mode {mode} of pytorch cannot be profiled", where="--backend", allowed=", ".join(_MODES))
    state, _ = BACKEND.require("cpu")
    module = copy.deepcopy(model.module)
    batch = torch.from_numpy(model.contract.encode(streets.draw(0, 0, model.size).image).copy())
    if mode == "channels_last":
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if batch.is_floating_point():
            batch = batch.contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        whole, events = _run(module, batch, runs)
    finally:
        torch.set_num_threads(before)
    makers = _by_weight(onnx.load_from_string(model.onnx).graph)
    times = _times(events)
    steps = tuple(_steps(times, module, makers))
    return Profiled("pytorch", state.version, mode, "cpu", median(whole), summed(times.values()), runs, steps)


def _run(module: nn.Module, batch: torch.Tensor, runs: int) -> tuple[list[float], list[Any]]:
    whole = []
    # Its library greets on standard error each time it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.inference_mode(), _marked(module):
        for _ in range(WARM_UP_RUNS):
            module(batch)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(runs):
                start = time.perf_counter()
                with record_function(_RUN):
                    module(batch)
                whole.append(1000 * (time.perf_counter() - start))
    return whole, list(profiler.events())


@contextmanager
def _marked(module: nn.Module) -> Iterator[None]:
    """Every module without children records its path around its forward."""
    open_records: list[Any] = []
    handles = []

    def enter(path: str) -> Any:
        def hook(*_: object) -> None:
            record = record_function(_MODULE + path)
            record.__enter__()
            open_records.append(record)

        return hook

    def leave(*_: object) -> None:
        open_records.pop().__exit__(None, None, None)

    for path, child in module.named_modules():
        if path and not any(True for _ in child.children()):
            handles += [child.register_forward_pre_hook(enter(path)), child.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _times(events: list[Any]) -> dict[tuple[str, int], list[float]]:
    """Milliseconds of the direct children of each run, in order; a name that occurs several times is numbered."""
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in (event for event in events if event.name == _RUN):
        seen: Counter[str] = Counter()
        for child in sorted(run.cpu_children, key=lambda event: event.time_range.start):
            times[child.name, seen[child.name]].append(child.time_range.elapsed_us() / 1000)
            seen[child.name] += 1
    return times


def _steps(
    times: dict[tuple[str, int], list[float]], module: nn.Module, makers: dict[str, tuple[str, ...]]
) -> Iterator[Step]:
    kinds = {path: type(child).__name__ for path, child in module.named_modules()}
    for (name, number), ms in times.items():
        path = name.removeprefix(_MODULE)
        if name == path:
            yield Step(f"{name} #{number + 1}", name, median(ms), (), "a functional operator, which has no name")
        else:
            nodes = makers.get(path, ()) if number == 0 else ()
            yield Step(
                path, kinds[path], median(ms), nodes, "" if nodes else "no weight of it is in the exported model"
            )


def _by_weight(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Path of a module to the exported nodes that hold its weight, of which the exporter keeps the name."""
    found: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for name in node.input[1:2]:
            path, separator, rest = name.rpartition(".weight")
            # A folded BatchNorm leaves `weight.folded.7`; a bias that folding made is `weight_bias`.
            if separator and (not rest or rest.startswith(".folded")):
                found[path].append(node.name)
    return {path: tuple(nodes) for path, nodes in found.items()}
