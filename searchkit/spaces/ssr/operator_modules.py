"""The operators of an SSR network as modules by themselves, so that each can be timed.

Each takes one map. A second one, such as what a residual adds, is a constant of the module: it is read all the same,
and no exporter can fold it into anything. Modules are in evaluation mode; weights are PyTorch's initial ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct, ERFNetDownsampler, resize_like
from ...costs.shapes import Shape
from .genotype import AggregationHead
from .network import PyramidPooling
from .operators import Classifier, Conv1x3, Conv3x1, Detail, Downsampler, Fusion, Pyramid

# As in the network.
_EPS = 1e-3


class _First(nn.Module):
    """`Conv3x1`."""

    def __init__(self, shape: Conv3x1) -> None:
        super().__init__()
        dilation = shape.dilation
        self.pool: nn.Module = nn.Identity()
        if shape.spatial == 2:
            self.pool = nn.AvgPool2d(2) if shape.pool == "average" else nn.MaxPool2d(2)
        self.conv = nn.Conv2d(shape.channels, shape.mid, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.norm = nn.BatchNorm2d(shape.mid, eps=_EPS) if shape.norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(self.pool(x))))


class _Second(nn.Module):
    """`Conv1x3`, its residual at the width of its output."""

    identity: Tensor

    def __init__(self, shape: Conv1x3) -> None:
        super().__init__()
        dilation = shape.dilation
        self.conv = nn.Conv2d(shape.mid, shape.out, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm = nn.BatchNorm2d(shape.out, eps=_EPS)
        self.register_buffer("identity", torch.rand(1, shape.out, *shape.size))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(resize_like(self.norm(self.conv(x)), self.identity, align_corners=True) + self.identity)


class _Detail(nn.Module):
    """`Detail`, of the 1/2 map."""

    quarter: Tensor

    def __init__(self, shape: Detail) -> None:
        super().__init__()
        self.low = ConvNormAct(shape.half + shape.quarter, shape.out, 3)
        self.register_buffer("quarter", torch.rand(1, shape.quarter, *shape.size))

    def forward(self, x: Tensor) -> Tensor:
        return self.low(torch.cat([self.quarter, F.avg_pool2d(x, 2)], dim=1))


class _Fusion(nn.Module):
    """`Fusion`, of the context."""

    detail: Tensor

    def __init__(self, shape: Fusion) -> None:
        super().__init__()
        self.image = shape.image
        self.fuse = ConvNormAct(shape.context + shape.detail, shape.fuse, 1)
        self.classifier = nn.Conv2d(shape.fuse, shape.classes, 1)
        self.register_buffer("detail", torch.rand(1, shape.detail, *shape.size))

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([resize_like(x, self.detail), self.detail], dim=1)
        logits = self.classifier(self.fuse(joined))
        return F.interpolate(logits, size=tuple(self.image), mode="bilinear", align_corners=False)


def module_of(shape: Shape) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """The operator as a module in evaluation mode, and the shape of its input."""
    module, channels, size = _module_of(shape)
    return module.eval(), (1, channels, *size)


def _module_of(shape: Shape) -> tuple[nn.Module, int, tuple[int, int]]:
    height, width = shape.size
    if isinstance(shape, Downsampler):
        return ERFNetDownsampler(shape.narrow, shape.wide), shape.narrow, shape.size
    if isinstance(shape, Conv3x1):
        return _First(shape), shape.channels, shape.size
    if isinstance(shape, Conv1x3):
        return _Second(shape), shape.mid, (height // shape.spatial, width // shape.spatial)
    if isinstance(shape, Classifier):
        return nn.Conv2d(shape.channels, shape.classes, 1), shape.channels, shape.size
    if isinstance(shape, Detail):
        return _Detail(shape), shape.half, (2 * height, 2 * width)
    if isinstance(shape, Pyramid):
        head = AggregationHead(
            type="aggregation", low=1, bins=shape.bins, bin_channels=shape.bin_channels, context=shape.out, fuse=1
        )
        return PyramidPooling(shape.channels, head), shape.channels, shape.size
    if isinstance(shape, Fusion):
        return _Fusion(shape), shape.context, shape.eighth
    raise TypeError(f"no module for {type(shape).__name__}")
