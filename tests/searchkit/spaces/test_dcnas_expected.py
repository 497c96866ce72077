"""Expected costs and the cheapest network of the DCNAS space, against every network of tiny spaces; operators."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from searchkit.costs.budget import macs_budget, params_budget
from searchkit.costs.expected import Prices, macs, params
from searchkit.errors import SearchFailedError
from searchkit.footprint import count_params
from searchkit.genotype import Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.dcnas.expected import cheapest, keeping, parts, presence, shapes_of_space
from searchkit.spaces.dcnas.genotype import sample
from searchkit.spaces.dcnas.operator_modules import module_of
from searchkit.spaces.dcnas.operators import shapes_of
from searchkit.spaces.dcnas.search_space import DCNASSearchSpace
from searchkit.spaces.dcnas.supernet import DCNASSupernet
from searchkit.supernet import weights_of
from searchkit.training.search_limits import Limits

CLASSES, SIZE = 5, Size(45, 70)
SETTINGS = {"layers": 2, "channels": 4, "stem": 3, "head": 5, "inputs": 2, "kernels": [3, 5], "partial": 1}


def space_of(**fields):
    return parse_settings(DCNASSearchSpace, SETTINGS | fields, what="space")


def supernet_of(**fields):
    with torch.device("meta"):
        return DCNASSupernet(space_of(**fields), CLASSES)


def random_alive(net, rng, share):
    found = {}
    for name, table in net.tables.items():
        mask = table.alive
        chosen = mask & (rng.random(mask.shape) < share)
        chosen[np.arange(len(mask)), [rng.choice(np.flatnonzero(row)) for row in mask]] = True
        found[name] = chosen
    return net.closed(found)


def random_network(net, rng):
    """A discrete one: up to two connections a module, one operator."""
    found = {}
    for name, table in net.tables.items():
        found[name] = np.zeros_like(table.alive)
        for row, mask in enumerate(table.alive):
            live = np.flatnonzero(mask)
            count = 1 if name == "operator" else rng.integers(1, min(table.keeps, len(live)) + 1)
            found[name][row, rng.choice(live, count, replace=False)] = True
    return net.closed(found)


def total(net, weights, price):
    with torch.no_grad():
        return float(Prices(price).expected(net.parts(weights, SIZE)))


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_of_a_discrete_network_it_is_the_count_of_the_genotype(layers):
    net, rng = supernet_of(layers=layers), np.random.default_rng(layers)
    for _ in range(15):
        alive = random_network(net, rng)
        cost = net.derive(alive, Provenance()).cost(SIZE)
        assert total(net, weights_of(alive), macs) == cost.conv_macs
        assert total(net, weights_of(alive), params) == cost.params


def test_it_is_so_too_where_a_decided_choice_has_other_weights():
    """Behind the last decision strategies still give connections that are kept less than 1."""
    net, rng = supernet_of(layers=3), np.random.default_rng(0)
    alive = random_network(net, rng)
    net.shrink(alive)
    weights = weights_of(alive)
    weights["connection"] /= weights["connection"].sum(1, keepdim=True).clamp(min=1)
    assert float(weights["connection"].max()) == 1
    assert 0 < float(weights["connection"][weights["connection"] > 0].min()) < 1
    assert total(net, weights, macs) == net.derive(alive, Provenance()).cost(SIZE).conv_macs


def test_stages_are_those_of_the_genotype():
    net = supernet_of(layers=3)
    alive = random_network(net, np.random.default_rng(3))
    found: dict[str, float] = {}
    for part in net.parts(weights_of(alive), SIZE):
        found[part.stage] = found.get(part.stage, 0) + float(Prices(macs).expected([part]))
    assert found == {stage.name: stage.conv_macs for stage in net.derive(alive, Provenance()).stage_costs(SIZE)}


def test_of_one_layer_the_expectation_is_the_mean_over_draws():
    """With one layer nothing hangs on anything else, and the formula is exact: two draws a module."""
    net = supernet_of(layers=1)
    generator = torch.Generator().manual_seed(1)
    weights = {n: torch.rand(t.alive.shape, generator=generator).double() for n, t in net.tables.items()}
    weights = {name: table / table.sum(1, keepdim=True) for name, table in weights.items()}
    p = weights["connection"]
    mean, prices, space = 0.0, Prices(macs), net.space
    for row in range(4):
        for one, other in itertools.product(range(4), repeat=2):
            kept_ = torch.zeros(4, 4, dtype=torch.float64)
            kept_[row, [one, other]] = 1
            alone = {"connection": kept_, "operator": weights["operator"]}
            found = [q for q in parts(space, CLASSES, alone, net.alive(), SIZE) if q.stage.startswith("modules")]
            connections = found[0::2]
            mean += float(p[row, one] * p[row, other] * prices.expected(connections))
    ours = [q for q in net.parts(weights, SIZE) if q.stage.startswith("modules")][0::2]
    assert float(prices.expected(ours)) == pytest.approx(mean, rel=1e-9)


def test_how_probable_modules_and_rates_are_by_hand():
    kept_ = torch.zeros(8, 8, dtype=torch.float64)
    # The last layer: two modules read layer 1 at 1/8, with 0.5 and 0.2; all read the stem at 1/4 for sure.
    kept_[4, 5], kept_[5, 5], kept_[4:, 0] = 0.5, 0.2, 1.0
    # Layer 1 at 1/8 reads the stem at 1/16 with 0.5.
    kept_[1, 2] = 0.5
    there, levels = presence(kept_)
    assert there.tolist() == pytest.approx([0, 0.6, 0, 0, 1, 1, 1, 1])
    assert levels.tolist() == pytest.approx([1, 0.3, 0.3, 0])
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    alive = np.array([[True, True, False], [True, True, True]])
    assert keeping(p, alive, 2).tolist() == [[1, 1, 0], pytest.approx([0.36, 0.51, 0.75])]


def test_it_is_differentiable_in_every_choice():
    net = supernet_of(layers=2)
    weights = {n: torch.full(t.alive.shape, 0.1, dtype=torch.float64) for n, t in net.tables.items()}
    weights = {n: (w * torch.from_numpy(net.tables[n].alive)).requires_grad_() for n, w in weights.items()}
    Prices(macs).expected(net.parts(weights, SIZE)).backward()
    alive = {name: torch.from_numpy(mask) for name, mask in net.alive().items()}
    assert (weights["operator"].grad > 0).all()
    assert (weights["connection"].grad >= 0).all()
    # Reading the stem at one's own rate costs nothing where another reads a coarser one; all else does.
    aligned = torch.tensor([[s.rate != p.rate for s in net.space.sources()] for p in net.space.places()])
    assert (weights["connection"].grad[alive["connection"] & aligned] > 0).all()
    # Certainties have derivatives too: products of zeros are no reason for a nan.
    sure = {
        n: w.double().requires_grad_() for n, w in weights_of(random_network(net, np.random.default_rng(1))).items()
    }
    Prices(macs).expected(net.parts(sure, SIZE)).backward()
    assert all(w.grad.isfinite().all() for w in sure.values())


def networks(net, alive):
    """Every network with one connection and one operator a module, as decided masks."""
    rows = range(len(alive["operator"]))
    options = [
        [(c, o) for c in np.flatnonzero(alive["connection"][r]) for o in np.flatnonzero(alive["operator"][r])] or [None]
        for r in rows
    ]
    for picked in itertools.product(*options):
        found = {name: np.zeros_like(mask) for name, mask in alive.items()}
        for row, pair in zip(rows, picked, strict=True):
            if pair is not None:
                found["connection"][row, pair[0]] = found["operator"][row, pair[1]] = True
        yield net.closed(found)


@pytest.mark.parametrize("seed", range(6))
def test_the_cheapest_is_the_cheapest_of_all(seed):
    """Random prices, some of them 0; where one operator lives, every choice of connections is looked at."""
    rng = np.random.default_rng(seed)
    net = supernet_of(kernels=[3], expansions=[3])
    alive = random_alive(net, rng, 0.35)
    numbers: dict[str, float] = {}

    def price(operator):
        return numbers.setdefault(operator.key, float(rng.integers(0, 6)))

    ours = cheapest(net.space, CLASSES, alive, price, SIZE)
    least = min(total(net, weights_of(network), price) for network in networks(net, alive))
    assert total(net, weights_of(ours), price) == least
    assert all((ours[name] <= alive[name]).all() for name in alive)
    assert all((mask.sum(axis=1) <= 1).all() for mask in ours.values())
    for mask, other in zip(net.closed(ours).values(), ours.values(), strict=True):
        assert np.array_equal(mask, other)
    net.derive(ours, Provenance())


@pytest.mark.parametrize("price", [macs, params])
def test_no_random_network_is_cheaper(price):
    net, rng = supernet_of(layers=4), np.random.default_rng(5)
    least = total(net, weights_of(net.cheapest(net.alive(), price, SIZE)), price)
    assert all(total(net, weights_of(random_network(net, rng)), price) >= least for _ in range(50))


def test_where_nothing_lives_there_is_no_network():
    net = supernet_of()
    alive = net.alive()
    alive["connection"][-1] = False
    with pytest.raises(SearchFailedError, match="no network is left"):
        net.cheapest(alive, macs, SIZE)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.4, 0.1, 0.0])
def test_limits_hold_where_modules_keep_several(share):
    """Between the cheapest network and the one that is preferred; connections that decoding refuses go all the same."""
    net, rng = supernet_of(layers=3, inputs=3, threshold=0.3), np.random.default_rng(2)
    preferences = {n: np.where(t.alive, rng.random(t.alive.shape), 0.0) for n, t in net.tables.items()}
    free = Limits().chosen(net, net.weighed(preferences, lambda _: None, lambda _: 0.0))
    most = net.derive(free, Provenance()).cost(SIZE).conv_macs
    least = total(net, weights_of(net.cheapest(net.alive(), macs, SIZE)), macs)
    limits = Limits((macs_budget(f"{least + share * (most - least):.0f}", SIZE),))
    found = limits.chosen(net, net.weighed(preferences, lambda _: None, lambda _: 0.0))
    genotype = net.derive(found, Provenance())
    assert limits.broken(genotype) == []
    assert genotype.cost(SIZE).conv_macs <= most
    if share == 1.0:
        p = preferences["connection"]
        assert all(np.array_equal(found[name], free[name]) for name in free)
        assert 1 < free["connection"].sum(axis=1).max() <= 3
        assert (p >= 0.3 * p.max(axis=1, keepdims=True))[free["connection"]].all()


def test_of_two_limits_both_hold():
    net, rng = supernet_of(layers=3), np.random.default_rng(8)
    preferences = {n: np.where(t.alive, rng.random(t.alive.shape), 0.0) for n, t in net.tables.items()}
    cheap = net.derive(net.cheapest(net.alive(), macs, SIZE), Provenance()).cost(SIZE)
    limits = Limits(
        (macs_budget(f"{cheap.conv_macs * 1.3:.0f}", SIZE), params_budget(f"{cheap.params * 1.4:.0f}", SIZE))
    )
    assert limits.broken(net.derive(limits.chosen(net, preferences), Provenance())) == []


def test_operators_of_networks_are_among_those_of_the_space_and_sum_to_the_cost():
    net, rng = supernet_of(layers=3), np.random.default_rng(0)
    shapes = shapes_of_space(net.space, CLASSES, SIZE)
    for _ in range(10):
        found = list(shapes_of(net.derive(random_network(net, rng), Provenance()), SIZE))
        assert {shape.key for shape in found} <= set(shapes)
        cost = net.derive(random_network(net, rng), Provenance())
        keys = list(SPACES.load("dcnas").operator_keys(cost, SIZE))
        assert sum(shapes[key].operator().macs for key in keys) == cost.cost(SIZE).conv_macs


def test_different_operators_have_different_keys():
    shapes = [shape for seed in range(30) for shape in shapes_of(sample(Random(seed)), Size(64 + seed % 2, 96))]
    assert len({shape.key for shape in shapes}) == len(set(shapes))


def test_each_operator_is_a_module_of_its_cost():
    modules = SPACES.load("dcnas").operator_modules(SETTINGS, CLASSES, SIZE)
    shapes = shapes_of_space(space_of(), CLASSES, SIZE)
    assert set(modules) == set(shapes)
    assert len(modules) == 4 + 16 + 4 * 4 + 5
    for key, make in modules.items():
        module, shape = make()
        assert not module.training
        operator = shapes[key].operator()
        assert count_params(module) == operator.params, key
        module(torch.rand(shape))
        with torch.device("meta"):
            meta, _ = module_of(shapes[key])
        with FlopCounterMode(display=False) as counter:
            meta(torch.empty(shape, device="meta"))
        assert counter.get_total_flops() // 2 == operator.macs, key
