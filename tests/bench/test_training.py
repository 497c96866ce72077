"""The cost of training beside the arithmetic: what takes turns, what is counted, that the bare loop really trains."""

from __future__ import annotations

import json

import pytest
import torch

import bench.training
from bench.cli import app
from bench.training import TrainingCost, Turns, bare_step, training_cost
from bench.training_cli import _job
from searchkit.console import run
from searchkit.errors import UsageError

ARGUMENTS = ["--resolution", "32x64", "--preset", "smoke", "--split", "test", "--turns", "2", "--steps", "2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def job(tiny, cache):
    return lambda: _job(str(tiny(classes=19)), "streets", "smoke", "32x64", "test", 1, "cpu", cache)


def test_ratios_are_taken_turn_by_turn():
    turns = Turns(trainer_s=(2.0, 6.0, 3.0), bare_s=(1.0, 4.0, 2.5), loading_s=(0.5, 0.5, 0.1))
    assert turns.step_ratios == (2.0, 1.5, 1.2)
    assert turns.loading_ratios == (4.0, 12.0, 30.0)
    tree = TrainingCost({"network": "a"}, {"cores": 2}, turns).to_tree()
    assert tree["trainer_over_bare_loop"] == {"median": 1.5, "least": 1.2, "greatest": 2.0}
    assert tree["loading_rate_over_step_rate"] == {"median": 12.0, "least": 4.0, "greatest": 30.0}
    assert tree["seconds_a_step"]["loading_by_one_thread"] == [0.5, 0.5, 0.1]


def test_the_three_take_turns_and_each_is_timed(job, monkeypatch):
    """With a clock that only the steps move, every one of the three is found to take what it was made to take."""
    now = [0.0]
    order = []
    monkeypatch.setattr(bench.training.time, "perf_counter", lambda: now[0])

    def costing(name, seconds, step=lambda: None):
        def run():
            step()
            now[0] += seconds
            order.append(name)

        return run

    monkeypatch.setattr(bench.training, "bare_step", lambda _: costing("bare", 2.0))
    monkeypatch.setattr(bench.training, "_loading", lambda _: costing("loading", 0.5))
    from searchkit.training.train import Trainer

    real = Trainer._step

    def step(self, images, labels):
        costing("trainer", 3.0)()
        return real(self, images, labels)

    monkeypatch.setattr(Trainer, "_step", step)
    cost = training_cost(job(), {"network": "tiny"}, {}, turns=2, steps=3)
    assert cost.turns == Turns((3.0, 3.0), (2.0, 2.0), (0.5, 0.5))
    a_turn = ["trainer"] * 7 + ["bare"] * 7 + ["loading"] * 7
    assert order == a_turn * 2
    assert cost.setting["batch"] == 2
    assert cost.setting["loader_threads"] == 1


def test_the_bare_loop_trains_what_the_trainer_trains(job, monkeypatch):
    made = job()
    built = []
    real = type(made.network).build
    monkeypatch.setattr(type(made.network), "build", lambda self, **how: built.append(real(self, **how)) or built[-1])
    step = bare_step(made)
    before = [p.detach().clone() for p in built[0].parameters()]
    step()
    changed = [not torch.equal(old, new) for old, new in zip(before, built[0].parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize(("turns", "steps"), [(0, 1), (1, 0)])
def test_nothing_to_measure_is_refused(job, turns, steps):
    with pytest.raises(UsageError, match="nothing to measure"):
        training_cost(job(), {}, {}, turns=turns, steps=steps)


def test_the_command(tiny, cache, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tiny(classes=19)
    here = set(tmp_path.iterdir())
    assert run(app, ["training", str(path), *ARGUMENTS, "--cache", str(cache), "--json", "cost.json"]) == 0
    shown = capsys.readouterr().out
    assert "bare PyTorch loop" in shown
    assert "times the step's rate" in shown
    tree = json.loads((tmp_path / "cost.json").read_text())
    assert (tree["schema"], tree["kind"]) == (1, "training cost, measured")
    assert {len(values) for values in tree["seconds_a_step"].values()} == {2}
    assert all(value > 0 for values in tree["seconds_a_step"].values() for value in values)
    assert tree["setting"]["resolution"] == "32x64"
    assert tree["machine"]["cores"]
    assert set(tmp_path.iterdir()) == here | {tmp_path / "cost.json"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--device", "tpu"], 2, "unknown device"),
        (["--preset", "smok"], 2, "Did you mean smoke"),
        (["--resolution", "33x65"], 2, "33x65"),
        (["--data", "stretes"], 2, "streets"),
        (["--json", "missing/cost.json"], 4, "missing"),
    ],
)
def test_bad_input_is_refused(tiny, cache, tmp_path, capsys, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    command = ["training", str(tiny(classes=19)), *ARGUMENTS, "--cache", str(cache), *arguments]
    assert run(app, command) == code
    assert said in capsys.readouterr().err
