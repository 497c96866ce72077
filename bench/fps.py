"""Measures networks on one or several runtimes. What fails is reported and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from operator import itemgetter

import numpy as np

from deploy.automatic import AUTO, choose
from deploy.backends import BACKENDS, Backend, Session, SessionInfo
from deploy.contracts import Contract
from deploy.deployable import Deployable
from deploy.precision.calibration import Calibration
from searchkit.console import Terminated
from searchkit.data import streets
from searchkit.errors import SearchkitError, UsageError
from searchkit.footprint import on_meta
from searchkit.networks import Network
from searchkit.sizes import Size

from .batches import BatchedDeployable, check_batch
from .conditions import Watch
from .measurement import Measurement, NetworkFacts, Protocol, Rounds, Scalar, warnings_of
from .memory import MemoryWatch
from .protocol import Conditions, Memory, Timed
from .runtimes import ALL, DEFAULT_PRECISION, PREFERRED, Runtime, left_out, precisions_of, runtimes_of
from .timing import Runner, Timing, has_events, runner_of, time_interleaved

__all__ = [
    "ALL",
    "DEFAULT_PRECISION",
    "PREFERRED",
    "Failure",
    "Outcome",
    "Runtime",
    "Setting",
    "left_out",
    "measure",
    "measure_groups",
    "precisions_of",
    "runtimes_of",
    "steps",
]

_MAX_SHOWN = 200


@dataclass(frozen=True)
class Setting:
    """What all networks of one measurement have in common.

    Attributes:
        io: name of the tensor contract.
        device: None for the backend's default.
        threads: of the CPU; None for the runtime's default.
        batch: pictures of one call.
        transfers: whether handing the input over and copying the result back are timed.
        processing: whether what the contract leaves to the host is timed too: a picture in, labels out.
    """

    size: Size
    io: str
    protocol: Protocol
    machine: dict[str, Scalar]
    device: str | None = None
    threads: int | None = None
    batch: int = 1
    transfers: bool = False
    processing: bool = False


@dataclass(frozen=True)
class Failure:
    """A network, or every one on a runtime, that could not be measured, and why."""

    network: str
    runtime: Runtime
    error: SearchkitError

    def __str__(self) -> str:
        return f"{self.network} on {self.runtime}: {self.error}"

    def to_tree(self) -> dict[str, object]:
        return {"network": self.network, **asdict(self.runtime), "problem": str(self.error)}


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        stopped: what interrupted it; the measurements then hold the rounds that were finished.
    """

    measurements: list[Measurement]
    failures: list[Failure]
    stopped: KeyboardInterrupt | Terminated | None = None


@dataclass(frozen=True)
class _Prepared:
    """A session that is ready, and what is still to be known once the ONNX bytes are gone."""

    setting: Setting
    runtime: Runtime
    facts: NetworkFacts
    weights: str
    info: SessionInfo
    artifact_sha256: str | None
    runner: Runner
    timed: Timed
    memory: Memory | None


def steps(networks: Sequence[Network], runtimes: Sequence[Runtime], protocol: Protocol) -> int:
    """How often `measure` reports progress."""
    return len(runtimes) * len(networks) * (2 + protocol.rounds)


def measure(
    networks: Sequence[Network], runtimes: Sequence[Runtime], setting: Setting, progress: Callable[[str], None]
) -> Outcome:
    """Prepare all networks on all runtimes, time them in turns, and say what failed: `measure_groups` of one group."""
    return measure_groups([(networks, setting)], runtimes, progress)


def measure_groups(
    groups: Sequence[tuple[Sequence[Network], Setting]],
    runtimes: Sequence[Runtime],
    progress: Callable[[str], None],
) -> Outcome:
    """Prepare networks at several settings on all runtimes, and time all of them in the same turns.

    All sessions are open at the same time, because they take turns: runtimes, too, are compared in the same rounds.
    Nothing else of the networks is kept. Groups share one protocol, that of the first.

    Whatever ends a run early, a device that is gone or an interrupt, the rounds that were finished are kept. An
    interrupt before the first of them is raised again, as there is nothing to keep.
    """
    ready: list[_Prepared] = []
    failures: list[Failure] = []
    timings: list[Timing] = []
    stopped: KeyboardInterrupt | Terminated | None = None
    with ExitStack() as stack:
        for networks, setting in groups:
            prepared, failed = _prepare_all(networks, runtimes, setting, progress, stack)
            ready += prepared
            failures += failed
        watch = Watch(gpu=any(cell.info.device == "cuda" for cell in ready))
        try:
            time_interleaved(
                [cell.runner for cell in ready],
                groups[0][1].protocol,
                lambda index, step: progress(f"{ready[index].runtime}: {step}, {ready[index].facts.name}"),
                timings=timings,
                warmed=watch.start,
            )
        except (KeyboardInterrupt, Terminated) as interrupt:
            if not any(timing.rounds_ms for timing in timings):
                raise
            stopped = interrupt
        conditions = watch.done()
    measurements, broken = _results(ready, timings, conditions)
    return Outcome(measurements, failures + broken, stopped)


