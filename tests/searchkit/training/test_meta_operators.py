"""Operators on the meta device that are gone through once, against those that are gone through each time."""

import pytest
import torch
from torch import nn

from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.training.dry_run import Ledger, dry_runs
from searchkit.training.meta_operators import MetaOperators, called
from searchkit.training.search_recipe import parse_search_recipe

SMALL = {
    "ssr": {"depths": [[1, 2], [1]], "channels": [12, 16], "stem": 8, "width_steps": 1},
    "fasterseg": {"layers": 4, "widths": [4, 8], "teacher": False},
    "lgcnet": {"length": 3, "reductions": [1, 2], "stem": 2, "fusion_channels": 4},
    "dcnas": {"layers": 1, "channels": 8, "stem": 4, "head": 8},
}
SIZE = Size(64, 128)


def supernet_of(space):
    with torch.device("meta"):
        return SPACES.load(space).supernet(SMALL[space], 5).train()


@pytest.mark.parametrize("space", SMALL)
def test_a_dry_run_counts_the_same(space):
    recipe = parse_search_recipe(
        {"batch": 2, "steps": 3, "strategy": {"name": "gumbel"}, "channels_last": True}, where="test"
    )
    plain = dry_runs(supernet_of(space), recipe, SIZE, draws=1, operators=called)
    operators = MetaOperators()
    # The second time there is nothing that is not remembered.
    for _ in range(2):
        assert dry_runs(supernet_of(space), recipe, SIZE, draws=1, operators=operators) == plain
    assert plain[0].weight.macs > 0


def both(func, *args, times=3):
    """What `func` gives by itself, and the last time by the same operators."""
    operators = MetaOperators()
    plain = called(func, args, {})
    for _ in range(times):
        done = operators(func, args, {})
    assert (done.traffic_bytes, done.flops) == (plain.traffic_bytes, plain.flops)
    return plain.result, done.result


def same_form(ours, theirs):
    assert (ours.shape, ours.stride(), ours.dtype, ours.device) == (
        theirs.shape,
        theirs.stride(),
        theirs.dtype,
        theirs.device,
    )


def meta(*shape, **how):
    return torch.empty(*shape, device="meta", **how)


def test_forms_are_those_of_the_operator():
    aten, x = torch.ops.aten, meta(2, 8, 6, 10).to(memory_format=torch.channels_last)
    plain, found = both(aten.relu.default, x)
    same_form(found, plain)
    assert found is not x
    plain, found = both(aten.max_pool2d_with_indices.default, x, [3, 3], [2, 2], [1, 1])
    assert isinstance(found, tuple)
    for ours, theirs in zip(found, plain, strict=True):
        same_form(ours, theirs)
    # No gradient of the input, none of the bias.
    given = (meta(2, 4, 6, 10), x, meta(4, 8, 1, 1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    plain, found = both(aten.convolution_backward.default, *given, [False, True, False])
    assert [each is None for each in found] == [each is None for each in plain] == [True, False, True]
    same_form(found[1], plain[1])


def test_equal_numbers_of_different_types_are_different():
    operators, whole = MetaOperators(), meta(3, dtype=torch.int64)
    types = [operators(torch.ops.aten.add.Tensor, (whole, other), {}).result.dtype for other in (1, 1.0, True, 1.0, 1)]
    assert types == [torch.int64, torch.float32, torch.int64, torch.float32, torch.int64]


def test_what_is_written_to_is_returned_itself():
    x, y = meta(3, 4), meta(4)
    for _ in range(2):
        _, found = both(torch.ops.aten.add_.Tensor, x, y)
        assert found is x


def test_views_stay_views():
    x = meta(3, 4)
    _, found = both(torch.ops.aten.view.default, x, [12])
    assert found.untyped_storage()._cdata == x.untyped_storage()._cdata
    # This one does not say that it is one.
    _, found = both(torch.ops.aten._unsafe_view.default, x, [12])
    assert found.untyped_storage()._cdata == x.untyped_storage()._cdata
    _, found = both(torch.ops.aten.unbind.int, x)
    assert [tuple(each.shape) for each in found] == [(4,)] * 3


def test_numbers_are_computed_elsewhere():
    """Only the meta device has no values."""
    operators = MetaOperators()
    for values in ([1.0, 2.0], [3.0, 5.0]):
        done = operators(torch.ops.aten.neg.default, (torch.tensor(values),), {})
        assert done.result.tolist() == [-value for value in values]
    drawn = [operators(torch.ops.aten.rand.default, ([4],), {"device": torch.device("cpu")}).result for _ in range(2)]
    assert not torch.equal(*drawn)


def test_what_changes_an_arguments_form_is_called_each_time():
    operators = MetaOperators()
    for _ in range(3):
        x = meta(3)
        operators(torch.ops.aten.resize_.default, (x, [5]), {})
        assert tuple(x.shape) == (5,)


def test_gradients_reach_every_parameter():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).to("meta")
    operators, found = MetaOperators(), []
    for _ in range(2):
        network.zero_grad(set_to_none=True)
        with Ledger(operators) as ledger:
            network(meta(2, 3, 32, 32)).square().mean().backward()
        for parameter in network.parameters():
            same_form(parameter.grad, parameter)
        found.append((ledger.peak_bytes, ledger.traffic_bytes, ledger.macs))
    assert found[0] == found[1]
    # Forward, by weight, and by input but of the first.
    first, second = 2 * 27 * 8 * 30 * 30, 2 * 72 * 4 * 28 * 28
    assert found[0][2] == 2 * first + 3 * second
