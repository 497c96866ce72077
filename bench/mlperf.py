"""The single-stream scenario of MLPerf inference: the figures of its rules, and its early-stopping estimate.

Rules: mlcommons/inference_policies, `inference_rules.adoc` at 848b9ab: section "Scenarios" (600 s, one sample a query,
the next query as soon as the last is answered, 90th percentile by early stopping, one run) and its appendix on early
stopping (c = 0.99, d = 0). Fewest queries: LoadGen's `mlperf.conf` at mlcommons/inference 0edaaf5 asks for 1024. The
rules themselves leave the count to early stopping, which gives no estimate below 64.

A result of this mode is no MLPerf result: that name is a trademark, and stands for submissions that were reviewed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENT = 90
MIN_DURATION_MS = 600_000.0
MIN_QUERIES = 1024
MIN_QUERIES_SHORTENED = 64

_CONFIDENCE = 0.99


def discarded(queries: int) -> int | None:
    """How many of the slowest queries early stopping discards; None where there are too few for an estimate.

    With t the largest count for which at most t of `queries` over the bound is no likelier than 1 % in a system that
    meets the bound 90 % of the time, the slowest t - 1 go.
    """
    over = 1 - PERCENT / 100
    tail, count = 0.0, -1
    while count + 1 <= queries:
        tail += _binomial(queries, count + 1, over)
        if tail > 1 - _CONFIDENCE:
            break
        count += 1
    return count - 1 if count >= 1 else None


def estimate_ms(samples_ms: Sequence[float]) -> float | None:
    """The 90th percentile with the penalty for few queries: the slowest one that is not discarded.

    None below 64 queries. It is never below the plain 90th percentile of the same samples.
    """
    gone = discarded(len(samples_ms))
    return None if gone is None else sorted(samples_ms)[len(samples_ms) - 1 - gone]


def _binomial(total: int, count: int, probability: float) -> float:
    """Probability of exactly `count` events in `total` trials."""
    ways = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
    return math.exp(ways + count * math.log(probability) + (total - count) * math.log1p(-probability))
