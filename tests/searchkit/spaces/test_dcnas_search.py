"""Searches in the DCNAS space: every strategy comes to a network, and one that was killed goes on to the same bytes."""

from __future__ import annotations

import json

import pytest
import torch

from searchkit import genotype
from searchkit.costs.budget import macs_budget
from searchkit.data import streets
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.strategies import STRATEGIES
from searchkit.training.dry_run import dry_run
from searchkit.training.search import Searcher
from searchkit.training.search_end import conclude
from searchkit.training.search_folder import SearchFolder
from searchkit.training.search_limits import UNLIMITED, Limits
from searchkit.training.search_recipe import load_search_recipe, parse_search_recipe, presets

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(40, 64)
SPACE = {"layers": 2, "channels": 4, "stem": 4, "head": 4, "inputs": 2, "kernels": [3, 5], "expansions": [3]}
RECIPE = {
    "batch": 2,
    "steps": 4,
    "decide_every": 2,
    "stop_when_discrete": False,
    "weights": {"optimiser": {"name": "adam", "lr": 1e-2}},
    "architecture": {"lr": 0.3},
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(4)]


@pytest.fixture
def job(samples, search_job):
    def make(strategy="sampled_paths", limits=UNLIMITED, settings=None, **space):
        return search_job(
            lambda: SPACES.load("dcnas").supernet(SPACE | space, 19),
            RECIPE,
            samples,
            SIZE,
            strategy=strategy,
            settings=settings,
            validation=2,
            limits=limits,
        )

    return make


def ended(searcher):
    assert searcher.run()
    found, result = conclude(searcher, Provenance(name="found"))
    assert searcher.supernet.undecided() == 0
    assert genotype.parse(found.to_json().encode(), where="found") == found
    return found, result


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_every_strategy_comes_to_a_network(job, strategy, tmp_path):
    searcher = Searcher(job(strategy), SearchFolder(tmp_path))
    before = searcher.supernet.tables["connection"].logits.detach().clone()
    found, result = ended(searcher)
    learnt = searcher.supernet.tables["connection"].logits.numel() != before.numel()
    assert learnt
    assert all(len(module.inputs) <= 2 for module in found.modules)
    assert result["steps"] == 4
    assert not (tmp_path / "searched.json").exists()


def test_with_whole_channels_the_search_gives_its_own_weights(job, tmp_path):
    searcher = Searcher(job(partial=1), SearchFolder(tmp_path))
    found, result = ended(searcher)
    assert (tmp_path / "searched.safetensors").exists()
    assert json.loads((tmp_path / "searched.json").read_text())["modules"] == found.to_tree()["modules"]
    assert result["cost"]["params"] == found.cost(SIZE).params


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_search_ends_within_its_budget(job, share, tmp_path):
    supernet = SPACES.load("dcnas").supernet(SPACE, 19)
    network = supernet.cheapest(supernet.alive(), lambda operator: float(operator.macs), SIZE)
    least = supernet.derive(network, Provenance()).cost(SIZE).conv_macs
    limit = least * (1 + share)
    searcher = Searcher(job(limits=Limits((macs_budget(f"{limit:.0f}", SIZE),))), SearchFolder(tmp_path))
    found, _ = ended(searcher)
    assert least <= found.cost(SIZE).conv_macs <= limit


@pytest.mark.parametrize("after", [1, 3])
def test_a_search_that_was_killed_ends_in_the_same_bytes(job, after, tmp_path, files_of):
    wanted, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (wanted, killed):
        folder.mkdir()
    settings = {"entropy": 0.1}
    ended(Searcher(job(settings=settings), SearchFolder(wanted)))

    def kill(report):
        if report.step == after:
            raise Killed

    with pytest.raises(Killed):
        Searcher(job(settings=settings), SearchFolder(killed), listener=kill).run()
    again = Searcher(job(settings=settings), SearchFolder(killed))
    again.resume()
    ended(again)
    assert len(files_of(wanted)) > 5
    assert files_of(killed) == files_of(wanted)


def test_presets_are_recipes_of_the_space():
    assert set(presets("dcnas")) == {"paper", "demo", "smoke"}
    for name in presets("dcnas"):
        recipe = parse_search_recipe(load_search_recipe("dcnas", preset=name), where=name)
        with torch.device("meta"):
            supernet = SPACES.load("dcnas").supernet(recipe.space, 19)
        assert recipe.strategy.name == "sampled_paths"
        connections = supernet.tables["connection"].logits.numel()
        assert connections == {"paper": 1680, "demo": 96, "smoke": 48}[name]


def test_a_step_can_be_planned():
    recipe = parse_search_recipe(RECIPE, where="test")
    with torch.device("meta"):
        supernet = SPACES.load("dcnas").supernet(SPACE, 19)
    needs = dry_run(supernet, recipe, SIZE)
    assert needs.macs > 0
    assert needs.worst.activations_bytes > 0
