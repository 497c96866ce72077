"""What is said of searches whose steps compute only what their strategy draws."""

import json

import numpy as np
import pytest
import torch

from searchkit.choices import numbers_of, with_numbers
from searchkit.cli import app
from searchkit.console import run
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.training.draws import drawn
from searchkit.training.dry_run import dry_run, dry_runs
from searchkit.training.meta_operators import MetaOperators
from searchkit.training.plan import DRAWS, Pictures, Rates, plan
from searchkit.training.search_recipe import parse_search_recipe

SPACES_OF = {
    "lgcnet": {"length": 5, "reductions": [1, 3], "stem": 2, "fusion_channels": 4},
    "dcnas": {"layers": 3, "channels": 8, "stem": 4, "head": 8},
}
SIZE = Size(32, 64)
#: Shared, so that what an operator does is found out once.
OPERATORS = MetaOperators()
SAMPLING = [("lgcnet", "gumbel"), ("dcnas", "gumbel"), ("dcnas", "sampled_paths")]


def recipe_of(strategy, **settings):
    tree = {"batch": 2, "steps": 3, "strategy": {"name": strategy, "settings": settings}}
    return parse_search_recipe(tree, where="test")


def build(space):
    return SPACES.load(space).supernet(SPACES_OF[space], 5)


def on_meta(space):
    with torch.device("meta"):
        return build(space).train()


@pytest.mark.parametrize(("space", "strategy"), SAMPLING)
def test_what_is_not_drawn_is_not_counted(space, strategy):
    found = dry_runs(on_meta(space), recipe_of(strategy), SIZE, draws=3, operators=OPERATORS)
    (whole,) = dry_runs(on_meta(space), recipe_of("darts"), SIZE, draws=3, operators=OPERATORS)
    assert len(found) == 3
    assert max(needs.macs for needs in found) < whole.macs
    assert max(needs.worst.activations_bytes for needs in found) < whole.worst.activations_bytes
    assert len({needs.macs for needs in found}) > 1
    # Weights and moments are there all the same.
    assert {needs.state_bytes for needs in found} == {whole.state_bytes}
    # The same seeds draw the same.
    assert dry_runs(on_meta(space), recipe_of(strategy), SIZE, draws=1, operators=OPERATORS) == found[:1]


def test_draws_are_those_of_the_strategy():
    net = on_meta("dcnas")
    found = drawn(net, recipe_of("sampled_paths", paths=2), 0, 40)
    alive = net.tables["connection"].alive
    taken = np.array([numbers["connection"] > 0 for numbers in found])
    assert (taken.sum(axis=2) == 2).all()
    assert not (taken & ~alive).any()
    # Each candidate now and then, in 40 draws of 2 of at most 12.
    assert (taken.any(axis=0) == alive).all()
    assert all((numbers["operator"] > 0).all() for numbers in found)


def test_the_generator_stands_where_it_stood():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    dry_run(on_meta("dcnas"), recipe_of("sampled_paths"), SIZE)
    assert torch.equal(torch.rand(1), expected)


def test_a_strategy_that_weighs_all_draws_nothing():
    assert drawn(on_meta("dcnas"), recipe_of("darts"), 0, 2) is None
    # Nor does one that samples, where there is nothing to choose from.
    net = on_meta("lgcnet")
    decided = {name: mask & (np.arange(mask.shape[1]) == 1) for name, mask in net.alive().items()}
    net.shrink(net.closed(decided))
    assert drawn(net, recipe_of("gumbel"), 0, 2) is None


def test_numbers_of_weights():
    weights = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert numbers_of(weights).tolist() == [[0.0, 1.0]]
    assert numbers_of(weights.to(torch.bfloat16)).tolist() == [[0.0, 1.0]]
    assert numbers_of(weights.to("meta")) is None
    assert numbers_of(with_numbers(weights.to("meta"), np.ones((1, 2)))).tolist() == [[1.0, 1.0]]


def test_memory_is_the_greatest_and_work_the_mean():
    rates = Rates("a", "A", "fp32", tera_ops=1.0, bandwidth_gb_s=1e9, memory_gb=16.0)
    recipe = recipe_of("sampled_paths")
    found = plan(lambda: build("dcnas"), "dcnas", recipe, SIZE, Pictures(30, 10), (rates,))
    row = found.rows[0]
    assert len(row.draws) == DRAWS
    assert row.needs.worst.peak_bytes == max(needs.worst.peak_bytes for needs in row.draws) == found.peak_bytes
    assert row.work.macs == pytest.approx(sum(needs.macs for needs in row.draws) / DRAWS, abs=1)
    # Three connections are drawn where three are left at most: one candidate is none to draw from.
    assert [len(each.draws) for each in found.rows] == [DRAWS, DRAWS, 1, 1]
    tree = found.to_tree()
    sampled = tree["counted"][0]["sampled"]
    assert sampled["draws"] == DRAWS
    assert sampled["peak_bytes"]["mean"] < sampled["peak_bytes"]["greatest"] == found.peak_bytes
    assert sampled["step_macs"]["mean"] == tree["counted"][0]["step_macs"] == row.work.macs
    assert tree["counted"][3]["sampled"] is None
    (hours, _) = tree["predicted"][0]["hours_if_all_steps_were_so"][0]["hours"]
    assert hours == pytest.approx(found.steps * 2 * row.work.macs / 1e12 / 3600 / 0.6, rel=1e-6)


def test_the_command_says_whether_it_counted_draws(capsys):
    words = ["--pictures", "100", "--resolution", "32x64", "--preset", "smoke", "--set", "batch=2"]
    fields = [f"--set=space.{name}={json.dumps(value)}" for name, value in SPACES_OF["dcnas"].items()]
    assert run(app, ["plan", "dcnas", *words, *fields]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert f"sampled: {DRAWS} steps as the strategy draws them" in output
    assert "not sampled" not in output