def _results(
    ready: Sequence[_Prepared], timings: Sequence[Timing], conditions: Conditions
) -> tuple[list[Measurement], list[Failure]]:
    """What has a finished round is a measurement; what ended in an error, or has none, is a failure as well."""
    measurements, failures = [], []
    for cell, timing in zip(ready, timings, strict=True):
        error = _as_searchkit_error(timing.error) if timing.error else None
        if timing.rounds_ms:
            measurements.append(_measurement(cell, timing, conditions))
        elif error is None:
            error = SearchkitError("interrupted before its first round was finished")
        if error is not None:
            kept = f"; {len(timing.rounds_ms)} rounds are kept" if timing.rounds_ms else ""
            error.problem += kept
            failures.append(Failure(cell.facts.name, cell.runtime, error))
    return measurements, failures


def _prepare_all(
    networks: Sequence[Network],
    runtimes: Sequence[Runtime],
    setting: Setting,
    progress: Callable[[str], None],
    stack: ExitStack,
) -> tuple[list[_Prepared], list[Failure]]:
    """Network by network, so that one export serves all runtimes; what is ready comes runtime by runtime."""
    usable, failures = _usable(runtimes, setting)
    image = streets.draw(0, 0, setting.size).image
    ready: list[tuple[int, _Prepared]] = []
    for network in networks:
        models: dict[str, Deployable] = {}
        for runtime in usable:
            progress(f"{runtime}: preparing {network.name}")
            try:
                model = models.get(runtime.precision) or _model(network, runtime.precision, setting)
                models[runtime.precision] = model
                if runtime.backend == AUTO:
                    progress(f"{runtime}: measuring what is installed, {network.name}")
                chosen, remark = _chosen(model, runtime, setting)
                prepared = _prepare(model, chosen, setting, image, stack, remark)
                ready.append((usable.index(runtime), prepared))
            except Exception as error:
                failures.append(Failure(network.name, runtime, _as_searchkit_error(error)))
    return [prepared for _, prepared in sorted(ready, key=itemgetter(0))], failures


def _chosen(model: Deployable, runtime: Runtime, setting: Setting) -> tuple[Runtime, dict[str, str]]:
    """What `auto` is for a network, and what its result says of that; any other runtime is itself."""
    if runtime.backend != AUTO:
        return runtime, {}
    choice = choose(model, device=setting.device, threads=setting.threads)
    return Runtime(choice.backend, choice.mode, runtime.precision), {"chosen_by_auto": choice.text}


def _usable(runtimes: Sequence[Runtime], setting: Setting) -> tuple[list[Runtime], list[Failure]]:
    """The runtimes whose backend is here, takes precision and batch and has the device, and why the others are not."""
    usable, failures = [], []
    for runtime in runtimes:
        try:
            if runtime.backend == AUTO:
                _check_auto(setting)
                usable.append(runtime)
                continue
            check_batch(setting.batch, runtime.backend, runtime.mode, runtime.precision)
            backend = BACKENDS.load(runtime.backend)
            backend.chosen_mode(runtime.mode, runtime.precision)
            backend.require(setting.device)
            usable.append(runtime)
        except SearchkitError as error:
            failures.append(Failure("every network", runtime, error))
    return usable, failures


def _model(network: Network, precision: str, setting: Setting) -> Deployable:
    """With seeded weights: their mIoU says nothing, so int8 is all layers, and one picture gives it ranges."""
    calibration = None
    if precision == "int8":
        calibration = Calibration(streets.Streets(setting.size), method="minmax", pictures=1)
    if setting.batch > 1:
        return BatchedDeployable(network, setting.size, setting.io, precision=precision, batch=setting.batch)
    return Deployable(network, setting.size, setting.io, precision=precision, calibration=calibration)


def _check_auto(setting: Setting) -> None:
    if setting.batch > 1:
        raise UsageError(
            "`auto` chooses by one picture a call",
            where="--batch",
            got=setting.batch,
            allowed="1",
            fix="name a backend",
        )


