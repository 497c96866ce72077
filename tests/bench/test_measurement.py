import copy
import json
import statistics
from dataclasses import replace

import numpy as np
import pytest

from bench.measurement import Measurement, Protocol, Statistics, latency_ratio, percentile
from bench.protocol import Conditions, Memory, Timed, WarmUp
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
    other = replace(measured("fasterseg"), protocol=Protocol().with_rounds(3))
    with pytest.raises(ValueError, match="rounds do not pair"):
        latency_ratio(slow, other)


def test_ratio_of_a_run_that_was_cut_short_is_over_the_rounds_that_both_finished(measured):
    slow = measured("ssr", ((20.0,) * 3, (30.0,) * 3, (80.0,) * 3))
    fast = measured("fasterseg", ((10.0,) * 3, (10.0,) * 3))
    assert latency_ratio(slow, fast).median == 2.5


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
        (["timed", "batch"], 0, "timed.batch: not a batch"),
        (["timed", "transfers"], 1, "timed.transfers: wrong value .*true or false"),
        (["timed", "speed"], 1, "measurement.timed: unknown field"),
        (["protocol", "rounds"], 1, "rounds_ms: more rounds than asked for"),
        (["protocol", "steady", "window_ms"], KeyError, "steady.window_ms: missing field"),
        (["memory"], {"peak_bytes": 1.5, "how": "guessed"}, "memory.peak_bytes: wrong value"),
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


def test_files_older_than_a_field_mean_what_was_done_then(measured):
    """A default of today must not be read into a run of yesterday."""
    tree = measured().to_tree()
    for name in ("timed", "block_runs", "warm_up", "memory", "conditions"):
        del tree[name]
    for name in ("name", "steady", "min_runs", "min_ms", "calibration_runs"):
        del tree["protocol"][name]
    found = Measurement.from_tree(tree)
    assert found.protocol.steady is None
    assert (found.protocol.min_runs, found.protocol.min_ms, found.protocol.calibration_runs) == (0, 0, 0)
    assert found.timed == Timed(batch=1, transfers=False, streams=1)
    assert (found.warm_up, found.memory, found.conditions) == (None, None, None)


def test_fps_counts_pictures_and_latency_is_of_the_call(measured):
    one = measured(rounds=((20.0,) * 5,))
    four = replace(one, timed=Timed(batch=4))
    assert (one.statistics.fps, four.statistics.fps) == (50, 200)
    assert four.statistics.p50_ms == 20


def test_all_that_was_recorded_comes_back(measured):
    found = replace(
        measured(),
        timed=Timed(batch=2, clock="wall and device events", transfers=True, cuda_graph=True),
        block_runs=(3, 4),
        warm_up=WarmUp(612.5, 30, False, 0.07),
        memory=Memory(123, "seen"),
        conditions=Conditions({"governor": "powersave"}, {"governor": "powersave", "gpu_sm_clock_mhz": 1980.0}, 0.25),
    )
    assert Measurement.from_tree(json.loads(json.dumps(found.to_tree(), allow_nan=False))) == found


def test_shipped_measurements_can_be_read():
    from pathlib import Path

    import bench

    files = sorted((Path(bench.__file__).parent / "results").glob("*.json"))
    # Other kinds of results lie there as well.
    runs = [tree["measurements"] for tree in (json.loads(file.read_text()) for file in files) if "measurements" in tree]
    assert len(runs) >= 2
    for tree in (tree for run in runs for tree in run):
        assert Measurement.from_tree(tree).runtime.partition(":")[0] == tree["session"]["backend"]
