"""The end of a search with a limit of milliseconds, and prices in the loss on the way there."""

import json
from dataclasses import replace

import pytest
import torch

from searchkit.costs.budget import latency_budget, macs_budget
from searchkit.costs.latency import LatencyTable
from searchkit.costs.loss import latency_loss
from searchkit.data import streets
from searchkit.errors import SearchFailedError
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.supernet import weights_of
from searchkit.training import history, search_checkpoint
from searchkit.training.distributed import World
from searchkit.training.search import Searcher
from searchkit.training.search_end import conclude
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_limits import Limits

SIZE = Size(32, 64)
RECIPE = {"batch": 2, "steps": 8, "decide_every": 4, "stop_when_discrete": False, "architecture": {"lr": 0.1}}
PER_MAC = 1e-6


class ToySpace:
    """Of the toy's genotypes, what a table's sum needs."""

    def operator_keys(self, genotype, size):
        cells = (size.height // 8) * (size.width // 8)
        found = [f"conv8_3_8_{cells}", f"conv1_8_{genotype.classes}_{cells}"]
        for kernel, width in genotype.layers:
            found += [f"conv{kernel}_8_{width}_{cells}", f"conv1_{width}_8_{cells}"]
        return found


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    torch.set_num_threads(1)
    load = type(SPACES).load
    monkeypatch.setattr(type(SPACES), "load", lambda self, name: ToySpace() if name == "toy" else load(self, name))


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(4)]


@pytest.fixture
def table(toy_supernet_type):
    """Milliseconds that are MACs times `PER_MAC`."""
    supernet = toy_supernet_type(19)
    parts = supernet.parts(weights_of(supernet.alive()), SIZE)
    entries = {o.key: o.macs * PER_MAC for part in parts for o in part.grid.operators}
    return LatencyTable("a CPU", "onnxruntime", "fp32", 1, tuple(SIZE), "a test", entries)


@pytest.fixture
def job(samples, toy_supernet_type, search_job):
    def make(limits, **recipe):
        return search_job(lambda: toy_supernet_type(19), RECIPE | recipe, samples, SIZE, limits=limits)

    return make


def ended(job, path, timer=None, *, resume=False):
    path.mkdir(exist_ok=True)
    searcher = Searcher(job, SearchFolder(path))
    if resume:
        searcher.resume()
    searcher.run()
    return conclude(searcher, Provenance(name="toy"), timer)


def test_without_a_timer_milliseconds_are_predicted(job, table, tmp_path):
    limits = Limits((latency_budget("10ms", table, SIZE), macs_budget("1G", SIZE)))
    genotype, result = ended(job(limits), tmp_path)
    macs = genotype.cost(SIZE).conv_macs
    assert result["budgets"] == {
        "latency": {"value": pytest.approx(macs * PER_MAC), "limit": 10.0, "how": "predicted"},
        "macs": {"value": macs, "limit": 1e9, "how": "counted"},
    }
    assert json.loads((tmp_path / "result.json").read_text())["budgets"] == result["budgets"]


def test_with_one_they_are_measured_and_kept(job, table, tmp_path):
    """Going on with a search that is over measures nothing again: its files stay as they are, byte for byte."""
    limits, asked = Limits((latency_budget("10ms", table, SIZE),)), []
    times = iter([7.25, 99.0])

    def timer(genotype):
        asked.append(genotype)
        return next(times)

    genotype, result = ended(job(limits), tmp_path, timer)
    predicted = genotype.cost(SIZE).conv_macs * PER_MAC
    assert result["budgets"]["latency"] == {
        "value": 7.25,
        "limit": 10.0,
        "how": "measured",
        "predicted": pytest.approx(predicted),
    }
    assert [found.digest for found in asked] == [genotype.digest]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    ended(job(limits), tmp_path, timer, resume=True)
    assert len(asked) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    # Of another network, or predicted, it is not taken.
    tree = json.loads(before["result.json"])
    for changed in (tree | {"digest": "0" * 64}, tree | {"budgets": {"latency": {"value": 7.25, "how": "predicted"}}}):
        (tmp_path / "result.json").write_text(json.dumps(changed))
        times = iter([8.5])
        assert ended(job(limits), tmp_path, timer, resume=True)[1]["budgets"]["latency"]["value"] == 8.5


