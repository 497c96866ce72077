"""The study of DCNAS networks within a supernet and alone: that it runs, and that both are the same networks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bench.cli import app
from bench.studies import STUDIES
from bench.studies.dcnas_correlation import DCNASRecipe, DCNASWorkbench
from searchkit.console import run
from searchkit.networks import from_genotype
from searchkit.spaces.dcnas.genotype import DCNASGenotype

pytestmark = pytest.mark.usefixtures("one_thread")


def test_networks_are_the_same_whatever_goes_through_the_operators():
    recipe = STUDIES.load("dcnas-correlation").recipe
    bench = DCNASWorkbench(recipe)
    drawn = [bench.drawn("4", number) for number in range(recipe.networks)]
    assert [bench.drawn("1", number).digest for number in (0, 7)] == [drawn[0].digest, drawn[7].digest]
    assert len({found.digest for found in drawn}) == recipe.networks >= 20
    assert all(isinstance(found, DCNASGenotype) for found in drawn)
    assert {len(module.inputs) for found in drawn for module in found.modules} == {1, 2, 3}


def test_the_recipe_says_what_counts():
    tree = STUDIES.load("dcnas-correlation").recipe.to_tree()
    assert tree["space"]["layers"] == 3
    assert tree["scaled_from"]["layers"] == 14
    assert "depths" not in tree
    assert isinstance(DCNASRecipe().quick(), DCNASRecipe)


def test_what_is_inherited_is_the_network_in_the_supernet():
    """With all channels through the operators it is the discrete network, weight by weight."""
    bench = DCNASWorkbench(replace(DCNASRecipe().quick(), validation_pictures=2))
    torch.manual_seed(0)
    supernet = bench.supernet("1")
    genotype, alive = bench._lot(supernet, 5)
    found = bench.inherited(supernet, 5, 0)
    supernet.shrink(alive)
    searched, state = supernet.searched(genotype.provenance)
    network = from_genotype(searched).build()
    network.load_state_dict(state)
    assert searched.digest == genotype.digest
    assert found["as_is"] == pytest.approx(bench.miou(network, "val"), abs=0.02)


@pytest.mark.slow
def test_the_study_runs(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run(app, ["study", "dcnas-correlation", "--quick", "--steps", "4", "--seeds", "0", "--json", str(path)]) == 0
    tree = json.loads(path.read_text())
    assert tree["complete"]
    assert [row["arm"] for row in tree["rows"]][:2] == ["sampled paths, r = 1/4", "sampled paths, r = 1"]
    assert all(row["failed"] is None for row in tree["rows"])
    assert "Kendall" in capsys.readouterr().out
