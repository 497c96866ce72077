"""The LGCNet supernet against Eq. 2 and 3 in plain loops, its shrinking, and searches with it."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from searchkit.blocks import resize_like
from searchkit.choices import one_hot
from searchkit.data import streets
from searchkit.errors import UsageError
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.lgcnet.operators import CELL_OPERATORS, FUSION_OPERATORS, PRESENT, UP_OPERATORS
from searchkit.spaces.lgcnet.wiring import CELL_EDGES, FUSION_EDGES, SEARCHED, UPS
from searchkit.strategies import STRATEGIES
from searchkit.supernet import weights_of
from searchkit.training.search import Searcher
from searchkit.training.search_end import conclude
from searchkit.training.search_folder import SearchFolder

TINY = {"length": 5, "reductions": [1, 3], "stem": 2, "fusion_channels": 4, "guidance_width": 3}
SHARED = {**TINY, "cells": "shared", "guidance": "none"}
NONE = CELL_OPERATORS.index("none")
SIZE = Size(32, 64)
SPACE = SPACES.load("lgcnet")


def tiny(seed=0, **fields):
    """A small supernet whose parameters, statistics and logits are all random."""
    torch.manual_seed(seed)
    net = SPACE.supernet({**TINY, **fields}, 4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    for table in net.tables.values():
        table.logits.data.normal_()
    return net


def relaxed(net):
    return {n: t.dense().softmax(dim=1).nan_to_num(0.0).detach().requires_grad_() for n, t in net.tables.items()}


def drawn(net, seed, none=0.0):
    """Every choice decided by lot, closed; `none` makes the zero operation likelier."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.random(mask.shape) for name, mask in net.alive().items()}
    weights["cell"][:, NONE] += none
    return net.closed(one_hot(weights, net.alive()))


def plain(net, image, weights):
    """Eq. 2 and 3 as they are printed: every operator of every edge is computed and weighed."""
    space = net.space
    second = net.stem[1](net.stem[0](image))
    maps = {-2: second, -1: net.stem[2](second)}
    for place in space.places:
        cell, group = net.cells[str(place.index)], space.group_of[place.index]
        nodes = {f"i{i + 1}": cell.inputs[f"i{i + 1}"](maps[place.index - 1 - i]) for i in (0, 1)}
        for target in ("x1", "x2"):
            total = 0
            for number, (source, to) in enumerate(CELL_EDGES):
                for name in PRESENT if to == target else ():
                    weight = weights["cell"][5 * group + number, CELL_OPERATORS.index(name)]
                    total = total + weight * cell.edges[f"{source}_{to}"][name](nodes[source])
            nodes[target] = total
        maps[place.index] = torch.cat([nodes["x1"], nodes["x2"]], 1)
    nodes = {n: net.fusion.inputs[n](maps[i]) for n, i in zip(("a0", "b0", "c0"), (0, 2, 4), strict=True)}
    sizes = {4: nodes["a0"].shape[2:], 8: nodes["b0"].shape[2:]}
    for node, rate in (("c1", 16), ("b1", 8), ("c2", 8), ("c3", 4), ("b2", 4), ("a1", 4)):
        found = []
        for edge in (edge for edge in FUSION_EDGES if edge.target == node):
            module, x = net.fusion.edges["_".join(edge)], nodes[edge.source]
            if edge in UPS:
                row = weights["fusion_up"][UPS.index(edge)]
                found.append(sum(row[c] * module[n](x, sizes[rate]) for c, n in enumerate(UP_OPERATORS)))
            else:
                row = weights["fusion"][SEARCHED.index(edge)]
                found.append(sum(row[c] * module[n](x) for c, n in enumerate(FUSION_OPERATORS)))
        nodes[node] = torch.cat(found, 1)
    return net.classifier(nodes["a1"] + nodes["b2"] + nodes["c3"])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fields", [{}, SHARED])
def test_outputs_and_gradients_are_those_of_the_plain_form(fields, training):
    net = tiny(**fields).double().train(training)
    image = torch.randn(2, 3, 35, 66).double()
    found = []
    for form in (type(net).forward, plain):
        each, weights = copy.deepcopy(net), relaxed(net)
        logits = form(each, image, weights)
        (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
        gradients = {name: leaf.grad for name, leaf in weights.items()}
        gradients["cell"][:, NONE] = 0
        moved = {name: p.grad for name, p in each.named_parameters() if p.grad is not None}
        found.append({"logits": logits.detach(), **gradients, **moved, **dict(each.named_buffers())})
    ours, theirs = found
    assert ours["logits"].shape == (2, 4, 9, 17)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("none", [0.0, 0.7])
def test_of_sampled_weights_only_what_is_sampled_is_computed(none):
    net = tiny().eval()
    alive = drawn(net, 3, none)
    genotype = net.derive(alive, Provenance())
    image, weights, ran = torch.randn(1, 3, 33, 64), weights_of(alive), []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    logits = net(image, weights)
    with torch.device("meta"):
        discrete = SPACE.build(genotype)
    wanted = [m for m in discrete.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d | nn.ConvTranspose2d)]
    assert len(ran) == len(set(ran)) == len(wanted)
    weighed = tiny().eval()
    torch.testing.assert_close(logits, plain(weighed, image, weights), rtol=1e-4, atol=1e-5)


