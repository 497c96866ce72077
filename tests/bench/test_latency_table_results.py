"""Kept latency tables: what they say of themselves follows from what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.latency_table_networks import additivity
from searchkit.costs.latency import load_table
from searchkit.sizes import Size
from searchkit.spaces import SPACES

RESULTS = Path(__file__).parents[2] / "bench" / "results"
KEPT = [path for path in sorted(RESULTS.glob("*.json")) if "entries" in json.loads(path.read_text(encoding="utf-8"))]


def test_there_are_some():
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_a_kept_table_says_where_it_was_measured_and_how_far_it_is_to_be_believed(path):
    table = load_table(str(path))
    assert table.device
    assert table.runtime_version
    assert table.date
    assert table.protocol
    assert {"governor", "os", "load_1min_before", "others_cores"} <= set(table.conditions)
    found = table.additivity
    assert found.networks == len(found.sums_ms) == len(found.measured_ms) >= 20
    assert found == additivity(found.sums_ms, found.measured_ms)
    assert found.pearson >= 0.95


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_a_kept_table_prices_what_it_says_was_measured(path):
    table = load_table(str(path))
    asked = table.conditions
    space, size = SPACES.load(asked["space"]), Size(*table.network_input)
    operators = space.operator_modules(json.loads(asked["settings"]), asked["classes"], size)
    assert set(operators) == set(table.entries_ms)
