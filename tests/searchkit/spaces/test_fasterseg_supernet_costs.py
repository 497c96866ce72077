"""Expected costs and the cheapest network of the FasterSeg space, against every network of tiny spaces."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from searchkit.costs.budget import macs_budget
from searchkit.costs.expected import Prices, macs, params
from searchkit.costs.latency import load_table
from searchkit.errors import SearchFailedError, UsageError
from searchkit.genotype import Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.fasterseg.expected import shapes_of_space
from searchkit.spaces.fasterseg.genotype import sample
from searchkit.spaces.fasterseg.latency import table_keys
from searchkit.spaces.fasterseg.operators import shapes_of
from searchkit.spaces.fasterseg.search_space import FasterSegSearchSpace
from searchkit.spaces.fasterseg.supernet import FasterSegSupernet
from searchkit.supernet import weights_of

CLASSES = 5
# The 1/8 map of the second is odd both ways, so that zoomed and plain strides of 2 make different sizes.
SIZES = (Size(64, 96), Size(72, 104))
TINY = {"layers": 4, "widths": [1, 3], "stem_width": 2, "head_width": 2, "teacher": False}
PAIRS = {"branches": ["8+16", "8+32", "16+32"]}


@pytest.fixture(scope="module")
def net() -> FasterSegSupernet:
    with torch.device("meta"):
        return FasterSegSupernet(parse_settings(FasterSegSearchSpace, TINY | PAIRS, what="space"), CLASSES)


def some_alive(net, rng, share):
    """At least one candidate in every choice, and nothing that is pointless."""
    found = {}
    for name, mask in net.alive().items():
        kept = mask & (rng.random(mask.shape) < share)
        for row in range(len(mask)):
            if not kept[row].any():
                kept[row, rng.choice(np.flatnonzero(mask[row]))] = True
        found[name] = kept
    return net.closed(found)


def networks(net, alive):
    """Every network that is left, pointless choices without candidates; some of them more than once."""
    places = [(name, row) for name, mask in alive.items() for row in range(len(mask)) if mask[row].any()]
    options = [np.flatnonzero(alive[name][row]) for name, row in places]
    for picked in itertools.product(*options):
        found = {name: np.zeros_like(mask) for name, mask in alive.items()}
        for (name, row), column in zip(places, picked, strict=True):
            found[name][row, column] = True
        yield net.closed(found)


def shares_a_layer_of_two_cells(net, alive, genotype) -> bool:
    """Whether branches begin with equal layers of different cells, which parts count twice."""
    return any(layer.stride == 2 and layer.operator == "skip" for layer in genotype.shared)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parts_sum_to_the_cost_of_the_derived_network(net, size):
    rng, prices = np.random.default_rng(1), (Prices(macs), Prices(params))
    exact = 0
    for _ in range(60):
        alive = next(iter(networks(net, some_alive(net, rng, 0.0))))
        genotype = net.derive(alive, Provenance())
        cost = genotype.cost(size)
        found = net.parts(weights_of(alive), size)
        sums = [float(price.expected(found)) for price in prices]
        if shares_a_layer_of_two_cells(net, alive, genotype):
            assert sums >= [cost.conv_macs, cost.params]
            continue
        assert sums == [cost.conv_macs, cost.params]
        exact += 1
    assert exact > 50


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_is_expected_is_the_mean_over_all_networks(net, size):
    """By the product of the probabilities of all choices, each network counted as it is derived."""
    rng = np.random.default_rng(2)
    prices, seen = Prices(macs), 0
    while seen < 4:
        alive = some_alive(net, rng, 0.25)
        if not 8 <= np.prod([mask.sum(1).clip(1).prod() for mask in alive.values()]) <= 600:
            continue
        weights = {name: mask * rng.random(mask.shape) for name, mask in alive.items()}
        weights = {name: w / w.sum(axis=1, keepdims=True).clip(1e-9) for name, w in weights.items()}
        total = 0.0
        for network in networks(net, alive):
            # A pointless choice is left out of one network and not of another: sum over its candidates as they come.
            total += product_of(net, alive, weights, network) * float(
                prices.expected(net.parts(weights_of(network), size))
            )
        expected = float(prices.expected(net.parts({n: torch.from_numpy(w) for n, w in weights.items()}, size)))
        assert expected == pytest.approx(total, rel=1e-9)
        seen += 1


def product_of(net, alive, weights, network) -> float:
    """Of a network of `networks`, by how many of its listings there are of it."""
    found = 1.0
    for name, mask in alive.items():
        for row in np.flatnonzero(mask.any(axis=1)):
            chosen = np.flatnonzero(network[name][row])
            # Once for each candidate of a pointless choice it is listed: each time with an equal part.
            found *= float(weights[name][row, chosen[0]]) if len(chosen) else 1.0 / mask[row].sum()
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_cheapest_network_is_the_cheapest_of_all(net, seed):
    rng = np.random.default_rng(seed)
    while True:
        alive = some_alive(net, rng, 0.3)
        if 30 <= np.prod([mask.sum(1).clip(1).prod() for mask in alive.values()]) <= 1500:
            break
    keys: dict[str, float] = {}

    def price(operator):
        return keys.setdefault(operator.key, float(rng.integers(1, 60)))

    size, prices = SIZES[seed % 2], Prices(price)

    def cost(network):
        return float(prices.expected(net.parts(weights_of(network), size)))

    cheapest = net.cheapest(alive, price, size)
    for name, mask in cheapest.items():
        assert (mask <= alive[name]).all()
        assert (mask.sum(axis=1) <= 1).all()
    assert all((net.closed(cheapest)[name] == mask).all() for name, mask in cheapest.items())
    assert cost(cheapest) == pytest.approx(min(cost(network) for network in networks(net, alive)))
    net.derive(cheapest, Provenance())


def test_the_cheapest_network_has_a_teacher_too():
    with torch.device("meta"):
        net = FasterSegSupernet(parse_settings(FasterSegSearchSpace, TINY | {"teacher": True}, what="space"), CLASSES)
    found = net.cheapest(net.alive(), macs, SIZES[0])
    assert all((mask.sum(axis=1) <= 1).all() for mask in found.values())
    assert found["teacher_operator"].any()
    least = float(Prices(macs).expected(net.parts(weights_of(found), SIZES[0])))
    assert least == net.derive(found, Provenance()).cost(SIZES[0]).conv_macs


def test_no_network_left_is_said(net):
    alive = net.alive()
    alive["branches"][:] = False
    with pytest.raises(SearchFailedError, match="no network is left"):
        net.cheapest(alive, macs, SIZES[0])


def test_costs_reach_every_choice_of_the_student_and_none_of_the_teacher():
    """And Eq. 3 by a budget's levels: the same value, gradients in the paper's shares."""
    with torch.device("meta"):
        net = FasterSegSupernet(FasterSegSearchSpace(), CLASSES)
    found = []
    for levels in (None, {"operator": 0.5, "path": 0.3, "width": 0.2}):
        budget = replace(macs_budget("1M", Size(256, 512)), levels=levels)
        torch.manual_seed(0)
        weights = {
            name: torch.rand(mask.shape, dtype=torch.float64).masked_fill(~torch.from_numpy(mask), 0).requires_grad_()
            for name, mask in net.alive().items()
        }
        rows = {name: w / w.sum(dim=1, keepdim=True) for name, w in weights.items()}
        value = budget.penalty(net, rows)
        gradients = torch.autograd.grad(value, weights.values(), allow_unused=True)
        found.append((value.detach(), dict(zip(weights, gradients, strict=True))))
    (value, plain), (same, shared) = found
    assert torch.equal(value, same)
    for name, share in {"operator": 0.5, "path16": 0.3, "path32": 0.3, "width": 0.2}.items():
        assert torch.allclose(shared[name], share * plain[name], rtol=1e-9), name
        assert (plain[name].abs().sum(dim=1) > 0).all(), name
    assert (plain["branches"] != 0).all()
    assert shared["branches"] is None or not shared["branches"].any()
    assert all(plain[name] is None for name in net.tables if name.startswith("teacher"))


@pytest.mark.parametrize("size", [Size(256, 512), Size(1024, 2048)], ids=str)
def test_keys_of_a_network_are_those_of_the_release(size):
    for seed in range(20):
        genotype = sample(random.Random(seed))
        assert [shape.key for shape in shapes_of(genotype, size)] == list(table_keys(genotype, *size))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_operators_of_a_network_add_up(size):
    for seed in range(20):
        genotype = sample(random.Random(seed))
        operators = [shape.operator() for shape in shapes_of(genotype, size)]
        cost = genotype.cost(size)
        assert sum(operator.macs for operator in operators) == cost.conv_macs
        assert sum(operator.params for operator in operators) == cost.params


def test_equal_keys_are_equal_operators():
    space = FasterSegSearchSpace()
    for size in (Size(256, 512), Size(264, 520)):
        shapes = shapes_of_space(space, 19, size)
        again = {shape.key: shape for seed in range(30) for shape in shapes_of(sample(random.Random(seed)), size)}
        for key, shape in again.items():
            if key in shapes:
                assert shapes[key].operator() == shape.operator()


def test_the_published_table_prices_the_papers_space():
    table = load_table("gtx1080ti-tensorrt5")
    size = Size(*table.network_input)
    with torch.device("meta"):
        net = FasterSegSupernet(FasterSegSearchSpace(), 19)
    missing = set()

    def price(operator):
        try:
            return table.price(operator)
        except UsageError:
            missing.add(operator.key)
            return 1e3

    cheapest = net.cheapest(net.alive(), price, size)
    least = float(Prices(price).expected(net.parts(weights_of(cheapest), size)))
    genotype = net.derive(cheapest, Provenance())
    assert least == pytest.approx(table.predict_ms(SPACES.load("fasterseg").operator_keys(genotype, size)))
    assert 3 < least < 5
    # Only what no network can have: the table lacks maps of the student's stem behind the first cells, say.
    rng = np.random.default_rng(0)
    for _ in range(30):
        network = some_alive(net, rng, 0.0)
        keys = set(SPACES.load("fasterseg").operator_keys(net.derive(network, Provenance()), size))
        assert not keys & missing


def test_operator_modules_are_what_the_keys_say():
    settings = {"layers": 4, "widths": [1, 2], "stem_width": 1, "head_width": 1}
    size = Size(64, 96)
    modules = SPACES.load("fasterseg").operator_modules(settings, CLASSES, size)
    shapes = shapes_of_space(parse_settings(FasterSegSearchSpace, settings, what="space"), CLASSES, size)
    assert set(modules) == set(shapes)
    for key, make in modules.items():
        module, shape = make()
        assert not module.training
        assert sum(p.numel() for p in module.parameters()) == shapes[key].operator().params, key
        with torch.no_grad():
            out = module(torch.rand(shape))
        assert out.shape[1] == shapes[key].outputs, key


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": 3}, "layers"),
        ({"widths": []}, "widths"),
        ({"widths": [4, 4]}, "ascending"),
        ({"widths": [8, 4]}, "ascending"),
        ({"branches": ["8+8"]}, "branches"),
        ({"branches": ["8+32", "8+32"]}, "twice"),
        ({"widths": [4, 6]}, "teacher"),
        ({"depth": 3}, "unknown setting"),
    ],
)
def test_a_space_that_cannot_be_is_refused(settings, said):
    with pytest.raises(UsageError, match=said):
        SPACES.load("fasterseg").supernet(settings, CLASSES)
