"""Our networks have the sizes that `bench/published.toml` reports, and the file says where each figure is from."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import pytest

from searchkit.baselines import BASELINES
from searchkit.cost import Cost
from searchkit.footprint import on_meta
from searchkit.networks import known_names, resolve
from searchkit.sizes import parse_size

ROOT = Path(__file__).parents[3]
PUBLISHED = tomllib.loads((ROOT / "bench" / "published.toml").read_text(encoding="utf-8"))
NETWORKS = {entry["name"]: entry for entry in PUBLISHED["network"]}
DOCUMENT = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
PARAMS_TOLERANCE, MACS_TOLERANCE = 0.005, 0.02

IMPLEMENTATION_KEYS = {"source", "how", "params", "conv_macs", "size", "held", "tolerance", "note"}
FIGURES = {"params_m", "gflops", "miou_val", "miou_test", "fps"}
PUBLISHED_KEYS = FIGURES | {"of", "counts", "size", "device", "software", "note"}


@functools.cache
def cost(name: str, size: str) -> Cost:
    return on_meta(resolve(name).build_on_meta(), parse_size(size))


def implementations(held: bool) -> list:
    return [
        pytest.param(name, entry, id=f"{name}: {entry['source']}")
        for name, network in NETWORKS.items()
        for entry in network["implementation"]
        if entry["held"] is held
    ]


def test_every_baseline_is_in_the_file_once():
    names = [entry["name"] for entry in PUBLISHED["network"]]
    assert len(names) == len(NETWORKS)
    assert set(BASELINES.names()) | {"ssr", "fasterseg", "fasterseg-teacher"} <= set(names) <= set(known_names())


@pytest.mark.parametrize("name", BASELINES.names())
def test_code_and_file_name_the_same_paper(name):
    baseline = BASELINES.load(name)
    assert (NETWORKS[name]["title"], NETWORKS[name]["paper"]) == (baseline.title, baseline.paper)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_entries_are_whole(network):
    assert set(network) <= {"name", "title", "paper", "disagreement", "implementation", "published"}
    assert [entry["held"] for entry in network["implementation"]].count(True) == 1
    for entry in network["implementation"]:
        assert set(entry) <= IMPLEMENTATION_KEYS
        assert entry["how"] in ("counted", "by hand")
        assert entry.get("tolerance", 0) < PARAMS_TOLERANCE
    for entry in network.get("published", []):
        assert set(entry) <= PUBLISHED_KEYS
        assert entry["of"]
        assert FIGURES & set(entry)
        assert ("counts" in entry) == ("gflops" in entry)
        assert entry.get("counts", "mac") in ("mac", "flop", "unknown")
        assert "size" in entry or not {"gflops", "device"} & set(entry)
        if "size" in entry:
            parse_size(entry["size"])


@pytest.mark.parametrize(("name", "entry"), implementations(held=True))
def test_params_agree_with_the_implementation(name, entry):
    wanted = pytest.approx(entry["params"], rel=entry.get("tolerance", PARAMS_TOLERANCE))
    assert cost(name, entry["size"]).params == wanted


@pytest.mark.parametrize(("name", "entry"), implementations(held=True))
def test_macs_agree_with_the_implementation(name, entry):
    wanted = pytest.approx(entry["conv_macs"], rel=entry.get("tolerance", MACS_TOLERANCE))
    assert cost(name, entry["size"]).conv_macs == wanted


@pytest.mark.parametrize(("name", "entry"), implementations(held=False))
def test_other_implementations_are_indeed_others(name, entry):
    ours = cost(name, entry["size"])
    same_params = ours.params == pytest.approx(entry["params"], rel=PARAMS_TOLERANCE)
    same_macs = ours.conv_macs == pytest.approx(entry.get("conv_macs", 0), rel=PARAMS_TOLERANCE)
    assert not (same_params and same_macs)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_document_has_a_row_with_our_counts(name):
    held = next(entry for entry in NETWORKS[name]["implementation"] if entry["held"])
    ours = cost(name, held["size"])
    row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"| {ours.params:,} | {held['params']:,} |" in row
    assert f"| {held['size']} | {ours.conv_macs / 1e9:.3f} | {held['conv_macs'] / 1e9:.3f} |" in row
    assert NETWORKS[name].get("disagreement", "") in DOCUMENT
