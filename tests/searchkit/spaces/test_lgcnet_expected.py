"""Expected costs and the cheapest network of the LGCNet space, against every network of what little is left alive."""

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from searchkit.choices import one_hot
from searchkit.costs.expected import Prices, macs, params
from searchkit.errors import SearchFailedError
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.lgcnet.expected import cheapest, parts, shapes_of_space
from searchkit.spaces.lgcnet.genotype import shapes_of
from searchkit.spaces.lgcnet.operators import CELL_OPERATORS
from searchkit.spaces.lgcnet.search_space import LGCNetSearchSpace
from searchkit.spaces.lgcnet.supernet import LGCNetSupernet, derived
from searchkit.supernet import weights_of

CLASSES, SIZE = 5, Size(37, 70)
TINY = {"length": 4, "reductions": (1, 2), "stem": 2, "fusion_channels": 4, "guidance": "none"}
INDEPENDENT, SHARED = LGCNetSearchSpace(**TINY), LGCNetSearchSpace(**TINY, cells="shared")
NONE, CONV = CELL_OPERATORS.index("none"), CELL_OPERATORS.index("conv")


def full(space):
    return {name: table.alive for name, table in space.tables().items()}


def networks(space, alive):
    """Every network: (what is decided, its genotype)."""
    rows = [(name, row) for name, mask in alive.items() for row in range(len(mask)) if mask[row].any()]
    for picked in itertools.product(*(np.flatnonzero(alive[name][row]) for name, row in rows)):
        decided = {name: np.zeros_like(mask) for name, mask in alive.items()}
        for (name, row), column in zip(rows, picked, strict=True):
            decided[name][row, column] = True
        try:
            yield decided, derived(space, CLASSES, decided, Provenance())
        except ValidationError:
            # A node reads nothing.
            continue


def some_alive(space, seed, free=5):
    """One candidate a choice, but for some that have two or three; as `closed` leaves it."""
    rng = np.random.default_rng(seed)
    supernet = meta(space)
    weights = {name: rng.random(mask.shape) for name, mask in full(space).items()}
    weights["cell"][:, NONE] += 0.4
    alive = one_hot(weights, full(space))
    # Cells whose choice is between reading and not reading decide most.
    for row in rng.permutation(len(alive["cell"]))[:free]:
        alive["cell"][row, rng.integers(len(CELL_OPERATORS))] = True
        alive["cell"][row, NONE] = True
    return supernet.closed(alive)


def meta(space):
    torch.manual_seed(0)
    return LGCNetSupernet(space, CLASSES)


def price_of(genotype, price):
    return sum(price(shape.operator()) for _, shape in shapes_of(genotype, SIZE))


def odd(operator):
    """A price that is neither MACs nor parameters, and different for every key."""
    return float(1 + sum(map(ord, operator.key)) % 97) + operator.macs * 1e-9


@pytest.mark.parametrize(
    "space", [INDEPENDENT, SHARED, LGCNetSearchSpace(**TINY | {"length": 6, "reductions": (2, 4)})]
)
def test_of_one_hot_weights_it_is_the_count_of_the_network(space):
    supernet, seen = meta(space), 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        # Few operators are there, so that cells are not read.
        weights = {name: rng.random(mask.shape) for name, mask in full(space).items()}
        weights["cell"][:, NONE] += 0.6
        alive = supernet.closed(one_hot(weights, full(space)))
        genotype = derived(space, CLASSES, alive, Provenance())
        seen += not all(genotype.live_cells())
        found = {}
        for part in parts(space, CLASSES, weights_of(alive), SIZE):
            for price in (macs, params):
                key = (part.stage, price)
                found[key] = found.get(key, 0.0) + float(Prices(price).expected([part]))
        for stage in genotype.stage_costs(SIZE):
            assert found.pop((stage.name, macs)) == stage.conv_macs
            assert found.pop((stage.name, params)) == stage.params
        assert not any(found.values())
    assert seen or space.cells == "shared"


