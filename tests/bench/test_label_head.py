"""The benchmark of the label head: ratios by turn, and labels compared before anything is timed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bench.label_head
from bench.cli import app
from bench.label_head import HeadTimes, measure
from searchkit.console import run
from searchkit.errors import VerificationError
from searchkit.sizes import Size


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench.label_head, "CASES", ((Size(16, 32), Size(64, 128)),))


def test_ratios_are_taken_turn_by_turn():
    times = HeadTimes(Size(1, 2), Size(3, 4), {"onnxruntime": (10.0, 20.0, 30.0), "native": (1.0, 1.0, 5.0)})
    assert times.ratio("native") == (10.0, 6.0, 20.0)
    assert times.ratio("onnxruntime") == (1.0, 1.0, 1.0)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(app, ["label-head", "--turns", "2", "--runs", "1", "--json", "head.json"]) == 0
    assert "16x32 to 64x128" in capsys.readouterr().out
    tree = json.loads((tmp_path / "head.json").read_text())
    (case,) = tree["cases"]
    assert {"onnxruntime", "pytorch", "onnxruntime, LabelHead", "plain torch", "plain numpy"} <= set(case["turns_ms"])
    assert {len(times) for times in case["turns_ms"].values()} == {2}
    assert case["times_as_fast_as_onnxruntime"]["onnxruntime"]["median"] == 1


def test_wrong_labels_are_not_timed(monkeypatch):
    wrong = np.full((64, 128), 3, np.uint8)
    monkeypatch.setattr(bench.label_head, "label_head", lambda *_, **__: wrong)
    with pytest.raises(VerificationError, match="other labels"):
        measure(1, 1, 1, lambda _: None)
