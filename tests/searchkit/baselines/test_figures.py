"""Every baseline has the size and cost that its sources report, and runs at every size that it claims."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from searchkit.baselines import BASELINES, Baseline
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


def conv_macs(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Multiply-accumulates of convolutions and matrix products; the counter takes each for two operations."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2


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
    assert conv_macs(layer, (1, 16, 8, 16)) == by_hand


def test_has_a_reference(baseline):
    assert baseline.references


def test_params_agree_with_the_references(name, baseline):
    params = sum(p.numel() for p in on_meta(name).parameters())
    for reference in baseline.references:
        assert params == pytest.approx(reference.params, rel=reference.tolerance), reference.source


def test_macs_agree_with_the_references(name, baseline):
    for reference in baseline.references:
        if reference.conv_macs is not None:
            macs = conv_macs(on_meta(name), (1, 3, *reference.size))
            assert macs == pytest.approx(reference.conv_macs, rel=reference.tolerance), reference.source


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


def test_gradients_reach_every_parameter(baseline):
    torch.manual_seed(0)
    network = baseline.build(CLASSES).train()
    network(torch.randn(2, 3, *baseline.size_rule.nearest(Size(64, 128)))).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is not used"
        assert parameter.grad.isfinite().all(), parameter_name
