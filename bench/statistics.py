"""What is derived from samples: percentiles, intervals by bootstrap, ratios. Nothing here is stored in their place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Resamples of a bootstrap, and the seed that makes it give the same interval each time.
DRAWS = 2000
SEED = 0
CONFIDENCE = 0.95

Samples = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Derived from samples in milliseconds, each of one call.

    `fps` counts pictures: it is 1000 / `p50_ms` times the pictures of a call, so of the median latency.
    """

    runs: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    std_ms: float
    fps: float

    @classmethod
    def of(cls, samples_ms: Sequence[float], batch: int = 1) -> Statistics:
        """Percentiles as `percentile`; the deviation is that of a sample (n - 1), 0 for a single one."""
        count = len(samples_ms)
        mean = math.fsum(samples_ms) / count
        squares = math.fsum((sample - mean) ** 2 for sample in samples_ms)
        ordered = sorted(samples_ms)
        median = _at(ordered, 50)
        return cls(
            runs=count,
            p50_ms=median,
            p90_ms=_at(ordered, 90),
            p95_ms=_at(ordered, 95),
            p99_ms=_at(ordered, 99),
            mean_ms=mean,
            min_ms=ordered[0],
            std_ms=math.sqrt(squares / (count - 1)) if count > 1 else 0.0,
            fps=1000 * batch / median,
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies with 95 % confidence, as far as the rounds of one run can tell."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A latency over another's, round by round: median and quartiles over the rounds. Below 1 is faster.

    Attributes:
        interval: of the median, by bootstrap over the rounds; None where there is one round only.
    """

    median: float
    low: float
    high: float
    interval: Interval | None = None


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest order statistics (numpy's default, type 7 of Hyndman and Fan 1996).

    Below 100 samples the 99th percentile is close to the largest sample.
    """
    return _at(sorted(samples), percent)


def median_interval(rounds_ms: Samples, *, draws: int = DRAWS, seed: int = SEED) -> Interval | None:
    """Percentile bootstrap of the median of all samples; None for a single round.

    Rounds are resampled whole, as blocks: samples of one round share the machine's clock and neighbours at that time,
    so resampling them one by one would promise far too narrow an interval.
    """
    import numpy as np

    if len(rounds_ms) < 2:
        return None
    blocks = [np.asarray(turn, dtype=np.float64) for turn in rounds_ms]
    picks = np.random.default_rng(seed).integers(0, len(blocks), (draws, len(blocks)))
    medians = [np.median(np.concatenate([blocks[index] for index in pick])) for pick in picks]
    return _middle(medians)


def ratio_of_rounds(one: Samples, other: Samples, *, draws: int = DRAWS, seed: int = SEED) -> Ratio:
    """Median latency of `one` over that of `other` in each round that both finished, and what those ratios say."""
    import numpy as np

    pairs = zip(one, other, strict=False)
    ratios = [percentile(a, 50) / percentile(b, 50) for a, b in pairs]
    interval = None
    if len(ratios) > 1:
        picks = np.random.default_rng(seed).integers(0, len(ratios), (draws, len(ratios)))
        interval = _middle(np.median(np.asarray(ratios)[picks], axis=1).tolist())
    return Ratio(percentile(ratios, 50), percentile(ratios, 25), percentile(ratios, 75), interval)


def _middle(values: Sequence[float]) -> Interval:
    ordered = sorted(float(value) for value in values)
    tail = 100 * (1 - CONFIDENCE) / 2
    return Interval(_at(ordered, tail), _at(ordered, 100 - tail))


def _at(ordered: Sequence[float], percent: float) -> float:
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
