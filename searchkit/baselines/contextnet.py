"""ContextNet (Poudel et al. 2018): a deep branch on a quarter of the resolution beside a shallow one on all of it.

Published: 65.9 % mIoU on Cityscapes val, 66.1 % on test, 0.85 M parameters, 18.3 FPS at 1024x2048 on a
Titan X (Maxwell). All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize, resize_like
from ..sizes import SizeRule
from . import Baseline


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3 and pointwise convolution, BatchNorm and ReLU after each; N x C' x H/s x W/s."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels),
            ConvNormAct(in_channels, out_channels, 1),
        )


class BottleneckResidual(nn.Module):
    """Expansion, depthwise 3x3, projection without nonlinearity; N x C x H x W to N x C' x H/s x W/s.

    Source: ContextNet, the bottleneck residual block, after MobileNetV2. The input is added where its shape allows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, hidden, 1),
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden),
            ConvNormAct(hidden, out_channels, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.adds_input else y


class DeepBranch(nn.Sequential):
    """N x 3 x H x W, the shrunk image, to N x 128 x H/8 x W/8.

    Source: ContextNet, the table of branch 4: expansion, channels, number and stride of the blocks of each row.
    """

    ROWS = ((1, 32, 1, 1), (6, 32, 1, 1), (6, 48, 3, 2), (6, 64, 3, 2), (6, 96, 2, 1), (6, 128, 2, 1))

    def __init__(self) -> None:
        layers: list[nn.Module] = [ConvNormAct(3, 32, stride=2)]
        channels = 32
        for expansion, out_channels, blocks, stride in self.ROWS:
            for i in range(blocks):
                layers.append(BottleneckResidual(channels, out_channels, stride if i == 0 else 1, expansion))
                channels = out_channels
        super().__init__(*layers)


class FeatureFusion(nn.Module):
    """Adds the deep map to the shallow one, at the shallow one's resolution.

    Source: ContextNet, the feature fusion unit.

    Shapes: shallow N x C x H x W, deep N x C x H/4 x W/4 (rounded up), result N x C x H x W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.deep = nn.Sequential(
            ConvNormAct(channels, channels, 3, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        deep = resize_like(deep, shallow)
        return F.relu(self.shallow(shallow) + self.deep(deep))


class ContextNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: ContextNet, the variant cn14 (branches at full and at quarter resolution). The two separable convolutions in
    front of the classifier are those of the public implementation. The auxiliary head of training is left out. Resizes
    have half-pixel centres, which float32 holds exactly; that implementation aligns corners, the paper does not say.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(
            ConvNormAct(3, 32, stride=2),
            DepthwiseSeparable(32, 64, stride=2),
            DepthwiseSeparable(64, 128, stride=2),
            DepthwiseSeparable(128, 128),
        )
        self.deep = DeepBranch()
        self.fusion = FeatureFusion(128)
        self.classifier = nn.Sequential(
            DepthwiseSeparable(128, 128),
            DepthwiseSeparable(128, 128),
            nn.Dropout(0.1),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        quarter = resize(x, (x.shape[-2] // 4, x.shape[-1] // 4))
        logits = self.classifier(self.fusion(self.shallow(x), self.deep(quarter)))
        return resize_like(logits, x)


BASELINE = Baseline(
    title="ContextNet",
    paper="Poudel, Bonde, Liwicki, Zach; BMVC 2018",
    build=ContextNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
