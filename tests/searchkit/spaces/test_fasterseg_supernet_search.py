"""Searches of the FasterSeg space as a whole: resumed to the same bytes, within limits, by measured branches, drawn."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from searchkit.choices import one_hot
from searchkit.costs.budget import macs_budget
from searchkit.costs.expected import Prices, macs
from searchkit.data import streets
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg._deriving import parameters_of
from searchkit.spaces.fasterseg.decoding import most_probable_halving
from searchkit.spaces.fasterseg.genotype import sample
from searchkit.spaces.fasterseg.sampling import Pass, sampled
from searchkit.spaces.fasterseg.search_space import FasterSegSearchSpace
from searchkit.spaces.fasterseg.supernet import FasterSegSupernet
from searchkit.supernet import weights_of
from searchkit.training.search_limits import Limits
from searchkit.training.search_recipe import load_search_recipe, parse_search_recipe, presets

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = Size(32, 64)
SPACE = {"layers": 4, "widths": [1, 2], "stem_width": 1, "head_width": 1}
RECIPE = {"batch": 2, "steps": 5, "warmup_steps": 1, "decide_every": 2, "architecture": {"lr": 0.5}}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(5)]


def supernet(**fields) -> FasterSegSupernet:
    found = SPACES.load("fasterseg").supernet(SPACE | fields, 19)
    assert isinstance(found, FasterSegSupernet)
    return found


@pytest.mark.parametrize("strategy", ["ssr", "gumbel"])
def test_a_search_within_a_limit_killed_and_resumed_ends_in_the_same_bytes(
    samples, tmp_path, strategy, search_job, searched, files_of
):
    cheapest = supernet().cheapest(supernet().alive(), macs, SIZE)
    least = float(Prices(macs).expected(supernet().parts(weights_of(cheapest), SIZE)))
    limits = Limits((macs_budget(f"{1.15 * least:.0f}", SIZE),))
    job = search_job(supernet, RECIPE, samples, SIZE, strategy=strategy, limits=limits)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    genotype, result = searched(job, whole)
    assert genotype.cost(SIZE).conv_macs <= 1.15 * least
    assert result["broken"] == []

    def killing(report):
        if report.step == 3:
            raise Killed

    with pytest.raises(Killed):
        searched(job, killed, listener=killing)
    searched(job, killed)
    assert files_of(killed) == files_of(whole)
    tree = json.loads((whole / "teacher.json").read_text())
    assert tree["stem_width"] == tree["head_width"] == 2
    assert {layer["width"] for branch in tree["branches"] for layer in branch} == {2}
    assert "searched.safetensors" in files_of(whole)


def test_presets_are_of_this_space():
    assert presets("fasterseg") == ["demo", "paper", "smoke"]
    for name in presets("fasterseg"):
        recipe = parse_search_recipe(load_search_recipe("fasterseg", preset=name), where=name)
        with torch.device("meta"):
            found = SPACES.load("fasterseg").supernet(recipe.space, 19)
        assert found.space.teacher
    assert FasterSegSearchSpace().layers == 16


def test_paths_are_decided_together():
    """Each by itself, both choices would keep the rate; the path that halves it is more probable than any other."""
    net = supernet(teacher=False, branches=["8+16"], layers=6)
    preferences = {
        name: np.where(mask, 1.0 / mask.sum(1, keepdims=True).clip(1), 0.0) for name, mask in net.alive().items()
    }
    # Arriving in layer 4 has 0.9 x 0.4; in layer 1, where each cell's own choice leads, 0.9 x 0.6 x 0.55 x 0.55.
    preferences["path16"] = np.array([[0.45, 0.55], [0.45, 0.55], [0.4, 0.6], [0.1, 0.9]])
    weighed = net.weighed(preferences, lambda _: None, lambda _: 1.0)
    for given, layer in ((preferences, 0), (weighed, 3)):
        alive = net.closed(one_hot(given, net.alive()))
        assert most_probable_halving(parameters_of(net.space, alive), 1) == (layer,)


def test_branches_are_chosen_by_quality_and_cost():
    """Eq. 5: what is 1.5 times as good wins until it costs 1.5 ** (1 / 0.07) = 328 times as much."""
    net = supernet()
    alive = net.alive()
    preferences = {name: np.where(mask, 1.0 / mask.sum(1, keepdims=True).clip(1), 0.0) for name, mask in alive.items()}
    asked = []

    def quality(weights):
        assert all(int((each.sum(dim=1) > 1).sum()) == 0 for each in weights.values())
        asked.append(weights)
        return (0.3, 0.45)[int(weights["branches"][0].argmax())]

    for ratio, chosen in ((300.0, 1), (360.0, 0)):

        def cost(network, ratio=ratio):
            return (1.0, ratio)[int(network["branches"][0].argmax())]

        weighed = net.weighed(preferences, quality, cost)
        assert int(weighed["branches"][0].argmax()) == chosen
    assert len(asked) == 4
    alive["branches"][0, 0] = False
    net.shrink(net.closed(alive))
    net.weighed({name: np.where(net.alive()[name], p, 0.0) for name, p in preferences.items()}, quality, lambda _: 1.0)
    assert len(asked) == 4


def test_widths_are_drawn_as_often_as_they_weigh():
    alive = np.array([[True, True, True], [True, False, True]])
    weights = {"width": torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]], requires_grad=True)}
    torch.manual_seed(0)
    counts = np.zeros(alive.shape)
    for _ in range(2000):
        drawn = sampled(alive, weights)
        counts[[0, 1], drawn.columns] += 1
        assert torch.equal(drawn["width"].detach().argmax(dim=1), torch.from_numpy(drawn.columns))
    assert np.abs(counts / 2000 - weights["width"].detach().numpy()).max() < 0.04
    drawn["width"][0, int(drawn.columns[0])].backward()
    gradient = weights["width"].grad
    assert gradient is not None
    assert gradient[0].abs().min() > 0
    assert gradient[1, 1] == 0


def test_what_a_strategy_has_drawn_is_not_drawn_again():
    alive = np.ones((2, 3), dtype=bool)
    weights = {"width": torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])}
    drawn = sampled(alive, weights)
    assert isinstance(drawn, Pass)
    assert drawn.columns.tolist() == [1, 0]
    assert drawn["width"] is weights["width"]


def test_passes_of_pretraining():
    net = supernet(widths=[1, 2, 3])
    given = {name: torch.rand(mask.shape) for name, mask in net.alive().items()}
    torch.manual_seed(0)
    passes = list(net.passes(given, warmup=True))
    assert [set(each.columns) for each in passes[:2]] == [{2}, {0}]
    assert len(passes) == 4
    assert len({tuple(each.columns) for each in passes}) == 4
    for each in passes:
        assert torch.equal(each["operator"][0], torch.full((5,), 0.2))
        assert torch.equal(each["path16"][0], torch.tensor([0.5, 0.5]))
    assert len(list(supernet(widths=[2], stem_width=2, head_width=2).passes(given, warmup=True))) == 1


def test_every_network_can_be_drawn():
    space = SPACES.load("fasterseg")
    for seed in range(30):
        genotype = sample(random.Random(seed))
        drawn = space.diagram(genotype, Size(256, 512))
        layers = len(genotype.shared) + sum(map(len, genotype.branches))
        assert sum(box.name.startswith(("shared", "branch")) for box in drawn.boxes) == layers
        targets = {arrow.target for arrow in drawn.arrows}
        assert {box.name for box in drawn.boxes} - targets == {"image"}
        assert {arrow.source for arrow in drawn.arrows} == {box.name for box in drawn.boxes} - {"logits"}
