"""SwiftNet with ResNet-18, single scale (Orsic et al. 2019): a pre-trained backbone and a light ladder back up.

Published: 75.4 % mIoU on Cityscapes val, 75.5 % on test, 11.8 M parameters, 104.0 GMAC and 39.9 FPS at
1024x2048 on a GTX 1080 Ti with PyTorch. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import resize_like
from ..sizes import SizeRule
from . import Baseline
from ._residual import NormActConv, ResNet18


def grid_averages(x: Tensor, rows: int, columns: int) -> Tensor:
    """`adaptive_avg_pool2d` to rows x columns, of operators that every runtime has; N x C x H x W.

    Where the grid does not divide the map, exporters unroll the adaptive form into gathers; here it is one mean a row
    and one a column.
    """
    height, width = int(x.shape[-2]), int(x.shape[-1])
    if height % rows == 0 and width % columns == 0:
        return F.avg_pool2d(x, (height // rows, width // columns))
    return _averages(_averages(x, 2, rows), 3, columns)


def _averages(x: Tensor, dim: int, cells: int) -> Tensor:
    length = int(x.shape[dim])
    # Cell i covers floor(i L / n) to ceil((i + 1) L / n), as in PyTorch.
    bounds = ((i * length // cells, -(-(i + 1) * length // cells)) for i in range(cells))
    return torch.cat([x.narrow(dim, start, end - start).mean(dim, keepdim=True) for start, end in bounds], dim)


class SpatialPyramidPooling(nn.Module):
    """Averages over grids of 8, 4 and 2 rows beside the map; N x C x H x W to N x C' x H x W.

    Source: SwiftNet, section 3, spatial pyramid pooling. A grid has as many columns as keep its cells square.
    """

    GRID_ROWS = (8, 4, 2)

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        level = out_channels // len(self.GRID_ROWS)
        self.entry = NormActConv(in_channels, out_channels)
        self.levels = nn.ModuleList(NormActConv(out_channels, level) for _ in self.GRID_ROWS)
        self.merge = NormActConv(out_channels + level * len(self.GRID_ROWS), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.entry(x)
        aspect = int(x.shape[-1]) / int(x.shape[-2])  # tracing hands out tensors
        maps = [x]
        for rows, conv in zip(self.GRID_ROWS, self.levels, strict=True):
            pooled = grid_averages(x, rows, max(1, round(rows * aspect)))
            maps.append(resize_like(conv(pooled), x))
        return self.merge(torch.cat(maps, dim=1))


class LadderStep(nn.Module):
    """Adds a deep map to a shallow one at the shallow one's resolution, then blends by a 3x3 convolution.

    Source: SwiftNet, section 3, upsampling module.

    Shapes: deep N x C x H/2 x W/2 (rounded up), shallow N x Cs x H x W, result N x C x H x W.
    """

    def __init__(self, shallow_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = NormActConv(shallow_channels, channels)
        self.blend = NormActConv(channels, channels, 3)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        return self.blend(resize_like(deep, shallow) + self.lateral(shallow))


class SwiftNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: SwiftNet, section 3, single scale model. The lateral connections start from the sums of the residual blocks,
    before ReLU.
    """

    def __init__(self, num_classes: int, channels: int = 128) -> None:
        super().__init__()
        self.backbone = ResNet18()
        self.pyramid = SpatialPyramidPooling(512, channels)
        self.ladder = nn.ModuleList(LadderStep(shallow, channels) for shallow in (256, 128, 64))
        self.logits = NormActConv(channels, num_classes, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        *shallow, deepest = self.backbone(x)
        y = self.pyramid(deepest)
        for step, skip in zip(self.ladder, reversed(shallow), strict=True):
            y = step(y, skip)
        return resize_like(self.logits(y), x)


BASELINE = Baseline(
    title="SwiftNet-R18",
    paper="Orsic, Kreso, Bevandic, Segvic; CVPR 2019",
    build=SwiftNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
