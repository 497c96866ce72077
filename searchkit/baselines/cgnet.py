"""CGNet, M3N21 (Wu et al. 2018): each block joins a pixel, its surroundings and the whole image.

Published: 64.8 % mIoU on Cityscapes test with 0.5 M parameters. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import resize_like
from ..sizes import SizeRule
from . import Baseline
from ._prelu import ConvNormPReLU, NormPReLU, depthwise

_BN_EPS = 1e-3


class GlobalContext(nn.Module):
    """Scales each channel by a weight computed from the averages of all; keeps N x C x H x W.

    Source: CGNet, the extractor f_glo.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True))))
        return x * torch.sigmoid(weight)


class JointFeatures(nn.Module):
    """A depthwise convolution beside a dilated one, concatenated, BatchNorm, PReLU: N x C to N x 2C x H x W.

    Source: CGNet, the extractors f_loc, f_sur and f_joi.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.local = depthwise(channels)
        self.surrounding = depthwise(channels, dilation=dilation)
        self.norm_act = NormPReLU(2 * channels, eps=_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_act(torch.cat([self.local(x), self.surrounding(x)], dim=1))


class ContextGuidedBlock(nn.Sequential):
    """Keeps N x C x H x W; the caller adds the input ("global residual learning")."""

    def __init__(self, channels: int, dilation: int, reduction: int) -> None:
        half = channels // 2
        super().__init__(
            ConvNormPReLU(channels, half, 1, eps=_BN_EPS),
            JointFeatures(half, dilation),
            GlobalContext(channels, reduction),
        )


class ContextGuidedDownsampler(nn.Sequential):
    """The block at half the resolution: N x C x H x W to N x C' x H/2 x W/2, without residual.

    Source: CGNet, the first block of a stage.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, reduction: int) -> None:
        super().__init__(
            ConvNormPReLU(in_channels, out_channels, 3, stride=2, eps=_BN_EPS),
            JointFeatures(out_channels, dilation),
            nn.Conv2d(2 * out_channels, out_channels, 1, bias=False),
            GlobalContext(out_channels, reduction),
        )


class Stage(nn.Module):
    """A downsampler and `blocks - 1` residual blocks; both ends of these are returned, concatenated: N x 2C'.

    Source: CGNet, the network's stages 2 and 3.
    """

    def __init__(self, in_channels: int, out_channels: int, blocks: int, dilation: int, reduction: int) -> None:
        super().__init__()
        self.down = ContextGuidedDownsampler(in_channels, out_channels, dilation, reduction)
        self.blocks = nn.ModuleList(ContextGuidedBlock(out_channels, dilation, reduction) for _ in range(blocks - 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.down(x)
        y = first
        for block in self.blocks:
            y = y + block(y)
        return torch.cat([y, first], dim=1)


class CGNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: CGNet, the network M3N21: M = 3 blocks in stage 2 and N = 21 in stage 3; the shrunk image is injected
    before each.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            ConvNormPReLU(3, 32, stride=2, eps=_BN_EPS),
            ConvNormPReLU(32, 32, eps=_BN_EPS),
            ConvNormPReLU(32, 32, eps=_BN_EPS),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.norm_act1 = NormPReLU(32 + 3, eps=_BN_EPS)
        self.stage2 = Stage(32 + 3, 64, blocks=3, dilation=2, reduction=8)
        self.norm_act2 = NormPReLU(128 + 3, eps=_BN_EPS)
        self.stage3 = Stage(128 + 3, 128, blocks=21, dilation=4, reduction=16)
        self.norm_act3 = NormPReLU(256, eps=_BN_EPS)
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.pool(x)
        y = self.norm_act1(torch.cat([self.stage1(x), half], dim=1))
        y = self.norm_act2(torch.cat([self.stage2(y), self.pool(half)], dim=1))
        y = self.norm_act3(self.stage3(y))
        return resize_like(self.classifier(y), x)


BASELINE = Baseline(
    title="CGNet",
    paper="Wu, Tang, Zhang, Cao, Zhang; arXiv 2018, IEEE Transactions on Image Processing 2021",
    build=CGNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
