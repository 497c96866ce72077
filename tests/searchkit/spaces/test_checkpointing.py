"""Supernets that compute their maps again in the backward pass, against the same that keep them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from searchkit.choices import with_numbers
from searchkit.recomputing import recomputed
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.training.dry_run import Ledger, dry_run
from searchkit.training.search_recipe import parse_search_recipe

SMALL = {
    "lgcnet": {"length": 5, "reductions": [1, 3], "stem": 2, "fusion_channels": 4, "guidance_width": 3},
    "dcnas": {"layers": 3, "channels": 8, "stem": 4, "head": 8},
}
SIZES = {"lgcnet": Size(35, 66), "dcnas": Size(37, 50)}


def supernet_of(space, **fields):
    """In float64; norms, statistics and logits are random."""
    torch.manual_seed(0)
    net = SPACES.load(space).supernet({**SMALL[space], **fields}, 4).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    for table in net.tables.values():
        table.logits.data.normal_()
    return net


def weights_of(net, *, one_hot=False):
    """Of the softmax; or 1 for the likeliest candidate, as where it is sampled."""
    found = {name: table.dense().softmax(1).nan_to_num(0.0).detach() for name, table in net.tables.items()}
    if one_hot:
        found = {name: (each == each.amax(dim=1, keepdim=True)).to(each) for name, each in found.items()}
    return found


def run(net, space, weights, *, checkpointing, still=(), steps=1):
    """Outputs, gradients and statistics after some steps, and torch's next random number."""
    net = copy.deepcopy(net).train()
    net.checkpointing = checkpointing
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith(tuple(still)))
    leaves = {name: each.clone().requires_grad_() for name, each in weights.items()}
    torch.manual_seed(1)
    found = {}
    for step in range(steps):
        image = torch.randn(2, 3, *SIZES[space]).double()
        for index, each in enumerate(net.passes(leaves, warmup=False)):
            logits = net(image, each)
            heads = logits if isinstance(logits, tuple) else (logits,)
            sum((head * torch.linspace(-1, 1, head.numel()).view(head.shape)).sum() for head in heads).backward()
            found |= {f"logits {step} {index} {place}": head.detach() for place, head in enumerate(heads)}
    found |= {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    found |= {f"gradient of weights {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return found | dict(net.named_buffers()) | {"drawn": torch.rand(1)}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-9, atol=1e-9, msg=name)


CASES = [
    ("lgcnet", {}),
    ("dcnas", {}),
    ("dcnas", {"partial": 1}),
    ("dcnas", {"partial": 2, "shuffle": True}),
]


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize(("space", "fields"), CASES)
def test_it_changes_nothing(space, fields, one_hot):
    """Outputs, gradients, statistics and what is drawn; batches are counted once."""
    net = supernet_of(space, **fields)
    weights = weights_of(net, one_hot=one_hot)
    kept, again = (run(net, space, weights, checkpointing=how) for how in (False, True))
    same(again, kept)
    counts = [int(values) for name, values in again.items() if name.endswith("num_batches_tracked")]
    assert max(counts) > 0


@pytest.mark.parametrize("still", [("choice_tables.",), ("stem", "cells", "fusion", "head", "classifier")])
@pytest.mark.parametrize("space", ["lgcnet", "dcnas"])
def test_with_a_part_held_still_it_changes_nothing(space, still):
    net = supernet_of(space)
    weights = weights_of(net)
    kept, again = (run(net, space, weights, checkpointing=how, still=still) for how in (False, True))
    same(again, kept)
    assert not any(name.startswith(tuple(f"gradient of {each}" for each in still)) for name in again)


@pytest.mark.parametrize("space", ["lgcnet", "dcnas"])
def test_after_shrinking_it_changes_nothing(space):
    net = supernet_of(space)
    rng = np.random.default_rng(0)
    lots = {name: mask & (rng.random(mask.shape) < 0.5) for name, mask in net.alive().items()}
    for name, mask in lots.items():
        mask[~mask.any(axis=1)] = net.alive()[name][~mask.any(axis=1)]
    net.shrink(net.closed(lots))
    weights = weights_of(net)
    same(run(net, space, weights, checkpointing=True), run(net, space, weights, checkpointing=False))


@pytest.mark.parametrize("amp", ["none", "bf16"])
@pytest.mark.parametrize("space", SMALL)
def test_it_keeps_fewer_maps(space, amp):
    found = []
    for checkpointing in (False, True):
        recipe = parse_search_recipe(
            {"batch": 4, "steps": 3, "strategy": {"name": "darts"}, "amp": amp, "checkpointing": checkpointing},
            where="test",
        )
        with torch.device("meta"):
            net = SPACES.load(space).supernet(SMALL[space], 4).train()
        found.append(dry_run(net, recipe, Size(64, 128)))
    kept, again = found
    assert again.weight.activations_bytes < 0.5 * kept.weight.activations_bytes
    assert again.architecture.activations_bytes < 0.5 * kept.architecture.activations_bytes
    # What is kept less is computed twice.
    assert again.weight.macs > kept.weight.macs


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("space", ["lgcnet", "dcnas"])
def test_memory_that_is_counted_is_that_of_a_real_pass(space, one_hot, checkpointing):
    """Of the same weights, with their numbers on the meta device: to the byte."""
    net = supernet_of(space).float().train()
    weights = {name: each.float() for name, each in weights_of(net, one_hot=one_hot).items()}
    found = []
    for device in ("cpu", "meta"):
        each = copy.deepcopy(net).to(device)
        each.checkpointing = checkpointing
        leaves = {name: values.to(device, copy=True).requires_grad_() for name, values in weights.items()}
        if device == "meta":
            leaves = {name: with_numbers(leaf, weights[name].numpy()) for name, leaf in leaves.items()}
        with Ledger() as ledger:
            image = torch.ones(2, 3, *SIZES[space], device=device)
            each(image, leaves).square().sum().backward()
        found.append(ledger.peak_bytes)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_norms_are_as_before_where_the_backward_pass_fails():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    out = recomputed(net, net, torch.ones(2, 3, 8, 8))
    out.register_hook(lambda gradient: gradient)
    net[0].forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        out.sum().backward()
    assert net[1].momentum == 0.1
    assert int(net[1].num_batches_tracked) == 1
    assert net[1].state_dict().keys() == nn.BatchNorm2d(4).state_dict().keys()
