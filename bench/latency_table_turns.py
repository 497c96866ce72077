"""How the entries of latency tables, and the whole networks beside them, are timed: in turns, one session at a time.

Threads of a runtime that has nothing to do spin for a while, and take the cores of the one that is measured: with 32
sessions open and two threads on two cores that were not idle, operators took 1.7 times as long as with one open. So a
session is opened for its turn and closed after it, and turns come again, so that what disturbs a while disturbs a few
turns of many.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploy.backends import BACKENDS, Model, SessionInfo
from searchkit.errors import SearchkitError, UsageError

from .statistics import percentile
from .timing import Runner, runner_of

#: Read between two runs of an operator, so that its weights do not lie in the nearest cache: in a network, all others'
#: maps and weights go through it before the operator's turn comes again. Twice the second-level cache of a server core.
EVICTED_BYTES = 4 << 20

_NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Turns:
    """How long one thing is timed.

    Attributes:
        turns: each opens a session of its own.
        warmup_ms, warmup_runs: of a turn, untimed, until both are reached.
        turn_ms, runs: timed, until both are reached. The time of a turn is the median of its runs.
    """

    turns: int
    warmup_ms: float
    warmup_runs: int
    turn_ms: float
    runs: int

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"median of {self.turns} turns of {self.turn_ms:g} ms and {self.runs} runs or more, each after "
            f"{self.warmup_ms:g} ms and {self.warmup_runs} runs"
        )


#: Of an operator: there are thousands.
OPERATOR = Turns(turns=5, warmup_ms=2, warmup_runs=4, turn_ms=10, runs=7)
#: Of a whole network.
NETWORK = Turns(turns=5, warmup_ms=20, warmup_runs=3, turn_ms=100, runs=7)


@dataclass(frozen=True)
class Opening:
    """How sessions are opened: a backend's name, its device, threads of the CPU; None for the defaults."""

    backend: str
    device: str | None = None
    threads: int | None = None


@dataclass
class Timer:
    """Times models.

    Attributes:
        seen: what the last session ran on.
    """

    opening: Opening
    seen: SessionInfo | None = None
    # Ones: zeros that were never written are one page.
    _evicted: np.ndarray = field(default_factory=lambda: np.ones(EVICTED_BYTES, np.uint8), repr=False)

    def turns_ms(self, models: Mapping[str, Model], turns: Turns, *, evict: bool) -> dict[str, list[float]]:
        """A time for each turn of each model; the models take turns.

        Args:
            models: by name, which errors say.
            evict: whether the nearest cache is filled with other things before each run; done on CPUs.

        Raises:
            UsageError: the runtime fails.
            BackendUnavailableError: it cannot run here.
        """
        found: dict[str, list[float]] = {name: [] for name in models}
        names = list(models)
        for number in range(turns.turns):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                try:
                    found[name].append(self._turn(models[name], turns, evict=evict))
                except SearchkitError:
                    raise
                # Runtimes raise types of their own.
                except Exception as error:
                    raise UsageError(f"the runtime fails: {error}", where=name) from error
        return found

    def _turn(self, model: Model, turns: Turns, *, evict: bool) -> float:
        opening = self.opening
        backend = BACKENDS.load(opening.backend)
        with backend.open(model, device=opening.device, threads=opening.threads) as session:
            self.seen = session.info
            session.load(model.example().numpy())
            runner = runner_of(session)
            _runs(runner, turns.warmup_ms, turns.warmup_runs, None)
            evicted = self._evicted if evict and session.info.device == "cpu" else None
            return percentile(_runs(runner, turns.turn_ms, turns.runs, evicted), 50)


def median(samples: Sequence[float]) -> float:
    """Of the turns."""
    return percentile(list(samples), 50)


def _runs(runner: Runner, least_ms: float, least_runs: int, evicted: np.ndarray | None) -> list[float]:
    """Milliseconds of each run, by the device's clock where it has one."""
    samples: list[float] = []
    spent, enabled = 0.0, gc.isenabled()
    # A collection in the middle of a run would be timed as if the operator had done it.
    gc.disable()
    try:
        while len(samples) < least_runs or spent < least_ms:
            if evicted is not None:
                evicted.max()
            before = time.perf_counter_ns()
            by_device = runner.run()
            wall = (time.perf_counter_ns() - before) / _NS_PER_MS
            samples.append(wall if by_device is None else by_device)
            spent += wall
    finally:
        if enabled:
            gc.enable()
    return samples
