"""Which backends, modes and precisions a command line names, and which of them can measure here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deploy.automatic import AUTO
from deploy.backends import BACKENDS, Available, Compiler, Unavailable
from deploy.precision import PRECISIONS
from searchkit.errors import BackendUnavailableError, UsageError, unknown_name

ALL = "all"
PREFERRED = "onnxruntime"
DEFAULT_PRECISION = "fp32"


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
