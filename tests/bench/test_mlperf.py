"""The early-stopping estimate, held to what LoadGen's own logs print and to the rule as it is written."""

import math
import random

import pytest

from bench.mlperf import discarded, estimate_ms
from bench.protocol import Protocol


@pytest.mark.parametrize(("queries", "gone"), [(64, 0), (2048, 172), (2116, 178), (2145, 181), (7469, 685)])
def test_as_many_are_discarded_as_loadgens_logs_say(queries, gone):
    """`Processed at least 64 queries (2048). Would discard 172 highest latency queries.`, in published logs."""
    assert discarded(queries) == gone


@pytest.mark.parametrize("queries", [0, 1, 63])
def test_below_64_queries_there_is_no_estimate(queries):
    assert discarded(queries) is None
    assert estimate_ms([1.0] * queries) is None


def plain_discarded(queries):
    """The largest t whose binomial tail is at most 1 %, less 1: with exact whole-number binomials."""
    best = None
    for t in range(queries + 1):
        tail = sum(math.comb(queries, k) * 0.1**k * 0.9 ** (queries - k) for k in range(t + 1))
        if tail > 0.01:
            break
        best = t
    return best - 1 if best else None


@pytest.mark.parametrize("queries", [64, 65, 88, 100, 250])
def test_against_the_rule_as_written(queries):
    assert discarded(queries) == plain_discarded(queries)


def test_the_estimate_is_the_slowest_that_is_kept():
    samples = [float(number) for number in range(1, 2049)]
    random.Random(1).shuffle(samples)
    assert estimate_ms(samples) == 2048 - 172
    assert estimate_ms(samples) > sorted(samples)[int(0.9 * 2048)], "a penalty for few queries"
    assert estimate_ms([5.0] * 63 + [9.0]) == 9.0, "of 64 none is discarded"


def test_lengths():
    assert Protocol.mlperf().is_mlperf_length
    assert Protocol.mlperf(700).is_mlperf_length
    assert not Protocol.mlperf(599).is_mlperf_length
    assert Protocol.mlperf(5).runs_a_round == 64
    assert not Protocol().is_mlperf_length
