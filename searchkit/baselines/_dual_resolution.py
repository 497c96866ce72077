"""What DDRNet and PIDNet share. Shapes are NCHW."""

from __future__ import annotations

from torch import Tensor, nn

from ..blocks import ConvNormAct
from ._residual import basic_stage


class Stem(nn.Sequential):
    """N x 3 x H x W to N x 2c x H/8 x W/8: two strided convolutions and two stages of two basic blocks.

    Source: DDRNet, the layers that both branches share; PIDNet takes them over.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            ConvNormAct(3, channels, stride=2),
            ConvNormAct(channels, channels, stride=2),
            basic_stage(channels, channels, 2),
            basic_stage(channels, 2 * channels, 2, stride=2),
        )


class GlobalAvgPool(nn.Module):
    """N x C x H x W to N x C x 1 x 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


def pyramid_pools() -> nn.ModuleList:
    """The pools of DAPPM, finest first: overlapping windows of 5, 9 and 17 at strides 2, 4 and 8, and the whole map.

    Source: DDRNet, the module DAPPM. Padding counts as zeros in the averages, as in the authors' code.
    """
    windows = [nn.AvgPool2d(2 * stride + 1, stride, padding=stride) for stride in (2, 4, 8)]
    return nn.ModuleList([*windows, GlobalAvgPool()])
