"""Random genotypes of every space: what is written is read again, and what is counted is what is built."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pytest
import torch
from torch import nn

from searchkit import genotype
from searchkit.footprint import count_params, on_meta
from searchkit.sizes import Size, SizeRule
from searchkit.spaces import SPACES, Space

SAMPLES = 100
# Looked at less often: counting on the meta device takes 0.2 s a network.
MEASURED = range(0, SAMPLES, 9)


@pytest.fixture(params=SPACES.names(), scope="module")
def space(request) -> Space:
    return SPACES.load(request.param)


@pytest.fixture(scope="module")
def samples(space) -> list[genotype.Genotype]:
    return [space.sample(Random(seed)) for seed in range(SAMPLES)]


def built(space: Space, found: genotype.Genotype) -> nn.Module:
    with torch.device("meta"):
        return space.build(found).eval()


def conv_macs(network: nn.Module, size: Size) -> int:
    """Counted by hand: a convolution works once per weight and output pixel, a transposed one per input pixel."""
    macs = []

    def count(layer, inputs, output):
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        macs.append(layer.weight.numel() * pixels[0, 0].numel())

    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(count) for layer in convolutions]
    # BatchNorm changes no shape, and is most of the time that a network takes on the meta device.
    with torch.no_grad(), patch.object(nn.BatchNorm2d, "forward", lambda _layer, x: x):
        logits = network(torch.empty(1, 3, *size, device="meta"))
    assert logits.shape[:2] == (1, 19)
    for hook in hooks:
        hook.remove()
    return sum(macs)


def some_size(seed: int, rule: SizeRule) -> Size:
    """A size that the rule takes; one in four is the smallest, or as small on one side."""
    rng = Random(seed)
    height, width = rng.randint(1, 600), rng.randint(1, 1200)
    sizes = [Size(1, 1), Size(1, width), Size(height, 1), *[Size(height, width)] * 9]
    return rule.nearest(sizes[seed % len(sizes)])


def test_name_is_that_of_the_folder_and_of_the_genotypes(space, samples):
    assert space.name in SPACES.names()
    assert {found.space for found in samples} == {space.name}
    assert {type(found) for found in samples} == {space.genotype_type}


def test_sampling_is_deterministic_and_varied(space, samples):
    assert [space.sample(Random(seed)) for seed in range(SAMPLES)] == samples
    assert len({found.digest for found in samples}) == SAMPLES


def test_sampling_goes_on_from_the_state_of_the_generator(space):
    rng = Random(0)
    first, second = space.sample(rng), space.sample(rng)
    assert first != second
    rng = Random(0)
    assert [space.sample(rng), space.sample(rng)] == [first, second]


def test_what_is_written_is_read_again(samples):
    for found in samples:
        again = genotype.parse(found.to_json().encode(), where="sample.json")
        assert again == found
        assert again.digest == found.digest
        assert again.to_json() == found.to_json()


# In four parts, which two processes can share.
@pytest.mark.parametrize("part", range(4))
def test_costs_are_those_of_the_network(space, samples, part):
    for seed in range(part, SAMPLES, 4):
        found = samples[seed]
        network = built(space, found)
        size = some_size(seed, found.size_rule)
        found.size_rule.check(size, network="sample")
        cost = found.cost(size)
        assert cost.params == count_params(network), seed
        assert cost.conv_macs == conv_macs(network, size), (seed, size)


def test_costs_are_those_that_pytorch_counts_and_activations_are_a_lower_bound(space, samples):
    for seed in MEASURED:
        found = samples[seed]
        size = some_size(seed, found.size_rule)
        cost, measured = found.cost(size), on_meta(built(space, found), size)
        assert (cost.params, cost.conv_macs) == (measured.params, measured.conv_macs), seed
        assert 0 < cost.activation_bytes <= measured.activation_bytes, seed


def test_training_heads_keep_the_names_of_the_inference_network(space, samples):
    for found in samples[:20]:
        with torch.device("meta"):
            training = space.build(found, training_heads=True)
        assert training.training
        assert set(built(space, found).state_dict()) <= set(training.state_dict())


def test_with_classes_changes_the_classifier_alone(space, samples):
    for found in samples[:20]:
        names = {
            name
            for (name, one), other in zip(
                built(space, found).state_dict().items(),
                built(space, found.with_classes(7)).state_dict().values(),
                strict=True,
            )
            if one.shape != other.shape
        }
        assert {name.rsplit(".", 1)[1] for name in names} == {"weight", "bias"}
        assert len(names) == 2