def test_what_is_measured_above_the_limit_is_no_success(job, table, tmp_path):
    """The sum of entries is within it; what the whole network takes is not."""
    budget = latency_budget("0.07ms", table, SIZE)
    with pytest.raises(SearchFailedError, match="breaks a limit") as failed:
        ended(job(Limits((budget,))), tmp_path, lambda genotype: 0.08)
    assert failed.value.exit_code == 6
    assert "0.08 ms measured where 0.07 ms are allowed" in str(failed.value)
    assert (tmp_path / "nearest.json").exists()
    assert not (tmp_path / "genotype.json").exists()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["broken"] == ["0.08 ms measured where 0.07 ms are allowed"]
    predicted = result["budgets"]["latency"]["predicted"]
    assert 0.04 < predicted < 0.07
    assert f"a limit of {0.07 * predicted / 0.08:.4g} ms has room for the difference" in str(failed.value)
    # Twice the prediction is no table's error, and a limit by that measure may be below what any network takes.
    with pytest.raises(SearchFailedError, match="other processes were busy") as failed:
        ended(job(Limits((budget,))), tmp_path / "busy", lambda genotype: 500.0)
    assert "has room" not in str(failed.value)
    # A limit that is met exactly is met.
    assert ended(job(Limits((budget,))), tmp_path / "other", lambda genotype: 0.07)[1]["broken"] == []


def test_a_process_that_does_not_lead_takes_the_leaders_word(job, table, tmp_path, monkeypatch):
    """Of two: the other one's milliseconds come by the sum over both."""
    searcher = Searcher(job(Limits((latency_budget("10ms", table, SIZE),))), SearchFolder(tmp_path))
    searcher.run()
    searcher.job = replace(searcher.job, world=World(rank=1, size=2))
    monkeypatch.setattr(World, "_reduced", lambda self, value: value + 6.5)
    monkeypatch.setattr(Searcher, "validation_row", lambda self, weights: {"miou": None})
    _, result = conclude(searcher, Provenance(name="toy"), lambda genotype: pytest.fail("it measures"))
    assert result["budgets"]["latency"]["value"] == 6.5


def test_a_price_pulls_and_a_limit_is_not_needed(job, table, tmp_path):
    """The same search with a price ends in a cheaper network."""
    free, _ = ended(job(Limits()), tmp_path / "free")
    limits = Limits(costs=(latency_loss(table, "log", 50.0),))
    paid, result = ended(job(limits), tmp_path / "paid")
    assert paid.cost(SIZE).conv_macs < free.cost(SIZE).conv_macs
    assert result["budgets"] == {}


def test_the_weight_of_a_price_adapts_and_survives_a_kill(job, table, tmp_path):
    """All of the toy is slower than the band: the factor doubles at every decision point."""
    limits = Limits(costs=(latency_loss(table, "linear", 1e-3, fps=(1e7, 2e7)),))
    ended(job(limits), tmp_path / "whole")
    rows = history.read(tmp_path / "whole" / "history.jsonl")
    assert [row["cost_factor"] for row in rows if "cost_factor" in row] == [2.0, 4.0]
    stops = iter([False] * 4 + [True])
    (tmp_path / "part").mkdir()
    part = Searcher(job(limits), SearchFolder(tmp_path / "part"), stopping=lambda: next(stops))
    assert not part.run()
    assert search_checkpoint.read_state(tmp_path / "part" / "checkpoint").position.cost_factor == 2.0
    ended(job(limits), tmp_path / "part", resume=True)
    for name in ("history.jsonl", "genotype.json", "result.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_milliseconds_are_those_of_a_limit_or_a_price(table, toy_supernet_type):
    toy_supernet = toy_supernet_type(19)
    weights = weights_of(toy_supernet.alive())
    budget, loss = latency_budget("10ms", table, SIZE), latency_loss(table, "log", 1.0)
    assert Limits((macs_budget("1G", SIZE),)).milliseconds(toy_supernet, weights) is None
    expected = float(macs_budget("1G", SIZE).expected(toy_supernet, weights)) * PER_MAC
    for limits in (Limits((budget,)), Limits(costs=(loss,))):
        assert limits.milliseconds(toy_supernet, weights) == pytest.approx(expected)
    assert not Limits().pulls
    assert Limits((budget,)).pulls
    assert Limits(costs=(loss,)).pulls