def test_nodes_that_nothing_was_sampled_for_are_zeros():
    net = tiny().double().eval()
    weights = {name: one.double() for name, one in weights_of(drawn(net, 0)).items()}
    weights["cell"].view(5, 5, -1)[2] = 0
    weights["cell"].view(5, 5, -1)[4, :2] = 0
    image = torch.randn(1, 3, 33, 64).double()
    torch.testing.assert_close(net(image, weights), plain(net, image, weights))


@pytest.mark.parametrize("fields", [{}, SHARED, {"guidance": "fc"}, {"reductions": [1, 2]}])
@pytest.mark.parametrize("seed", range(3))
def test_decided_it_is_the_discrete_network(seed, fields):
    net = tiny(seed, **fields)
    alive = drawn(net, seed, 0.3 * seed)
    net.shrink(alive)
    net.eval()
    genotype, state = net.searched(Provenance(description="searched"))
    assert genotype.provenance.description.startswith("searched; chosen here")
    discrete = SPACE.build(genotype).eval()
    discrete.load_state_dict(state)
    image = torch.randn(1, 3, 65, 98)
    with torch.inference_mode():
        ours = resize_like(net(image, weights_of(alive)), image)
        torch.testing.assert_close(discrete(image), ours, rtol=0, atol=1e-5)
    assert sum(p.numel() for p in net.network_parameters().values()) == genotype.cost(SIZE).params


def test_an_undecided_network_is_not_given():
    net = tiny()
    with pytest.raises(ValueError, match="undecided"):
        net.searched(Provenance())
    with pytest.raises(ValueError, match="undecided"):
        net.derive(net.alive(), Provenance())


@pytest.mark.parametrize("seed", range(3))
def test_shrinking_leaves_what_weights_of_zero_left(seed):
    net = tiny(seed).double().eval()
    rng = np.random.default_rng(seed)
    alive = {}
    for name, mask in net.alive().items():
        kept = rng.random(mask.shape) < 0.3
        kept[np.arange(len(mask)), rng.integers(mask.shape[1], size=len(mask))] = True
        alive[name] = kept
    alive = net.closed(alive)
    weights = {n: torch.from_numpy(rng.random(mask.shape) * mask) for n, mask in alive.items()}
    image = torch.randn(1, 3, 33, 64).double()
    before, names = net(image, weights), dict(net.named_parameters())
    cuts = net.shrink(alive)
    torch.testing.assert_close(net(image, weights), before)
    after = dict(net.named_parameters())
    assert after.keys() < names.keys()
    changed = {name for name, p in after.items() if p is not names[name]}
    assert changed == set(cuts) == {f"choice_tables.{name}.logits" for name in net.tables}
    for name, kept in cuts.items():
        assert torch.equal(after[name], names[name][kept[0]])
    assert (net.closed(net.alive())["cell"] == net.alive()["cell"]).all()


def test_what_a_cell_needs_goes_with_it():
    net = tiny()
    alive = net.alive()
    cells = alive["cell"].reshape(5, 5, -1)
    # Cell 4 reads cell 2 alone, so nothing reads cell 3.
    cells[4, [0, 2]] = False
    cells[4, [0, 2], NONE] = True
    alive = net.closed(alive)
    cells = alive["cell"].reshape(5, 5, -1)
    assert not cells[3].any()
    # x1 of cell 4 has one edge left, which cannot be the zero operation.
    assert not cells[4, 1, NONE]
    assert cells[4, 1].sum() == 7
    net.shrink(alive)
    assert list(net.cells) == ["0", "1", "2", "4"]
    assert list(net.cells["4"].inputs) == ["i2"]
    net(torch.randn(2, 3, 32, 64), relaxed(net)).sum().backward()