def test_expectation_is_the_mean_over_all_networks():
    """x1 may read the cell before or not, everything else may be one of two; all of them are networks."""
    space = LGCNetSearchSpace(**TINY | {"length": 5, "reductions": (1, 2)})
    alive = {name: np.zeros_like(mask) for name, mask in full(space).items()}
    edges = alive["cell"].reshape(5, 5, -1)
    edges[:, 0, [NONE, CONV]] = edges[:, 1, [0, 1]] = True
    edges[:, 2, NONE] = edges[:, 3, NONE] = edges[:, 4, 5] = True
    edges[3:, 1] = False
    edges[3:, 1, [1]] = True
    alive["fusion"][:, 0] = alive["fusion_up"][:, 1] = True
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, mask in alive.items():
        drawn = torch.rand(mask.shape, generator=generator, dtype=torch.float64) * torch.from_numpy(mask)
        weights[name] = drawn / drawn.sum(dim=1, keepdim=True)
    total, mean, count = 0.0, 0.0, 0
    for decided, genotype in networks(space, alive):
        chance = float(np.prod([weights[n].numpy()[mask].prod() for n, mask in decided.items()]))
        total, mean, count = total + chance, mean + chance * price_of(genotype, odd), count + 1
    assert total == pytest.approx(1)
    assert count > 200
    assert float(Prices(odd).expected(parts(space, CLASSES, weights, SIZE))) == pytest.approx(mean, rel=1e-9)


def test_it_is_differentiable_in_every_choice():
    weights = {name: table.dense().softmax(dim=1) for name, table in INDEPENDENT.tables().items()}
    leaves = {name: dense.detach().requires_grad_() for name, dense in weights.items()}
    Prices(odd).expected(parts(INDEPENDENT, CLASSES, leaves, SIZE)).backward()
    for name, leaf in leaves.items():
        gradient = leaf.grad.clone()
        if name == "cell":
            assert (gradient[:, NONE] == 0).all()
            gradient[:, NONE] = 1
        assert (gradient != 0).all(), name


@pytest.mark.parametrize("price", [macs, params, odd])
@pytest.mark.parametrize("space", [INDEPENDENT, SHARED], ids=["independent", "shared"])
def test_cheapest_is_the_least_of_all_networks(space, price):
    for seed in range(4):
        alive = some_alive(space, seed)
        # The fusion cell's choices do not depend on the others.
        alive["fusion"][seed, seed : seed + 3] = True
        found = cheapest(space, CLASSES, alive, price, SIZE)
        assert all((mask <= alive[name]).all() for name, mask in found.items())
        assert all((mask.sum(axis=1) <= 1).all() for mask in found.values())
        closed = meta(space).closed(found)
        assert all((closed[name] == found[name]).all() for name in found)
        least = min(price_of(genotype, price) for _, genotype in networks(space, alive))
        assert price_of(derived(space, CLASSES, found, Provenance()), price) == pytest.approx(least, rel=1e-12)


def test_cheapest_of_the_full_space_leaves_cells_out():
    space = LGCNetSearchSpace(guidance="none")
    found = derived(space, 19, cheapest(space, 19, full(space), macs, SIZE), Provenance())
    assert sum(found.live_cells()) < 14
    assert set(found.fusion) <= {"pool1"}
    assert set(found.fusion_up) == {"resize"}


def test_where_no_network_is_left_it_says_so():
    for space in (INDEPENDENT, SHARED):
        alive = full(space)
        alive["cell"][:, :] = False
        alive["cell"][:, NONE] = True
        with pytest.raises(SearchFailedError, match="no network is left"):
            cheapest(space, CLASSES, alive, macs, SIZE)


def test_every_shape_has_a_key_of_its_own_and_a_module():
    settings = {**TINY, "reductions": [1, 2]}
    shapes = shapes_of_space(INDEPENDENT, CLASSES, SIZE)
    every = {shape for network in range(6) for shape in some_shapes(network)}
    assert len({shape.key for shape in every}) == len(every)
    assert {shape.key for shape in every} <= set(shapes)
    assert len({*shapes.values()}) == len(shapes)
    modules = SPACES.load("lgcnet").operator_modules(settings, CLASSES, SIZE)
    assert set(modules) == set(shapes)
    for key, make in modules.items():
        module, shape = make()
        assert not module.training
        with torch.inference_mode():
            module(torch.zeros(shape))
        assert sum(p.numel() for p in module.parameters()) == shapes[key].operator().params, key


def some_shapes(seed):
    genotype = next(network for _, network in networks(INDEPENDENT, some_alive(INDEPENDENT, seed)))
    return [shape for _, shape in shapes_of(genotype, SIZE)]
