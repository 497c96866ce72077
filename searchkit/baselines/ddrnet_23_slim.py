"""DDRNet-23-slim (Pan et al. 2021): two branches of different resolution that exchange maps twice.

Published: 77.8 % mIoU on Cityscapes val, 77.4 % on test, 5.7 M parameters, 36.3 GMAC and 101.6 FPS at
1024x2048 on an RTX 2080 Ti without BatchNorm. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline
from ._dual_resolution import Stem, pyramid_pools
from ._residual import Bottleneck, NormActConv, basic_stage


class DeepAggregationPyramidPooling(nn.Module):
    """Context of five scales, each refined with the help of the next finer one; N x C x H x W to N x out x H x W.

    Source: DDRNet, the module DAPPM.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.pools = pyramid_pools()
        self.entries = nn.ModuleList(NormActConv(in_channels, hidden) for _ in range(len(self.pools) + 1))
        self.refine = nn.ModuleList(NormActConv(hidden, hidden, 3) for _ in self.pools)
        self.merge = NormActConv(hidden * (len(self.pools) + 1), out_channels)
        self.shortcut = NormActConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.entries[0](x)]
        for pool, entry, refine in zip(self.pools, self.entries[1:], self.refine, strict=True):
            maps.append(refine(resize_like(entry(pool(x)), x) + maps[-1]))
        return self.merge(torch.cat(maps, dim=1)) + self.shortcut(x)


class DDRNet23Slim(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: DDRNet, the network DDRNet-23-slim. The auxiliary head of training is left out.
    """

    def __init__(self, num_classes: int, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.stem = Stem(c)
        self.low3 = basic_stage(2 * c, 4 * c, 2, stride=2, act=False)
        self.low4 = basic_stage(4 * c, 8 * c, 2, stride=2, act=False)
        self.low5 = Bottleneck(8 * c, 8 * c, 16 * c, stride=2, act=False)
        self.high3 = basic_stage(2 * c, 2 * c, 2, act=False)
        self.high4 = basic_stage(2 * c, 2 * c, 2, act=False)
        self.high5 = Bottleneck(2 * c, 2 * c, 4 * c, act=False)
        self.down3 = ConvNormAct(2 * c, 4 * c, stride=2, act=False)
        self.down4 = nn.Sequential(ConvNormAct(2 * c, 4 * c, stride=2), ConvNormAct(4 * c, 8 * c, stride=2, act=False))
        self.compress3 = ConvNormAct(4 * c, 2 * c, 1, act=False)
        self.compress4 = ConvNormAct(8 * c, 2 * c, 1, act=False)
        self.pyramid = DeepAggregationPyramidPooling(16 * c, 128, 4 * c)
        self.head = nn.Sequential(NormActConv(4 * c, 2 * c, 3), NormActConv(2 * c, num_classes, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        shared = self.stem(x)
        low, high = self.low3(shared), self.high3(shared)
        low, high = (
            low + self.down3(F.relu(high)),
            high + resize_like(self.compress3(F.relu(low)), high),
        )
        low, high = self.low4(F.relu(low)), self.high4(F.relu(high))
        low, high = (
            low + self.down4(F.relu(high)),
            high + resize_like(self.compress4(F.relu(low)), high),
        )
        high = self.high5(F.relu(high))
        context = self.pyramid(self.low5(F.relu(low)))
        return resize_like(self.head(high + resize_like(context, high)), x)


BASELINE = Baseline(
    title="DDRNet-23-slim",
    paper="Pan, Hong, Sun, Jia; IEEE Transactions on Intelligent Transportation Systems 2023, arXiv 2021",
    build=DDRNet23Slim,
    size_rule=SizeRule(multiple=8, minimum=32),
)
