"""From magnitudes to a range: the largest |x| that int8 still represents, by three methods.

`minmax` keeps every value. `percentile` lets 0.01 % of the values saturate. `entropy` takes the range whose quantised
distribution differs least from the true one (Kullback-Leibler), as TensorRT's calibrator did (S. Migacz, "8-bit
inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import numpy as np

METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
BINS = 2048
#: Magnitudes that symmetric int8 tells apart: 0 to 127.
LEVELS = 128
# Values in a level where nothing but what saturates comes. With 0, one outlier would forbid every range that ends in a
# gap, which is where ranges ought to end.
_UNSEEN = 1e-4


class Histogram:
    """Counts of |x| in equal bins from 0 to the largest, fed piece by piece.

    Zeros are counted apart: each range represents them exactly, and behind a ReLU they are most of all values.

    Args:
        largest: the largest |x| that will come.
    """

    def __init__(self, largest: float) -> None:
        self.largest = largest
        self.zeros = 0
        self.counts = np.zeros(BINS, np.int64)

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.largest / BINS

    def add(self, values: np.ndarray) -> None:
        """Count an array of any shape."""
        magnitudes = np.abs(values[values != 0]).astype(np.float64)
        self.zeros += values.size - magnitudes.size
        if magnitudes.size:
            bins = np.minimum((magnitudes * (BINS / self.largest)).astype(np.int64), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def threshold(self, method: str) -> float:
        """The range by one of `METHODS`; 0 where nothing but zeros came."""
        if not self.counts.any():
            return 0.0
        if method == "percentile":
            return self.width * percentile_bins(self.counts, self.zeros, PERCENTILE)
        if method == "entropy":
            return self.width * entropy_bins(self.counts, LEVELS)
        return self.largest


def percentile_bins(counts: np.ndarray, zeros: int, percentile: float) -> int:
    """How many bins, from 0 on, hold at least `percentile` percent of all values, zeros among them; at least 1."""
    wanted = percentile / 100 * (zeros + int(counts.sum()))
    return int(np.searchsorted(zeros + np.cumsum(counts), wanted)) + 1


def entropy_bins(counts: np.ndarray, levels: int) -> int:
    """How many bins, from 0 on, to keep so that `levels` levels lose the least information; at least `levels`."""
    kept = range(levels, len(counts) + 1)
    total = int(counts.sum())
    return kept[int(np.argmin([_divergence(counts[:bins], total, levels) for bins in kept]))]


def _divergence(inside: np.ndarray, total: int, levels: int) -> float:
    """Of the saturated distribution from the quantised one, in nats; infinite where all values saturate."""
    if not inside.any():
        return float("inf")
    saturated = inside.astype(np.float64)
    saturated[-1] += total - inside.sum()
    there = saturated > 0
    # The last level takes the bins that do not divide evenly.
    starts = np.arange(levels) * (len(inside) // levels)
    spread = np.add.reduceat(there, starts, dtype=np.int64)
    # A level stands for all its occupied bins alike.
    means = np.add.reduceat(inside, starts) / np.maximum(spread, 1)
    lengths = np.diff(starts, append=len(inside))
    quantised = np.maximum(np.repeat(means, lengths), _UNSEEN)[there]
    p, q = saturated[there] / total, quantised / quantised.sum()
    return float((p * np.log(p / q)).sum())
