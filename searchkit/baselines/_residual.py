"""Residual blocks that several baselines are made of, after ResNet (He et al. 2016). Shapes are NCHW."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct


class NormActConv(nn.Sequential):
    """BatchNorm, ReLU, convolution, in this order ("pre-activation"); padding keeps the size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, *, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=bias),
        )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; stride s gives N x C' x H/s x W/s.

    Source: ResNet, section 3.3, figure 5 left. The shortcut is a strided 1x1 convolution where the shape changes.

    Args:
        act: whether ReLU follows the sum; without it the caller can use the sum itself.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, act: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, out_channels, 3, stride), ConvNormAct(out_channels, out_channels, act=False)
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x) + self.shortcut(x)
        return F.relu(y) if self.act else y


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; stride s gives N x C' x H/s x W/s.

    Source: ResNet, section 4.1, figure 5 right.

    Args:
        hidden: channels of the first two convolutions.
        act: whether ReLU follows the sum.
        dilation: of the 3x3 convolution.
        stride_first: the stride is taken by the first 1x1 convolution (as in Caffe models), not by the 3x3 one.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        stride: int = 1,
        *,
        act: bool = True,
        dilation: int = 1,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, hidden, 1, first),
            ConvNormAct(hidden, hidden, 3, second, dilation=dilation),
            ConvNormAct(hidden, out_channels, 1, act=False),
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x) + self.shortcut(x)
        return F.relu(y) if self.act else y


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormAct(in_channels, out_channels, 1, stride, act=False)


def basic_stage(
    in_channels: int, out_channels: int, blocks: int, stride: int = 1, *, act: bool = True
) -> nn.Sequential:
    """`blocks` basic blocks, the first of which changes width and resolution; `act` is of the last one."""
    widths = [in_channels, *[out_channels] * blocks]
    return nn.Sequential(
        *(
            BasicBlock(widths[i], out_channels, stride if i == 0 else 1, act=act or i < blocks - 1)
            for i in range(blocks)
        )
    )


class ResNet18(nn.Module):
    """N x 3 x H x W to the four stages' maps: 64 at 1/4, 128 at 1/8, 256 at 1/16, 512 at 1/32 (sides rounded up).

    Source: ResNet, table 1, without the classifier. Each map is the last block's sum before its ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNormAct(3, 64, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1))
        self.stages = nn.ModuleList(
            [
                basic_stage(64, 64, 2, act=False),
                basic_stage(64, 128, 2, stride=2, act=False),
                basic_stage(128, 256, 2, stride=2, act=False),
                basic_stage(256, 512, 2, stride=2, act=False),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        sums = []
        for stage in self.stages:
            sums.append(stage(x))
            x = F.relu(sums[-1])
        return sums
