"""Expected costs and the cheapest network of the SSR space, against every network of tiny spaces."""

import itertools
import random

import numpy as np
import pytest
import torch

from searchkit.costs.expected import Prices, macs, params
from searchkit.errors import SearchFailedError
from searchkit.genotype import SCHEMA, Provenance
from searchkit.settings import parse_settings
from searchkit.sizes import Size
from searchkit.spaces.ssr.expected import AGGREGATION, cheapest, parts, shapes_of_space
from searchkit.spaces.ssr.genotype import ClassifierHead, SSRGenotype, SSRLayer, SSRStage, sample
from searchkit.spaces.ssr.operators import shapes_of
from searchkit.spaces.ssr.search_space import STAGES, SSRSearchSpace

# The 1/8 map is odd, so that the half of it is rounded.
CLASSES, SIZE = 5, Size(40, 72)
TINY = {
    "depths": [[1, 2], [1]],
    "stem": 4,
    "channels": [6, 9],
    "width_steps": 1,
    "width_step": 2,
    "dimensions": ["depth", "spatial", "channel"],
}


def space_of(**changes) -> SSRSearchSpace:
    return parse_settings(SSRSearchSpace, TINY | changes, what="space")


def chosen(mask):
    return int(np.flatnonzero(mask)[0])


def genotype_of(space, alive) -> SSRGenotype:
    """The network of decided masks, read here on its own."""
    operators, stages, start = space.operators(), [], 0
    for index, name in enumerate(STAGES):
        depth = space.stage_depths(index)[chosen(alive[f"depth{name}"][0])]
        layers = []
        for layer in range(depth):
            operator = chosen(alive["operator"][start + layer])
            row = layer * len(operators) + operator
            dilation, spatial = operators[operator]
            mid, out = (space.widths(index)[chosen(alive[f"{which}{name}"][row])] for which in ("mid", "out"))
            layers.append(SSRLayer(dilation=dilation, spatial=spatial, mid=mid, out=out))
        start += len(space.layers(index))
        stages.append(SSRStage(channels=space.channels[index], layers=tuple(layers)))
    pools = any(layer.spatial == 2 for stage in stages for layer in stage.layers)
    return SSRGenotype(
        schema=SCHEMA,
        space="ssr",
        classes=CLASSES,
        pool=space.pool if pools else "average",
        mid_norm=space.mid_norm,
        stem=space.stem,
        stages=tuple(stages),
        head=AGGREGATION if space.head == "aggregation" else ClassifierHead(type="classifier"),
        provenance=Provenance(),
    )


def networks(space, alive):
    """Every network: one candidate of every choice that it has, none of the others."""
    operators, per_stage, start = len(space.operators()), [], 0
    for index, name in enumerate(STAGES):
        found = []
        for place in np.flatnonzero(alive[f"depth{name}"][0]):
            options = []
            for layer in range(space.stage_depths(index)[place]):
                here = []
                for operator in np.flatnonzero(alive["operator"][start + layer]):
                    row = layer * operators + operator
                    mids, outs = (np.flatnonzero(alive[f"{which}{name}"][row]) for which in ("mid", "out"))
                    here += [(start + layer, operator, row, mid, out) for mid in mids for out in outs]
                options.append(here)
            found += [(place, picked) for picked in itertools.product(*options)]
        start += len(space.layers(index))
        per_stage.append(found)
    for choice in itertools.product(*per_stage):
        decided = {name: np.zeros_like(mask) for name, mask in alive.items()}
        for name, (place, picked) in zip(STAGES, choice, strict=True):
            decided[f"depth{name}"][0, place] = True
            for layer, operator, row, mid, out in picked:
                decided["operator"][layer, operator] = True
                decided[f"mid{name}"][row, mid] = decided[f"out{name}"][row, out] = True
        yield decided


def one_hot(alive):
    return {name: torch.from_numpy(mask.astype(np.float32)) for name, mask in alive.items()}


def everything(space):
    return {name: table.alive for name, table in space.tables().items()}


def random_alive(space, rng):
    """At least one candidate in every choice, and nothing that is pointless."""
    alive = {}
    for name, mask in everything(space).items():
        kept = rng.random(mask.shape) < 0.5
        kept[np.arange(len(mask)), rng.integers(mask.shape[1], size=len(mask))] = True
        alive[name] = kept
    start = 0
    for index, name in enumerate(STAGES):
        layers = len(space.layers(index))
        deepest = max(d for d, a in zip(space.stage_depths(index), alive[f"depth{name}"][0], strict=True) if a)
        alive["operator"][start + deepest : start + layers] = False
        for which in ("mid", "out"):
            alive[f"{which}{name}"][~alive["operator"][start : start + layers].flatten()] = False
        start += layers
    return alive


def total(space, weights, price):
    return Prices(price).expected(parts(space, CLASSES, weights, SIZE))


def probability(space, weights, alive):
    """Of a network: the product over the choices that it has."""
    return float(np.prod([weights[name].numpy()[mask].prod() for name, mask in alive.items()]))


SPACES = [
    space_of(),
    space_of(head="classifier"),
    space_of(mid_norm=False, pool="max"),
    space_of(dimensions=["depth", "dilation"], depths=[[1, 3], [2]]),
    space_of(dimensions=["channel"], depths=[[1], [1]], width_steps=1),
    space_of(depths=[[1], [2]], dimensions=["depth", "channel"]),
]


