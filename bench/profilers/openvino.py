"""OpenVINO's profile: the time of each node of the compiled network, which says what it was made of."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median
from typing import Any

import onnx

from deploy.backends.openvino import BACKEND, OpenVINOSession, shared_core
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import UsageError

from . import WARM_UP_RUNS, Profiled, Step, summed

_COUNTERS = "PERF_COUNT"


def profile(model: Deployable, *, mode: str, threads: int | None, runs: int) -> Profiled:
    """As `Profiler`; the session is the backend's own, with the plug-in's counters on."""
    if mode in BACKEND.label_head_modes:
        raise UsageError(
            f"the mode {mode} of openvino ends outside OpenVINO", where="--backend", got=mode, allowed="fp32, bf16"
        )
    state, device = BACKEND.require(None)
    core = shared_core()
    before = core.get_property("CPU", _COUNTERS)
    core.set_property("CPU", {_COUNTERS: True})
    try:
        session = BACKEND.open(model, device=device, threads=threads, mode=mode)
    finally:
        core.set_property("CPU", {_COUNTERS: before})
    assert isinstance(session, OpenVINOSession)
    with session:
        session.load(model.contract.encode(streets.draw(0, 0, model.size).image))
        whole, times, kinds = _run(session, runs)
        origins = _origins(session._compiled)
    exported = onnx.load_from_string(model.onnx).graph
    # OpenVINO names an operation after its node, and the last one after the tensor that it makes.
    makers = {node.name: node.name for node in exported.node}
    makers |= {
        tensor.name: node.name for tensor in exported.output for node in exported.node if tensor.name in node.output
    }
    order = {node.name: index for index, node in enumerate(exported.node)}
    steps = []
    for name, ms in times.items():
        found = {makers[origin] for origin in origins.get(name, ()) if origin in makers}
        nodes = tuple(sorted(found, key=order.__getitem__))
        steps.append(Step(name, kinds[name], median(ms), nodes, _remark(kinds[name], nodes)))
    whole_ms, summed_ms = median(whole), summed(times.values())
    return Profiled("openvino", state.version, mode, device, whole_ms, summed_ms, runs, tuple(steps))


def _run(session: OpenVINOSession, runs: int) -> tuple[list[float], dict[str, list[float]], dict[str, str]]:
    """Milliseconds of each whole run; of each node, milliseconds a run (0 where it did not run), and its operator."""
    whole: list[float] = []
    times: dict[str, list[float]] = defaultdict(lambda: [0.0] * runs)
    kinds: dict[str, str] = {}
    for number in range(-WARM_UP_RUNS, runs):
        start = time.perf_counter()
        session.execute()
        took_ms = 1000 * (time.perf_counter() - start)
        if number < 0:
            continue
        whole.append(took_ms)
        for entry in session._request.get_profiling_info():
            if str(entry.status).endswith("EXECUTED") and entry.node_type not in ("Parameter", "Result", "Constant"):
                times[entry.node_name][number] = entry.real_time.total_seconds() * 1000
                kinds[entry.node_name] = entry.node_type
    return whole, times, kinds


def _origins(compiled: Any) -> dict[str, list[str]]:
    """Name of a node of the compiled network to the names of what it was made of, as OpenVINO lists them."""
    return {
        operation.get_friendly_name(): operation.get_rt_info()["originalLayersNames"].astype(str).split(",")
        for operation in compiled.get_runtime_model().get_ordered_ops()
    }


def _remark(kind: str, nodes: tuple[str, ...]) -> str:
    if nodes:
        return ""
    return (
        "changes layout or precision; inserted by the runtime" if kind == "Reorder" else "the runtime names no origin"
    )
