"""TensorRT's profile: `IProfiler`, which an execution context tells the time of each layer.

Written against the documented interface (`IExecutionContext.profiler`, `IProfiler.report_layer_time`) and tested with a
stand-in for the context. Not run here: there was no GPU.

The ONNX parser names a layer after its node; the builder joins the names of what it merges with ` + ` and puts other
names around a group of value-by-value layers, as in `PWN(node_relu)`.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Collection
from statistics import median
from typing import Any

import onnx

from deploy.backends import Session
from deploy.backends.tensorrt import BACKEND
from deploy.deployable import Deployable
from searchkit.data import streets

from . import WARM_UP_RUNS, Profiled, Step, summed

_SEPARATORS = re.compile(r"\s\+\s|[(),\[\]]+|\s")


def profile(model: Deployable, *, mode: str, threads: int | None, runs: int) -> Profiled:
    """As `Profiler`; the engine is built first."""
    state, device = BACKEND.require(None)
    import tensorrt

    with BACKEND.open(model, device=device, threads=threads, mode=mode) as session:
        session.load(model.contract.encode(streets.draw(0, 0, model.size).image))
        whole, times = run(session, tensorrt, runs)
    known = [node.name for node in onnx.load_from_string(model.onnx).graph.node]
    steps = tuple(_step(name, ms, known) for name, ms in times.items())
    whole_ms, summed_ms = median(whole), summed(times.values())
    return Profiled("tensorrt", state.version, mode, device, whole_ms, summed_ms, runs, steps)


def run(session: Session, trt: Any, runs: int) -> tuple[list[float], dict[str, list[float]]]:
    """Milliseconds of each run, and of each layer in it, in the order in which TensorRT reports them.

    Args:
        session: that holds an execution context.
        trt: the module `tensorrt`.
    """

    class Recorder(trt.IProfiler):
        """Keeps what it is told."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name].append(ms)

    recorder, whole = Recorder(), []
    session._context.profiler = recorder  # type: ignore[attr-defined]
    for number in range(WARM_UP_RUNS + runs):
        start = time.perf_counter()
        session.execute()
        session.synchronize()
        if number >= WARM_UP_RUNS:
            whole.append(1000 * (time.perf_counter() - start))
    return whole, {name: ms[WARM_UP_RUNS:] for name, ms in recorder.times.items()}


def _step(name: str, ms: list[float], known: Collection[str]) -> Step:
    nodes = nodes_in(name, known)
    return Step(name, "layer", median(ms), nodes, "" if nodes else "no node of the exported model is in its name")


def nodes_in(name: str, known: Collection[str]) -> tuple[str, ...]:
    """The nodes that a layer's name is made of; whole names only."""
    parts = _SEPARATORS.split(name)
    return tuple(node for node in known if node in parts)
