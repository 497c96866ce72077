"""Measured runs that are kept: the tables that documents show are derived from them, cell by cell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.measurement import Measurement, percentile
from bench.table import markdown, rows_of

ROOT = Path(__file__).parents[2]
# Other kinds of results lie there as well; documents that show them hold them by tests of their own.
RESULTS = [
    path
    for path in sorted((ROOT / "bench" / "results").glob("*.json"))
    if "measurements" in json.loads(path.read_text())
]
DOCUMENT = ROOT / "docs" / "backends.md"
NAMED = re.findall(r"`(bench/results/[^`]+\.json)`", DOCUMENT.read_text(encoding="utf-8"))
QUOTED = [name for name in NAMED if ROOT / name in RESULTS]


def read(path):
    tree = json.loads(path.read_text(encoding="utf-8"))
    return tree, [Measurement.from_tree(entry, where=path.name) for entry in tree["measurements"]]


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_a_kept_run_is_whole_and_one_run(path):
    """Same rounds on one machine, every cell measured, and nothing that speaks against the samples."""
    tree, measurements = read(path)
    assert tree["failures"] == []
    assert len({len(m.rounds_ms) for m in measurements}) == 1
    assert all(m.machine == tree["machine"] for m in measurements)
    assert len({(m.network.name, m.resolution, m.runtime, m.precision) for m in measurements}) == len(measurements)
    for kept, row in zip(tree["statistics"], rows_of(measurements), strict=True):
        # A run from before modes and precisions does not state them.
        assert kept == {key: row.to_tree()[key] for key in kept}


def test_the_document_quotes_runs():
    assert QUOTED


@pytest.mark.parametrize("name", QUOTED)
def test_the_tables_of_the_document_are_the_measured_ones(name):
    _, measurements = read(ROOT / name)
    assert markdown(rows_of(measurements)) in DOCUMENT.read_text(encoding="utf-8")


def test_what_the_document_says_of_every_round_holds_in_every_round():
    """An order, and the range of one ratio; another ratio is of the medians of all rounds."""
    _, measurements = read(ROOT / QUOTED[0])
    medians = {(m.network.name, m.runtime): [percentile(turn, 50) for turn in m.rounds_ms] for m in measurements}
    networks = {name for name, _ in medians}
    assert networks == {"ssr", "fasterseg"}
    for network in networks:
        fast, on_torch = (
            list(zip(*(medians[network, runtime] for runtime in runtimes), strict=True))
            for runtimes in (
                ("openvino:bf16", "onnxruntime", "openvino:fp32"),
                ("aoti", "pytorch:compiled", "pytorch:channels_last", "pytorch:eager"),
            )
        )
        for ordered, others in zip(fast, on_torch, strict=True):
            bf16, *in_fp32 = ordered
            assert bf16 < min(in_fp32)
            assert max(in_fp32) < min(others)
    ratios = [
        bf16 / ort
        for network in networks
        for bf16, ort in zip(medians[network, "openvino:bf16"], medians[network, "onnxruntime"], strict=True)
    ]
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"at {min(ratios):.2f} to {max(ratios):.2f} times" in text
    p50 = {(m.network.name, m.runtime): m.statistics.p50_ms for m in measurements}
    for network in networks:
        ratio = p50[network, "openvino:fp32"] / p50[network, "onnxruntime"]
        assert f"{ratio:.2f} (`{network}`)" in text
