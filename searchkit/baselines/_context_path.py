"""The context path that BiSeNet introduced and STDC kept. Shapes are NCHW."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ConvNormAct


def nearest_like(x: Tensor, reference: Tensor) -> Tensor:
    """Nearest-neighbour resize of `x` to the height and width of `reference`."""
    return F.interpolate(x, size=reference.shape[-2:], mode="nearest")


class AttentionRefinement(nn.Module):
    """A 3x3 convolution whose channels are scaled by weights computed from their averages; N x C' x H x W.

    Source: BiSeNet, section 3.2, figure 2(b).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, out_channels)
        self.weight = ConvNormAct(out_channels, out_channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.weight(x.mean(dim=(2, 3), keepdim=True)))


class ContextPath(nn.Module):
    """What a backbone found at 1/16 and 1/32, with the average of the whole image, brought to 1/8.

    Source: BiSeNet, section 3.2, figure 2(a). The nearest-neighbour resizes and the 3x3 convolution after each are
    those of the public implementations; the paper does not say.

    Shapes: at_16 N x c16 x H/2 x W/2, at_32 N x c32 x H/4 x W/4, like N x any x H x W, result N x C x H x W.
    """

    def __init__(self, channels_16: int, channels_32: int, channels: int = 128) -> None:
        super().__init__()
        self.average = ConvNormAct(channels_32, channels, 1)
        self.refine_32 = AttentionRefinement(channels_32, channels)
        self.refine_16 = AttentionRefinement(channels_16, channels)
        self.conv_32 = ConvNormAct(channels, channels)
        self.conv_16 = ConvNormAct(channels, channels)

    def forward(self, at_16: Tensor, at_32: Tensor, like: Tensor) -> Tensor:
        x = self.refine_32(at_32) + self.average(at_32.mean(dim=(2, 3), keepdim=True))
        x = self.refine_16(at_16) + self.conv_32(nearest_like(x, at_16))
        return self.conv_16(nearest_like(x, like))
