"""`searchkit search` with a latency table, through the command: refused, measured, predicted, and as a price."""

import json
from dataclasses import replace

import pytest
import torch

from bench import machine
from bench.latency_table_networks import Whole
from deploy.backends import BACKENDS
from searchkit import cli, console
from searchkit.costs.latency import LatencyTable
from searchkit.data import streets
from searchkit.spaces import SPACES
from searchkit.training.search_request import SearchRequest, Words

SETTINGS = ("space.depths=[[1, 2], [1]]", "space.width_steps=1", "space.stem=8", "space.channels=[12, 16]")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(streets.SPLITS, "train", (0, 6))
    monkeypatch.setitem(streets.SPLITS, "val", (1, 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def table():
    """Of this machine, with every operator of the space at 0.1 ms."""
    request = SearchRequest.parse(Words("ssr", "streets", 0, preset="smoke", settings=SETTINGS))
    keys = SPACES.load("ssr").operator_modules(request.recipe.space, request.classes, request.size)
    version = BACKENDS.load("onnxruntime").probe().version
    device = str(machine.describe()["cpu"])
    entries = dict.fromkeys(keys, 0.1)
    return LatencyTable(device, "onnxruntime", "fp32", 1, tuple(request.size), "a test", entries, version, threads=1)


@pytest.fixture
def search(tmp_path):
    """`search(table, words)` runs the command and returns its exit code."""

    def run(table, *words):
        table.save(tmp_path / "table.json")
        fixed = ["search", "ssr", "--data", "streets", "--preset", "smoke", "--cache", str(tmp_path / "cache")]
        fixed += [word for setting in SETTINGS for word in ("--set", setting)]
        return console.run(cli.app, [*fixed, "-o", str(tmp_path / "run"), *words])

    return run


def limited(tmp_path, limit, *more):
    return ("--max-latency", limit, "--latency-table", str(tmp_path / "table.json"), *more)


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def result(tmp_path):
    return json.loads((tmp_path / "run" / "result.json").read_text())


def test_the_network_is_measured_in_the_end(tmp_path, table, search):
    """By the runtime itself."""
    assert search(table, *limited(tmp_path, "60s")) == 0
    latency = result(tmp_path)["budgets"]["latency"]
    assert latency["how"] == "measured"
    assert 0 < latency["value"] < 60_000
    # 2 or 3 layers of two operators, three downsamplers, three of the head.
    assert latency["predicted"] in (pytest.approx(1.0), pytest.approx(1.2))


def test_what_is_measured_over_the_limit_fails(tmp_path, table, search, monkeypatch, capsys):
    monkeypatch.setattr(Whole, "__call__", lambda self, genotype: 3.5)
    assert search(table, *limited(tmp_path, "3ms")) == 6
    assert "3.5 ms measured where 3 ms are allowed" in said(capsys)
    assert (tmp_path / "run" / "nearest.json").exists()
    assert not (tmp_path / "run" / "genotype.json").exists()


@pytest.mark.parametrize(
    "changes",
    [{"device": "RTX 9090"}, {"runtime_version": "0.1"}, {"runtime": "TensorRT 5.1.5", "runtime_version": None}],
)
def test_a_table_of_another_place_is_refused_unless_it_is_meant(tmp_path, table, search, monkeypatch, capsys, changes):
    monkeypatch.setattr(Whole, "__call__", lambda self, genotype: pytest.fail("it is not to be measured here"))
    other = replace(table, **changes)
    if "runtime" in changes:
        other = replace(other, device="GTX 1080Ti")
    assert search(other, *limited(tmp_path, "3ms")) == 2
    assert "another device or runtime" in said(capsys)
    assert not (tmp_path / "run").exists()
    assert search(other, *limited(tmp_path, "3ms", "--other-device")) == 0
    latency = result(tmp_path)["budgets"]["latency"]
    assert latency["how"] == "predicted"
    assert latency["value"] <= 3


def test_a_table_of_another_size_or_without_an_operator_is_refused(tmp_path, table, search, capsys):
    assert search(replace(table, network_input=(512, 1024)), *limited(tmp_path, "3ms")) == 2
    assert "another input size" in said(capsys)
    missing = dict(table.entries_ms)
    missing.pop(next(key for key in missing if key.startswith("conv3x1")))
    assert search(replace(table, entries_ms=missing), *limited(tmp_path, "3ms")) == 2
    assert "lacks an operator" in said(capsys)
    assert search(table, *limited(tmp_path, "100us")) == 2
    assert "no network of this space is within the budget" in said(capsys)
    assert not (tmp_path / "run").exists()


def test_a_price_by_the_same_table(tmp_path, table, search, capsys):
    table.save(tmp_path / "table.json")
    price = ["--set", "cost.price=latency", "--set", "cost.form=log", "--set", "cost.weight=0.005"]
    assert search(table, *price) == 2
    assert "a latency needs a latency_table" in said(capsys)
    price += ["--set", f"cost.latency_table={json.dumps(str(tmp_path / 'table.json'))}"]
    assert search(replace(table, device="RTX 9090"), *price) == 2
    assert "another device" in said(capsys)
    assert search(table, *price, "--set", "cost.levels={operater=1.0}") == 2
    assert "unknown level of choices" in said(capsys)
    assert search(table, *price, "--set", "cost.fps=[100, 200]", "--set", "cost.levels={channel=1.0}") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    factors = [row["cost_factor"] for row in rows if "cost_factor" in row]
    # 1 ms or a little more is far above 200 pictures a second.
    assert factors
    assert factors == [0.5**number for number in range(1, len(factors) + 1)]
    assert result(tmp_path)["budgets"] == {}
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(config["latency table"]) == 64
