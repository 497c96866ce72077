"""Intervals against a plain reference, written loop by loop from the definition."""

import random
import statistics

import numpy as np
import pytest

from bench.statistics import Interval, median_interval, percentile, ratio_of_rounds

DRAWS = 300


def plain_percentile(values, percent):
    return float(np.percentile(values, percent))


def plain_interval(rounds, statistic, draws, seed):
    """Draw as many rounds as there are, with replacement, and again and again; the middle 95 % of what comes out."""
    generator = np.random.default_rng(seed)
    found = []
    for drawn in generator.integers(0, len(rounds), (draws, len(rounds))):
        found.append(statistic([rounds[index] for index in drawn]))
    return plain_percentile(found, 2.5), plain_percentile(found, 97.5)


def pooled_median(rounds):
    return statistics.median(sample for turn in rounds for sample in turn)


@pytest.fixture
def noisy():
    """Rounds of different lengths whose level differs by more than their own samples do."""
    chance = random.Random(3)
    levels = [10 + chance.random() for _ in range(8)]
    return [[level + 0.1 * chance.random() for _ in range(5 + index)] for index, level in enumerate(levels)]


@pytest.mark.parametrize("seed", [0, 7])
def test_interval_of_the_median(noisy, seed):
    found = median_interval(noisy, draws=DRAWS, seed=seed)
    assert (found.low, found.high) == pytest.approx(plain_interval(noisy, pooled_median, DRAWS, seed), rel=1e-12)
    assert found.low < pooled_median(noisy) < found.high


def test_interval_of_a_ratio(noisy):
    other = [[2 * sample + index for sample in turn] for index, turn in enumerate(noisy)]
    found = ratio_of_rounds(other, noisy, draws=DRAWS, seed=5)
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(other, noisy, strict=True)]
    expected = plain_interval(ratios, statistics.median, DRAWS, 5)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected, rel=1e-12)
    assert found.median == pytest.approx(statistics.median(ratios))


def test_rounds_are_blocks():
    """Samples that were drawn one by one would make the interval narrower the more of them a round has."""
    short = median_interval([[10.0 + index] * 5 for index in range(8)])
    long = median_interval([[10.0 + index] * 500 for index in range(8)])
    assert short == long
    assert short.high - short.low > 2


def test_the_same_samples_give_the_same_interval(noisy):
    assert median_interval(noisy) == median_interval(noisy)
    assert median_interval([[5.0] * 3] * 4) == Interval(5.0, 5.0)


def test_one_round_has_no_interval():
    assert median_interval([[1.0, 2.0, 3.0]]) is None
    assert ratio_of_rounds([[2.0]], [[1.0]]).interval is None
    assert ratio_of_rounds([[2.0]], [[1.0]]).median == 2


def test_percentiles_are_numpys(noisy):
    samples = [sample for turn in noisy for sample in turn]
    for percent in (0, 50, 90, 95, 99, 100):
        assert percentile(samples, percent) == pytest.approx(np.percentile(samples, percent))
