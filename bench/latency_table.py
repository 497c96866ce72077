"""Latency tables measured here: each operator of a search space once a shape, and whole networks to hold the sums to.

Operators are timed in groups whose members take turns, so that a machine that slows down slows a group alike; an entry
is the median of all samples of its operator. Whole networks, sampled from the space, are timed in the same way after
them. That measures what sums leave out: launches that overlap, layers that a runtime fuses, caches that are warm.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deploy.backends import BACKENDS, Session
from deploy.contracts import CONTRACTS, Contract
from deploy.deployable import Deployable
from deploy.lowering.pools import lower
from deploy.onnx import OPSET, quiet
from searchkit.choices import Alive
from searchkit.costs.latency import Additivity, LatencyTable
from searchkit.errors import SearchkitError, UsageError, unknown_name
from searchkit.genotype import Genotype, Provenance
from searchkit.networks import from_genotype
from searchkit.sizes import Size
from searchkit.spaces import SPACES, OperatorModule
from searchkit.supernet import Supernet

from . import machine
from .protocol import Protocol
from .statistics import percentile
from .timing import runner_of, time_interleaved

#: Backends that open an operator by itself.
TIMED_BY = ("onnxruntime", "pytorch")

#: Whole networks that sums are held to.
NETWORKS = 20

_GROUP = 32

#: Short, as there are thousands of operators: five turns of at least three runs.
PROTOCOL = Protocol(
    warmup_ms=10,
    min_warmup_runs=3,
    rounds=5,
    round_ms=4,
    min_runs_per_round=3,
    settle_ms=1,
    steady=None,
    min_runs=0,
    min_ms=0.0,
    timed="one run of the operator at batch 1; its input lies on the device already",
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Attributes:
        space: name of the search space, and `settings` of it.
        threads: of the CPU; None for the runtime's default.
        networks: how many whole ones; none skips the comparison.
    """

    space: str
    settings: Mapping[str, Any]
    classes: int
    size: Size
    backend: str
    device: str | None = None
    threads: int | None = None
    networks: int = NETWORKS
    seed: int = 0


class OperatorModel:
    """One operator, as backends open it; see `deploy.backends.Model`."""

    precision = "fp32"

    def __init__(self, module: nn.Module, shape: tuple[int, int, int, int]) -> None:
        self.module, self._shape = module, shape

    @property
    def contract(self) -> Contract:
        """Of plain logits, which wraps nothing."""
        contract: Contract = CONTRACTS.load("logits")
        return contract

    @property
    def size(self) -> Size:
        """Of its map."""
        return Size(*self._shape[2:])

    @property
    def onnx(self) -> bytes:
        """Written by the exporter that traces: the one that `searchkit export` uses takes far longer an operator."""
        # A file in memory is taken too, as the annotation of this argument does not say.
        file: Any = io.BytesIO()
        with quiet(), torch.no_grad():
            torch.onnx.export(
                lower(self.module, self.example()),
                (self.example(),),
                file,
                dynamo=False,
                opset_version=OPSET,
            )
        return bytes(file.getvalue())

    def example(self) -> Tensor:
        """Random numbers."""
        return torch.rand(self._shape)

    def engine(self, backend: str) -> bytes | None:
        """None."""
        return None


def measure(setting: Setting, report: Report = lambda text: None) -> LatencyTable:
    """Time every operator of a space, and whole networks beside the sums of their entries.

    Args:
        report: told how far it is, in words, the estimate of the whole time among them.

    Raises:
        UsageError: the space has no operators to be timed, or takes no such size; an unknown backend.
        BackendUnavailableError: it cannot run here.
    """
    if setting.backend not in TIMED_BY:
        raise unknown_name("backend that times operators", setting.backend, TIMED_BY, where="--backend")
    space = SPACES.load(setting.space)
    space.genotype_type.size_rule.check(setting.size, network=setting.space)
    operators = space.operator_modules(setting.settings, setting.classes, setting.size)
    described = machine.describe()
    entries: dict[str, float] = {}
    began, seen = time.monotonic(), None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        for group in _groups(operators):
            with ExitStack() as stack:
                sessions = [_opened(OperatorModel(*make()), setting, stack) for make in group.values()]
                seen = sessions[0].info
                entries |= dict(zip(group, _medians(sessions, list(group)), strict=True))
            left = (time.monotonic() - began) / len(entries) * (len(operators) - len(entries))
            report(f"{len(entries)} of {len(operators)} operators; about {left / 60:.1f} min for the others")
    assert seen is not None, "a space has operators"
    table = LatencyTable(
        device=device_name(seen.device, described),
        runtime=seen.backend,
        precision="fp32",
        batch=1,
        network_input=(setting.size.height, setting.size.width),
        source="measured by bench latency-table",
        entries_ms=entries,
        runtime_version=seen.version,
        driver=_text(described.get("gpu_driver")) if seen.device == "cuda" else None,
        threads=setting.threads,
        date=datetime.now(UTC).date().isoformat(),
        protocol=_in_words(PROTOCOL),
        conditions={**described, **{f"session_{name}": value for name, value in seen.options.items()}},
    )
    return _with_additivity(table, setting, report) if setting.networks else table


