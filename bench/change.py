"""How much slower one set of samples is than another, with an interval, and how much more would have to be measured.

Samples of one round resemble each other more than samples of different rounds do, so rounds are what is drawn again:
a bootstrap over blocks. With few rounds its spread is too small, so its variance is widened by n / (n - 1), and
Student's t takes the place of the normal distribution, with the degrees of freedom of Welch (Biometrika 34, 1947), as
both sides have a spread of their own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from .measurement import percentile

CONFIDENCE = 0.95
RESAMPLES = 2000
#: Into so many consecutive parts samples are cut that have no rounds.
PARTS = 10
MAX_MORE_ROUNDS = 1000

_SEED = 0
# More samples than this in a round are stood for by as many evenly spaced quantiles.
_MAX_IN_ROUND = 500
_MAX_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Side:
    """The median of one set of samples, and how sure it is.

    Attributes:
        median_ms: of all samples.
        blocks: rounds that were drawn again, or parts where there was one round only.
        variance_ms2: of the median; None for a single block, which says nothing of it.
        log_variance: of the median's natural logarithm; likewise.
    """

    median_ms: float
    runs: int
    blocks: int
    variance_ms2: float | None
    log_variance: float | None

    @classmethod
    def of(cls, rounds_ms: Sequence[Sequence[float]]) -> Side:
        """Samples in milliseconds, each above 0, a sequence a round."""
        samples = [sample for turn in rounds_ms for sample in turn]
        blocks = list(rounds_ms) if len(rounds_ms) > 1 else _parts(samples)
        count = len(blocks)
        if count < 2:
            return cls(percentile(samples, 50), len(samples), count, None, None)
        medians = _resampled_medians(blocks)
        wider = count / (count - 1)
        return cls(
            percentile(samples, 50),
            len(samples),
            count,
            wider * float(np.var(medians)),
            wider * float(np.var(np.log(medians))),
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval; the ends are None where there is too little to tell."""

    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """`new` against `old`."""

    old: Side
    new: Side

    @property
    def ratio(self) -> Interval:
        """Median of `new` over that of `old`; above 1 is slower."""
        centre, half = self._centre(relative=True), self._half(0, relative=True)
        if half is None:
            return Interval(math.exp(centre), None, None)
        return Interval(math.exp(centre), math.exp(centre - half), math.exp(centre + half))

    @property
    def difference_ms(self) -> Interval:
        """Median of `new` less that of `old`; above 0 is slower."""
        centre, half = self._centre(relative=False), self._half(0, relative=False)
        return Interval(centre, None, None) if half is None else Interval(centre, centre - half, centre + half)

    def more_rounds(self, limit: float, *, relative: bool) -> int | None:
        """How many more rounds on each side would take `limit` out of the interval, if the medians stay as they are.

        Args:
            limit: a ratio if `relative`, else milliseconds.

        Returns:
            None if that is more than `MAX_MORE_ROUNDS`, or cannot be told.
        """
        distance = abs(self._centre(relative) - (math.log(limit) if relative else limit))

        def decided(more: int) -> bool:
            half = self._half(more, relative)
            return half is not None and half < distance

        # More rounds never make the interval wider.
        found = bisect_left(range(1, MAX_MORE_ROUNDS + 1), True, key=decided) + 1
        return found if found <= MAX_MORE_ROUNDS else None

    def _centre(self, relative: bool) -> float:
        old, new = self.old.median_ms, self.new.median_ms
        return math.log(new / old) if relative else new - old

    def _half(self, more: int, relative: bool) -> float | None:
        """Half the width of the interval, were there `more` rounds on each side with the spread of those there are."""
        parts = []
        for side in (self.old, self.new):
            variance = side.log_variance if relative else side.variance_ms2
            if variance is None:
                return None
            parts.append((variance * side.blocks / (side.blocks + more), side.blocks + more - 1))
        total = sum(variance for variance, _ in parts)
        if total == 0:
            return 0.0
        freedom = total**2 / sum(variance**2 / less for variance, less in parts)
        return student_t(freedom) * math.sqrt(total)


@lru_cache
def student_t(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The t that a Student-distributed variable stays within, on both sides, with probability `confidence`.

    With t = sqrt(freedom) tan(a) the density is proportional to cos(a) ** (freedom - 1), which is summed up here.

    Args:
        freedom: degrees of freedom, at least 1; they need not be whole.
    """
    angles = (np.arange(100_000) + 0.5) * (math.pi / 200_000)
    share = np.cumsum(np.cos(angles) ** (freedom - 1))
    inside = float(np.interp(confidence * share[-1], share, angles))
    return math.sqrt(freedom) * math.tan(inside)


def _parts(samples: Sequence[float]) -> list[Sequence[float]]:
    """Consecutive ones, as samples that follow each other resemble each other."""
    count = min(PARTS, len(samples))
    edges = [len(samples) * index // count for index in range(count + 1)]
    return [samples[start:end] for start, end in pairwise(edges)]


def _resampled_medians(blocks: Sequence[Sequence[float]]) -> np.ndarray:
    """Medians of all samples of as many blocks, drawn with replacement.

    Sorted once; a draw is how often each block counts, and its median is where half of the weight is reached.
    """
    thinned = [_thinned(np.asarray(block, dtype=np.float64)) for block in blocks]
    values = np.concatenate(thinned)
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in thinned])
    weight = np.repeat(
        [len(block) / len(thin) for block, thin in zip(blocks, thinned, strict=True)], [len(thin) for thin in thinned]
    )
    order = np.argsort(values, kind="stable")
    values, owner, weight = values[order], owner[order], weight[order]
    count = len(blocks)
    draws = np.random.default_rng(_SEED).multinomial(count, [1 / count] * count, size=RESAMPLES)
    found = []
    for some in np.array_split(draws, math.ceil(RESAMPLES * len(values) / _MAX_AT_ONCE)):
        reached = np.cumsum(some[:, owner] * weight, axis=1)
        found.append(values[np.argmax(reached >= reached[:, -1:] / 2, axis=1)])
    return np.concatenate(found)


def _thinned(block: np.ndarray) -> np.ndarray:
    if len(block) <= _MAX_IN_ROUND:
        return block
    found: np.ndarray = np.quantile(block, (np.arange(_MAX_IN_ROUND) + 0.5) / _MAX_IN_ROUND)
    return found
