"""The study of random genotypes: a few of every space pass, and what is wrong with one is found and told."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from torch import nn

from bench.cli import app
from bench.studies import STUDIES, Row
from bench.studies.genotypes import GenotypesRecipe, odd_size, tried
from searchkit.console import run
from searchkit.cost import Cost
from searchkit.sizes import SizeRule
from searchkit.spaces import SPACES
from searchkit.spaces.ssr import SSRSpace
from searchkit.spaces.ssr.genotype import SSRGenotype

pytestmark = pytest.mark.usefixtures("one_thread")


# The study itself has gone through hundreds, see `docs/reproduction.md`; these are others.
@pytest.mark.parametrize("seed", [1000, 1001])
@pytest.mark.parametrize("name", SPACES.names())
def test_genotypes_of_every_space_can_be_deployed(name, seed):
    values = tried(name, seed)
    assert values["problems"] == []
    genotype = SPACES.load(name).sample(Random(seed))
    size = odd_size(genotype.size_rule, seed)
    assert (values["digest"], values["size"]) == (genotype.digest, str(size))
    assert values["conv_macs"] == genotype.cost(size).conv_macs
    assert values["max_abs_error"] <= 1e-4
    assert values["clear_agreement"] == 1.0
    assert values["clear_share"] > 0.9
    assert values["classes_seen"] >= 2


def test_sides_are_odd_multiples_that_the_rule_takes():
    for rule in (SizeRule(8, 16), SizeRule(8, 32), SizeRule(1, 1), SizeRule(32, 64), SizeRule(4, 300)):
        sizes = [odd_size(rule, seed) for seed in range(50)]
        assert len(set(sizes)) > 1
        for size in sizes:
            rule.check(size, network="some")
            assert all(side // rule.multiple % 2 == 1 for side in size)


def test_a_wrong_cost_is_found(monkeypatch):
    monkeypatch.setattr(SSRGenotype, "cost", lambda self, size: Cost(7, self_cost(self, size).conv_macs, 0))
    problems = tried("ssr", 1)["problems"]
    built = self_cost(SPACES.load("ssr").sample(Random(1)), odd_size(SSRGenotype.size_rule, 1)).params
    assert problems == [f"params: 7 counted, {built:,} built"]


def self_cost(genotype, size):
    return Cost.of(genotype.stage_costs(size))


class _Differs(nn.Module):
    """Another function in the exporter's eyes than in PyTorch's."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        logits = self.network(image)
        return logits + 0.01 * logits if torch.compiler.is_exporting() else logits


def test_a_network_that_is_exported_wrongly_is_found(monkeypatch):
    build = SSRSpace.build
    monkeypatch.setattr(SSRSpace, "build", lambda self, *given, **more: _Differs(build(self, *given, **more)))
    values = tried("ssr", 1)
    assert values["max_abs_error"] > 1e-3
    assert any("max abs error" in problem for problem in values["problems"])


def test_a_network_that_cannot_be_built_is_a_row_like_any_other(monkeypatch):
    def fails(self, *given, **more):
        raise RuntimeError("no such layer\nand a trace")

    monkeypatch.setattr(SSRSpace, "build", fails)
    values = tried("ssr", 1)
    assert values["problems"] == ["RuntimeError: no such layer", "RuntimeError: no such layer"]
    assert values["digest"]


def scripted(monkeypatch, problems=lambda name, seed: []):
    """Trying takes seconds: here it takes none."""
    calls = []

    def stubbed(name, seed):
        calls.append((name, seed))
        figures = {"max_abs_error": 1e-5 * (seed + 1), "clear_agreement": 1.0}
        return {"digest": f"{seed // 2}", "size": "40x72", **figures, "problems": problems(name, seed)}

    monkeypatch.setattr("bench.studies.genotypes.tried", stubbed)
    return calls


def test_it_is_resumed_where_it_stopped(tmp_path, monkeypatch, capsys):
    path = tmp_path / "g.json"
    words = ["study", "genotypes", "--spaces", "ssr,fasterseg", "--count", "3", "--json", str(path)]
    calls = scripted(monkeypatch)
    assert run(app, words) == 0
    assert calls == [(name, seed) for seed in range(3) for name in ("ssr", "fasterseg")]
    whole = json.loads(path.read_text())
    assert whole["recipe"]["spaces"] == ["ssr", "fasterseg"]
    path.write_text(json.dumps(whole | {"rows": whole["rows"][:4]}))
    calls.clear()
    assert run(app, [*words, "--resume"]) == 0
    assert calls == [("ssr", 2), ("fasterseg", 2)]
    assert [row["values"] for row in json.loads(path.read_text())["rows"]] == [row["values"] for row in whole["rows"]]
    assert "| ssr | 3 | 2 | 3 | 3e-05 | 0 | 100.0000% |" in capsys.readouterr().out
    assert run(app, [*words[:3], "ssr", *words[4:], "--resume"]) == 2
    assert "the file differs in its recipe" in capsys.readouterr().err


def test_the_table_tells_what_failed_by_space_and_seed():
    def row(arm, seed, problems, **more):
        return Row(arm, seed, {"digest": f"{arm}{seed}", "size": "40x72", "problems": problems, **more}, 1.0)

    rows = [
        row("a", 0, [], max_abs_error=2e-5, clear_agreement=1.0),
        row("a", 1, ["it is too far off"], max_abs_error=3e-4, clear_agreement=0.99),
        row("b", 0, ["RuntimeError: no"]),
    ]
    assert STUDIES.load("genotypes").tables(rows, GenotypesRecipe()).splitlines()[2:] == [
        "| a | 2 | 2 | 1 | 0.0003 | 1 | 99.0000% |",
        "| b | 1 | 1 | 0 | - | - | - |",
        "",
        "- a, seed 1 (40x72): it is too far off",
        "- b, seed 0 (40x72): RuntimeError: no",
    ]


def test_without_names_all_spaces_are_tried():
    assert STUDIES.load("genotypes").arms(GenotypesRecipe()) == tuple(SPACES.names())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("genotypes --spaces ssr,nonsense", "unknown search space (got 'nonsense'; "),
        ("genotypes --steps 4", "--steps: this study neither searches nor trains"),
        ("gap --quick --spaces ssr", "--spaces: this study is not one of several spaces"),
    ],
)
def test_refusals(words, says, capsys):
    assert run(app, ["study", *words.split()]) == 2
    assert says in capsys.readouterr().err