def device_name(device: str, described: Mapping[str, str | int | float | None]) -> str:
    """The model of what a session runs on: the CPU's or the GPU's."""
    return str(described.get("gpu" if device == "cuda" else "cpu") or "unknown")


def check_here(table: LatencyTable, *, other_device: bool = False) -> None:
    """Raise `UsageError` where a table is not of this machine's CPU or GPU, or not of the runtime installed here.

    Args:
        other_device: it is known and meant.
    """
    described = machine.describe()
    names = [str(described[key]) for key in ("cpu", "gpu") if described.get(key)]
    device = table.device if table.device in names else (names[-1] if names else None)
    version = None
    if table.runtime in BACKENDS.names():
        version = getattr(BACKENDS.load(table.runtime).probe(), "version", None)
    table.check_place(device, version, other_device=other_device)


def sampled(supernet: Supernet, count: int, seed: int) -> list[Genotype]:
    """Networks drawn from a space: in each choice each candidate is as probable as the others."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        alive: Alive = {}
        for name, mask in supernet.alive().items():
            drawn = rng.random(mask.shape)
            chosen = np.where(mask, drawn, -1.0).argmax(axis=1)
            alive[name] = mask & (np.arange(mask.shape[1]) == chosen[:, None])
        # A choice that hangs on what was not drawn goes with it.
        found.append(supernet.derive(supernet.closed(alive), Provenance(name="sampled")))
    return found


def additivity(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Additivity:
    """How well sums of entries predict whole networks; needs two or more that differ."""
    ratios = [one / other for one, other in zip(sums_ms, measured_ms, strict=True)]
    return Additivity(
        networks=len(ratios),
        pearson=float(np.corrcoef(sums_ms, measured_ms)[0, 1]),
        ratio=percentile(ratios, 50),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
    )


def _with_additivity(table: LatencyTable, setting: Setting, report: Report) -> LatencyTable:
    space = SPACES.load(setting.space)
    with torch.device("meta"):
        supernet = space.supernet(setting.settings, setting.classes)
    genotypes = sampled(supernet, setting.networks, setting.seed)
    with ExitStack() as stack:
        sessions = []
        for number, genotype in enumerate(genotypes):
            report(f"preparing network {number + 1} of {len(genotypes)}")
            sessions.append(_opened(Deployable(from_genotype(genotype), setting.size, "logits"), setting, stack))
        measured = _medians(sessions, [f"network {number + 1}" for number in range(len(genotypes))])
    sums = [table.predict_ms(space.operator_keys(genotype, setting.size)) for genotype in genotypes]
    return replace(table, additivity=additivity(sums, measured))


def _groups(operators: Mapping[str, OperatorModule]) -> Iterator[dict[str, OperatorModule]]:
    names = list(operators)
    for start in range(0, len(names), _GROUP):
        yield {name: operators[name] for name in names[start : start + _GROUP]}


def _opened(model: OperatorModel | Deployable, setting: Setting, stack: ExitStack) -> Session:
    backend = BACKENDS.load(setting.backend)
    session = stack.enter_context(backend.open(model, device=setting.device, threads=setting.threads))
    session.load(model.example().numpy())
    return session


def _medians(sessions: Sequence[Session], names: Sequence[str]) -> list[float]:
    timings = time_interleaved([runner_of(session) for session in sessions], PROTOCOL)
    found = []
    for name, timing in zip(names, timings, strict=True):
        if isinstance(timing.error, SearchkitError):
            raise timing.error
        if timing.error is not None:
            raise UsageError(f"the runtime fails: {timing.error}", where=name) from timing.error
        rounds = timing.device_rounds_ms if any(timing.device_rounds_ms) else timing.rounds_ms
        found.append(percentile([sample for turn in rounds for sample in turn], 50))
    return found


def _in_words(protocol: Protocol) -> str:
    return (
        f"median of {protocol.rounds} turns of {protocol.round_ms:g} ms, {protocol.min_runs_per_round} runs or more, "
        f"in groups of {_GROUP} that take turns; warm-up {protocol.warmup_ms:g} ms and {protocol.min_warmup_runs} runs"
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
