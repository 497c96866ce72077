"""STDC1-Seg (Fan et al. 2021): BiSeNet with a backbone of short-term dense concatenations and no spatial path.

Published: 72.2 % mIoU on Cityscapes val, 71.9 % on test and 250.4 FPS at 512x1024; 74.5 %, 75.3 %
and 126.7 FPS at 768x1536; GTX 1080 Ti, TensorRT 5. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct, resize_like
from ..sizes import SizeRule
from . import Baseline
from ._context_path import ContextPath


class ShortTermDenseConcatenation(nn.Module):
    """Four convolutions in a row, each narrower than the one before, all of them concatenated.

    N x C x H x W to N x C' x H/s x W/s. Source: STDC, section 3.1, figure 3(b) and, for stride 2, figure 3(c).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.first = ConvNormAct(in_channels, half, 1)
        self.down: nn.Module = nn.Identity()
        self.pool: nn.Module = nn.Identity()
        if stride == 2:
            self.down = ConvNormAct(half, half, 3, stride=2, groups=half, act=False)
            self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.rest = nn.ModuleList(
            [ConvNormAct(half, quarter), ConvNormAct(quarter, eighth), ConvNormAct(eighth, eighth)]
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        outputs = [self.pool(first)]
        x = self.down(first)
        for conv in self.rest:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


def _stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two modules, the first of which halves the resolution: STDC1 has two in each of its three stages."""
    return nn.Sequential(
        ShortTermDenseConcatenation(in_channels, out_channels, stride=2),
        ShortTermDenseConcatenation(out_channels, out_channels),
    )


class FeatureFusion(nn.Module):
    """Concatenates two maps, mixes their channels, and adds the result weighted by its own averages.

    Source: STDC, section 3.2, figure 4, after BiSeNet.

    Shapes: detail N x Cd x H x W, context N x Cc x H x W, result N x out x H x W.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = ConvNormAct(in_channels, out_channels, 1)
        self.squeeze = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.excite = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.mix(torch.cat([detail, context], dim=1))
        weight = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True))))
        return x + x * torch.sigmoid(weight)


class STDC1Seg(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: STDC, figure 4 and table 2. The detail head and the two auxiliary heads of training are left out. The
    authors measured speed with a nearest-neighbour resize of the logits; trained and evaluated with this bilinear one.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNormAct(3, 32, stride=2), ConvNormAct(32, 64, stride=2))
        self.stage3 = _stage(64, 256)
        self.stage4 = _stage(256, 512)
        self.stage5 = _stage(512, 1024)
        self.context_path = ContextPath(512, 1024)
        self.fusion = FeatureFusion(256 + 128, 256)
        self.head = nn.Sequential(ConvNormAct(256, 256), nn.Dropout(0.1), nn.Conv2d(256, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        detail = self.stage3(self.stem(x))
        at_16 = self.stage4(detail)
        context = self.context_path(at_16, self.stage5(at_16), like=detail)
        return resize_like(self.head(self.fusion(detail, context)), x)


BASELINE = Baseline(
    title="STDC1-Seg",
    paper="Fan, Lai, Huang, Wei, Chai, Luo, Wei; CVPR 2021",
    build=STDC1Seg,
    size_rule=SizeRule(multiple=8, minimum=32),
)
