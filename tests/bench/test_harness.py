"""The harness's own measurement: what it counts, not how fast this machine is."""

import json

import pytest

from bench import harness
from bench.statistics import Ratio


def test_overhead_counts_a_call_of_nothing():
    found = harness.overhead(rounds=3, calls=200)
    assert len(found.per_call_us) == 3
    assert 0 < found.in_sample_us <= max(found.per_call_us) * 1.5
    assert found.median_us == sorted(found.per_call_us)[1]


def test_agreement_times_the_same_session_by_both():
    found = harness.agreement("ssr-baseline1", "64x128", rounds=2, round_ms=20)
    assert len(found.ours_ms) == len(found.theirs_ms) == 2
    # Not a limit on speed: seconds read as milliseconds would be off by 1000.
    assert 0.05 < found.ratio.median < 20


@pytest.mark.parametrize(
    ("per_call", "ratio", "code"), [(1.0, 1.01, 0), (21.0, 1.0, 1), (1.0, 1.06, 1), (1.0, 0.94, 1)]
)
def test_limits_decide_the_exit_code(per_call, ratio, code, monkeypatch, tmp_path):
    null = harness.Overhead(0.1, (per_call,))
    agreed = harness.Agreement("ssr", "64x128", 1, ((1.0,),), ((1.0,),), Ratio(ratio, ratio, ratio))
    monkeypatch.setattr(harness, "overhead", lambda: null)
    monkeypatch.setattr(harness, "agreement", lambda *_, **__: agreed)
    target = tmp_path / "h.json"
    assert harness.run(harness.app, ["ssr", "--json", str(target)]) == code
    tree = json.loads(target.read_text())
    assert tree["overhead"]["median_us"] == per_call
    assert tree["agreement"][0]["ratio"]["median"] == ratio
    assert "measurements" not in tree, "no run of networks"
