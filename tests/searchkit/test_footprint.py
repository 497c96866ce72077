"""Footprints against small modules whose maps can be counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchkit.cost import Cost, Stage, StageCounter, shrink
from searchkit.errors import UsageError
from searchkit.footprint import PeakMemory, count_params, on_meta
from searchkit.sizes import Size

SIZE = Size(8, 16)
PIXELS = 8 * 16
FLOAT = 4


def peak(module: nn.Module) -> int:
    return on_meta(module.to("meta").eval(), SIZE).activation_bytes


def test_one_convolution_holds_its_input_and_its_output():
    assert peak(nn.Conv2d(3, 5, 3, padding=1)) == FLOAT * PIXELS * (3 + 5)


def test_what_is_no_longer_needed_is_not_counted():
    """The caller keeps the image; a map dies as soon as the next is there."""
    chain = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Conv2d(10, 20, 1), nn.Conv2d(20, 1, 1))
    assert peak(chain) == FLOAT * PIXELS * (3 + 10 + 20)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 10, 1), nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.wide(x)
        return kept + F.relu(F.relu(F.relu(kept)))


def test_a_map_that_is_kept_for_later_is_counted():
    # The image, the kept map, the last ReLU but one or the last, and the sum or the one before.
    assert peak(Skip()) == FLOAT * PIXELS * (3 + 10 + 10 + 10)


class Views(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, :1], x.permute(0, 2, 3, 1), x.view(1, -1)]
        parts[2].add_(1)
        return parts[0]


def test_views_and_changes_in_place_take_nothing():
    assert peak(Views()) == FLOAT * PIXELS * 3


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.half()


def test_bytes_follow_the_type():
    assert peak(Half()) == PIXELS * 3 * (4 + 2)


def test_weights_and_what_was_made_outside_are_not_counted():
    x, layer = torch.zeros(1, 3, 4, 4), nn.Conv2d(3, 2, 1)
    with PeakMemory() as memory, torch.no_grad():
        layer(x)
    assert memory.peak_bytes == FLOAT * 16 * 2


def test_nothing_run_is_nothing_held():
    with PeakMemory() as memory:
        pass
    assert memory.peak_bytes == 0


def test_cost_of_a_small_module_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
    )
    cost = on_meta(module.to("meta").eval(), SIZE)
    assert cost.params == 3 * 8 * 9 + 2 * 8 + (8 * 2 * 9 + 8) + (8 * 4 * 4 + 4)
    assert cost.conv_macs == (PIXELS // 4) * (3 * 8 * 9 + 8 * 2 * 9 + 8 * 4 * 4)


def test_matrix_products_are_counted_and_shared_parameters_once():
    linear = nn.Linear(16, 5)
    module = nn.Sequential(nn.Linear(16, 16), linear)
    module.again = linear
    assert count_params(module) == 16 * 16 + 16 + 16 * 5 + 5
    assert on_meta(nn.Sequential(nn.Linear(16, 5)).to("meta").eval(), SIZE).conv_macs == 3 * 8 * 16 * 5


def test_stage_counter_by_hand():
    counter = StageCounter("part")
    half = counter.conv(3, 8, (3, 3), Size(9, 16), stride=2, bias=True, norm=False)
    assert half == Size(5, 8)
    counter.norm(8)
    assert counter.conv(8, 2, (3, 1), half) == half
    stage = counter.stage()
    assert (stage.name, stage.params) == ("part", 3 * 8 * 9 + 8 + 16 + 8 * 2 * 3 + 4)
    assert stage.conv_macs == 40 * (3 * 8 * 9 + 8 * 2 * 3)
    assert stage.layer_elements == 3 * 9 * 16 + 8 * 40
    counter.resize(2, half, Size(20, 32))
    assert counter.stage().layer_elements == 2 * (40 + 640)
    assert (counter.stage().params, counter.stage().conv_macs) == (stage.params, stage.conv_macs)


@pytest.mark.parametrize(("side", "stride", "out"), [(8, 2, 4), (9, 2, 5), (1, 2, 1), (7, 1, 7), (9, 4, 3)])
def test_shrink_rounds_up(side, stride, out):
    assert shrink(Size(side, 8), stride) == Size(out, -(-8 // stride))
    assert nn.Conv2d(1, 1, 3, stride, padding=1)(torch.zeros(1, 1, side, 8)).shape[2] == out


def test_costs_add_up_and_the_largest_layer_counts():
    stages = [Stage("a", 1, 10, 100), Stage("b", 2, 20, 300), Stage("c", 3, 30, 200)]
    assert Cost.of(iter(stages)) == Cost(params=6, conv_macs=60, activation_bytes=1200)
    assert Cost.of([]) == Cost(0, 0, 0)


LIMITS = Cost(params=500_000_000, conv_macs=10**13, activation_bytes=16 * 2**30)


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("params", "parameters (got '500,000,001'; allowed: at most 500,000,000). Narrow the network"),
        (
            "conv_macs",
            "multiply-accumulates (got '10,000,000,000,001'; allowed: at most 10,000,000,000,000). Narrow the network "
            "or use a smaller input",
        ),
        (
            "activation_bytes",
            "activation memory (got '17,179,869,185 bytes'; allowed: at most 17,179,869,184 bytes). Narrow the network "
            "or use a smaller input",
        ),
    ],
)
def test_limits_are_held_exactly(field, what):
    LIMITS.check(network="net")
    over = Cost(**(vars(LIMITS) | {field: getattr(LIMITS, field) + 1}))
    with pytest.raises(UsageError) as caught:
        over.check(network="net")
    assert str(caught.value) == f"net: too large: {what}."
