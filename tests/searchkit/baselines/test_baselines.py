"""Every baseline runs at every size that it claims, trains, and exports to the same function."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deploy.verify import verify
from searchkit.baselines import BASELINES, Baseline
from searchkit.baselines.enet import maximum_of_four, placed
from searchkit.baselines.swiftnet_r18 import grid_averages
from searchkit.errors import UsageError
from searchkit.sizes import Size

CLASSES = 19


@pytest.fixture(params=BASELINES.names())
def name(request) -> str:
    return request.param


@pytest.fixture
def baseline(name) -> Baseline:
    return BASELINES.load(name)


@functools.cache
def on_meta(name: str) -> nn.Module:
    """The network without memory or arithmetic: shapes and counts only."""
    with torch.device("meta"):
        return BASELINES.load(name).build(CLASSES).eval()


def output_shape(network: nn.Module, size: Size) -> tuple[int, ...]:
    device = next(network.parameters()).device
    with torch.no_grad():
        return tuple(network(torch.zeros(1, 3, *size, device=device)).shape)


@pytest.mark.parametrize(
    ("layer", "by_hand"),
    [
        (nn.Conv2d(16, 96, 3, stride=2, padding=1, groups=16, device="meta"), (4 * 8) * 96 * 9),
        # A transposed convolution works once per input pixel; counting output pixels is the known mistake.
        (nn.ConvTranspose2d(16, 19, 2, stride=2, device="meta"), (8 * 16) * 16 * 19 * 4),
    ],
    ids=["depthwise", "transposed"],
)
def test_counter_agrees_with_a_count_by_hand(layer, by_hand):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.empty(1, 16, 8, 16, device="meta"))
    assert counter.get_total_flops() == 2 * by_hand  # the counter takes a multiply-accumulate for two operations


def test_logits_have_full_resolution(baseline):
    network = baseline.build(CLASSES).eval()
    for wanted in (Size(72, 136), Size(1, 1)):
        size = baseline.size_rule.nearest(wanted)
        assert output_shape(network, size) == (1, CLASSES, *size)


def test_size_rule_takes_only_what_runs(name, baseline):
    rule = baseline.size_rule
    for size in [Size(512, 1024), *(Size(side, 2 * side - 8) for side in (7, 16, 40, 50, 64, 72, 100, 136))]:
        nearest = rule.nearest(size)
        if nearest == size:
            rule.check(size, network=name)
        else:
            with pytest.raises(UsageError, match=f"[Uu]se {nearest}"):
                rule.check(size, network=name)
        assert output_shape(on_meta(name), nearest) == (1, CLASSES, *nearest)


def test_one_step_of_training_changes_every_parameter(baseline):
    torch.manual_seed(0)
    network = baseline.build(CLASSES).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    size = baseline.size_rule.nearest(Size(64, 128))
    loss = nn.functional.cross_entropy(network(torch.randn(2, 3, *size)), torch.randint(CLASSES, (2, *size)))
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is not used"
        assert parameter.grad.isfinite().all(), parameter_name
    optimiser.step()
    assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(("height", "width"), [(16, 32), (2, 4), (3, 7), (9, 18), (8, 4)])
@pytest.mark.parametrize("rows", [8, 4, 2])
def test_averages_over_a_grid_are_adaptive_pooling(height, width, rows):
    x = torch.randn(2, 3, height, width)
    wanted = nn.functional.adaptive_avg_pool2d(x, (rows, 2 * rows))
    torch.testing.assert_close(grid_averages(x, rows, 2 * rows), wanted)


def test_unpooling_by_masks_is_unpooling():
    # Small integers, so that most windows hold their maximum more than once.
    x = torch.randint(3, (2, 5, 8, 12)).float()
    maximum, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
    found, mask = maximum_of_four(x)
    assert torch.equal(found, maximum)
    values = torch.randn_like(maximum)
    assert torch.equal(placed(values, mask), nn.functional.max_unpool2d(values, indices, 2))


@pytest.mark.slow
@pytest.mark.parametrize("io", ["raw", "labels"])
def test_exported_network_is_the_same_function(name, exported, io):
    model = exported(name, io)
    report = verify(model, model.onnx)
    assert report.passed, report.problems
    assert all(comparison.label_agreement > 0.999 for comparison in report.comparisons)
