"""The interval around a ratio of medians: right size, few false alarms, honest where there is little to tell."""

import numpy as np
import pytest

from bench.change import MAX_MORE_ROUNDS, Change, Side, student_t


def rounds(random, *, count=5, runs=20, factor=1.0, between=0.02, within=0.03):
    """Rounds that differ as wholes, and skewed samples in each, as timings have them."""
    return [
        list(factor * 10 * np.exp(random.normal(0, between)) * np.exp(random.gamma(1.0, within, runs)))
        for _ in range(count)
    ]


def change(old, new):
    return Change(Side.of(old), Side.of(new))


@pytest.mark.parametrize(
    ("freedom", "wanted"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (10, 2.22814), (30, 2.04227), (1000, 1.96234)]
)
def test_student_t_is_that_of_the_tables(freedom, wanted):
    assert student_t(freedom) == pytest.approx(wanted, rel=2e-4)


def test_a_known_shift_lies_in_the_interval():
    random = np.random.default_rng(3)
    found = [change(rounds(random), rounds(random, factor=1.3)).ratio for _ in range(60)]
    covered = sum(interval.low <= 1.3 <= interval.high for interval in found)
    assert covered >= 54
    assert all(interval.low > 1.05 for interval in found)


@pytest.mark.parametrize("count", [3, 5, 12])
def test_noise_alone_seldom_looks_like_a_change(count):
    """Two-sided 95 % intervals: of 100 pairs of one distribution at most 9 may miss 1 (binomial, 0.97)."""
    random = np.random.default_rng(count)
    found = [change(rounds(random, count=count, runs=8), rounds(random, count=count, runs=8)) for _ in range(100)]
    assert sum(not item.ratio.low <= 1 <= item.ratio.high for item in found) <= 9


def test_rounds_are_the_blocks_not_samples():
    """A thousand samples of two rounds that are 20 % apart say no more than two rounds do."""
    wide = change([[10.0] * 500, [12.0] * 500], [[10.0] * 500, [12.0] * 500]).ratio
    assert wide.low < 0.6
    assert wide.high > 1.6


def test_samples_without_rounds_are_cut_into_consecutive_parts():
    drifting = [list(np.linspace(10, 12, 1000))]
    side = Side.of(drifting)
    assert side.blocks == 10
    shuffled = Side.of([list(np.random.default_rng(0).permutation(drifting[0]))])
    assert side.variance_ms2 > 5 * shuffled.variance_ms2


def test_one_sample_says_nothing_of_its_spread():
    item = change([[10.0]], [[20.0]])
    assert item.ratio.estimate == pytest.approx(2)
    assert item.ratio.low is None
    assert item.difference_ms.high is None
    assert item.more_rounds(1.05, relative=True) is None


def test_samples_that_never_vary_are_a_point():
    item = change([[10.0, 10.0]] * 3, [[11.0, 11.0]] * 3)
    assert item.ratio.low == pytest.approx(1.1)
    assert item.ratio.high == pytest.approx(1.1)
    assert (item.difference_ms.low, item.difference_ms.high) == (1.0, 1.0)


def test_the_median_is_of_all_samples_and_the_change_is_antisymmetric():
    random = np.random.default_rng(5)
    old, new = rounds(random), rounds(random, factor=1.1)
    item, back = change(old, new), change(new, old)
    assert item.old.median_ms == pytest.approx(np.median([s for turn in old for s in turn]))
    assert item.ratio.estimate == pytest.approx(1 / back.ratio.estimate)
    assert item.ratio.low == pytest.approx(1 / back.ratio.high)
    assert item.difference_ms.low == pytest.approx(-back.difference_ms.high)


def test_the_same_samples_give_the_same_interval():
    random = np.random.default_rng(6)
    old, new = rounds(random), rounds(random)
    assert change(old, new).ratio == change(old, new).ratio


def test_long_rounds_are_thinned_without_moving_the_spread():
    random = np.random.default_rng(8)
    base = [random.normal(10, 0.5) + random.normal(0, 0.3, 4000) for _ in range(6)]
    short = [np.quantile(turn, (np.arange(400) + 0.5) / 400) for turn in base]
    assert Side.of(base).variance_ms2 == pytest.approx(Side.of(short).variance_ms2, rel=0.05)


def test_more_rounds_shrink_with_the_distance_to_the_limit():
    random = np.random.default_rng(7)
    item = change(rounds(random), rounds(random, factor=1.04))
    near = item.more_rounds(item.ratio.estimate * 1.01, relative=True)
    far = item.more_rounds(item.ratio.estimate * 1.03, relative=True)
    assert 1 <= far < near <= MAX_MORE_ROUNDS
    assert item.more_rounds(item.ratio.estimate, relative=True) is None


def test_the_advised_number_of_rounds_decides():
    """Rounds of the same spread, as many more as advised, and not one fewer, take the limit out of the interval."""
    turns = [[9.8], [10.2], [10.0], [9.9], [10.1]]
    item = change(turns, turns)
    more = item.more_rounds(1.01, relative=True)
    spread = np.sqrt(2 * item.old.log_variance * 5 / (5 + more))
    assert student_t(2 * (4 + more)) * spread < np.log(1.01)
    spread = np.sqrt(2 * item.old.log_variance * 5 / (4 + more))
    assert student_t(2 * (3 + more)) * spread >= np.log(1.01)
