"""DFANet-A (Li et al. 2019): three small backbones in a row, each fed with the maps of the one before.

Published: 71.3 % mIoU on Cityscapes test, 7.8 M parameters, 3.4 GMAC and 100 FPS at 1024x1024 on a
Titan X. No public implementation reaches these figures; this one is held to one of them, and is an approximation.
All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline

_WIDTHS = (48, 96, 192)


def _separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 and pointwise convolution, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class XceptionBlock(nn.Module):
    """Three separable convolutions, the first two a quarter as wide, beside a 1x1 projection; N x C' x H/s x W/s.

    Source: DFANet, the block of Xception-A.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        quarter = out_channels // 4
        self.layers = nn.Sequential(
            _separable(in_channels, quarter, stride), _separable(quarter, quarter), _separable(quarter, out_channels)
        )
        self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.projection(x)


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        XceptionBlock(in_channels, out_channels, stride=2),
        *(XceptionBlock(out_channels, out_channels) for _ in range(blocks - 1)),
    )


class FullyConnectedAttention(nn.Module):
    """Scales each channel by a weight computed from the averages of all, through 1000 units; keeps N x C x H x W.

    Source: DFANet, the module "fc attention". The units are those of the backbone's ImageNet classifier.
    """

    def __init__(self, channels: int, units: int = 1000) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, units, 1, bias=False)
        self.weight = nn.Conv2d(units, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(F.relu(self.classify(x.mean(dim=(2, 3), keepdim=True))))
        return x * torch.sigmoid(weight)


class Subnetwork(nn.Module):
    """Three stages and the attention: N x C x H x W to maps of 48, 96, 192 and 192 channels at 1/2, 1/4, 1/8, 1/8.

    Source: DFANet, the backbone Xception-A: stages enc2, enc3 and enc4 of 3, 6 and 3 blocks.

    Args:
        in_channels: C.
        cascaded: each later stage also takes the same stage's input map of the subnetwork before.
    """

    def __init__(self, in_channels: int, *, cascaded: bool) -> None:
        super().__init__()
        extra = _WIDTHS[1:] if cascaded else (0, 0)
        self.stage2 = _stage(in_channels, _WIDTHS[0], 3)
        self.stage3 = _stage(_WIDTHS[0] + extra[0], _WIDTHS[1], 6)
        self.stage4 = _stage(_WIDTHS[1] + extra[1], _WIDTHS[2], 3)
        self.attention = FullyConnectedAttention(_WIDTHS[2])

    def forward(self, x: Tensor, before: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`before` is what the subnetwork before returned, from its second map on."""
        at_2 = self.stage2(x)
        at_4 = self.stage3(at_2 if before is None else torch.cat([at_2, before[0]], dim=1))
        at_8 = self.stage4(at_4 if before is None else torch.cat([at_4, before[1]], dim=1))
        return at_2, at_4, at_8, self.attention(at_8)


class DFANetA(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: DFANet, sub-network and sub-stage aggregation. The paper gives neither widths nor kernels of the decoder:
    these are the ones that reproduce the parameters and MACs of the public implementation. Resizes have half-pixel
    centres, which float32 holds exactly; that implementation aligns corners, the paper does not say.
    """

    def __init__(self, num_classes: int, decoder_channels: int = 64) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 8, stride=2)
        self.first = Subnetwork(8, cascaded=False)
        self.second = Subnetwork(_WIDTHS[0] + _WIDTHS[2], cascaded=True)
        self.third = Subnetwork(_WIDTHS[0] + _WIDTHS[2], cascaded=True)
        width = decoder_channels
        self.fine = nn.ModuleList(ConvNormAct(_WIDTHS[0], width, 1) for _ in range(3))
        self.deep = nn.ModuleList(ConvNormAct(_WIDTHS[2], width, 1) for _ in range(3))
        self.merge = ConvNormAct(width, width)
        self.classifier = nn.Conv2d(width, num_classes, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        fine1, *rest1, deep1 = self.first(self.stem(x))
        fine2, *rest2, deep2 = self.second(_joined(fine1, deep1), tuple(rest1))
        fine3, *_, deep3 = self.third(_joined(fine2, deep2), tuple(rest2))
        fine = _summed(self.fine, (fine1, fine2, fine3), like=fine1)
        deep = _summed(self.deep, (deep1, deep2, deep3), like=fine1)
        return resize_like(self.classifier(self.merge(fine) + deep), x)


def _joined(fine: Tensor, deep: Tensor) -> Tensor:
    """Both maps concatenated at the finer one's resolution."""
    return torch.cat([fine, resize_like(deep, fine)], dim=1)


def _summed(projections: Iterable[nn.Module], maps: Iterable[Tensor], *, like: Tensor) -> Tensor:
    """The sum of all maps, each projected, at the resolution of `like`."""
    first, *others = (resize_like(projection(y), like) for projection, y in zip(projections, maps, strict=True))
    for other in others:
        first = first + other
    return first


BASELINE = Baseline(
    title="DFANet-A",
    paper="Li, Xiong, Fan, Sun; CVPR 2019",
    build=DFANetA,
    size_rule=SizeRule(multiple=8, minimum=32),
)