def _prepare(
    model: Deployable,
    runtime: Runtime,
    setting: Setting,
    image: np.ndarray,
    stack: ExitStack,
    remark: dict[str, str],
) -> _Prepared:
    backend: Backend = BACKENDS.load(runtime.backend)
    # What the session is made of comes first: else its export would be counted as memory of the session.
    digest = model.onnx_sha256 if backend.runs_onnx else None
    assert model.module is not None
    device = backend.require(setting.device)[1]
    memory = MemoryWatch(device=device, torch_allocates=backend.name == "pytorch")
    memory.start()
    session = _opened(backend.open(model, device=setting.device, threads=setting.threads, mode=runtime.mode), stack)
    # A generated street picture: of zeros, a network may have less to do.
    session.load(model.contract.encode(image))
    session.execute()
    session.synchronize()
    used = memory.seen()
    network = model.network
    cost = on_meta(network.build_on_meta(), setting.size)
    # A result names mode and precision, whatever its backend says of itself.
    options = {"mode": runtime.mode, "precision": model.precision} | session.info.options | remark
    return _Prepared(
        setting=setting,
        runtime=runtime,
        facts=NetworkFacts(network.name, network.digest, network.classes, cost.params, cost.conv_macs),
        weights=model.weights.text,
        info=replace(session.info, options=options),
        artifact_sha256=digest,
        runner=_runner(session, model.contract, image, setting),
        timed=_timed(session, model.contract, options["mode"], setting),
        memory=used,
    )


def _opened(session: Session, stack: ExitStack) -> Session:
    """Closed with the stack, whatever that raises: on a device that is gone it does, and the samples are worth more."""

    def close() -> None:
        with suppress(Exception):
            session.close()

    stack.callback(close)
    return session


def _runner(session: Session, contract: Contract, image: np.ndarray, setting: Setting) -> Runner:
    """A run is what was asked for: the call alone, with its hand-over and copy back, or a picture in and labels out."""
    if setting.processing:
        return runner_of(
            session,
            lambda: session.load(contract.encode(image)),
            lambda: contract.labels(session.output(), setting.size),
        )
    if setting.transfers:
        batch = contract.encode(image)
        return runner_of(session, lambda: session.load(batch), session.output)
    return runner_of(session)


def _timed(session: Session, contract: Contract, mode: str, setting: Setting) -> Timed:
    in_graph, on_host = "in the graph", "on the host"
    outside, none = (on_host, on_host) if setting.processing else ("outside", "none")
    return Timed(
        batch=setting.batch,
        clock="wall and device events" if has_events(session) else "wall",
        transfers=setting.transfers or setting.processing,
        preprocessing=in_graph if contract.normalisation_in_graph else outside,
        postprocessing=in_graph if contract.output_name == "labels" else none,
        cuda_graph=mode == "cuda_graph",
        streams=1,
    )


def _measurement(cell: _Prepared, timing: Timing, conditions: Conditions) -> Measurement:
    setting, rounds = cell.setting, _frozen(timing.rounds_ms)
    device_rounds = _frozen(timing.device_rounds_ms) if any(timing.device_rounds_ms) else None
    protocol = replace(setting.protocol, timed=cell.timed.text)
    doubts = warnings_of(
        rounds,
        # With copies or the host's work inside, the device has a smaller share by design.
        None if cell.timed.transfers else device_rounds,
        protocol=protocol,
        warm_up=timing.warm_up,
        conditions=conditions,
        cores=setting.machine.get("cores"),
    )
    return Measurement(
        network=cell.facts,
        weights=cell.weights,
        resolution=setting.size,
        io=setting.io,
        session=cell.info,
        artifact_sha256=cell.artifact_sha256,
        protocol=protocol,
        rounds_ms=rounds,
        device_rounds_ms=device_rounds,
        machine=setting.machine,
        warnings=tuple(doubts),
        timed=cell.timed,
        block_runs=tuple(timing.block_runs) or None,
        warm_up=timing.warm_up,
        memory=cell.memory,
        conditions=conditions,
    )


def _frozen(rounds_ms: Iterable[list[float]]) -> Rounds:
    return tuple(tuple(turn) for turn in rounds_ms)


def _as_searchkit_error(error: Exception) -> SearchkitError:
    if isinstance(error, SearchkitError):
        return error
    # Runtimes put whole stack traces into their messages; the first line says what it was.
    lines = str(error).strip().splitlines() or ["no message"]
    if isinstance(error, MemoryError):
        return UsageError("not enough memory", fix="give a smaller --resolution or fewer networks")
    return SearchkitError(f"{type(error).__name__}: {lines[0][:_MAX_SHOWN]}")
