"""Runtimes, one file each. A backend says whether it can run here, and opens sessions.

Nothing ever falls back in silence: a session runs on the provider and device that it names, or it is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from searchkit.errors import BackendUnavailableError, UsageError, unknown_name
from searchkit.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor, nn

    from searchkit.sizes import Size

    from ..contracts import Contract


class Model(Protocol):
    """What a backend starts from: a network being exported (`Deployable`), or one in a bundle."""

    @property
    def contract(self) -> Contract:
        """What goes in and what comes out."""

    @property
    def size(self) -> Size:
        """Height and width of the input image."""

    @property
    def precision(self) -> str:
        """What the ONNX model computes in: `fp32`, `fp16` or `int8`. Types stand in the graph, not in build flags."""

    @property
    def onnx(self) -> bytes:
        """The serialised ONNX model."""

    @property
    def module(self) -> nn.Module:
        """The PyTorch network inside its contract, float32, in evaluation mode."""

    def example(self) -> Tensor:
        """An input of the right shape and dtype."""

    def engine(self, backend: str) -> bytes | None:
        """An engine that was built for this model before, if there is one and it may be opened."""


@dataclass(frozen=True)
class Available:
    """The backend runs here, in `version`, on `devices` (first is the default)."""

    version: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Unavailable:
    """The backend does not run here: why, and the line that mends it."""

    reason: str
    install: str


@dataclass(frozen=True)
class SessionInfo:
    """What a session really runs on; kept with every measurement made by it.

    Attributes:
        provider: the implementation in use, such as `CPUExecutionProvider`.
        device: `cpu` or `cuda`.
        options: settings that change the speed or the numbers, as text.
    """

    backend: str
    version: str
    provider: str
    device: str
    options: dict[str, str] = field(default_factory=dict)


class Session(ABC):
    """A network that is ready to run. Use as a context manager."""

    @property
    @abstractmethod
    def info(self) -> SessionInfo:
        """What it runs on."""

    @abstractmethod
    def load(self, batch: np.ndarray) -> None:
        """Put an input where the device reads it; not part of what `execute` takes."""

    @abstractmethod
    def execute(self) -> None:
        """Start one inference on the loaded input. On a GPU it may return before the result is there."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything started is finished."""

    @abstractmethod
    def output(self) -> np.ndarray:
        """The result of the last inference, copied to the host."""

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Input to output, waiting for it."""
        self.load(batch)
        self.execute()
        self.synchronize()
        return self.output()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Backend(ABC):
    """One runtime.

    Attributes:
        name: of the plug-in, as on the command line.
        modes: ways to run that differ in speed or in numbers, such as `eager` and `compiled`; the first is the default.
        precisions: which models it takes.
        runs_onnx: whether what runs is made of the ONNX model; otherwise of the PyTorch network itself.
        label_head_modes: those that end in the native label head, and the mode that each is without it.
        slow_modes: those that compile for tens of seconds when they are opened; `auto` leaves them out.
    """

    name: str
    modes: tuple[str, ...] = ("default",)
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    runs_onnx: bool = True
    label_head_modes: Mapping[str, str] = MappingProxyType({})
    slow_modes: tuple[str, ...] = ()

    @abstractmethod
    def probe(self) -> Available | Unavailable:
        """Whether it runs here; must not raise."""

    @abstractmethod
    def open(
        self, model: Model, *, device: str | None = None, threads: int | None = None, mode: str | None = None
    ) -> Session:
        """Make a session.

        Args:
            model: what to run.
            device: one of the probe's devices; the first if None.
            threads: CPU threads; the runtime's own default if None.
            mode: one of `modes`; the first if None.

        Raises:
            BackendUnavailableError: it cannot run here, or not on that device.
            UsageError: no such mode, or a precision that it does not take.
        """

    def require(self, device: str | None) -> tuple[Available, str]:
        """The probe's answer and the device to use; raises `BackendUnavailableError` where there is none."""
        state = self.probe()
        if isinstance(state, Unavailable):
            raise BackendUnavailableError(
                f"backend {self.name} is not available here: {state.reason}", fix=state.install
            )
        if device is not None and device not in state.devices:
            raise BackendUnavailableError(
                f"backend {self.name} has no such device here",
                where="--device",
                got=device,
                allowed=", ".join(state.devices) or "none",
            )
        if not state.devices:
            raise BackendUnavailableError(f"backend {self.name} finds no device that it runs on")
        return state, device or state.devices[0]

    def chosen_mode(self, mode: str | None, precision: str) -> str:
        """The mode to use; raises `UsageError` for an unknown one, and for a precision that is not taken."""
        if mode is not None and mode not in self.modes:
            raise unknown_name(f"mode of {self.name}", mode, self.modes, where="--backend")
        if precision not in self.precisions:
            raise UsageError(
                f"backend {self.name} does not run models of this precision",
                got=precision,
                allowed=", ".join(self.precisions),
            )
        return mode or self.modes[0]


@dataclass(frozen=True)
class Engine:
    """A network compiled ahead of time: code, to be opened only where its origin is trusted.

    Attributes:
        backend: that made it, and that runs it.
        version: of the compiler; engines are tied to it.
        targets: what it runs on, such as `sm75`.
        data: the file.
        suffix: of the file's name, such as `.engine`.
        seconds: that the build took.
        options: settings of the build, as text.
    """

    backend: str
    version: str
    targets: tuple[str, ...]
    data: bytes
    suffix: str
    seconds: float
    options: dict[str, str] = field(default_factory=dict)


class Compiler(Backend):
    """A runtime that needs an engine built first. Building may be possible where running is not."""

    @abstractmethod
    def probe_build(self) -> Available | Unavailable:
        """Whether engines can be built here; must not raise. `devices` are the targets, such as `sm75`."""

    @abstractmethod
    def build(self, model: Model, targets: Sequence[str]) -> Engine:
        """Compile a model.

        Args:
            targets: of `probe_build().devices`; one engine for all of them.

        Raises:
            BackendUnavailableError: nothing can be built here.
            UsageError: an unknown target, or none.
            VerificationError: the compiler refuses the model; its words are kept.
        """


BACKENDS: Registry[Backend] = Registry("deploy.backends", "BACKEND", "backend")