@pytest.mark.parametrize("space", [SPACES[0], SPACES[1], SPACES[2], SPACES[3], SPACES[5]])
def test_of_one_hot_weights_it_is_the_count_of_the_network(space):
    rng = np.random.default_rng(1)
    found = list(networks(space, everything(space)))
    for index in rng.integers(len(found), size=40):
        cost = genotype_of(space, found[index]).cost(SIZE)
        weights = one_hot(found[index])
        assert float(total(space, weights, macs)) == cost.conv_macs
        assert float(total(space, weights, params)) == cost.params


def test_stages_are_those_of_the_genotype():
    space = SPACES[0]
    alive = next(networks(space, everything(space)))
    by_stage: dict[str, float] = {}
    for part in parts(space, CLASSES, one_hot(alive), SIZE):
        by_stage[part.stage] = by_stage.get(part.stage, 0) + float(Prices(macs).expected([part]))
    stages = genotype_of(space, alive).stage_costs(SIZE)
    assert by_stage == {stage.name: stage.conv_macs for stage in stages}


@pytest.mark.parametrize("space", [SPACES[0], SPACES[1], SPACES[3], SPACES[5]])
@pytest.mark.parametrize("price", [macs, params])
def test_expectation_is_the_mean_over_all_networks(space, price):
    generator = torch.Generator().manual_seed(3)
    weights = {
        name: torch.rand(mask.shape, generator=generator, dtype=torch.float64) + 0.1
        for name, mask in everything(space).items()
    }
    weights = {name: table / table.sum(1, keepdim=True) for name, table in weights.items()}
    mean, mass = 0.0, 0.0
    for alive in networks(space, everything(space)):
        cost = genotype_of(space, alive).cost(SIZE)
        p = probability(space, weights, alive)
        mass += p
        mean += p * (cost.conv_macs if price is macs else cost.params)
    assert mass == pytest.approx(1, rel=1e-12)
    assert float(total(space, weights, price)) == pytest.approx(mean, rel=1e-9)


def test_it_is_differentiable_in_every_choice():
    space = SPACES[0]
    tables = space.tables()
    with torch.no_grad():
        for index, table in enumerate(tables.values()):
            table.logits.copy_(torch.randn(table.logits.shape, generator=torch.Generator().manual_seed(index)))
    total(space, {name: torch.softmax(table.dense(), 1) for name, table in tables.items()}, macs).backward()
    for name, table in tables.items():
        gradient = table.dense(table.logits.grad, fill=0.0)
        assert table.logits.grad.isfinite().all()
        assert len(table.candidates) == 1 or (gradient != 0).any(1).all(), name


@pytest.mark.parametrize("space", [SPACES[0], SPACES[1], SPACES[3], SPACES[5]])
@pytest.mark.parametrize("seed", range(6))
def test_cheapest_is_the_least_of_all_networks(space, seed):
    rng = np.random.default_rng(seed)
    drawn = random.Random(seed)
    prices: dict[str, float] = {}

    def price(operator):
        return prices.setdefault(operator.key, drawn.random())

    alive = random_alive(space, rng)
    left = list(networks(space, alive))
    by_brute_force = min(float(total(space, one_hot(network), price)) for network in left)
    found = cheapest(space, CLASSES, alive, price, SIZE)
    assert any(all((found[name] == network[name]).all() for name in network) for network in left)
    assert float(total(space, one_hot(found), price)) == pytest.approx(by_brute_force, rel=1e-12)


def test_cheapest_of_the_full_space_by_macs_is_narrow_and_shallow():
    space = SSRSearchSpace()
    found = cheapest(space, 19, everything(space), macs, Size(512, 1024))
    assert [chosen(found["depth4"][0]), chosen(found["depth8"][0])] == [0, 0]
    assert found["operator"].sum() == 3 + 6
    assert found["mid4"].sum() == 3
    assert found["out8"].sum() == 6


def test_where_no_network_is_left_it_says_so():
    space = SPACES[0]
    alive = everything(space)
    alive["mid8"][:] = False
    with pytest.raises(SearchFailedError, match=r"stage 1/8: no network is left"):
        cheapest(space, CLASSES, alive, macs, SIZE)


@pytest.mark.parametrize("space", SPACES)
def test_every_shape_has_a_key_of_its_own(space):
    shapes = shapes_of_space(space, CLASSES, SIZE)
    assert len(set(shapes.values())) == len(shapes)
    assert all(shape.key == key for key, shape in shapes.items())


def test_different_spaces_share_keys_only_where_operators_are_equal():
    seen: dict[str, object] = {}
    for space, classes, size in itertools.product(SPACES, (5, 6), (SIZE, Size(64, 80), Size(48, 96))):
        for key, shape in shapes_of_space(space, classes, size).items():
            assert seen.setdefault(key, shape) == shape


def test_operators_of_the_full_space():
    shapes = shapes_of_space(SSRSearchSpace(), 19, Size(512, 1024))
    # Two convolutions x two stages x (10 operators x 9 x 9), 11 downsamplers, 9 + 9 + 1 of the head.
    assert len(shapes) == 2 * 2 * 810 + 11 + 19


def test_a_networks_operators_are_its_cost_and_stand_in_its_space():
    shapes = shapes_of_space(SSRSearchSpace(), 19, Size(512, 1024))
    for seed in range(10):
        genotype = sample(random.Random(seed))
        cost = genotype.cost(Size(512, 1024))
        operators = [shape.operator() for shape in shapes_of(genotype, Size(512, 1024))]
        assert sum(operator.macs for operator in operators) == cost.conv_macs
        assert sum(operator.params for operator in operators) == cost.params
        if genotype.pool == "average" and genotype.mid_norm and genotype.head.type == "aggregation":
            assert all(operator.key in shapes for operator in operators)
