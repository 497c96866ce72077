"""The protocol: warm up, then let networks take turns, so that a drifting clock or a busy neighbour hits all alike."""

from __future__ import annotations

import gc
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from deploy.backends import Session

from .measurement import Protocol

_NS_PER_MS = 1_000_000


class Runner(typing.Protocol):
    """Something that can be run again and again."""

    def run(self) -> float | None:
        """One whole inference, done when this returns; its milliseconds by the device's own clock, if that has one."""


@dataclass
class Timing:
    """What became of one runner.

    Attributes:
        rounds_ms: samples by the wall clock, a list a round.
        device_rounds_ms: the same by the device's clock; empty lists where it has none.
        error: what ended it; None if nothing did.
    """

    rounds_ms: list[list[float]] = field(default_factory=list)
    device_rounds_ms: list[list[float]] = field(default_factory=list)
    error: Exception | None = None


class SessionRunner:
    """A session timed by the wall clock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self) -> float | None:
        self._session.execute()
        self._session.synchronize()
        return None


class EventRunner:
    """A session on PyTorch's own CUDA stream, timed by events too. Not run where this was written: there was no GPU."""

    def __init__(self, session: Session) -> None:
        import torch

        self._session = session
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def run(self) -> float | None:
        self._start.record()
        self._session.execute()
        self._end.record()
        self._session.synchronize()
        return float(self._start.elapsed_time(self._end))


def runner_of(session: Session) -> Runner:
    """The runner that suits a session: PyTorch's events see only what runs on PyTorch's own stream."""
    if session.info.backend == "pytorch" and session.info.device == "cuda":
        return EventRunner(session)
    return SessionRunner(session)


def time_interleaved(
    runners: Sequence[Runner],
    protocol: Protocol,
    progress: Callable[[int, str], None] = lambda index, step: None,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[Timing]:
    """Time all runners in turns; the order moves on by one each round.

    Args:
        progress: called before each turn, outside the timed part, with the runner's index and the step in words.
        clock: nanoseconds, monotonic.

    Returns:
        One `Timing` a runner. A runner that raises is left out from then on, and the others go on.
    """
    timings = [Timing() for _ in runners]
    with _garbage_collection_paused():
        for index, runner in enumerate(runners):
            progress(index, "warm-up")
            _guarded(timings[index], partial(_untimed, runner, protocol.warmup_ms, protocol.min_warmup_runs, clock))
        for number in range(protocol.rounds):
            for place in range(len(runners)):
                index = (place + number) % len(runners)
                progress(index, f"round {number + 1} of {protocol.rounds}")
                if timings[index].error is None:
                    _guarded(timings[index], partial(_turn, runners[index], timings[index], protocol, clock))
    return timings


def _guarded(timing: Timing, step: Callable[[], None]) -> None:
    # Runtimes raise types of their own; whatever it is, the other networks can still be measured.
    try:
        step()
    except Exception as error:
        timing.error = error


def _untimed(runner: Runner, least_ms: float, least_runs: int, clock: Callable[[], int]) -> None:
    start, runs = clock(), 0
    while runs < least_runs or clock() - start < least_ms * _NS_PER_MS:
        runner.run()
        runs += 1


def _turn(runner: Runner, timing: Timing, protocol: Protocol, clock: Callable[[], int]) -> None:
    _untimed(runner, protocol.settle_ms, protocol.min_settle_runs, clock)
    samples: list[float] = []
    device_samples: list[float] = []
    start = clock()
    while len(samples) < protocol.min_runs_per_round or clock() - start < protocol.round_ms * _NS_PER_MS:
        before = clock()
        device_ms = runner.run()
        samples.append((clock() - before) / _NS_PER_MS)
        if device_ms is not None:
            device_samples.append(device_ms)
    timing.rounds_ms.append(samples)
    timing.device_rounds_ms.append(device_samples)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """A collection in the middle of a run would be timed as if the network had done it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
