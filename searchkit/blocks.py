"""Layers that two or more networks share. Shapes are NCHW; `resize` is always bilinear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU: the unit that most of the networks here are made of.

    Padding keeps the size at stride 1 (an odd kernel is assumed).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        act: bool = True,
        eps: float = 1e-5,
    ) -> None:
        padding = dilation * (kernel - 1) // 2
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                stride,
                padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels, eps=eps),
        ]
        if act:
            layers.append(nn.ReLU())
        super().__init__(*layers)


class ERFNetDownsampler(nn.Module):
    """Half the resolution: a strided 3x3 convolution beside a max-pool, concatenated, BatchNorm, ReLU.

    Source: ERFNet (Romera et al. 2017), section III; the SSR paper keeps it as its reduction block.

    Args:
        in_channels, out_channels: the convolution makes `out_channels - in_channels`, so the second must be larger.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat([self.conv(x), self.pool(x)], dim=1)))


class AdaptiveAvgPools(nn.Module):
    """Average pooling of one map to several output sizes: a list of tensors, N x C x bin x bin each.

    Exporters unroll adaptive pooling into hundreds of nodes where the bins do not divide the map; `deploy` therefore
    replaces this module by one that knows the map's size. This one is the reference.
    """

    def __init__(self, bins: Sequence[int]) -> None:
        super().__init__()
        self.bins = tuple(bins)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.adaptive_avg_pool2d(x, size) for size in self.bins]


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Bilinear resize to `size` (height, width); `x` itself where it has that size already."""
    height, width = int(size[0]), int(size[1])
    if x.shape[-2] == height and x.shape[-1] == width:
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=align_corners)


def resize_like(x: Tensor, reference: Tensor, *, align_corners: bool = False) -> Tensor:
    """Bilinear resize of `x` to the height and width of `reference`."""
    return resize(x, reference.shape[-2:], align_corners=align_corners)
