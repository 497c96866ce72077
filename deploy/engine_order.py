"""Which engines to build, for which devices: from the words of a command to compilers, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchkit.errors import BackendUnavailableError, UsageError

from .backends import BACKENDS, Compiler, Unavailable
from .planner import plan


@dataclass(frozen=True)
class EngineOrder:
    """An engine to build.

    Attributes:
        compiler: what builds it.
        targets: what it is to run on, as the compiler calls them.
    """

    compiler: Compiler
    targets: tuple[str, ...]


def order_engines(backends: Sequence[str], wanted: Sequence[str]) -> list[EngineOrder]:
    """What to build, one engine a backend; builds nothing and imports no network.

    Args:
        backends: names of compilers.
        wanted: devices: as a compiler calls them (`sm75`, `cpu-avx2`), or names of GPUs that `planner` knows. A
            compiler that knows but one device builds for that one where none is named.

    Raises:
        UsageError: no such backend, one without engines, one twice, or a device that no backend builds for.
        BackendUnavailableError: a backend is not installed or cannot build here.
    """
    compilers = [_compiler(name) for name in backends]
    names = [compiler.name for compiler in compilers]
    if len(set(names)) != len(names):
        raise UsageError("one engine a backend", where="--engine", got=", ".join(names), fix="name each once")
    known = {compiler.name: _devices(compiler) for compiler in compilers}
    for target in wanted if compilers else ():
        if not any(_device(target, devices) for devices in known.values()):
            allowed = "; ".join(f"{name}: {', '.join(devices)}" for name, devices in known.items())
            raise UsageError("no engine can be built for this target", where="--target", got=target, allowed=allowed)
    return [EngineOrder(compiler, _chosen(compiler, wanted, known[compiler.name])) for compiler in compilers]


def known_targets(wanted: Sequence[str], orders: Sequence[EngineOrder]) -> list[str]:
    """Those targets that `planner` knows, as it calls them.

    Raises:
        UsageError: it does not know one, and neither does a compiler.
    """
    own = {device for order in orders for device in order.targets}
    found: list[str] = []
    for target in wanted:
        try:
            found.append(plan(target).target)
        except UsageError:
            # A compiler's own name, such as cpu-avx2.
            if target not in own:
                raise
    return list(dict.fromkeys(found))


def _compiler(name: str) -> Compiler:
    backend = BACKENDS.load(name)
    if isinstance(backend, Compiler):
        return backend
    compilers = [other for other in BACKENDS.names() if isinstance(BACKENDS.load(other), Compiler)]
    raise UsageError(
        f"backend {backend.name} runs the ONNX model itself and has no engines",
        where="--engine",
        got=name,
        allowed=", ".join(compilers),
        fix="leave it out",
    )


def _devices(compiler: Compiler) -> tuple[str, ...]:
    state = compiler.probe_build()
    if isinstance(state, Unavailable):
        raise BackendUnavailableError(
            f"backend {compiler.name} cannot build engines here: {state.reason}", where="--engine", fix=state.install
        )
    return state.devices


def _device(target: str, devices: Sequence[str]) -> str | None:
    """A target as a compiler calls it."""
    if target in devices:
        return target
    try:
        sm = plan(target).sm
    except UsageError:
        return None
    return sm if sm in devices else None


def _chosen(compiler: Compiler, wanted: Sequence[str], devices: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(d for d in (_device(target, devices) for target in wanted) if d))
    if chosen or (len(devices) == 1 and not wanted):
        return chosen or devices
    raise UsageError(
        f"{compiler.name} builds for the devices that it is told",
        where="--target",
        allowed=", ".join(devices) or "none here",
        fix=f"add --target {devices[0]}" if devices else None,
    )
