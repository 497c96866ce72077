"""BiSeNet with ResNet-18 (Yu et al. 2018): a shallow path that keeps detail beside a deep one that sees context.

Published: 74.8 % mIoU on Cityscapes val, 74.7 % on test, 65.5 FPS at 768x1536 on a Titan Xp. The paper's
49.0 M parameters are the megabytes of its weights. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline
from ._context_path import ContextPath
from ._residual import ResNet18


class SpatialPath(nn.Sequential):
    """N x 3 x H x W to N x 128 x H/8 x W/8 by three strided convolutions.

    Source: BiSeNet, section 3.1. The 7x7 kernel and the last 1x1 convolution are those of the public implementations.
    """

    def __init__(self) -> None:
        super().__init__(
            ConvNormAct(3, 64, 7, stride=2),
            ConvNormAct(64, 64, stride=2),
            ConvNormAct(64, 64, stride=2),
            ConvNormAct(64, 128, 1),
        )


class FeatureFusion(nn.Module):
    """Concatenates two maps, mixes their channels, and adds the result weighted by its own averages.

    Source: BiSeNet, section 3.3, figure 2(c), with the single BatchNormed 1x1 convolution of the public implementations
    in place of the figure's two.

    Shapes: detail and context N x C x H x W each, result N x 2C x H x W.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = ConvNormAct(2 * channels, 2 * channels, 1)
        self.weight = ConvNormAct(2 * channels, 2 * channels, 1, act=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.mix(torch.cat([detail, context], dim=1))
        return x + x * torch.sigmoid(self.weight(x.mean(dim=(2, 3), keepdim=True)))


class BiSeNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: BiSeNet, figure 2. The two auxiliary heads of training are left out.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.spatial_path = SpatialPath()
        self.backbone = ResNet18()
        self.context_path = ContextPath(256, 512)
        self.fusion = FeatureFusion(128)
        self.head = nn.Sequential(ConvNormAct(256, 256), nn.Dropout(0.1), nn.Conv2d(256, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        detail = self.spatial_path(x)
        *_, at_16, at_32 = (F.relu(y) for y in self.backbone(x))
        context = self.context_path(at_16, at_32, like=detail)
        return resize_like(self.head(self.fusion(detail, context)), x)


BASELINE = Baseline(
    title="BiSeNet-R18",
    paper="Yu, Wang, Peng, Gao, Yu, Sang; ECCV 2018",
    build=BiSeNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
