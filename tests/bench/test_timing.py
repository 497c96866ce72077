import gc
from dataclasses import replace

import pytest

from bench.measurement import Protocol
from bench.timing import runner_of, time_interleaved
from deploy.backends import SessionInfo

MS = 1_000_000


class Clock:
    """Time passes only when a runner runs."""

    def __init__(self):
        self.now = 0
        self.log = []

    def __call__(self):
        return self.now


class FakeRunner:
    def __init__(self, clock, name, milliseconds, *, device_ms=None, fail_at=None):
        self.clock, self.name, self.milliseconds = clock, name, milliseconds
        self.device_ms, self.fail_at, self.runs = device_ms, fail_at, 0

    def run(self):
        assert not gc.isenabled()
        self.runs += 1
        if self.runs == self.fail_at:
            raise RuntimeError("out of luck")
        self.clock.now += int(self.milliseconds * MS)
        self.clock.log.append(self.name)
        return self.device_ms

    def block(self, runs):
        for _ in range(runs):
            self.run()


def protocol(**changes):
    least = {"warmup_ms": 0, "min_warmup_runs": 1, "rounds": 3, "round_ms": 0, "min_runs_per_round": 1}
    none = {"settle_ms": 0, "min_settle_runs": 0, "steady": None, "min_runs": 0, "min_ms": 0}
    return Protocol(**least | none | changes)


def run(clock, runners, plan):
    return time_interleaved(runners, plan, clock=clock)


def test_order_moves_on_by_one_each_round():
    clock = Clock()
    run(clock, [FakeRunner(clock, name, 10) for name in "abc"], protocol())
    assert "".join(clock.log) == "abc" + "abc" + "bca" + "cab"


def test_samples_are_durations_by_round():
    clock = Clock()
    slow, fast = run(clock, [FakeRunner(clock, "s", 30), FakeRunner(clock, "f", 2.5)], protocol(min_runs_per_round=2))
    assert slow.rounds_ms == [[30.0, 30.0]] * 3
    assert fast.rounds_ms == [[2.5, 2.5]] * 3
    assert slow.error is None


@pytest.mark.parametrize(
    ("milliseconds", "warm", "settling", "timed"),
    [(50, 6, 2, 4), (150, 3, 1, 3), (500, 3, 1, 3)],  # by time, by time or count, by count
)
def test_a_turn_lasts_until_both_minima_are_reached(milliseconds, warm, settling, timed):
    clock = Clock()
    runner = FakeRunner(clock, "a", milliseconds)
    plan = protocol(warmup_ms=300, min_warmup_runs=3, rounds=1, round_ms=200, min_runs_per_round=3)
    plan = replace(plan, settle_ms=100, min_settle_runs=1)
    (timing,) = run(clock, [runner], plan)
    assert len(timing.rounds_ms[0]) == timed
    assert runner.runs == warm + settling + timed  # settling runs are made and not kept


@pytest.mark.parametrize(
    ("rounds", "milliseconds", "runs"),
    [(8, 1, 125), (8, 100, 8), (1, 100, 64), (7, 100, 10), (3, 1, 334)],  # by 1 s, by 64 runs: over all rounds
)
def test_all_rounds_together_have_a_second_and_64_runs(rounds, milliseconds, runs):
    clock = Clock()
    plan = protocol(rounds=rounds, min_runs=64, min_ms=1000)
    (timing,) = run(clock, [FakeRunner(clock, "a", milliseconds)], plan)
    assert [len(turn) for turn in timing.rounds_ms] == [runs] * rounds


def test_the_usual_protocol_has_a_second_and_64_runs():
    clock = Clock()
    slow, fast = run(clock, [FakeRunner(clock, "s", 90), FakeRunner(clock, "f", 3)], Protocol())
    assert sum(map(len, slow.rounds_ms)) >= 64
    assert sum(map(sum, fast.rounds_ms)) >= 1000
    assert slow.warm_up.steady
    assert fast.warm_up.steady


