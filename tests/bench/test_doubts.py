import re
from dataclasses import replace

import pytest

from bench.doubts import warnings_of
from bench.protocol import Conditions, Protocol, WarmUp

STEADY = [[10.0] * 5, [10.0] * 5]


@pytest.mark.parametrize(
    ("fires", "silent", "words"),
    [
        ([[10.0] * 9], [[10.0] * 10], "only 9 runs: give more --rounds"),
        ([[10.0] * 8 + [12.5] * 2] * 2, [[10.0] * 8 + [11.9] * 2] * 2, "p90 is 1.25 times p50"),
        ([[10.0] * 5, [11.1] * 5], [[10.0] * 5, [10.9] * 5], "rounds are 11% apart .10 to 11.1 ms."),
    ],
)
def test_each_warning_fires_alone_and_not_without_reason(fires, silent, words):
    (found,) = warnings_of(fires)
    assert re.search(words, found)
    assert warnings_of(silent) == []


def test_timer_warning():
    (found,) = warnings_of(STEADY, timer_resolution_ms=0.11)
    assert "100 ticks of the timer" in found
    assert warnings_of(STEADY, timer_resolution_ms=0.09) == []


def test_host_warning():
    (found,) = warnings_of(STEADY, [[8.0] * 5] * 2)
    assert "the device works 8 of 10 ms" in found
    assert warnings_of(STEADY, [[9.5] * 5] * 2) == []


def rounds_at(*medians):
    """Rounds of twelve equal runs each."""
    return [[median] * 12 for median in medians]


def test_a_median_that_is_not_sure_is_told():
    (found,) = warnings_of(rounds_at(10, 10.5, 10, 10.5, 10, 10.6, 10, 10.5))
    assert re.search(r"median's interval is \d\.\d% wide \(10 to 10\.5 ms\): give more --rounds", found)
    assert warnings_of(rounds_at(10, 10.2, 10, 10.2, 10, 10.2, 10, 10.1)) == []


def test_few_rounds_have_no_interval_that_says_anything():
    assert warnings_of(rounds_at(10, 10.5, 10, 10.6)) == []


def test_rounds_that_are_missing_are_told():
    protocol = Protocol().with_rounds(8)
    assert warnings_of(rounds_at(10, 10, 10), protocol=protocol) == ["only 3 of 8 rounds were finished: measure again"]
    assert warnings_of(rounds_at(*[10] * 8), protocol=protocol) == []


def test_a_block_is_one_sample_and_no_reason_for_doubt():
    assert warnings_of([[7.5]], protocol=Protocol.fasterseg()) == []


@pytest.mark.parametrize(
    ("warm_up", "words"),
    [
        (WarmUp(3010, 50, False, 0.12), "never steady in 3010 ms of warm-up .its last windows 12% apart, at most 5%"),
        (WarmUp(9000, 3, False, None), "never steady in 9000 ms of warm-up .too few windows"),
    ],
)
def test_a_warm_up_that_never_became_steady_is_told(warm_up, words):
    (found,) = warnings_of(STEADY, protocol=Protocol().with_rounds(2), warm_up=warm_up)
    assert re.search(words, found)


@pytest.mark.parametrize("steady", [True, None])
def test_a_warm_up_that_was_steady_or_not_judged_is_not_told(steady):
    warm_up = WarmUp(600, 9, steady, 0.5)
    assert warnings_of(STEADY, protocol=Protocol().with_rounds(2), warm_up=warm_up) == []
    by_time = replace(Protocol().with_rounds(2), steady=None)
    assert warnings_of(STEADY, protocol=by_time, warm_up=replace(warm_up, steady=False)) == []


CALM = Conditions({"governor": "performance"}, {"governor": "performance"}, 0.19)


@pytest.mark.parametrize(
    ("before", "after", "others", "words"),
    [
        ({}, {}, 0.3, "other processes kept 0.3 of 2 cores busy"),
        ({"governor": "performance"}, {"governor": "powersave"}, 0.0, "governor changed from performance to powersave"),
        ({"cpu_throttle_count": 4}, {"cpu_throttle_count": 5}, None, "processor slowed itself down because of heat"),
        ({"gpu_sm_clock_mhz": 1980.0}, {"gpu_sm_clock_mhz": 1700.0}, None, "clock went from 1980 to 1700 MHz"),
        ({}, {"gpu_throttle_reasons": 0x44}, None, "because of its power cap and heat"),
        ({}, {"gpu_throttle_reasons": 0x60}, None, "because of heat: let it rest"),
    ],
)
def test_what_the_machine_did_meanwhile_is_told(before, after, others, words):
    (found,) = warnings_of(STEADY, conditions=Conditions(before, after, others), cores=2)
    assert words in found


def test_a_calm_machine_is_not_told():
    assert warnings_of(STEADY, conditions=CALM, cores=2) == []
    # Bit 1 says that the GPU has nothing to do, which after the last round is so.
    idle = Conditions({"gpu_sm_clock_mhz": 1980.0}, {"gpu_sm_clock_mhz": 1965.0, "gpu_throttle_reasons": 1}, None)
    assert warnings_of(STEADY, conditions=idle, cores=2) == []
