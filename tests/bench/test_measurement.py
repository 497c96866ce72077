import copy
import json
import statistics

import numpy as np
import pytest

from bench.measurement import Measurement, Protocol, Statistics, latency_ratio, percentile, warnings_of
from searchkit.errors import InputFileError


@pytest.mark.parametrize(
    ("samples", "percent", "by_hand"),
    [
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.5),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 90, 4.6),  # position 3.6 of 0 to 4
        ([0.0, 10.0], 99, 9.9),
    ],
)
def test_percentile_by_hand(samples, percent, by_hand):
    assert percentile(samples, percent) == pytest.approx(by_hand)
    assert percentile(samples, percent) == pytest.approx(np.percentile(samples, percent))


def test_statistics_by_hand():
    found = Statistics.of([2.0, 4.0, 4.0, 10.0])
    assert (found.runs, found.p50_ms, found.mean_ms, found.min_ms) == (4, 4.0, 5.0, 2.0)
    assert found.fps == 250.0  # 1000 over the median, not over the mean
    assert found.std_ms == pytest.approx(statistics.stdev([2, 4, 4, 10]))
    assert Statistics.of([5.0]).std_ms == 0


def test_ratio_pairs_rounds(measured):
    slow = measured("ssr", ((20.0, 20.0, 99.0), (30.0, 31.0, 30.0), (80.0, 80.0, 80.0)))
    fast = measured("fasterseg", ((10.0, 10.0, 10.0), (10.0, 10.0, 10.0), (20.0, 20.0, 20.0)))
    ratio = latency_ratio(slow, fast)  # per round 2, 3, 4: the third round is slow for both
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 2.5, 3.5)
    assert latency_ratio(slow, slow).median == 1
    with pytest.raises(ValueError):
        latency_ratio(slow, measured())


def test_samples_keep_their_order_and_round(measured):
    found = measured(rounds=((3.0, 1.0), (2.0,)))
    assert found.samples_ms == (3.0, 1.0, 2.0)
    assert found.rounds_ms == ((3.0, 1.0), (2.0,))


def test_json_round_trip(measured):
    for found in (measured(), measured(device_rounds=((9.0,) * 5, (9.0,) * 5))):
        tree = json.loads(json.dumps(found.to_tree(), allow_nan=False))
        assert tree["schema"] == 1
        assert Measurement.from_tree(tree) == found


def test_json_holds_no_statistics(measured):
    text = json.dumps(measured().to_tree())
    for name in ("p50", "p90", "fps", "mean"):
        assert f'"{name}' not in text


def changed(tree, path, value):
    tree = copy.deepcopy(tree)
    *parents, last = path
    node = tree
    for key in parents:
        node = node[key]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "schema: unknown schema"),
        (["schema"], True, "schema: unknown schema"),
        (["schema"], KeyError, "schema: unknown schema"),
        (["weights"], KeyError, "measurement.weights: missing field"),
        (["fps"], 30.0, "unknown field .got 'fps'"),
        (["network", "params"], 1.5, "network.params: wrong value .*a whole number"),
        (["network", "params"], True, "network.params: wrong value"),
        (["network", "params"], None, "network.params: wrong value .got 'null'"),
        (["network", "digest"], "xyz", "network.digest: not a SHA-256"),
        (["artifact_sha256"], "A" * 64, "artifact_sha256: not a SHA-256"),
        (["resolution"], "512", "resolution: not a resolution"),
        (["resolution"], [512, 1024], "resolution: wrong value"),
        (["rounds_ms"], [], "rounds_ms: no samples"),
        (["rounds_ms"], [[1.0], []], "rounds_ms: no samples"),
        (["rounds_ms", 0], 1.0, r"rounds_ms\[0\]: wrong value .*a list"),
        (["rounds_ms", 1, 2], "1.0", r"rounds_ms\[1\]\[2\]: wrong value"),
        (["rounds_ms", 0, 0], 0.0, "rounds_ms: not a duration"),
        (["rounds_ms", 0, 0], float("nan"), "a finite number"),
        (["rounds_ms", 0, 0], float("inf"), "a finite number"),
        (["device_rounds_ms"], [[1.0]], "device_rounds_ms: samples do not pair"),
        (["device_rounds_ms"], [[-1.0] * 5] * 2, "device_rounds_ms: not a duration"),
        (["protocol", "rounds"], KeyError, "protocol.rounds: missing field"),
        (["session", "options", "threads"], 2, "session.options.threads: wrong value"),
        (["machine"], [], "machine: wrong value .*an object"),
        (["machine", "cores"], [2], "machine.cores: wrong value"),
        (["warnings"], "none", "warnings: wrong value .*a list"),
    ],
)
def test_from_tree_refuses(measured, path, value, message):
    with pytest.raises(InputFileError, match=message):
        Measurement.from_tree(changed(measured().to_tree(), path, value))


@pytest.mark.parametrize("tree", [None, [], "text", 3])
def test_from_tree_refuses_what_is_no_object(tree):
    with pytest.raises(InputFileError, match="not a measurement"):
        Measurement.from_tree(tree)


def test_whole_numbers_are_durations_too(measured):
    assert Measurement.from_tree(changed(measured().to_tree(), ["rounds_ms", 0, 0], 10)).rounds_ms[0][0] == 10.0


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
    import re

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


def test_quick_protocol_is_less_work():
    quick, usual = Protocol.quick(), Protocol()
    assert quick.rounds < usual.rounds
    assert quick.round_ms < usual.round_ms
    assert quick.with_rounds(7).rounds == 7
    assert quick.with_rounds(7).round_ms == quick.round_ms


def test_mode_and_precision_are_optional(measured):
    """Measurements older than both stay readable and comparable."""
    old, new = measured(), measured(mode="bf16", precision="bf16")
    assert (old.mode, old.precision, old.runtime) == (None, None, "onnxruntime")
    assert (new.mode, new.precision, new.runtime) == ("bf16", "bf16", "onnxruntime:bf16")
    assert Measurement.from_tree(json.loads(json.dumps(new.to_tree()))) == new


def test_shipped_measurements_can_be_read():
    from pathlib import Path

    import bench

    files = sorted((Path(bench.__file__).parent / "results").glob("*.json"))
    # Other kinds of results lie there as well.
    runs = [tree["measurements"] for tree in (json.loads(file.read_text()) for file in files) if "measurements" in tree]
    assert len(runs) >= 2
    for tree in (tree for run in runs for tree in run):
        assert Measurement.from_tree(tree).runtime.partition(":")[0] == tree["session"]["backend"]
