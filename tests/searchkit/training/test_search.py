"""The search loop on a supernet that is small enough for hundreds of steps a second."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from searchkit.choices import alive_of
from searchkit.costs.budget import macs_budget, params_budget
from searchkit.data import streets
from searchkit.errors import DamagedArtifactError, SearchFailedError, StorageError, UsageError
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.strategies import STRATEGIES, Strategy
from searchkit.training import history, search_checkpoint
from searchkit.training.search import Searcher
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_limits import Limits

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(32, 64)
RECIPE = {
    "batch": 2,
    "steps": 23,
    "warmup_steps": 3,
    "decide_every": 4,
    "validate_every": 3,
    "stop_when_discrete": False,
    "weights": {"optimiser": {"name": "adam", "lr": 1e-2, "weight_decay": 1e-4}},
    "architecture": {"lr": 0.1},
}
PROVENANCE = Provenance(name="toy")


class Killed(BaseException):
    pass


class Weakest(Strategy):
    """Drops the least preferred candidate of every choice at each decision; remembers how many it has dropped."""

    dropped = 0

    def probabilities(self, table):
        return torch.softmax(table.dense(), dim=1).nan_to_num(0.0)

    def relax(self, table):
        # Drawn, so that the address of the random numbers counts.
        noise = 0.1 * torch.randn_like(table.logits)
        return torch.softmax(table.dense(table.logits + noise), dim=1).nan_to_num(0.0)

    def decide(self, tables, progress, feasible):
        found = alive_of(tables)
        for name, table in tables.items():
            p = self.probabilities(table).detach().numpy()
            for row in np.flatnonzero(found[name].sum(axis=1) > 1)[:2]:
                found[name][row, np.where(found[name][row], p[row], np.inf).argmin()] = False
                self.dropped += 1
        return found

    def state(self):
        return {"dropped": self.dropped}

    def load_state(self, state):
        self.dropped = int(state["dropped"])


class Undecided(Weakest):
    """Never removes anything."""

    def decide(self, tables, progress, feasible):
        return alive_of(tables)


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(7)]


@pytest.fixture(scope="module")
def job(samples, toy_supernet_type, search_job):
    """`job(recipe fields, other=changes)`."""

    def make(changes=None, *, strategy=Weakest, **more):
        recipe = RECIPE | (changes or {})
        return search_job(lambda: toy_supernet_type(19), recipe, samples, SIZE, strategy=strategy, validation=2, **more)

    return make


@pytest.fixture(scope="module")
def undisturbed(job, tmp_path_factory, searched, files_of):
    path = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    searched(job(), path)
    return files_of(path)


def killed_at(step):
    def listener(report):
        if report.step == step:
            raise Killed

    return listener


def test_a_search_leaves_its_files(undisturbed):
    wanted = {"history.jsonl", "choices.jsonl", "genotype.json", "decisions.json", "result.json", "search.svg"}
    assert wanted | {"checkpoint/state.json"} < set(undisturbed)
    rows = [json.loads(line) for line in undisturbed["history.jsonl"].splitlines()]
    assert [row["step"] for row in rows if "decision" in row] == [4, 8, 12, 16, 20, 23]
    assert [row["step"] for row in rows if "miou" in row] == [12, 23]
    assert [row["step"] for row in rows if "loss" in row] == [4, 8, 12, 16, 20, 23]
    # No architecture steps during the warm-up: one of the first four.
    assert all("architecture_loss" in row for row in rows if "loss" in row)
    alive = [sum(row["alive"].values()) for row in rows if "decision" in row]
    assert alive == sorted(alive, reverse=True)
    assert alive[-1] < 39
    for row in rows:
        if "entropies" in row:
            assert row["entropy"] == pytest.approx(sum(row["entropies"].values()))
            assert row["expected_macs"] == pytest.approx(sum(row["stage_macs"].values()))
    choices = [json.loads(line) for line in undisturbed["choices.jsonl"].splitlines()]
    assert [row["step"] for row in choices] == [0, 4, 8, 12, 16, 20, 23]
    assert set(choices[0]["probabilities"]) == {"depth", "kernel", "width"}
    ElementTree.fromstring(undisturbed["search.svg"])


def test_the_network_is_what_lives_in_the_end(undisturbed):
    tree = json.loads(undisturbed["genotype.json"])
    tables = json.loads(undisturbed["decisions.json"])["tables"]
    depth = int(tables["depth"]["all"]["candidate"])
    assert len(tree["layers"]) == depth
    for index, (kernel, width) in enumerate(tree["layers"]):
        assert tables["kernel"][f"layer{index}"]["candidate"] == f"k{kernel}"
        assert tables["width"][f"layer{index}.k{kernel}"]["candidate"] == str(width)
    # Choices of layers and kernels that are gone were decided for nothing, and are not told.
    assert sum(map(len, tables.values())) == 1 + 2 * depth
    for rows in tables.values():
        for row in rows.values():
            assert row["by"] in ("shrinking", "argmax")
            assert 0 <= row["probability"] <= 1
            assert row["step"] in (4, 8, 12, 16, 20, 23)
            assert row["runner_up"] != row["candidate"]
    result = json.loads(undisturbed["result.json"])
    assert result["gap"] == pytest.approx(result["miou_before"] - result["miou_after"])
    assert result["steps"] == 23


def test_workers_change_no_byte(job, undisturbed, tmp_path, searched, files_of):
    searched(job(workers=2), tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_another_seed_searches_otherwise(job, undisturbed, tmp_path, searched, files_of):
    searched(job(seed=4), tmp_path)
    assert files_of(tmp_path)["checkpoint/supernet.safetensors"] != undisturbed["checkpoint/supernet.safetensors"]


@pytest.mark.parametrize("kills", [(1,), (3,), (4,), (5,), (9,), (23,), (6, 6), (5, 14), (2, 13)])
def test_killed_and_resumed_ends_in_the_same_bytes(job, undisturbed, tmp_path, kills, searched, files_of):
    for step in kills:
        with pytest.raises(Killed):
            searched(job(), tmp_path, listener=killed_at(step))
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("step", range(1, 23, 3))
def test_stopped_at_any_step_and_resumed_ends_in_the_same_bytes(job, undisturbed, tmp_path, step, searched, files_of):
    seen = []
    (tmp_path / "config.json").write_text("{}")
    stopped = Searcher(job(), SearchFolder(tmp_path), listener=seen.append, stopping=lambda: len(seen) >= step)
    assert not stopped.run()
    assert stopped.position.step in (step, step + 1)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("where", ["_note", "shrink", "_configure", "_append", "_log_choices", "save"])
def test_killed_within_a_decision(job, undisturbed, tmp_path, monkeypatch, where, searched, files_of):
    """Before it, between its parts and behind it; the second decision, which shrinks."""
    real, calls = getattr(Searcher, where), []

    def failing(self, *arguments):
        result = real(self, *arguments)
        if hasattr(self, "position") and self.position.step == 8:
            calls.append(where)
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Searcher, where, failing)
        with pytest.raises(Killed):
            searched(job(), tmp_path)
    assert calls
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("write", [1, 3, 5, 6, 9, 12])
def test_killed_while_a_checkpoint_is_written(job, undisturbed, tmp_path, monkeypatch, write, searched, files_of):
    calls, real = [], search_checkpoint.write_bytes

    def failing(path, data):
        calls.append(path)
        if len(calls) == write:
            raise Killed
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(search_checkpoint, "write_bytes", failing)
        with pytest.raises(Killed):
            searched(job(), tmp_path)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.parametrize("name", ["draw", "write_decisions", "write_network", "write_result"])
def test_killed_at_the_end(job, undisturbed, tmp_path, monkeypatch, name, searched, files_of):
    def failing(*_arguments, **_more):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SearchFolder, name, failing)
        with pytest.raises(Killed):
            searched(job(), tmp_path)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_a_finished_search_stays_as_it_is(job, undisturbed, tmp_path, searched, files_of):
    searched(job(), tmp_path)
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_every_strategy_ends_in_a_network(job, tmp_path, searched):
    for name in STRATEGIES.names():
        genotype, result = searched(job(strategy=STRATEGIES.load(name)), tmp_path / name)
        assert genotype.space == "toy"
        assert result["decided_by"] in ("shrinking", "argmax")


def test_same_batches_for_both_updates(job, tmp_path, monkeypatch, searched):
    seen = {"_architecture_step": [], "_weight_step": []}
    for name, calls in seen.items():
        real = getattr(Searcher, name)
        monkeypatch.setattr(
            Searcher, name, lambda self, *batch, real=real, calls=calls: (calls.append(batch), real(self, *batch))[1]
        )
    searched(job({"split": "same"}), tmp_path / "same")
    for (first, _), (second, _) in zip(seen["_architecture_step"], seen["_weight_step"][3:], strict=False):
        assert torch.equal(first, second)
    for calls in seen.values():
        calls.clear()
    searched(job(), tmp_path / "half")
    # Four pictures on one side and three on the other, none on both; mirrored or not.
    plain = {
        key: {min(i.numpy().tobytes(), i.flip(-1).numpy().tobytes()) for x, _ in calls for i in x}
        for key, calls in seen.items()
    }
    assert [len(found) for found in plain.values()] == [3, 4]
    assert not plain["_architecture_step"] & plain["_weight_step"]


def test_only_one_side_moves_in_each_update(job, tmp_path):
    searcher = Searcher(job({"split": "same"}), SearchFolder(tmp_path))
    batch, _ = next(searcher.streams.iterate(0, 1, None, 0))
    network = {name: p.detach().clone() for name, p in searcher.supernet.network_parameters().items()}
    logits = {name: p.detach().clone() for name, p in searcher.supernet.architecture_parameters().items()}
    searcher._architecture_step(*batch)
    assert all(torch.equal(p, network[name]) for name, p in searcher.supernet.network_parameters().items())
    assert not any(torch.equal(p, logits[name]) for name, p in searcher.supernet.architecture_parameters().items())
    logits = {name: p.detach().clone() for name, p in searcher.supernet.architecture_parameters().items()}
    searcher._lr = 0.01
    searcher._weight_step(*batch)
    assert all(torch.equal(p, logits[name]) for name, p in searcher.supernet.architecture_parameters().items())
    assert not all(torch.equal(p, network[name]) for name, p in searcher.supernet.network_parameters().items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("which", ["weight", "architecture"])
def test_what_is_no_number_stops_before_anything_moves(job, tmp_path, value, where, which):
    searcher = Searcher(job(), SearchFolder(tmp_path))
    real, before = searcher._update, {}

    def poisoned(loss, optimiser, parameters, clip, name):
        if searcher.position.step == 5 and name == which:
            before.update({key: p.detach().clone() for key, p in searcher.supernet.named_parameters()})
            if where == "loss":
                loss = loss * value
            else:
                for parameter in parameters.values():
                    if parameter.grad is not None:
                        parameter.grad *= value
        real(loss, optimiser, parameters, clip, name)

    searcher._update = poisoned
    with pytest.raises(SearchFailedError, match=f"the {where} of the {which} step is no number at step 6") as failed:
        searcher.run()
    assert failed.value.exit_code == 6
    assert before
    assert all(torch.equal(before[name], p) for name, p in searcher.supernet.named_parameters())
    assert search_checkpoint.read_state(tmp_path / "checkpoint").position.step == 4
    assert all(p.requires_grad for p in searcher.supernet.parameters())


def test_each_pass_goes_backward_by_itself_and_gradients_are_those_of_the_sum(job, tmp_path, monkeypatch):
    """Two passes with two heads each: the same gradients as by one backward of the sum of all four losses."""
    found, losses, warmups = {}, {}, []
    searcher = Searcher(job({"split": "same"}), SearchFolder(tmp_path))
    supernet = searcher.supernet
    uniform = {
        name: torch.from_numpy(mask / mask.sum(axis=1, keepdims=True)) for name, mask in supernet.alive().items()
    }

    def passes(weights, *, warmup):
        warmups.append(warmup)
        yield weights
        yield {name: p.float() for name, p in uniform.items()}

    def two_heads(image, weights):
        logits = supernet(image, weights)
        return logits, -logits

    def update(loss, optimiser, parameters, clip, which):
        found[which] = {name: p.grad.clone() for name, p in parameters.items()}
        losses[which] = float(loss)
        optimiser.zero_grad(set_to_none=True)

    monkeypatch.setattr(supernet, "passes", passes)
    monkeypatch.setattr(type(supernet), "head_weights", (1.0, 0.25))
    monkeypatch.setattr(searcher, "_forward", two_heads)
    monkeypatch.setattr(searcher, "_update", update)
    batch, _ = next(searcher.streams.iterate(0, 1, None, 0))
    for step, stream, parameters in (
        (searcher._architecture_step, 11, supernet.architecture_parameters()),
        (searcher._weight_step, 12, supernet.network_parameters()),
    ):
        step(*batch)
        which, mine = found.popitem()
        searcher._draw_at(stream)
        relaxed = {name: searcher.strategy.relax(table) for name, table in supernet.tables.items()}
        total = sum(searcher._loss(*batch, weights) for weights in passes(relaxed, warmup=True))
        wanted = torch.autograd.grad(total, list(parameters.values()))
        assert losses[which] == pytest.approx(float(total.detach()), rel=1e-6)
        for name, gradient in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-7)
    assert set(warmups) == {True}


def test_a_strategy_that_would_empty_a_choice(job, tmp_path, searched):
    class Greedy(Weakest):
        def decide(self, tables, progress, feasible):
            return {name: np.zeros_like(mask) for name, mask in alive_of(tables).items()}

    with pytest.raises(SearchFailedError, match="last candidate"):
        searched(job(strategy=Greedy), tmp_path)


def test_a_discrete_supernet_ends_the_search(job, tmp_path, searched):
    class Sure(Weakest):
        def decide(self, tables, progress, feasible):
            found = {name: np.zeros_like(mask) for name, mask in alive_of(tables).items()}
            for mask in found.values():
                mask[:, 0] = True
            return found

    genotype, result = searched(job({"stop_when_discrete": True}, strategy=Sure), tmp_path)
    assert (result["steps"], result["decided_by"], result["gap"]) == (4, "shrinking", 0.0)
    assert genotype.layers == ((1, 2),)
    # Going on trains the weights alone.
    _, result = searched(job(strategy=Sure), tmp_path / "on")
    rows = history.read(tmp_path / "on" / "history.jsonl")
    assert result["steps"] == 23
    assert ["architecture_loss" in row for row in rows if "loss" in row] == [True, *[False] * 5]


def test_argmax_decides_what_is_left(job, tmp_path, searched):
    genotype, result = searched(job(strategy=Undecided), tmp_path)
    assert result["decided_by"] == "argmax"
    assert result["undecided_before"] == 13
    last = history.read(tmp_path / "choices.jsonl")[-1]["probabilities"]
    best = {name: max(p, key=p.get) for name, p in last["kernel"].items()}
    for index, (kernel, width) in enumerate(genotype.layers):
        assert best[f"layer{index}"] == f"k{kernel}"
        widths = last["width"][f"layer{index}.k{kernel}"]
        assert str(width) == max(widths, key=widths.get)
    decided = json.loads((tmp_path / "decisions.json").read_text())["tables"]
    assert {row["by"] for rows in decided.values() for row in rows.values()} == {"argmax"}
    assert all(row["margin"] >= 0 for rows in decided.values() for row in rows.values())


@pytest.mark.parametrize("strategy", [Weakest, Undecided])
@pytest.mark.parametrize("share", [1.0, 1.05, 1.5, 3.0])
def test_a_budget_holds_at_every_decision_and_in_the_end(job, tmp_path, strategy, share, toy_supernet_type, searched):
    supernet = toy_supernet_type(19)
    least = macs_budget("1G", SIZE).least(supernet, supernet.alive())
    budget = macs_budget(f"{least * share:.0f}", SIZE)
    seen = []

    class Watched(strategy):
        def decide(self, tables, progress, feasible):
            assert feasible(alive_of(tables))
            seen.append(alive_of(tables))
            return super().decide(tables, progress, feasible)

    genotype, result = searched(job(strategy=Watched, limits=Limits((budget,))), tmp_path)
    assert seen
    assert all(budget.feasible(supernet, supernet.closed(alive)) for alive in seen)
    assert genotype.cost(SIZE).conv_macs <= least * share + 1
    assert result["budgets"]["macs"]["value"] == genotype.cost(SIZE).conv_macs
    assert result["broken"] == []


def test_a_removal_is_undone_where_no_network_would_be_left(toy_supernet_type):
    torch.manual_seed(0)
    supernet = toy_supernet_type(19)
    least = macs_budget("1G", SIZE).least(supernet, supernet.alive())
    limits = Limits((macs_budget(f"{least:.0f}", SIZE),))
    wanted = supernet.alive()
    # The cheapest network has one layer of k1 with width 2: of two removals the less preferred one is made.
    wanted["depth"][0] = [False, False, True]
    wanted["kernel"][1] = [True, False, False]
    preferences = {name: np.full(mask.shape, 0.5) for name, mask in wanted.items()}
    found = limits.guarded(supernet, wanted, preferences)
    assert found["depth"].tolist() == [[True, False, True]]
    assert found["kernel"][1].tolist() == [True, False, False]
    assert (found["kernel"][0]).all()


def test_guarding_is_trying_one_removal_at_a_time(toy_supernet_type):
    torch.manual_seed(0)
    supernet = toy_supernet_type(19)
    random = np.random.default_rng(0)
    least = macs_budget("1G", SIZE).least(supernet, supernet.alive())
    for share in (1.0, 1.2, 1.7, 2.5):
        limits = Limits((macs_budget(f"{least * share:.0f}", SIZE),))
        preferences = {name: random.random(mask.shape) for name, mask in supernet.alive().items()}
        found = limits.chosen(supernet, preferences)
        alive = supernet.alive()
        shares = {name: p / p.max(axis=1, keepdims=True) for name, p in preferences.items()}
        places = [(shares[name][at], name, at) for name, mask in alive.items() for at in np.ndindex(mask.shape)]
        for _, name, at in sorted(places, key=lambda place: place[0]):
            after = {key: mask.copy() for key, mask in alive.items()}
            after[name][at] = False
            if after[name][at[0]].any() and limits.feasible(supernet, after):
                alive = after
        expected = supernet.closed(alive)
        assert all((found[name] == expected[name]).all() for name in expected)
        assert limits.broken(supernet.derive(found, PROVENANCE)) == []


def test_a_budget_that_no_network_meets(job, tmp_path):
    with pytest.raises(UsageError, match="smallest network"):
        Searcher(job(limits=Limits((params_budget("10", SIZE),))), SearchFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_two_budgets_hold_together(job, tmp_path, toy_supernet_type, searched):
    supernet = toy_supernet_type(19)
    alive = supernet.alive()
    macs = macs_budget("1G", SIZE).least(supernet, alive) * 1.3
    params = params_budget("1G", SIZE).least(supernet, alive) * 1.2
    limits = Limits((macs_budget(f"{macs:.0f}", SIZE), params_budget(f"{params:.0f}", SIZE)))
    genotype, result = searched(job(strategy=Undecided, limits=limits), tmp_path)
    cost = genotype.cost(SIZE)
    assert cost.conv_macs <= macs + 1
    assert cost.params <= params + 1
    assert set(result["budgets"]) == {"macs", "params"}


def test_a_network_over_its_limit_is_no_success(job, tmp_path, monkeypatch, searched):
    """Counted as a whole: here the count is wrong on purpose."""
    budget = macs_budget("100G", SIZE)
    limits = Limits((budget,))
    monkeypatch.setattr(type(budget), "met", lambda self, genotype: (False, 2 * self.limit))
    with pytest.raises(SearchFailedError, match="breaks a limit") as failed:
        searched(job(limits=limits), tmp_path)
    assert failed.value.exit_code == 6
    assert "200 G MACs where 100 G MACs" in str(failed.value)
    assert (tmp_path / "nearest.json").exists()
    assert not (tmp_path / "genotype.json").exists()
    assert json.loads((tmp_path / "result.json").read_text())["broken"]


def test_the_penalty_pulls_the_expected_cost_down(job, tmp_path, toy_supernet_type, searched):
    supernet = toy_supernet_type(19)
    least = macs_budget("1G", SIZE).least(supernet, supernet.alive())
    budget = macs_budget(f"{least * 1.5:.0f}", SIZE, weight=10.0)
    expected = []
    for limits in (Limits(), Limits((budget,))):
        searched(job(strategy=Undecided, limits=limits), tmp_path / str(len(expected)))
        rows = history.read(tmp_path / str(len(expected)) / "history.jsonl")
        expected.append([row["expected_macs"] for row in rows if "decision" in row][-1])
    assert expected[1] < 0.8 * expected[0]


def test_another_searchs_checkpoint_is_refused(job, tmp_path):
    assert not Searcher(job(), SearchFolder(tmp_path), stopping=lambda: True).run()
    with pytest.raises(UsageError, match="another search"):
        Searcher(job(identity="0" * 64), SearchFolder(tmp_path)).resume()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _with(**changes):
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("supernet.safetensors", _cut_short),
        ("supernet.safetensors", Path.unlink),
        ("optimisers.safetensors", _cut_short),
        ("state.json", lambda path: path.write_text("{")),
        ("state.json", lambda path: path.write_text("[" * 100_000)),
        ("state.json", _with(schema=2)),
        ("state.json", _with(sha256={})),
        ("state.json", _with(alive={})),
        ("state.json", _with(alive={"depth": ["111"], "kernel": ["111"] * 3, "width": ["11"] * 9})),
        ("state.json", _with(alive={"depth": ["112"], "kernel": ["111"] * 3, "width": ["111"] * 9})),
        ("state.json", _with(alive={"depth": ["100"], "kernel": ["100"] * 3, "width": ["100"] * 9})),
        ("state.json", _with(strategy={})),
        ("state.json", _with(pending=[[1]])),
    ],
)
def test_a_damaged_checkpoint_is_refused(job, tmp_path, name, damage):
    assert not Searcher(job(), SearchFolder(tmp_path), stopping=lambda: True).run()
    damage(tmp_path / "checkpoint" / name)
    with pytest.raises(DamagedArtifactError):
        Searcher(job(), SearchFolder(tmp_path)).resume()


def test_a_full_disk_leaves_the_last_checkpoint(job, undisturbed, tmp_path, monkeypatch, searched, files_of):
    calls, real = [], search_checkpoint.write_bytes

    def full(path, data):
        calls.append(path)
        if len(calls) > 5:
            raise StorageError("the disk is full", where=str(path))
        real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(search_checkpoint, "write_bytes", full)
        with pytest.raises(StorageError):
            searched(job(), tmp_path)
    assert search_checkpoint.read_state(tmp_path / "checkpoint").position.step == 0
    searched(job(), tmp_path)
    assert files_of(tmp_path) == undisturbed


def test_bfloat16_channels_last_and_compiling_are_asked_for(job, tmp_path, monkeypatch, searched):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: (compiled.append(how), module)[1])
    searched(job({"amp": "bf16"}), tmp_path / "bf16")
    searched(job({"channels_last": True, "compile": True}), tmp_path / "last")
    # Once at the start, and anew whenever the supernet shrank.
    assert len(compiled) > 3
    assert all(how == {"dynamic": False} for how in compiled)
    searcher = Searcher(job({"channels_last": True}), SearchFolder(tmp_path))
    assert searcher.supernet.head.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_scale_of_the_architecture_loss_matters_to_decay_and_clipping_alone(job, tmp_path):
    """Adam divides it out; L2 decay and the limit of the norm stand beside it."""

    def moved(**how):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        fields = {"steps": 1, "warmup_steps": 0, "decide_every": 1, "architecture": {"lr": 0.1, **how}}
        searcher = Searcher(job(fields, strategy=Undecided), SearchFolder(folder))
        # Decay of logits that are 0 would be nothing.
        with torch.no_grad():
            for table in searcher.supernet.tables.values():
                table.logits.copy_(torch.linspace(-1, 1, table.logits.numel()))
        searcher.run()
        return torch.cat([table.logits.detach() for table in searcher.supernet.tables.values()])

    plain = {"weight_decay": 0.0, "clip_norm": None}
    assert torch.allclose(moved(**plain), moved(**plain, loss_scale=1000.0), atol=1e-3)
    with_decay = moved(weight_decay=0.1, clip_norm=None)
    assert not torch.allclose(with_decay, moved(**plain), atol=1e-2)
    assert torch.allclose(moved(weight_decay=0.1, clip_norm=None, loss_scale=1e6), moved(**plain), atol=1e-2)
