"""The warm-up: runs that are not timed, until the rate is steady. Clocks ramp up, caches fill, kernels are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Interface

from .protocol import Protocol, Steady, WarmUp
from .statistics import percentile

_NS_PER_MS = 1_000_000


class Runs(Interface):
    """Something that can be run again and again."""

    def run(self) -> float | None:
        """One whole run, done when this returns."""


def warm_up(runner: Runs, protocol: Protocol, clock: Callable[[], int]) -> WarmUp:
    """Run untimed until the protocol's minima are reached and, if it asks for that, the rate is steady.

    The minima come before the bound: a network so slow that three runs pass it still runs three times.

    Args:
        clock: nanoseconds, monotonic.
    """
    steady = protocol.steady
    windows: list[float] = []
    window: list[float] = []
    start = now = clock()
    runs, window_began = 0, start
    while True:
        elapsed_ms = (now - start) / _NS_PER_MS
        least_done = runs >= protocol.min_warmup_runs and elapsed_ms >= protocol.warmup_ms
        if steady is None:
            if least_done:
                return WarmUp(elapsed_ms, runs, None, None)
        else:
            if window and (now - window_began) / _NS_PER_MS >= steady.window_ms:
                windows.append(percentile(window, 50))
                window, window_began = [], now
            change = _change(windows, steady)
            is_steady = change is not None and change <= steady.tolerance
            if least_done and (is_steady or elapsed_ms >= steady.max_ms):
                return WarmUp(elapsed_ms, runs, is_steady, change)
        before = now
        runner.run()
        now = clock()
        window.append((now - before) / _NS_PER_MS)
        runs += 1


def _change(windows: list[float], steady: Steady) -> float | None:
    """Greatest over least median of the last windows, less 1; None until there are as many as are compared."""
    last = windows[-steady.windows :]
    if len(last) < steady.windows or not min(last):
        return None
    return max(last) / min(last) - 1
