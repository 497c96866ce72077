"""ICNet (Zhao et al. 2018): a pruned PSPNet on a quarter of the resolution, refined twice by shallower branches.

Published: 67.7 % mIoU on Cityscapes val, 69.5 % on test, 30.3 FPS at 1024x2048 on a Titan X (Maxwell)
with Caffe. The network is the one the authors deployed, half as wide as their PSPNet50. All figures with their
sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import AdaptiveAvgPools, ConvNormAct, resize, resize_like
from ..sizes import SizeRule
from . import Baseline
from ._residual import Bottleneck


def _stage(
    in_channels: int, hidden: int, out_channels: int, blocks: int, *, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """`blocks` bottlenecks, the first of which changes width and takes the stride in its first convolution."""
    first = Bottleneck(in_channels, hidden, out_channels, stride, dilation=dilation, stride_first=True)
    rest = (Bottleneck(out_channels, hidden, out_channels, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def _halved(x: Tensor) -> Tensor:
    """Bilinear resize to half of each side, rounded up."""
    height, width = x.shape[-2:]
    return resize(x, ((height + 1) // 2, (width + 1) // 2))


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resize to the size of `like`, which is about twice as large."""
    return resize_like(x, like)


class SummedPyramidPooling(nn.Module):
    """Adds averages over grids of 1, 2, 3 and 6 to the map; keeps N x C x H x W.

    Source: ICNet, after PSPNet; summed and without convolutions in the deployed network. There the grids of 3 and 6 use
    overlapping windows made for 33x65 maps; here, as in PSPNet, adaptive ones for any map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pools = AdaptiveAvgPools((1, 2, 3, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for pooled in self.pools(x):
            y = y + resize_like(pooled, x)
        return y


class CascadeFeatureFusion(nn.Module):
    """A coarse map, enlarged and convolved with dilation 2, added to a projected fine one, ReLU.

    Source: ICNet, the unit CFF.

    Shapes: coarse N x Cc x H/2 x W/2 (rounded up), fine N x Cf x H x W, result N x C x H x W.
    """

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int = 128) -> None:
        super().__init__()
        self.coarse = ConvNormAct(coarse_channels, channels, dilation=2, act=False)
        self.fine = ConvNormAct(fine_channels, channels, 1, act=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return F.relu(self.coarse(_doubled(coarse, fine)) + self.fine(fine))


class ICNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: ICNet, the network and the authors' deployed description of it. The two auxiliary classifiers of training
    are left out. The classifier works at 1/4, on the enlarged map, as in the deployed network. Resizes have half-pixel
    centres, exact where sides are multiples of 32; the authors' align corners, exact at multiples of 32 and one more.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.medium = nn.Sequential(
            ConvNormAct(3, 32, stride=2),
            ConvNormAct(32, 32),
            ConvNormAct(32, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
            _stage(64, 32, 128, blocks=3),
            _stage(128, 64, 256, blocks=1, stride=2),
        )
        self.low = nn.Sequential(
            _stage(256, 64, 256, blocks=3),
            _stage(256, 128, 512, blocks=6, dilation=2),
            _stage(512, 256, 1024, blocks=3, dilation=4),
            SummedPyramidPooling(),
            ConvNormAct(1024, 256, 1),
        )
        self.high = nn.Sequential(
            ConvNormAct(3, 32, stride=2), ConvNormAct(32, 32, stride=2), ConvNormAct(32, 64, stride=2)
        )
        self.fuse_low = CascadeFeatureFusion(256, 256)
        self.fuse_medium = CascadeFeatureFusion(128, 64)
        self.classifier = nn.Conv2d(128, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        medium = self.medium(_halved(x))
        low = self.low(_halved(medium))
        fused = self.fuse_medium(self.fuse_low(low, medium), self.high(x))
        height, width = fused.shape[-2:]
        quarter = resize(fused, (2 * height, 2 * width))
        return resize_like(self.classifier(quarter), x)


BASELINE = Baseline(
    title="ICNet",
    paper="Zhao, Qi, Shen, Shi, Jia; ECCV 2018",
    build=ICNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
