"""Fast-SCNN (Poudel et al. 2019): two branches that share the first layers, depthwise nearly throughout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import AdaptiveAvgPools, ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline

# The paper does not say; the implementation whose figures we hold to aligns corners in every resize.
_ALIGN_CORNERS = True


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3x3, BatchNorm, pointwise, BatchNorm, ReLU; stride s gives N x C' x H/s x W/s.

    Source: Fast-SCNN, section 3.2.1, which leaves out the nonlinearity between the two.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels, act=False),
            ConvNormAct(in_channels, out_channels, 1),
        )


class InvertedResidual(nn.Module):
    """MobileNetV2's bottleneck with expansion 6; stride s gives N x C' x H/s x W/s.

    Source: Fast-SCNN, section 3.2.2, table 2. The input is added where its shape allows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6) -> None:
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


class PyramidPooling(nn.Module):
    """Context of four scales beside the input, merged by a 1x1 convolution; keeps N x C x H x W.

    Source: Fast-SCNN, section 3.2.2, after PSPNet; each of the four branches has C/4 channels.
    """

    def __init__(self, channels: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        branch = channels // len(bins)
        self.pools = AdaptiveAvgPools(bins)
        self.branches = nn.ModuleList(ConvNormAct(channels, branch, 1) for _ in bins)
        self.merge = ConvNormAct(channels + branch * len(bins), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [conv(pool) for conv, pool in zip(self.branches, self.pools(x), strict=True)]
        resized = [resize_like(context, x, align_corners=_ALIGN_CORNERS) for context in pooled]
        return self.merge(torch.cat([x, *resized], dim=1))


class FeatureFusion(nn.Module):
    """Adds the deep map to the shallow one, at the shallow one's resolution.

    Source: Fast-SCNN, section 3.2.3, table 3.

    Shapes: shallow N x Cs x H x W, deep N x Cd x H/4 x W/4 (rounded up), result N x out x H x W.
    """

    def __init__(self, shallow_channels: int, deep_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shallow = nn.Sequential(nn.Conv2d(shallow_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.deep = nn.Sequential(
            ConvNormAct(deep_channels, deep_channels, 3, groups=deep_channels),
            nn.Conv2d(deep_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        deep = resize_like(deep, shallow, align_corners=_ALIGN_CORNERS)
        return F.relu(self.shallow(shallow) + self.deep(deep))


def _stage(in_channels: int, out_channels: int, stride: int, blocks: int = 3) -> nn.Sequential:
    """`blocks` inverted residuals, the first of which changes width and resolution."""
    return nn.Sequential(
        InvertedResidual(in_channels, out_channels, stride),
        *(InvertedResidual(out_channels, out_channels) for _ in range(blocks - 1)),
    )


class FastSCNN(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: Fast-SCNN, figure 1 and table 1. The auxiliary classifier of training is left out.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.learning_to_downsample = nn.Sequential(
            # The reference does not pad this one and so loses a row and a column; padded, sizes stay exact.
            ConvNormAct(3, 32, 3, stride=2),
            DepthwiseSeparable(32, 48, stride=2),
            DepthwiseSeparable(48, 64, stride=2),
        )
        self.global_features = nn.Sequential(
            _stage(64, 64, stride=2),
            _stage(64, 96, stride=2),
            _stage(96, 128, stride=1),
            PyramidPooling(128),
        )
        self.fusion = FeatureFusion(64, 128, 128)
        self.classifier = nn.Sequential(
            DepthwiseSeparable(128, 128),
            DepthwiseSeparable(128, 128),
            nn.Dropout(0.1),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.learning_to_downsample(x)
        deep = self.global_features(shallow)
        logits = self.classifier(self.fusion(shallow, deep))
        return resize_like(logits, x, align_corners=_ALIGN_CORNERS)


BASELINE = Baseline(
    title="Fast-SCNN",
    paper="Poudel, Liwicki, Cipolla; BMVC 2019",
    build=FastSCNN,
    size_rule=SizeRule(multiple=8, minimum=32),
)
