"""Measures networks on one backend. A network that fails is reported and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from deploy.backends import BACKENDS, Available, Backend, SessionInfo, Unavailable
from deploy.contracts import CONTRACTS
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import SearchkitError, UsageError
from searchkit.footprint import on_meta
from searchkit.networks import Network
from searchkit.sizes import Size

from .measurement import Measurement, NetworkFacts, Protocol, Rounds, Scalar, warnings_of
from .timing import Runner, Timing, runner_of, time_interleaved

ALL = "all"
PREFERRED = "onnxruntime"

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
class Failure:
    """A network, or a whole backend, that could not be measured, and why."""

    network: str
    backend: str
    error: SearchkitError

    def __str__(self) -> str:
        return f"{self.network} on {self.backend}: {self.error}"

    def to_tree(self) -> dict[str, object]:
        return {"network": self.network, "backend": self.backend, "problem": str(self.error)}


@dataclass(frozen=True)
class _Prepared:
    """A session that is ready, and what is still to be known once the ONNX bytes are gone."""

    facts: NetworkFacts
    weights: str
    info: SessionInfo
    artifact_sha256: str | None
    runner: Runner


def backends_of(names: Sequence[str]) -> list[str]:
    """Names of backends as given on the command line; `all` is every one that runs here.

    Without any, ONNX Runtime, or the first that runs here.

    Raises:
        UsageError: an unknown name; the nearest are listed.
    """
    for name in names:
        if name != ALL:
            BACKENDS.load(name)
    if names and ALL not in names:
        return list(dict.fromkeys(BACKENDS.load(name).name for name in names))
    here = [name for name in BACKENDS.names() if isinstance(BACKENDS.load(name).probe(), Available)]
    if names:
        return here
    return [PREFERRED] if PREFERRED in here or not here else here[:1]


def left_out() -> list[str]:
    """What `all` does not cover here, a line a backend: name, reason, and the line that installs it."""
    states = {name: BACKENDS.load(name).probe() for name in BACKENDS.names()}
    return [f"{n} left out: {s.reason}; {s.install}" for n, s in states.items() if isinstance(s, Unavailable)]


def steps(networks: Sequence[Network], protocol: Protocol) -> int:
    """How often `measure` reports progress."""
    return len(networks) * (2 + protocol.rounds)


def measure(
    networks: Sequence[Network], backend_name: str, setting: Setting, progress: Callable[[str], None]
) -> tuple[list[Measurement], list[Failure]]:
    """Prepare all networks, time them in turns, and say what failed.

    All sessions are open at the same time, because networks take turns; nothing else of them is kept.
    """
    backend = BACKENDS.load(backend_name)
    try:
        backend.require(setting.device)
    except SearchkitError as error:
        return [], [Failure("every network", backend_name, error)]
    failures = []
    ready: list[_Prepared] = []
    batch = _input(setting)
    with ExitStack() as stack:
        for network in networks:
            progress(f"{backend_name}: preparing {network.name}")
            try:
                ready.append(_prepare(network, backend, setting, batch, stack))
            except Exception as error:
                failures.append(Failure(network.name, backend_name, _as_searchkit_error(error)))
        timings = time_interleaved(
            [prepared.runner for prepared in ready],
            setting.protocol,
            lambda index, step: progress(f"{backend_name}: {step}, {ready[index].facts.name}"),
        )
    measurements = []
    for prepared, timing in zip(ready, timings, strict=True):
        if timing.error is None:
            measurements.append(_measurement(prepared, timing, setting))
        else:
            failures.append(Failure(prepared.facts.name, backend_name, _as_searchkit_error(timing.error)))
    return measurements, failures


def _input(setting: Setting) -> np.ndarray:
    """A generated street picture: of zeros, a network may have less to do."""
    return CONTRACTS.load(setting.io).encode(streets.draw(0, 0, setting.size).image)


def _prepare(network: Network, backend: Backend, setting: Setting, batch: np.ndarray, stack: ExitStack) -> _Prepared:
    model = Deployable(network, setting.size, setting.io)
    session = stack.enter_context(backend.open(model, device=setting.device, threads=setting.threads))
    session.load(batch)
    cost = on_meta(network.build_on_meta(), setting.size)
    return _Prepared(
        facts=NetworkFacts(network.name, network.digest, network.classes, cost.params, cost.conv_macs),
        weights=model.weights.text,
        info=session.info,
        # Asking for the hash would make the export that this backend did not need.
        artifact_sha256=model.onnx_sha256 if "onnx" in vars(model) else None,
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
