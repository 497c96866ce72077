"""BiSeNetV2 (Yu et al. 2021): a wide, shallow branch for detail and a narrow, deep one for meaning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline


class DetailBranch(nn.Sequential):
    """N x 3 x H x W to N x 128 x H/8 x W/8 by plain 3x3 convolutions.

    Source: BiSeNetV2, section 4.1, table 1.
    """

    def __init__(self) -> None:
        super().__init__(
            ConvNormAct(3, 64, stride=2),
            ConvNormAct(64, 64),
            ConvNormAct(64, 64, stride=2),
            ConvNormAct(64, 64),
            ConvNormAct(64, 64),
            ConvNormAct(64, 128, stride=2),
            ConvNormAct(128, 128),
            ConvNormAct(128, 128),
        )


class Stem(nn.Module):
    """N x 3 x H x W to N x 16 x H/4 x W/4, shrinking by a convolution and by a max-pool side by side.

    Source: BiSeNetV2, section 4.2, figure 4(a).
    """

    def __init__(self) -> None:
        super().__init__()
        self.entry = ConvNormAct(3, 16, stride=2)
        self.conv = nn.Sequential(ConvNormAct(16, 8, 1), ConvNormAct(8, 16, stride=2))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.merge = ConvNormAct(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        return self.merge(torch.cat([self.conv(x), self.pool(x)], dim=1))


class GatherExpansion(nn.Module):
    """A 3x3 convolution, a depthwise one to six times the width, a projection back; keeps N x C x H x W.

    Source: BiSeNetV2, section 4.2, figure 5(b).
    """

    def __init__(self, channels: int, expansion: int = 6) -> None:
        super().__init__()
        hidden = channels * expansion
        self.layers = nn.Sequential(
            ConvNormAct(channels, channels),
            ConvNormAct(channels, hidden, groups=channels),
            ConvNormAct(hidden, channels, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + x)


class GatherExpansionDown(nn.Module):
    """The same at half the resolution: N x C x H x W to N x C' x H/2 x W/2, by two depthwise convolutions.

    Source: BiSeNetV2, section 4.2, figure 5(c).
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int = 6) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, in_channels),
            ConvNormAct(in_channels, hidden, stride=2, groups=in_channels, act=False),
            ConvNormAct(hidden, hidden, groups=hidden),
            ConvNormAct(hidden, out_channels, 1, act=False),
        )
        self.shortcut = nn.Sequential(
            ConvNormAct(in_channels, in_channels, stride=2, groups=in_channels, act=False),
            ConvNormAct(in_channels, out_channels, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """Adds the average of the whole map to every pixel; keeps N x C x H x W.

    Source: BiSeNetV2, section 4.2, figure 4(b).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.context = ConvNormAct(channels, channels, 1)
        self.merge = ConvNormAct(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        context = self.context(self.norm(x.mean(dim=(2, 3), keepdim=True)))
        return self.merge(x + context)


class SemanticBranch(nn.Sequential):
    """N x 3 x H x W to N x 128 x H/32 x W/32.

    Source: BiSeNetV2, section 4.2, table 1.
    """

    def __init__(self) -> None:
        super().__init__(
            Stem(),
            GatherExpansionDown(16, 32),
            GatherExpansion(32),
            GatherExpansionDown(32, 64),
            GatherExpansion(64),
            GatherExpansionDown(64, 128),
            *(GatherExpansion(128) for _ in range(3)),
            ContextEmbedding(128),
        )


def _separable(channels: int) -> nn.Sequential:
    """Depthwise 3x3 with BatchNorm, then a bare 1x1: the path of either branch that keeps its resolution."""
    return nn.Sequential(
        ConvNormAct(channels, channels, groups=channels, act=False),
        nn.Conv2d(channels, channels, 1, bias=False),
    )


class BilateralGuidedAggregation(nn.Module):
    """Each branch gates the other, at the resolution of both.

    Source: BiSeNetV2, section 4.3, figure 6.

    Shapes: detail N x C x H x W, semantic N x C x H/4 x W/4 (rounded up), result N x C x H x W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_keep = _separable(channels)
        self.detail_down = nn.Sequential(
            ConvNormAct(channels, channels, stride=2, act=False),
            nn.AvgPool2d(3, stride=2, padding=1),
        )
        self.semantic_up = ConvNormAct(channels, channels, act=False)
        self.semantic_keep = _separable(channels)
        self.merge = ConvNormAct(channels, channels, act=False)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        gate = torch.sigmoid(resize_like(self.semantic_up(semantic), detail))
        fine = self.detail_keep(detail) * gate
        coarse = self.detail_down(detail) * torch.sigmoid(self.semantic_keep(semantic))
        return self.merge(fine + resize_like(coarse, detail))


class BiSeNetV2(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: BiSeNetV2, figure 3. The booster heads of training are left out. The paper does not give the width
    of the segmentation head; 1024 is that of the public implementations, and makes it 40 % of the work.
    """

    def __init__(self, num_classes: int, head_channels: int = 1024) -> None:
        super().__init__()
        self.detail = DetailBranch()
        self.semantic = SemanticBranch()
        self.aggregation = BilateralGuidedAggregation(128)
        self.head = nn.Sequential(
            ConvNormAct(128, head_channels),
            nn.Dropout(0.1),
            nn.Conv2d(head_channels, num_classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        fused = self.aggregation(self.detail(x), self.semantic(x))
        return resize_like(self.head(fused), x)


BASELINE = Baseline(
    title="BiSeNetV2",
    paper="Yu, Gao, Wang, Yu, Shen, Sang; IJCV 2021",
    build=BiSeNetV2,
    size_rule=SizeRule(multiple=8, minimum=32),
)
