"""The tables of docs/lowering.md are derived from the samples in the file that it names, cell by cell."""

import json
import re
from pathlib import Path

import pytest

from bench.lowering import alone, together
from deploy.lowering import REWRITES
from deploy.lowering.choice import PLAIN
from searchkit.networks import known_names, resolve

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/lowering.md").read_text(encoding="utf-8")
FILES = ("bench/results/xeon-2cores-lowering.json", "bench/results/xeon-2cores-lowering-openvino.json")
TREES = [json.loads((ROOT / name).read_text()) for name in FILES]
RESULTS = {(result["network"], result["backend"]): result for tree in TREES for result in tree["results"]}


def rows(length):
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    found = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
    return [cells for cells in found if len(cells) == length]


def ratio(quartiles):
    return f"{quartiles.median:.2f} ({quartiles.lower:.2f} to {quartiles.upper:.2f})"


def test_what_was_measured():
    names = {network for network, _ in RESULTS}
    assert {"ssr", "fasterseg", "erfnet", "bisenetv2", "fast-scnn"} < names <= set(known_names())
    assert all(result["digest"] == resolve(result["network"]).digest for result in RESULTS.values())
    for tree, name in zip(TREES, FILES, strict=True):
        assert (tree["resolution"], tree["threads"]) == ("512x1024", 2)
        assert f"{tree['rounds']} rounds" in TEXT.partition("## Measured")[2]
        assert f"`{name}`" in TEXT


@pytest.mark.parametrize(("network", "backend"), sorted(RESULTS))
def test_what_was_kept(network, backend):
    result = RESULTS[network, backend]
    (cells,) = [cells for cells in rows(4) if cells[:2] == [network, backend]]
    whole = together(result)
    if result["applied"]:
        assert cells[2:] == [", ".join(result["applied"]), ratio(whole)]
        assert whole.lower > 1
    else:
        assert cells[2:] == ["none", "nothing was faster" if result["steps"] else "nothing to rewrite"]


@pytest.mark.parametrize(("network", "backend"), sorted(RESULTS))
def test_each_rewrite_alone(network, backend):
    found = [tuple(cells[2:]) for cells in rows(5) if cells[:2] == [network, backend]]
    result = RESULTS[network, backend]
    kept = ["yes" if name in result["applied"] else "no" for name in alone(result)]
    wanted = [(name, ratio(q)) for name, q in alone(result).items()]
    assert found == [(*cells, answer) for cells, answer in zip(wanted, kept, strict=True)]


def test_the_repeated_run():
    (again,) = TREES[0]["repeats"]
    names = ", ".join(f"`{name}`" for name in again["applied"])
    assert f"`{again['network']}` again, later: {ratio(together(again))} with {names}." in TEXT


def test_the_choice_follows_from_the_samples():
    for rounds, result in ((tree["rounds"], r) for tree in TREES for r in tree["results"] + tree.get("repeats", [])):
        kept = [step["kept"] for step in result["steps"] if step["kept"]]
        assert result["applied"] in (kept, [])
        for step in result["steps"]:
            assert all(len(times) == rounds for times in step["ms"].values())
            assert step["wrong"] == []
            assert next(iter(step["ms"])) == PLAIN
            faster = {name: q.median for name, q in alone({"steps": [step]}).items() if q.lower > 1}
            assert step["kept"] == (max(faster, key=faster.get) if faster else None)


def test_every_rewrite_is_described():
    described = set(re.findall(r"^\| `([a-z-]+)` \|", TEXT.partition("## The rewrites")[2].partition("##")[0], re.M))
    assert described == set(REWRITES.names())
