"""Measures networks on one or several runtimes. What fails is reported and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from operator import itemgetter

import numpy as np

from deploy.automatic import AUTO, choose
from deploy.backends import BACKENDS, Available, Backend, Compiler, SessionInfo, Unavailable
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from deploy.precision import PRECISIONS
from deploy.precision.calibration import Calibration
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, SearchkitError, UsageError, unknown_name
from searchkit.footprint import on_meta
from searchkit.networks import Network
from searchkit.sizes import Size

from .measurement import Measurement, NetworkFacts, Protocol, Rounds, Scalar, warnings_of
from .timing import Runner, Timing, runner_of, time_interleaved

ALL = "all"
PREFERRED = "onnxruntime"
DEFAULT_PRECISION = "fp32"

_MAX_SHOWN = 200


@dataclass(frozen=True)
class Setting:
    """What all networks of one measurement have in common.

    Attributes:
        io: name of the tensor contract.
        device: None for the backend's default.
        threads: of the CPU; None for the runtime's default.
    """

    size: Size
    io: str
    protocol: Protocol
    machine: dict[str, Scalar]
    device: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Runtime:
    """A backend in one of its modes, and the precision of the models that it is given.

    Its text begins with what the command line takes, such as `openvino:bf16`.
    """

    backend: str
    mode: str
    precision: str = DEFAULT_PRECISION

    def __str__(self) -> str:
        is_default = self.backend == AUTO or self.mode == BACKENDS.load(self.backend).modes[0]
        name = self.backend if is_default else f"{self.backend}:{self.mode}"
        return name if self.precision == DEFAULT_PRECISION else f"{name} in {self.precision}"


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
class _Prepared:
    """A session that is ready, and what is still to be known once the ONNX bytes are gone."""

    runtime: Runtime
    facts: NetworkFacts
    weights: str
    info: SessionInfo
    artifact_sha256: str | None
    runner: Runner


def runtimes_of(arguments: Sequence[str], device: str | None = None, precisions: Sequence[str] = ()) -> list[Runtime]:
    """What `NAME` and `NAME:MODE` of the command line name, each in every precision.

    `auto` is what `deploy.automatic.choose` takes, network by network. `all` is every backend that runs here, in its
    default mode and the precisions that it takes. Without any name, ONNX Runtime, or the first that runs here.

    Args:
        device: that `all` must have; None for any.
        precisions: of the models; float32 if none.

    Raises:
        UsageError: an unknown name, mode or precision; the nearest are listed.
        BackendUnavailableError: `all` is none.
    """
    wanted = precisions_of(precisions)
    named = [_runtime_of(argument) for argument in arguments if argument != ALL]
    found = [replace(runtime, precision=precision) for runtime in named for precision in wanted]
    if ALL in arguments:
        found = list(_all_here(device, wanted)) + found
        if not found:
            raise BackendUnavailableError("no backend can measure here", where="--device", got=device)
    if not arguments:
        here = _here(None)
        runtime = _default(PREFERRED if PREFERRED in here or not here else here[0])
        found = [replace(runtime, precision=precision) for precision in wanted]
    return list(dict.fromkeys(found))


def precisions_of(arguments: Sequence[str]) -> list[str]:
    """What the command line names, each once; float32 if nothing. Raises `UsageError` for an unknown precision."""
    for argument in arguments:
        if argument not in PRECISIONS:
            raise unknown_name("precision", argument, PRECISIONS, where="--precision")
    return list(dict.fromkeys(arguments)) or [DEFAULT_PRECISION]


def _runtime_of(argument: str) -> Runtime:
    name, colon, mode = argument.partition(":")
    if argument == AUTO:
        return Runtime(AUTO, AUTO)
    if name in (ALL, AUTO):
        raise UsageError(f"`{name}` takes no mode", where="--backend", got=argument, fix="name the backends one by one")
    backend = BACKENDS.load(name)
    wanted = mode.replace("-", "_") if colon else None
    return Runtime(backend.name, backend.chosen_mode(wanted, backend.precisions[0]))


def _default(name: str) -> Runtime:
    return Runtime(name, BACKENDS.load(name).modes[0])


def _all_here(device: str | None, precisions: Sequence[str]) -> Iterator[Runtime]:
    for name in _here(device):
        for precision in precisions:
            if precision in BACKENDS.load(name).precisions:
                yield replace(_default(name), precision=precision)


def _state(name: str, device: str | None) -> Available | Unavailable:
    """Whether a backend can measure here: networks come without engines, so one that needs them must build them."""
    backend = BACKENDS.load(name)
    state = backend.probe()
    if isinstance(state, Available) and device not in (None, *state.devices):
        return Unavailable(f"it has no device {device} here", "give another --device")
    if isinstance(state, Available) and isinstance(backend, Compiler):
        build = backend.probe_build()
        return build if isinstance(build, Unavailable) else state
    return state


def _here(device: str | None) -> list[str]:
    return [name for name in BACKENDS.names() if isinstance(_state(name, device), Available)]


def left_out(device: str | None = None, precisions: Sequence[str] = ()) -> list[str]:
    """What `all` does not cover here, a line a backend: name, reason, and what to do."""
    states = {name: _state(name, device) for name in BACKENDS.names()}
    lines = [f"{n} left out: {s.reason}; {s.install}" for n, s in states.items() if isinstance(s, Unavailable)]
    for name in (name for name, state in states.items() if isinstance(state, Available)):
        taken = BACKENDS.load(name).precisions
        refused = [precision for precision in precisions_of(precisions) if precision not in taken]
        if refused:
            lines.append(f"{name} left out in {', '.join(refused)}: it runs models in {', '.join(taken)}")
    return lines


def steps(networks: Sequence[Network], runtimes: Sequence[Runtime], protocol: Protocol) -> int:
    """How often `measure` reports progress."""
    return len(runtimes) * len(networks) * (2 + protocol.rounds)


def measure(
    networks: Sequence[Network], runtimes: Sequence[Runtime], setting: Setting, progress: Callable[[str], None]
) -> tuple[list[Measurement], list[Failure]]:
    """Prepare all networks on all runtimes, time them in turns, and say what failed.

    All sessions are open at the same time, because they take turns: runtimes, too, are compared in the same rounds.
    Nothing else of the networks is kept.
    """
    with ExitStack() as stack:
        ready, failures = _prepare_all(networks, runtimes, setting, progress, stack)
        timings = time_interleaved(
            [prepared.runner for prepared in ready],
            setting.protocol,
            lambda index, step: progress(f"{ready[index].runtime}: {step}, {ready[index].facts.name}"),
        )
    measurements = []
    for prepared, timing in zip(ready, timings, strict=True):
        if timing.error is None:
            measurements.append(_measurement(prepared, timing, setting))
        else:
            failures.append(Failure(prepared.facts.name, prepared.runtime, _as_searchkit_error(timing.error)))
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
    batch = _input(setting)
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
                prepared = _prepare(model, chosen, setting, batch, stack, remark)
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
    """The runtimes whose backend is here, takes the precision and has the device, and why the others are not."""
    usable, failures = [], []
    for runtime in runtimes:
        if runtime.backend == AUTO:
            usable.append(runtime)
            continue
        try:
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
    return Deployable(network, setting.size, setting.io, precision=precision, calibration=calibration)


def _input(setting: Setting) -> np.ndarray:
    """A generated street picture: of zeros, a network may have less to do."""
    return CONTRACTS.load(setting.io).encode(streets.draw(0, 0, setting.size).image)


def _prepare(
    model: Deployable,
    runtime: Runtime,
    setting: Setting,
    batch: np.ndarray,
    stack: ExitStack,
    remark: dict[str, str],
) -> _Prepared:
    backend: Backend = BACKENDS.load(runtime.backend)
    session = stack.enter_context(
        backend.open(model, device=setting.device, threads=setting.threads, mode=runtime.mode)
    )
    session.load(batch)
    network = model.network
    cost = on_meta(network.build_on_meta(), setting.size)
    # A result names mode and precision, whatever its backend says of itself.
    options = {"mode": runtime.mode, "precision": model.precision} | session.info.options | remark
    return _Prepared(
        runtime=runtime,
        facts=NetworkFacts(network.name, network.digest, network.classes, cost.params, cost.conv_macs),
        weights=model.weights.text,
        info=replace(session.info, options=options),
        artifact_sha256=model.onnx_sha256 if backend.runs_onnx else None,
        runner=runner_of(session),
    )


def _measurement(prepared: _Prepared, timing: Timing, setting: Setting) -> Measurement:
    device_rounds = _frozen(timing.device_rounds_ms) if any(timing.device_rounds_ms) else None
    return Measurement(
        network=prepared.facts,
        weights=prepared.weights,
        resolution=setting.size,
        io=setting.io,
        session=prepared.info,
        artifact_sha256=prepared.artifact_sha256,
        protocol=setting.protocol,
        rounds_ms=_frozen(timing.rounds_ms),
        device_rounds_ms=device_rounds,
        machine=setting.machine,
        warnings=tuple(warnings_of(timing.rounds_ms, device_rounds)),
    )


def _frozen(rounds_ms: list[list[float]]) -> Rounds:
    return tuple(tuple(turn) for turn in rounds_ms)


def _as_searchkit_error(error: Exception) -> SearchkitError:
    if isinstance(error, SearchkitError):
        return error
    # Runtimes put whole stack traces into their messages; the first line says what it was.
    lines = str(error).strip().splitlines() or ["no message"]
    if isinstance(error, MemoryError):
        return UsageError("not enough memory", fix="give a smaller --resolution or fewer networks")
    return SearchkitError(f"{type(error).__name__}: {lines[0][:_MAX_SHOWN]}")