def test_fastersegs_way_is_ten_runs_and_a_block_of_six_seconds():
    clock = Clock()
    runner = FakeRunner(clock, "a", 4)
    (timing,) = run(clock, [runner], Protocol.fasterseg())
    assert timing.warm_up.runs == 10
    assert timing.rounds_ms == [[4.0]], "one sample, the mean of the block"
    assert timing.block_runs == [1500], "six seconds of 4 ms"
    assert runner.runs == 10 + (100 + 200 + 400) + 1500, "blocks until one takes a second, then six seconds"


def test_single_stream_asks_until_time_and_count_are_reached():
    clock = Clock()
    plan = Protocol.mlperf()
    slow, fast = run(clock, [FakeRunner(clock, "s", 1000), FakeRunner(clock, "f", 10)], plan)
    assert [len(turn) for turn in slow.rounds_ms] == [1024], "600 s are over earlier"
    assert [len(turn) for turn in fast.rounds_ms] == [60_000]
    assert "".join(clock.log).rindex("s") < "".join(clock.log).rindex("fff"), "one after the other"


def test_what_was_finished_stays_after_an_interrupt():
    clock, timings = Clock(), []
    calm = FakeRunner(clock, "a", 10)
    hit = FakeRunner(clock, "b", 10)
    hit.run = lambda: (
        (_ for _ in ()).throw(KeyboardInterrupt) if len(timings[1].rounds_ms) == 1 else FakeRunner.run(hit)
    )
    with pytest.raises(KeyboardInterrupt):
        time_interleaved([calm, hit], protocol(min_runs_per_round=2), clock=clock, timings=timings)
    assert timings[0].rounds_ms == [[10.0, 10.0]]
    assert timings[1].rounds_ms == [[10.0, 10.0]], "the second round was not finished"
    assert gc.isenabled()


def test_what_is_read_between_is_read_after_the_last_warm_up():
    clock, seen = Clock(), []
    runners = [FakeRunner(clock, name, 10) for name in "ab"]
    time_interleaved(runners, protocol(), clock=clock, warmed=lambda: seen.append("".join(clock.log)))
    assert seen == ["ab"]


class FakeSession:
    def __init__(self):
        self.log = []

    info = SessionInfo("fake", "1", "none", "cpu")

    def __getattr__(self, name):
        return lambda *_: self.log.append(name)


def test_a_run_is_what_was_asked_for():
    session = FakeSession()
    runner_of(session).run()
    assert session.log == ["execute", "synchronize"]
    session.log.clear()
    runner_of(session, session.load, session.output).run()
    assert session.log == ["load", "execute", "synchronize", "output"]
    session.log.clear()
    runner_of(session).block(3)
    assert session.log == ["execute"] * 3 + ["synchronize"], "a block is waited for once"
    session.log.clear()
    runner_of(session, session.load, session.output).block(2)
    assert session.log == ["load", "execute", "synchronize", "output"] * 2


def test_device_times_are_kept_beside():
    clock = Clock()
    (timing,) = run(clock, [FakeRunner(clock, "a", 10, device_ms=7.0)], protocol(rounds=2))
    assert timing.device_rounds_ms == [[7.0], [7.0]]
    assert timing.rounds_ms == [[10.0], [10.0]]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_failing_runner_leaves_the_rest(fail_at):
    clock = Clock()
    broken, whole = FakeRunner(clock, "x", 1, fail_at=fail_at), FakeRunner(clock, "a", 10)
    failed, good = run(clock, [broken, whole], protocol())
    assert str(failed.error) == "out of luck"
    assert broken.runs == fail_at, "not tried again"
    assert good.error is None
    assert good.rounds_ms == [[10.0]] * 3
    assert gc.isenabled()


def test_interruption_restores_garbage_collection():
    class Interrupted:
        def run(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_interleaved([Interrupted()], protocol())
    assert gc.isenabled()


def test_progress_is_told_before_each_turn():
    clock, told = Clock(), []
    runners = [FakeRunner(clock, name, 1) for name in "ab"]
    time_interleaved(runners, protocol(rounds=1), lambda index, step: told.append((index, step)), clock=clock)
    assert told == [(0, "warm-up"), (1, "warm-up"), (0, "round 1 of 1"), (1, "round 1 of 1")]


def test_nothing_to_time():
    assert time_interleaved([], protocol()) == []
