"""The tree that `searchkit show` prints, against values that were worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from searchkit.anatomy import Reach, dissect
from searchkit.blocks import AdaptiveAvgPools, resize
from searchkit.footprint import on_meta
from searchkit.networks import known_names, resolve
from searchkit.sizes import Size

SIZE = Size(64, 96)


def sees(*layers):
    """Receptive field of the last of `layers`, at a 64x96 input."""
    with torch.device("meta"):
        return dissect(nn.Sequential(*layers).eval(), SIZE).receptive_field_px


def conv(kernel, stride=1, dilation=1, padding=0):
    with torch.device("meta"):
        return nn.Conv2d(3, 3, kernel, stride, padding, dilation=dilation)


def deconv(kernel, stride):
    with torch.device("meta"):
        return nn.ConvTranspose2d(3, 3, kernel, stride)


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def scaled(factor, mode="bilinear"):
    return Call(lambda x: F.interpolate(x, scale_factor=factor, mode=mode))


# Each value sees kernel pixels; behind it, every further kernel adds (kernel - 1) times the step between values.
BY_HAND = {
    "nothing": ([nn.Identity()], (1, 1)),
    "1x1": ([conv(1)], (1, 1)),
    "3x3": ([conv(3)], (3, 3)),
    "3x1": ([conv((3, 1))], (3, 1)),
    "two 3x3": ([conv(3), conv(3)], (5, 5)),
    "7x7 then 3x3": ([conv(7), conv(3)], (9, 9)),
    "padding adds nothing": ([conv(3, padding=1), conv(3, padding=1)], (5, 5)),
    "3x3 dilated by 4": ([conv(3, dilation=4)], (9, 9)),
    "3x3 dilated by 1x4": ([conv(3, dilation=(1, 4))], (3, 9)),
    "stride 2": ([conv(3, 2)], (3, 3)),
    "3x3 behind stride 2": ([conv(3, 2), conv(3)], (7, 7)),
    "3x3 dilated by 2 behind stride 2": ([conv(3, 2), conv(3, dilation=2)], (11, 11)),
    "stride 2x1": ([conv(3, (2, 1)), conv(3)], (7, 5)),
    "three of stride 2": ([conv(3, 2), conv(3, 2), conv(3, 2)], (15, 15)),
    "max pool": ([nn.MaxPool2d(2), conv(3)], (6, 6)),
    "max pool of stride 1": ([nn.MaxPool2d(3, 1), conv(3)], (5, 5)),
    "average pool": ([nn.AvgPool2d(2), conv(3)], (6, 6)),
    "average pool 3x1": ([nn.AvgPool2d((3, 1)), conv(3)], (9, 3)),
    "average pool as a function": ([Call(lambda x: F.avg_pool2d(x, 2, stride=2)), conv(3)], (6, 6)),
    "max pool as a function": ([Call(lambda x: F.max_pool2d(x, 3, 2, 1)), conv(3)], (7, 7)),
    # Two inputs, one step apart, then half a step between values.
    "bilinear twice": ([conv(3, 2), scaled(2), conv(3)], (3 + 2 + 2, 3 + 2 + 2)),
    "nearest twice": ([conv(3, 2), scaled(2, "nearest"), conv(3)], (3 + 2, 3 + 2)),
    "bilinear by half": ([scaled(0.5), conv(3)], (1 + 1 + 4, 1 + 1 + 4)),
    # Each output of a deconvolution sees ceil(kernel / stride) inputs.
    "deconvolution 2, stride 2": ([conv(3, 2), deconv(2, 2), conv(3)], (3 + 0 + 2, 3 + 0 + 2)),
    "deconvolution 3, stride 2": ([conv(3, 2), deconv(3, 2), conv(3)], (3 + 2 + 2, 3 + 2 + 2)),
    "deconvolution 5, stride 2": ([conv(3, 2), deconv(5, 2)], (3 + 4, 3 + 4)),
    "global pool": ([nn.AdaptiveAvgPool2d(1)], (64, 96)),
    "global mean": ([Call(lambda x: x.mean((2, 3), keepdim=True))], (64, 96)),
    "global mean, flat": ([Call(lambda x: x.mean((-1, -2)))], (64, 96)),
    "mean of all": ([Call(lambda x: x.mean())], (64, 96)),
    "mean of rows": ([Call(lambda x: x.mean(2))], (64, 1)),
    "mean of columns": ([Call(lambda x: x.mean(dim=-1, keepdim=True))], (1, 96)),
    "mean of channels": ([Call(lambda x: x.mean(1))], (1, 1)),
    "mean of channels, kept": ([conv(3), Call(lambda x: x.mean(dim=1, keepdim=True))], (3, 3)),
    "global pool behind a convolution": ([conv(3, padding=1), nn.AdaptiveAvgPool2d(1)], (66, 98)),
    "global pool, spread again": ([nn.AdaptiveAvgPool2d(1), Call(lambda x: resize(x, SIZE))], (64, 96)),
    "pool to 2x3": ([nn.AdaptiveAvgPool2d((2, 3))], (32, 32)),
    # 64 rows in 6 bins: the second covers rows 10 to 21; 96 columns in 6 are 16 each.
    "pool to 6": ([nn.AdaptiveAvgPool2d(6)], (12, 16)),
    "element by element": ([conv(3), nn.BatchNorm2d(3, device="meta"), nn.ReLU(), nn.Dropout2d()], (3, 3)),
    "padded and cut": ([conv(3), Call(lambda x: F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:])], (3, 3)),
    "the wider of two": ([Call(lambda x: torch.cat([x[:, :, 2:, 2:], F.avg_pool2d(x, 3, 1)], 1))], (3, 3)),
    "a residual": ([Call(lambda x: x + F.max_pool2d(x, 5, 1, 2))], (5, 5)),
}


@pytest.mark.parametrize(("layers", "expected"), BY_HAND.values(), ids=BY_HAND.keys())
def test_receptive_field(layers, expected):
    assert sees(*layers) == expected


def test_reach_through():
    reach = Reach((1, 1), (1, 1)).through((3, 5), (2, 1)).through((3, 3), (1, 4))
    assert reach == Reach((7, 7), (2, 4))


def fields(part, prefix=""):
    found = {f"{prefix}{part.name}": part.receptive_field_px}
    for child in part.children:
        found |= fields(child, f"{prefix}{part.name}.")
    return found


def test_receptive_fields_of_ssr():
    found = fields(dissect(resolve("ssr").build_on_meta(), Size(512, 1024)))
    # A 3x3 convolution of stride 2.
    assert found["SSRNet.stem"] == (3, 3)
    # Another: 3 + 2 x 2 = 7, steps of 4; then four pairs of 3x1 and 1x3, each 2 x 4 further: 7 + 4 x 8 = 39.
    assert found["SSRNet.stage4.0"] == (7, 7)
    assert found["SSRNet.stage4"] == (39, 39)
    # The third: 39 + 2 x 4 = 47, steps of 8. The first layer pools by 2 (8 more, steps of 16), is dilated by 4
    # (2 x 4 x 16 = 128 more) and resized back (16 more): 47 + 8 + 128 + 16 = 199.
    assert found["SSRNet.stage8.0"] == (47, 47)
    assert found["SSRNet.stage8.1"] == (199, 199)
    # Dilations 2, 1, 4, 8, 2, 8, 16 at steps of 8: 2 x 8 x 41 = 656. The last pools again: 8 + 2 x 2 x 16 + 16 = 88.
    assert found["SSRNet.stage8"] == (199 + 656 + 88, 199 + 656 + 88)


@pytest.mark.parametrize("name", known_names())
def test_the_root_has_the_cost_of_the_network_and_its_parts_add_up(name):
    network = resolve(name)
    size = network.size_rule.nearest(Size(64, 128))
    module = network.build_on_meta()
    root, cost = dissect(module, size, depth=8), on_meta(module, size)
    assert (root.params, root.conv_macs) == (cost.params, cost.conv_macs)
    assert root.name == root.kind == type(module).__name__
    assert root.output_shape == tuple(module(torch.empty(1, 3, *size, device="meta")).shape)
    parts = [root]
    while parts:
        part = parts.pop()
        if part.children:
            assert sum(child.params for child in part.children) == part.params, part.name
            assert sum(child.conv_macs for child in part.children) == part.conv_macs, part.name
        parts += part.children


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_depth(depth):
    def levels(part):
        return 1 + max(map(levels, part.children)) if part.children else 0

    root = dissect(resolve("ssr").build_on_meta(), SIZE, depth=depth)
    assert levels(root) == depth
    full = dissect(resolve("ssr").build_on_meta(), SIZE, depth=9)
    assert (root.params, root.conv_macs) == (full.params, full.conv_macs)


def test_a_container_that_is_never_called_has_the_cost_of_its_parts():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)])

        def forward(self, x):
            return torch.cat([branch(x) for branch in self.branches], dim=1)

    with torch.device("meta"):
        root = dissect(Branches(), SIZE)
    (branches,) = root.children
    assert branches.receptive_field_px is None
    assert branches.output_shape is None
    assert branches.conv_macs == root.conv_macs == 64 * 96 * (3 * 4 + 3 * 5 * 9)
    assert [child.name for child in branches.children] == ["0", "1"]


def test_a_part_without_weights_is_left_out():
    with torch.device("meta"):
        root = dissect(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), AdaptiveAvgPools((1,))), SIZE)
    assert [child.kind for child in root.children] == ["Conv2d"]


def test_dissecting_leaves_no_hooks():
    module = resolve("ssr").build_on_meta()
    dissect(module, SIZE)
    assert not any(layer._forward_hooks for layer in module.modules())


def test_as_a_tree():
    root = dissect(resolve("ssr-baseline1").build_on_meta(), SIZE, depth=1)
    tree = root.to_tree()
    assert list(tree) == ["name", "kind", "params", "conv_macs", "output_shape", "receptive_field_px", "children"]
    assert tree["output_shape"] == [1, 19, 8, 12]
    assert [child["name"] for child in tree["children"]] == ["stem", "stage4", "stage8", "head"]
