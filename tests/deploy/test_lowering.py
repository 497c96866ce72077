"""Rewrites for export are the same function, and leave the network they are made from alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deploy.lowering.pools import FixedAvgPools, lower, pooling_matrix
from searchkit.blocks import AdaptiveAvgPools
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13, 32, 64, 127])
@pytest.mark.parametrize("bins", [1, 2, 3, 4, 6, 7, 9, 33])
def test_pooling_matrix_is_adaptive_pooling(bins, length):
    matrix = pooling_matrix(bins, length)
    assert matrix.shape == (bins, length)
    x = noise(3, length)
    torch.testing.assert_close(x @ matrix.T, F.adaptive_avg_pool1d(x, bins), rtol=0, atol=1e-6)


@pytest.mark.parametrize("height", [1, 7, 8, 33])
@pytest.mark.parametrize("width", [1, 9, 64, 65])
@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_pools_are_adaptive_pools(batch, height, width):
    bins = (1, 2, 3, 6, 9)
    x = noise(batch, 5, height, width)
    found, wanted = FixedAvgPools(bins, height, width)(x), AdaptiveAvgPools(bins)(x)
    assert [p.shape for p in found] == [(batch, 5, b, b) for b in bins]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def kinds(module):
    return [type(layer).__name__ for layer in module.modules() if "AvgPools" in type(layer).__name__]


@pytest.mark.parametrize("name", ["ssr", "fast-scnn", "icnet", "ssr-baseline1"])
def test_a_lowered_network_is_the_same_function(name):
    network = resolve(name)
    size = network.size_rule.nearest(Size(64, 96))
    torch.manual_seed(0)
    module = network.build().eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    pools = kinds(module)
    lowered = lower(module, torch.zeros(1, 3, *size))
    assert kinds(module) == pools == ["AdaptiveAvgPools"] * len(pools)
    assert kinds(lowered) == ["FixedAvgPools"] * len(pools)
    assert not {id(p) for p in module.parameters()} & {id(p) for p in lowered.parameters()}
    x = noise(1, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(lowered(x), module(x), rtol=1e-5, atol=1e-5)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_there_are_networks_with_pools():
    assert [n for n in known_names() if kinds(resolve(n).build_on_meta())] == ["ssr", "fast-scnn", "icnet"]


class Pools(nn.Module):
    """One pool under two names, one in a block that stands in two places, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.one = self.two = AdaptiveAvgPools((1, 3))
        self.left = self.right = nn.Sequential(AdaptiveAvgPools((2,)))
        self.idle = AdaptiveAvgPools((1,))

    def forward(self, x):
        pooled = [*self.one(x), *self.two(x + 1), *self.left(x), *self.right(2 * x)]
        return torch.cat([p.flatten(1) for p in pooled], dim=1)


def test_pools_that_stand_in_two_places():
    module, x = Pools().eval(), noise(2, 3, 7, 10)
    lowered = lower(module, torch.zeros(1, 3, 7, 10))
    for name in ("one", "two", "left.0", "right.0"):
        assert isinstance(lowered.get_submodule(name), FixedAvgPools), name
    assert isinstance(lowered.idle, AdaptiveAvgPools)
    torch.testing.assert_close(lowered(x), module(x), rtol=0, atol=1e-6)


class TwoSizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.pools = AdaptiveAvgPools((2,))

    def forward(self, x):
        return self.pools(x)[0] + self.pools(x[:, :, ::2])[0]


def test_a_pool_for_maps_of_two_sizes_stays():
    module, x = TwoSizes(), noise(1, 3, 8, 9)
    lowered = lower(module, torch.zeros(1, 3, 8, 9))
    assert isinstance(lowered.pools, AdaptiveAvgPools)
    torch.testing.assert_close(lowered(x), module(x), rtol=0, atol=1e-6)


def test_a_module_that_is_itself_a_pool():
    module = AdaptiveAvgPools((2, 3))
    assert isinstance(lower(module, torch.zeros(1, 3, 8, 8)), FixedAvgPools)


def test_lowering_evaluates():
    module = resolve("ssr").build().train()
    lowered = lower(module, torch.zeros(1, 3, 64, 64))
    assert module.training
    assert not any(layer.training for layer in lowered.modules())
