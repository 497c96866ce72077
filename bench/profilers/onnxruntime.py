"""ONNX Runtime's profile: a JSON file of events, a kernel's time for each node of the optimised graph.

The optimised graph is written beside it. A node of it is matched by its name, by the tensor that it makes, and by the
tensor that its name was made of (`relu_2_nchwc`). A node of the exported model that the optimised graph no longer has,
and whose value it no longer makes, is part of the one node that makes what depends on it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from deploy.backends.onnxruntime import BACKEND
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import UsageError
from searchkit.files import read_bytes

from . import WARM_UP_RUNS, Profiled, Step, summed

#: What the layout optimiser puts between nodes.
INSERTED = ("ReorderInput", "ReorderOutput")

_MAX_BYTES = 1 << 29
_KERNEL = "_kernel_time"
_RENAMED = ("_mul_nchwc", "_add_nchwc", "_bn_nchwc", "_nchwc")


@dataclass
class _Kernel:
    name: str
    operator: str
    us: list[float] = field(default_factory=list)


def profile(model: Deployable, *, mode: str, threads: int | None, runs: int) -> Profiled:
    """As `Profiler`; on the CPU, with the optimiser on, as the backend's mode `default` runs."""
    if mode != "default":
        raise UsageError(
            f"the mode {mode} of onnxruntime cannot be profiled", where="--backend", allowed="onnxruntime:default"
        )
    state, _ = BACKEND.require("cpu")
    with tempfile.TemporaryDirectory() as folder:
        session = _session(model.onnx, Path(folder), threads)
        feed = {session.get_inputs()[0].name: model.contract.encode(streets.draw(0, 0, model.size).image)}
        for _ in range(WARM_UP_RUNS + runs):
            session.run(None, feed)
        events = json.loads(read_bytes(session.end_profiling(), limit_bytes=_MAX_BYTES, what="profile"))
        optimised = onnx.load_from_string(
            read_bytes(Path(folder) / "optimised.onnx", limit_bytes=_MAX_BYTES, what="optimised model")
        )
    kernels, whole = _timed(events)
    nodes = matches(onnx.load_from_string(model.onnx).graph, optimised.graph)
    steps = tuple(_step(kernel, nodes.get(kernel.name, ())) for kernel in kernels)
    whole_ms = median(whole[WARM_UP_RUNS:]) / 1000
    summed_ms = summed(kernel.us[WARM_UP_RUNS:] for kernel in kernels) / 1000
    return Profiled("onnxruntime", state.version, mode, "cpu", whole_ms, summed_ms, runs, steps)


def _session(model: bytes, folder: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _timed(events: Iterable[dict[str, Any]]) -> tuple[list[_Kernel], list[float]]:
    """The kernels in the order of their first run, and the microseconds of each whole run."""
    kernels: dict[tuple[str, str], _Kernel] = {}
    whole = []
    for event in sorted(events, key=lambda event: event["ts"]):
        if event["name"] == "model_run":
            whole.append(float(event["dur"]))
        elif event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            name, detail = event["name"].removesuffix(_KERNEL), event["args"]
            key = (name, str(detail.get("node_index")))
            kernel = kernels.setdefault(key, _Kernel(name, str(detail.get("op_name"))))
            kernel.us.append(float(event["dur"]))
    return list(kernels.values()), whole


def _step(kernel: _Kernel, nodes: tuple[str, ...]) -> Step:
    ms = median(kernel.us[WARM_UP_RUNS:]) / 1000
    if kernel.operator in INSERTED:
        return Step(kernel.name, kernel.operator, ms, (), "changes the layout; inserted by the runtime")
    return Step(kernel.name, kernel.operator, ms, nodes, "" if nodes else "not in the exported model by name or tensor")


def matches(exported: onnx.GraphProto, optimised: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Name of a node of the optimised graph to the names of the exported nodes that it computes."""
    found: dict[str, set[str]] = {node.name: set() for node in optimised.node if node.op_type not in INSERTED}
    names = {node.name for node in exported.node}
    makers = {output: node.name for node in exported.node for output in node.output if output}
    for node in optimised.node:
        if node.name not in found:
            continue
        found[node.name] |= {node.name} & names
        found[node.name] |= {makers[tensor] for tensor in (*node.output, *_sources(node.name)) if tensor in makers}
    _add_merged(exported, found)
    order = {node.name: index for index, node in enumerate(exported.node)}
    return {name: tuple(sorted(nodes, key=order.__getitem__)) for name, nodes in found.items()}


def _sources(name: str) -> list[str]:
    """The tensors that a name of the layout optimiser may have been made of."""
    return [name.removesuffix(suffix) for suffix in _RENAMED if name.endswith(suffix)]


def _add_merged(exported: onnx.GraphProto, found: dict[str, set[str]]) -> None:
    """Give each exported node that is nowhere to the one optimised node that all its users are part of."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name, nodes in found.items():
        for node in nodes:
            owners[node].add(name)
    users: dict[str, list[str]] = defaultdict(list)
    for node in exported.node:
        for tensor in node.input:
            users[tensor].append(node.name)
    for node in reversed(exported.node):
        if owners[node.name]:
            continue
        using = [frozenset(owners[user]) for tensor in node.output for user in users[tensor]]
        if using and len(set(using)) == 1 and len(using[0]) == 1:
            (owner,) = using[0]
            owners[node.name] = {owner}
            found[owner].add(node.name)
