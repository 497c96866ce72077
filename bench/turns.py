"""Ways to do one thing that take turns, so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

#: Name of the way -> the median milliseconds of each turn.
Times = Mapping[str, tuple[float, ...]]

TurnsOption = Annotated[int, typer.Option("--turns", min=1, max=1000, help="How often they take turns.")]
RunsOption = Annotated[int, typer.Option("--runs", min=1, max=10000, help="Runs in a turn of each.")]


def take_turns(ways: Mapping[str, Callable[[], object]], turns: int, runs: int) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each way, the median of `runs` in each turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            times[name].append(_median_ms(way, runs))
    return {name: tuple(values) for name, values in times.items()}


def ratio(times_ms: Times, baseline: str, name: str) -> tuple[float, float, float]:
    """How many times as fast as `baseline`, turn by turn: median, least and greatest."""
    pairs = zip(times_ms[baseline], times_ms[name], strict=True)
    ratios = [slow / fast for slow, fast in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def ratios(times_ms: Times, baseline: str) -> dict[str, dict[str, float]]:
    """`ratio` of every way, as JSON."""
    keys = ("median", "least", "greatest")
    return {name: dict(zip(keys, ratio(times_ms, baseline, name), strict=True)) for name in times_ms}


def lines(times_ms: Times, baseline: str) -> Iterator[str]:
    """One line a way, for people."""
    for name, times in times_ms.items():
        typical, least, greatest = ratio(times_ms, baseline, name)
        spread = f"({least:.2f} to {greatest:.2f})"
        yield f"  {name:20} {statistics.median(times):8.2f} ms  {typical:5.2f} times as fast {spread}"


def samples(times_ms: Times) -> dict[str, Any]:
    """The times as JSON."""
    return {name: list(times) for name, times in times_ms.items()}


def _median_ms(way: Callable[[], object], runs: int) -> float:
    way()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        way()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)
