"""PIDNet-S (Xu et al. 2023): branches for detail, context and boundaries, fused under the boundaries' guidance.

Published: 78.8 % mIoU on Cityscapes val, 78.6 % on test, 7.6 M parameters, 47.6 GMAC and 93.2 FPS at
1024x2048 on an RTX 3090 without BatchNorm. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline
from ._dual_resolution import Stem, pyramid_pools
from ._residual import BasicBlock, Bottleneck, NormActConv, basic_stage


class PixelAttentionGuidedFusion(nn.Module):
    """Takes each pixel from the context where the two maps agree there, from the detail where they do not.

    Source: PIDNet, the module Pag.

    Shapes: detail N x C x H x W, context N x C x h x w, result N x C x H x W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed_detail = ConvNormAct(channels, channels // 2, 1, act=False)
        self.embed_context = ConvNormAct(channels, channels // 2, 1, act=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        agreement = self.embed_detail(detail) * resize_like(self.embed_context(context), detail)
        weight = torch.sigmoid(agreement.shape[1] * agreement.mean(dim=1, keepdim=True))
        return (1 - weight) * detail + weight * resize_like(context, detail)


class ParallelAggregationPyramidPooling(nn.Module):
    """Context of five scales, refined side by side by one grouped convolution; N x C x H x W to N x out x H x W.

    Source: PIDNet, the module PAPPM.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.pools = pyramid_pools()
        scales = len(self.pools)
        self.entries = nn.ModuleList(NormActConv(in_channels, hidden) for _ in range(scales + 1))
        self.refine = NormActConv(hidden * scales, hidden * scales, 3, groups=scales)
        self.merge = NormActConv(hidden * (scales + 1), out_channels)
        self.shortcut = NormActConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        finest = self.entries[0](x)
        coarse = [
            finest + resize_like(entry(pool(x)), x) for pool, entry in zip(self.pools, self.entries[1:], strict=True)
        ]
        refined = self.refine(torch.cat(coarse, dim=1))
        return self.merge(torch.cat([finest, refined], dim=1)) + self.shortcut(x)


class LightBoundaryAttentionGuidedFusion(nn.Module):
    """Detail fills the pixels near boundaries, context the others; all N x C x H x W.

    Source: PIDNet, the module Light-Bag.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNormAct(channels, channels, 1, act=False)
        self.context = ConvNormAct(channels, channels, 1, act=False)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = torch.sigmoid(boundary)
        return self.detail(detail + (1 - edge) * context) + self.context(context + edge * detail)


class PIDNetS(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: PIDNet, the network PIDNet-S. The heads of training, on detail and on boundaries, are left out.
    """

    def __init__(self, num_classes: int, channels: int = 32) -> None:
        super().__init__()
        c = channels
        self.stem = Stem(c)
        self.context3 = basic_stage(2 * c, 4 * c, 3, stride=2)
        self.context4 = basic_stage(4 * c, 8 * c, 3, stride=2)
        self.context5 = nn.Sequential(
            Bottleneck(8 * c, 8 * c, 16 * c, stride=2), Bottleneck(16 * c, 8 * c, 16 * c, act=False)
        )
        self.detail3 = basic_stage(2 * c, 2 * c, 2, act=False)
        self.detail4 = basic_stage(2 * c, 2 * c, 2, act=False)
        self.detail5 = Bottleneck(2 * c, 2 * c, 4 * c, act=False)
        self.boundary3 = BasicBlock(2 * c, c, act=False)
        self.boundary4 = Bottleneck(c, c, 2 * c, act=False)
        self.boundary5 = Bottleneck(2 * c, 2 * c, 4 * c, act=False)
        self.compress3 = ConvNormAct(4 * c, 2 * c, 1, act=False)
        self.compress4 = ConvNormAct(8 * c, 2 * c, 1, act=False)
        self.fuse3 = PixelAttentionGuidedFusion(2 * c)
        self.fuse4 = PixelAttentionGuidedFusion(2 * c)
        self.difference3 = ConvNormAct(4 * c, c, act=False)
        self.difference4 = ConvNormAct(8 * c, 2 * c, act=False)
        self.pyramid = ParallelAggregationPyramidPooling(16 * c, 96, 4 * c)
        self.fuse5 = LightBoundaryAttentionGuidedFusion(4 * c)
        self.head = nn.Sequential(NormActConv(4 * c, 4 * c, 3), NormActConv(4 * c, num_classes, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        shared = self.stem(x)
        context, detail, boundary = self.context3(shared), self.detail3(shared), self.boundary3(shared)
        detail = self.fuse3(detail, self.compress3(context))
        boundary = boundary + resize_like(self.difference3(context), boundary)
        context, detail = self.context4(context), self.detail4(F.relu(detail))
        boundary = self.boundary4(F.relu(boundary))
        detail = self.fuse4(detail, self.compress4(context))
        boundary = boundary + resize_like(self.difference4(context), boundary)
        detail, boundary = self.detail5(F.relu(detail)), self.boundary5(F.relu(boundary))
        context = resize_like(self.pyramid(self.context5(context)), detail)
        return resize_like(self.head(self.fuse5(detail, context, boundary)), x)


BASELINE = Baseline(
    title="PIDNet-S",
    paper="Xu, Xiong, Bhattacharyya; CVPR 2023",
    build=PIDNetS,
    size_rule=SizeRule(multiple=8, minimum=32),
)
