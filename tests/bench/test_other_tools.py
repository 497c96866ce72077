"""Our timing beside the runtimes' own tools: what they print is read, and the whole comparison runs."""

from __future__ import annotations

import json

import pytest

from bench import other_tools
from bench.other_tools import main, parse_benchmark_app, parse_onnxruntime_test, tree_of
from searchkit.errors import BackendUnavailableError


def test_what_the_tools_print():
    assert parse_onnxruntime_test("model: m\nversion: 0\niterations: 5\navg latency: 12.5 ms\n") == 12.5
    printed = "[ INFO ] Latency:\n[ INFO ]    Median:        48.56 ms\n[ INFO ]    Average:       49.01 ms\n"
    assert parse_benchmark_app(printed) == 49.01
    with pytest.raises(BackendUnavailableError, match="prints no latency"):
        parse_benchmark_app("[ INFO ] Throughput: 3 FPS")


def test_ratios_are_taken_turn_by_turn():
    times = {
        "onnxruntime": [10.0, 30.0, 22.0],
        "onnxruntime_test": [10.0, 20.0, 20.0],
        "openvino": [1.0, 1.0, 1.0],
        "benchmark_app": [1.0, 2.0, 4.0],
    }
    tree = tree_of("ssr", "1x2", 3, times, {})
    assert tree["ours_over_theirs"]["onnxruntime"] == {"median": 1.1, "least": 1.0, "greatest": 1.5}
    assert tree["ours_over_theirs"]["openvino"] == {"median": 0.5, "least": 0.25, "greatest": 1.0}


@pytest.mark.slow
def test_the_tools_that_are_installed(tmp_path):
    target = tmp_path / "t.json"
    arguments = ["fast-scnn", "--resolution", "64x128", "--turns", "1", "--runs", "3", "--json", str(target)]
    assert main(arguments) == 0
    times = json.loads(target.read_text())["mean_ms_of_each_turn"]
    assert set(times) == {"onnxruntime", "onnxruntime_test", "openvino", "benchmark_app"}
    assert all(len(turns) == 1 and turns[0] > 0 for turns in times.values())


def test_a_tool_that_is_not_there(monkeypatch):
    monkeypatch.setattr(other_tools.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BackendUnavailableError, match="there is no benchmark_app here"):
        other_tools._output("benchmark_app")
