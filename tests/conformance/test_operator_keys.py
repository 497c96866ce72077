"""Operators of every search space and the keys that latency tables have them under."""

from __future__ import annotations

import importlib
import inspect
from collections import defaultdict

import pytest
import torch

from bench.latency_table_networks import sampled
from searchkit.costs.latency import LatencyTable
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.supernet import weights_of

SIZE, CLASSES = Size(64, 128), 19


def supernet_of(name):
    with torch.device("meta"):
        return SPACES.load(name).supernet({}, CLASSES)


def grids_of(supernet):
    return {id(part.grid): part.grid for part in supernet.parts(weights_of(supernet.alive()), SIZE)}.values()


@pytest.mark.parametrize("name", SPACES.names())
def test_no_two_operators_share_a_key(name, monkeypatch):
    """Every shape whose key is asked for, anywhere in the space, is the only one of its key."""
    seen = defaultdict(set)
    module = importlib.import_module(f"searchkit.spaces.{name}.operators")
    kinds = [
        kind for _, kind in inspect.getmembers(module, inspect.isclass) if isinstance(vars(kind).get("key"), property)
    ]
    for kind in kinds:
        read = vars(kind)["key"].fget

        def watched(shape, read=read):
            key = read(shape)
            seen[key].add((type(shape).__name__, repr(shape)))
            return key

        monkeypatch.setattr(kind, "key", property(watched))
    supernet, space = supernet_of(name), SPACES.load(name)
    list(grids_of(supernet))
    modules = space.operator_modules({}, CLASSES, SIZE)
    for genotype in sampled(supernet, 4, seed=0):
        list(space.operator_keys(genotype, SIZE))
    assert set(modules) <= set(seen)
    assert {key: shapes for key, shapes in seen.items() if len(shapes) > 1} == {}


@pytest.mark.parametrize("name", SPACES.names())
def test_what_is_priced_is_what_can_be_measured(name):
    """A table of the space's operators has all that its supernet and its networks ask for, and each key one cost."""
    supernet, space = supernet_of(name), SPACES.load(name)
    priced = defaultdict(set)
    for grid in grids_of(supernet):
        for operator in grid.operators:
            priced[operator.key].add((operator.macs, operator.params))
    modules = space.operator_modules({}, CLASSES, SIZE)
    assert {key for key, costs in priced.items() if len(costs) > 1} == set()
    assert set(priced) == set(modules)
    entries = {key: next(iter(costs))[0] * 1e-6 + 1e-3 for key, costs in priced.items()}
    table = LatencyTable("a CPU", "onnxruntime", "fp32", 1, tuple(SIZE), "a test", entries)
    for genotype in sampled(supernet, 4, seed=1):
        keys = list(space.operator_keys(genotype, SIZE))
        # Whole networks: stem and head are among the operators, or the sums would be too small.
        total = sum(next(iter(priced[key]))[0] for key in keys)
        assert total == genotype.cost(SIZE).conv_macs
        assert table.predict_ms(keys) == pytest.approx(total * 1e-6 + len(keys) * 1e-3)


@pytest.mark.parametrize("name", SPACES.names())
def test_a_measured_operator_has_the_parameters_that_are_counted(name):
    """Of a few of each kind: the module of a key is the operator of that key."""
    supernet = supernet_of(name)
    counted = {operator.key: operator.params for grid in grids_of(supernet) for operator in grid.operators}
    modules = SPACES.load(name).operator_modules({}, CLASSES, SIZE)
    few = defaultdict(list)
    for key in modules:
        few[key.partition("_")[0]].append(key)
    for keys in few.values():
        for key in (keys[0], keys[len(keys) // 2], keys[-1]):
            module, shape = modules[key]()
            assert not module.training, key
            assert sum(parameter.numel() for parameter in module.parameters()) == counted[key], key
            with torch.no_grad():
                made = module(torch.rand(shape))
            assert made.dim() == 4, key
            assert made.shape[0] == shape[0] == 1, key
