"""The benchmark of the pre-processing: ratios by turn, and inputs compared before anything is timed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer

import bench.preprocessing
from bench.preprocessing import BASELINE, PreprocessingTimes, measure
from bench.preprocessing_cli import preprocessing
from searchkit.console import run
from searchkit.errors import VerificationError
from searchkit.sizes import Size


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(bench.preprocessing, "CASES", ((Size(30, 60), Size(16, 32)),))


def test_ratios_are_taken_turn_by_turn():
    times = PreprocessingTimes(Size(1, 2), Size(3, 4), {BASELINE: (10.0, 20.0, 30.0), "native": (1.0, 1.0, 5.0)})
    assert times.ratio("native") == (10.0, 6.0, 20.0)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(preprocessing)
    assert run(app, ["--turns", "2", "--runs", "1", "--json", "times.json"]) == 0
    assert "30x60 to 16x32" in capsys.readouterr().out
    tree = json.loads((tmp_path / "times.json").read_text())
    (case,) = tree["cases"]
    assert {BASELINE, "native, 2 threads"} <= set(case["turns_ms"])
    assert {len(times) for times in case["turns_ms"].values()} == {2}
    assert case["times_as_fast_as_steps"][BASELINE]["median"] == 1


def test_another_input_is_not_timed(monkeypatch):
    wrong = np.zeros((1, 3, 16, 32), np.float32)
    monkeypatch.setattr(bench.preprocessing, "preprocess", lambda *_, **__: wrong)
    with pytest.raises(VerificationError, match="another input"):
        measure(1, 1, 1, lambda _: None)
