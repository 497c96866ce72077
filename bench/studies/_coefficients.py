"""Means with intervals over seeds, and how well two rankings agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

# The 0.975 quantile of Student's t for 1, 2, ... degrees of freedom (any table of it); beyond the last, the last is
# a little too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
DRAWS = 2000

Coefficient = Callable[[Sequence[float], Sequence[float]], float | None]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % t interval; None for a single value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, _T[min(count - 1, len(_T)) - 1] * deviation / math.sqrt(count)


def pearson(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The product-moment coefficient; None where a side is constant."""
    x, y = (np.asarray(side, dtype=np.float64) - np.mean(side) for side in (one, other))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """tau-b: (concordant - discordant pairs) / sqrt(pairs untied in one x pairs untied in the other)."""
    x, y = (np.sign(np.subtract.outer(side, side))[np.triu_indices(len(side), 1)] for side in (one, other))
    scale = math.sqrt(float(np.abs(x).sum()) * float(np.abs(y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else None


def bootstrap_interval(
    coefficient: Coefficient, one: Sequence[float], other: Sequence[float], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of a coefficient, pairs resampled with replacement; None where it has no value.

    Resamples in which a side is constant have no coefficient and are left out.
    """
    if coefficient(one, other) is None:
        return None
    pairs = np.asarray([one, other], dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, pairs.shape[1], (draws, pairs.shape[1]))
    found = [value for pick in picks if (value := coefficient(*pairs[:, pick])) is not None]
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
