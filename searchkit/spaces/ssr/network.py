"""The discrete SSR network (Ye et al., IJCV 2022, Fig. 2): three downsamplers, two searched stages, a head.

Shapes: N batch, C channels, H and W of the input. The network takes N x 3 x H x W and returns logits at H/8 x W/8
(plain classifier) or at H x W (aggregation block).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import AdaptiveAvgPools, ConvNormAct, ERFNetDownsampler, resize_like
from .genotype import AggregationHead, SSRGenotype, SSRLayer

# ERFNet's BatchNorm epsilon; the blocks in the head use PyTorch's default.
_EPS = 1e-3


class PrefixResidual(nn.Module):
    """Add on the common channel prefix: the published form of a residual between unequal widths.

    Extra output channels pass unchanged; extra input channels are cut.
    """

    def forward(self, x: Tensor, identity: Tensor) -> Tensor:
        common = min(x.shape[1], identity.shape[1])
        if x.shape[1] == common:
            return x + identity[:, :common]
        return torch.cat([x[:, :common] + identity, x[:, common:]], dim=1)


class SSRBlock(nn.Module):
    """One 3x1 and 1x3 pair with dilation, at full or half resolution (Eq. 4), with a prefix residual.

    Args:
        in_channels: C of the input.
        layer: dilation, spatial, mid and out widths.
        pool: "average" (Eq. 4) or "max" (the published network).
        mid_norm: BatchNorm between the two convolutions.
        dropout: channel dropout rate, used in training only.
    """

    def __init__(self, in_channels: int, layer: SSRLayer, *, pool: str, mid_norm: bool, dropout: float) -> None:
        super().__init__()
        dilation = layer.dilation
        self.pool: nn.Module | None = None
        if layer.spatial == 2:
            self.pool = nn.AvgPool2d(2) if pool == "average" else nn.MaxPool2d(2)
        self.conv3x1 = nn.Conv2d(in_channels, layer.mid, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.norm3x1 = nn.BatchNorm2d(layer.mid, eps=_EPS) if mid_norm else nn.Identity()
        self.conv1x3 = nn.Conv2d(layer.mid, layer.out, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm1x3 = nn.BatchNorm2d(layer.out, eps=_EPS)
        self.dropout = nn.Dropout2d(dropout)
        self.add = PrefixResidual()

    def forward(self, x: Tensor) -> Tensor:
        out = self.pool(x) if self.pool is not None else x
        out = F.relu(self.norm3x1(self.conv3x1(out)))
        out = self.norm1x3(self.conv1x3(out))
        out = resize_like(out, x, align_corners=True)
        return F.relu(self.add(self.dropout(out), x))


class SSRClassifier(nn.Module):
    """1x1 convolution on the 1/8 map; logits at 1/8."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, 1)

    def forward(self, image: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor) -> Tensor:
        return self.conv(eighth)


class PyramidPooling(nn.Module):
    """Pyramid pooling: the map beside its pooled selves (1x1 convolution, BatchNorm, resized), then 1x1 to `out`."""

    def __init__(self, in_channels: int, head: AggregationHead) -> None:
        super().__init__()
        self.pools = AdaptiveAvgPools(head.bins)
        self.reduce = nn.ModuleList(ConvNormAct(in_channels, head.bin_channels, 1, act=False) for _ in head.bins)
        concatenated = in_channels + len(head.bins) * head.bin_channels
        self.fuse = nn.Sequential(ConvNormAct(concatenated, head.context, 1), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = [reduce(p) for reduce, p in zip(self.reduce, self.pools(x), strict=True)]
        return self.fuse(torch.cat([x, *(resize_like(p, x) for p in pooled)], dim=1))


class SSRAggregation(nn.Module):
    """The aggregation block: details of 1/2 and 1/4 beside the context of 1/8; logits at the input's resolution."""

    def __init__(self, half: int, quarter: int, eighth: int, head: AggregationHead, classes: int) -> None:
        super().__init__()
        self.low = ConvNormAct(half + quarter, head.low, 3)
        self.context = PyramidPooling(eighth, head)
        self.fuse = nn.Sequential(ConvNormAct(head.context + head.low, head.fuse, 1), nn.Dropout2d(0.1))
        self.classifier = nn.Conv2d(head.fuse, classes, 1)

    def forward(self, image: Tensor, half: Tensor, quarter: Tensor, eighth: Tensor) -> Tensor:
        low = self.low(torch.cat([quarter, F.avg_pool2d(half, 2)], dim=1))
        context = resize_like(self.context(eighth), low)
        return resize_like(self.classifier(self.fuse(torch.cat([context, low], dim=1))), image)


class SSRNet(nn.Module):
    """The discrete network that an `SSRGenotype` describes."""

    def __init__(self, genotype: SSRGenotype) -> None:
        super().__init__()
        self.stem = ERFNetDownsampler(3, genotype.stem)
        first, second = genotype.stages
        # Dropout rates of ERFNet: 0.03 at 1/4, 0.3 at 1/8.
        self.stage4, quarter = self._stage(genotype.stem, first.channels, first.layers, genotype, dropout=0.03)
        self.stage8, eighth = self._stage(quarter, second.channels, second.layers, genotype, dropout=0.3)
        self.head: SSRAggregation | SSRClassifier
        if isinstance(genotype.head, AggregationHead):
            self.head = SSRAggregation(genotype.stem, quarter, eighth, genotype.head, genotype.classes)
        else:
            self.head = SSRClassifier(eighth, genotype.classes)

    @staticmethod
    def _stage(
        in_channels: int,
        channels: int,
        layers: tuple[SSRLayer, ...],
        genotype: SSRGenotype,
        *,
        dropout: float,
    ) -> tuple[nn.Sequential, int]:
        modules: list[nn.Module] = [ERFNetDownsampler(in_channels, channels)]
        for layer in layers:
            modules.append(SSRBlock(channels, layer, pool=genotype.pool, mid_norm=genotype.mid_norm, dropout=dropout))
            channels = layer.out
        return nn.Sequential(*modules), channels

    def forward(self, image: Tensor) -> Tensor:
        half = self.stem(image)
        quarter = self.stage4(half)
        eighth = self.stage8(quarter)
        return self.head(image, half, quarter, eighth)
