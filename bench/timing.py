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

from .protocol import Protocol, WarmUp
from .steady import warm_up

_NS_PER_MS = 1_000_000
_CALIBRATION_MS = 1000


class Runner(typing.Protocol):
    """Something that can be run again and again."""

    def run(self) -> float | None:
        """One whole inference, done when this returns; its milliseconds by the device's own clock, if that has one."""

    def block(self, runs: int) -> None:
        """So many inferences, started one behind the other; all are done when this returns."""


@dataclass
class Timing:
    """What became of one runner.

    Attributes:
        rounds_ms: samples by the wall clock, a list a finished round.
        device_rounds_ms: the same by the device's clock; empty lists where it has none.
        block_runs: runs whose mean each sample is, one number a round; empty where a sample is one run.
        warm_up: how it ended; None where it was not finished.
        error: what ended it; None if nothing did.
    """

    rounds_ms: list[list[float]] = field(default_factory=list)
    device_rounds_ms: list[list[float]] = field(default_factory=list)
    block_runs: list[int] = field(default_factory=list)
    warm_up: WarmUp | None = None
    error: Exception | None = None


class SessionRunner:
    """A session timed by the wall clock.

    Args:
        feed: hands the input over, and is part of each run; None where the input lies there already.
        fetch: takes the result, and is part of each run.
    """

    def __init__(
        self, session: Session, feed: Callable[[], object] | None = None, fetch: Callable[[], object] | None = None
    ) -> None:
        self._session, self._feed, self._fetch = session, feed, fetch

    def run(self) -> float | None:
        if self._feed is not None:
            self._feed()
        self._session.execute()
        self._session.synchronize()
        if self._fetch is not None:
            self._fetch()
        return None

    def block(self, runs: int) -> None:
        if self._feed is not None or self._fetch is not None:
            for _ in range(runs):
                self.run()
            return
        for _ in range(runs):
            self._session.execute()
        self._session.synchronize()


class EventRunner(SessionRunner):
    """A session on PyTorch's own CUDA stream, timed by events too. Not run where this was written: there was no GPU."""

    def __init__(
        self, session: Session, feed: Callable[[], object] | None = None, fetch: Callable[[], object] | None = None
    ) -> None:
        import torch

        super().__init__(session, feed, fetch)
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def run(self) -> float | None:
        if self._feed is not None:
            self._feed()
        self._start.record()
        self._session.execute()
        self._end.record()
        self._session.synchronize()
        if self._fetch is not None:
            self._fetch()
        return float(self._start.elapsed_time(self._end))


def has_events(session: Session) -> bool:
    """Whether PyTorch's events see what a session does: only what runs on PyTorch's own stream."""
    return session.info.backend == "pytorch" and session.info.device == "cuda"


def runner_of(
    session: Session, feed: Callable[[], object] | None = None, fetch: Callable[[], object] | None = None
) -> Runner:
    """The runner that suits a session."""
    return (EventRunner if has_events(session) else SessionRunner)(session, feed, fetch)


def time_interleaved(
    runners: Sequence[Runner],
    protocol: Protocol,
    progress: Callable[[int, str], None] = lambda index, step: None,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
    timings: list[Timing] | None = None,
    warmed: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time all runners in turns; the order moves on by one each round.

    Args:
        progress: called before each turn, outside the timed part, with the runner's index and the step in words.
        clock: nanoseconds, monotonic.
        timings: filled as rounds finish, one a runner: whoever is interrupted still has what was done.
        warmed: called between the last warm-up and the first round.

    Returns:
        One `Timing` a runner. A runner that raises is left out from then on, and the others go on.
    """
    if timings is None:
        timings = []
    timings.extend(Timing() for _ in range(len(timings), len(runners)))
    with _garbage_collection_paused():
        for index, runner in enumerate(runners):
            progress(index, "warm-up")
            _guarded(timings[index], partial(_warm, runner, timings[index], protocol, clock))
        warmed()
        turn = _block_turn if protocol.calibration_runs else _turn
        for number in range(protocol.rounds):
            for place in range(len(runners)):
                index = (place + number) % len(runners)
                progress(index, f"round {number + 1} of {protocol.rounds}")
                if timings[index].error is None:
                    _guarded(timings[index], partial(turn, runners[index], timings[index], protocol, clock))
    return timings


def _guarded(timing: Timing, step: Callable[[], None]) -> None:
    # Runtimes raise types of their own; whatever it is, the other networks can still be measured.
    try:
        step()
    except Exception as error:
        timing.error = error


def _warm(runner: Runner, timing: Timing, protocol: Protocol, clock: Callable[[], int]) -> None:
    timing.warm_up = warm_up(runner, protocol, clock)


def _settle(runner: Runner, protocol: Protocol, clock: Callable[[], int]) -> None:
    start, runs = clock(), 0
    while runs < protocol.min_settle_runs or clock() - start < protocol.settle_ms * _NS_PER_MS:
        runner.run()
        runs += 1


def _turn(runner: Runner, timing: Timing, protocol: Protocol, clock: Callable[[], int]) -> None:
    _settle(runner, protocol, clock)
    samples: list[float] = []
    device_samples: list[float] = []
    least_runs, least_ns = protocol.runs_a_round, protocol.ms_a_round * _NS_PER_MS
    start = clock()
    while len(samples) < least_runs or clock() - start < least_ns:
        before = clock()
        device_ms = runner.run()
        samples.append((clock() - before) / _NS_PER_MS)
        if device_ms is not None:
            device_samples.append(device_ms)
    timing.rounds_ms.append(samples)
    timing.device_rounds_ms.append(device_samples)


def _block_turn(runner: Runner, timing: Timing, protocol: Protocol, clock: Callable[[], int]) -> None:
    """As many runs as fit the round, judged by a block that took a second; one sample, their mean."""
    runs = protocol.calibration_runs
    while (took := _block_ms(runner, runs, clock)) < _CALIBRATION_MS:
        runs *= 2
    count = max(1, int(protocol.round_ms / (took / runs)))
    timing.rounds_ms.append([_block_ms(runner, count, clock) / count])
    timing.device_rounds_ms.append([])
    timing.block_runs.append(count)


def _block_ms(runner: Runner, runs: int, clock: Callable[[], int]) -> float:
    before = clock()
    runner.block(runs)
    return (clock() - before) / _NS_PER_MS


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
