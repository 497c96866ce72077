"""The warm-up ends when the rate is steady, and not later than it may."""

import pytest

from bench.protocol import Protocol, Steady
from bench.steady import warm_up

MS = 1_000_000


class Runs:
    """Runs that take what a function of their number says, by a clock that only they move."""

    def __init__(self, milliseconds):
        self.now, self.count, self.milliseconds = 0, 0, milliseconds

    def clock(self):
        return self.now

    def run(self):
        self.now += int(self.milliseconds(self.count) * MS)
        self.count += 1


def warm(milliseconds, **changes):
    runs = Runs(milliseconds)
    plan = {"warmup_ms": 300, "min_warmup_runs": 3, "steady": Steady(200, 3, 0.05, 3000)} | changes
    return warm_up(runs, Protocol(**plan), runs.clock)


def test_a_steady_rate_takes_three_windows():
    found = warm(lambda _: 10)
    assert (found.ms, found.runs, found.steady, found.change) == (600, 60, True, 0)


def test_a_ramp_is_waited_for():
    """30 ms a run that become 10 ms over the first second, as a clock that ramps up."""
    found = warm(lambda n: max(10.0, 30 - 0.5 * n))
    assert found.steady
    assert found.change <= 0.05
    assert found.ms > 1000, "not before the ramp is over"


def test_one_slow_run_in_a_window_does_not_matter():
    """Medians are compared: one interrupt is no drift."""
    assert warm(lambda n: 60 if n == 25 else 10).ms < 800


@pytest.mark.parametrize("change", [0.049, 0.051])
def test_the_tolerance_is_a_limit(change):
    """Windows of 20 runs whose length steps once, for good."""
    found = warm(lambda n: 10 if n < 20 else 10 * (1 + change))
    assert found.steady
    # Three windows hold the step if it is allowed; else three more behind it are needed.
    assert (found.ms < 700) == (change < 0.05)


def test_what_is_never_steady_ends_at_the_bound_and_says_so():
    found = warm(lambda n: 10 if n // 20 % 2 else 20)
    assert not found.steady
    assert found.change > 0.05
    assert 3000 <= found.ms <= 3020


def test_the_fewest_runs_come_before_the_bound():
    found = warm(lambda _: 2000)
    assert found.runs == 3, "three windows of a run each"
    assert found.steady
    found = warm(lambda n: 2000 + 500 * n)
    assert (found.runs, found.steady) == (3, False)


def test_a_run_longer_than_the_bound_is_not_called_steady():
    found = warm(lambda _: 5000, min_warmup_runs=1)
    assert (found.runs, found.steady, found.change) == (1, False, None)


def test_by_time_alone_nothing_is_judged():
    found = warm(lambda _: 50, steady=None)
    assert (found.ms, found.runs, found.steady, found.change) == (300, 6, None, None)
