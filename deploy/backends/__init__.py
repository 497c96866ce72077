"""Runtimes, one file each. A backend says whether it can run here, and opens sessions.

Nothing ever falls back in silence: a session runs on the provider and device that it names, or it is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from searchkit.errors import BackendUnavailableError
from searchkit.registry import Registry

if TYPE_CHECKING:
    import numpy as np

    from ..deployable import Deployable


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
    """One runtime."""

    name: str

    @abstractmethod
    def probe(self) -> Available | Unavailable:
        """Whether it runs here; must not raise."""

    @abstractmethod
    def open(self, model: Deployable, *, device: str | None = None, threads: int | None = None) -> Session:
        """Make a session.

        Args:
            model: what to run.
            device: one of the probe's devices; the first if None.
            threads: CPU threads; the runtime's own default if None.

        Raises:
            BackendUnavailableError: it cannot run here, or not on that device.
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
                allowed=", ".join(state.devices),
            )
        return state, device or state.devices[0]


BACKENDS: Registry[Backend] = Registry("deploy.backends", "BACKEND", "backend")
