"""`searchkit plan` for every space that has presets: its figures are whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

import searchkit.spaces
from searchkit.cli import app
from searchkit.console import run
from searchkit.spaces import SPACES

FOLDER = Path(searchkit.spaces.__file__).parent
PRESETS = {name: sorted(path.stem for path in (FOLDER / name / "presets").glob("*.toml")) for name in SPACES.names()}


def test_every_space_has_the_same_presets():
    assert set(PRESETS) == set(SPACES.names())
    assert all(found == ["demo", "paper", "smoke"] for found in PRESETS.values())


@pytest.mark.parametrize("name", SPACES.names())
def test_a_plan_of_its_smallest_preset(name, capsys):
    assert run(app, ["plan", name, "--pictures", "2975", "--preset", "smoke", "--device", "v100", "--json", "-"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["space"] == name
    assert 0 < tree["warmup_steps"] + tree["decision_points"] <= 2 * tree["steps"]
    assert 0 < tree["pictures"]["train"] <= 2975
    rows = tree["counted"]
    assert rows[0]["candidates"] == "all"
    for more, fewer in pairwise(rows):
        assert more["alive"] > fewer["alive"]
        # Of a strategy that samples, one draw is counted, so that fewer candidates may take more.
        assert min(more["step_macs"], fewer["step_macs"]) > 0
    disk = tree["disk_bytes"]
    assert disk["total"] >= disk["caches"] + disk["checkpoint"] > 0
    (device,) = tree["predicted"]
    assert device["fits_memory"]
    for row in device["hours_if_all_steps_were_so"]:
        low, high = row["hours"]
        assert 0 < low < high < 1