def test_a_node_keeps_the_edge_that_loses_least():
    net = tiny(guidance="none")
    scores = net.tables["cell"].logits.data.view(5, 5, -1)
    scores.zero_()
    scores[2, 0, NONE], scores[2, 0, 2] = 3.0, 2.0
    scores[2, 1, NONE], scores[2, 1, 4] = 9.0, 8.5
    alive = net.alive()
    cells = alive["cell"].reshape(5, 5, -1)
    cells[2, :2] = False
    cells[2, :2, NONE] = True
    kept = net.closed(alive)["cell"].reshape(5, 5, -1)
    assert np.flatnonzero(kept[2, 0]).tolist() == [NONE]
    assert np.flatnonzero(kept[2, 1]).tolist() == [4]
    # What has been removed before cannot come back.
    before = net.alive()
    before["cell"].reshape(5, 5, -1)[2, 1, 4] = False
    net.shrink(net.closed(before))
    cells[2, 1, 4] = False
    kept = net.closed(alive)["cell"].reshape(5, 5, -1)
    assert np.flatnonzero(kept[2, 0]).tolist() == [2]
    assert np.flatnonzero(kept[2, 1]).tolist() == [NONE]


@pytest.mark.parametrize("fields", [TINY, SHARED], ids=["independent", "shared"])
def test_whatever_is_decided_there_is_a_network(fields):
    """300 draws with many zero operations, each decided at once: closed, part of what lives, and buildable."""
    net = tiny(**fields)
    live = net.alive()
    left_out = 0
    for seed in range(300):
        alive = drawn(net, seed, seed / 300)
        assert all((mask <= live[name]).all() for name, mask in alive.items())
        again = net.closed(alive)
        assert all((mask == again[name]).all() for name, mask in alive.items())
        genotype = net.derive(alive, Provenance())
        left_out += not all(genotype.live_cells())
    assert left_out > 5


def test_guidance_is_architecture():
    net = tiny()
    names = set(net.architecture_parameters())
    assert {f"choice_tables.cell.{name}" for name in ("logits", "phi1", "phi2", "w1", "w2", "graph")} < names
    assert not any(name.startswith("choice_tables") for name in net.network_parameters())
    assert net.levels == ("cell", "fusion")


@pytest.mark.parametrize(
    "settings",
    [
        {"reductions": [2, 2]},
        {"reductions": [8, 1]},
        {"length": 8},
        {"length": 2},
        {"stem": 0},
        {"cells": "shared"},
        {"guidance": "gnn"},
        {"guidance_weight": float("inf")},
        {"widths": 1},
    ],
)
def test_settings_without_a_valid_network_are_refused(settings):
    with pytest.raises(UsageError):
        SPACE.supernet(settings, 5)


RECIPE = {
    "batch": 2,
    "steps": 2,
    "decide_every": 1,
    "split": "same",
    "weights": {"optimiser": {"name": "adam", "lr": 1e-2, "weight_decay": 1e-4}},
    "architecture": {"lr": 0.1},
}


@pytest.fixture(scope="module")
def samples():
    return [streets.draw(0, index, SIZE) for index in range(4)]


@pytest.fixture
def job_of(samples, search_job):
    def make(strategy, **recipe):
        space = {**TINY, "reductions": [1, 2], "length": 4}
        return search_job(lambda: SPACE.supernet(space, 19), RECIPE | recipe, samples, SIZE, strategy=strategy)

    return make


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_every_strategy_searches_it(job_of, tmp_path, strategy):
    searcher = Searcher(job_of(strategy), SearchFolder(tmp_path))
    assert searcher.run()
    genotype, result = conclude(searcher, Provenance(name="found"))
    assert result["steps"] <= 2
    assert genotype.live_cells()[-1]
    image = torch.randn(1, 3, 33, 47)
    with torch.inference_mode():
        assert F.softmax(SPACE.build(genotype).eval()(image), dim=1).isfinite().all()


def test_resumed_it_ends_in_the_same_bytes(job_of, tmp_path):
    found = []
    for name, stops in (("whole", 99), ("parts", 1)):
        folder = tmp_path / name
        folder.mkdir()
        job = job_of("gumbel", steps=3, decide_every=2)
        calls = iter(range(99))
        searcher = Searcher(
            job, SearchFolder(folder), stopping=lambda calls=calls, stops=stops: next(calls) + 1 == stops
        )
        done = searcher.run()
        assert done == (stops == 99)
        if not done:
            searcher = Searcher(job, SearchFolder(folder))
            searcher.resume()
            assert searcher.run()
        conclude(searcher, Provenance(name="found"))
        found.append({p.name: p.read_bytes() for p in folder.glob("*.json")})
        found[-1]["state"] = b"".join(t.numpy().tobytes() for t in searcher.supernet.state_dict().values())
    assert found[0].keys() == found[1].keys()
    assert "genotype.json" in found[0]
    assert found[0]["genotype.json"] == found[1]["genotype.json"]
    assert found[0]["state"] == found[1]["state"]
