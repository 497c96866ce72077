"""LEDNet (Wang et al. 2019): factorised residual blocks split over two halves of the channels, an attention decoder.

Published: 70.6 % mIoU on Cityscapes test, 0.94 M parameters, 71 FPS at 512x1024 on a GTX 1080 Ti. All
figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ERFNetDownsampler, resize_like
from ..sizes import SizeRule
from . import Baseline

_BN_EPS = 1e-3


def _factorised(channels: int, dilation: int, *, rows_first: bool) -> nn.Sequential:
    """A 3x1 and a 1x3 convolution, in this order or the other, with ReLU between and BatchNorm after."""
    rows = nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
    columns = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
    first, second = (rows, columns) if rows_first else (columns, rows)
    return nn.Sequential(first, nn.ReLU(), second, nn.BatchNorm2d(channels, eps=_BN_EPS))


class SplitShuffleNonBottleneck(nn.Module):
    """Each half of the channels through four 1-D convolutions, the input added, the halves shuffled; N x C x H x W.

    Source: LEDNet, the block SS-nbt.

    Args:
        channels: C, even.
        dilation: of the second pair of convolutions.
        dropout: probability that a whole channel of the residual is dropped in training.
    """

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.halves = nn.ModuleList(
            nn.Sequential(
                _factorised(channels // 2, 1, rows_first=rows_first),
                nn.ReLU(),
                _factorised(channels // 2, dilation, rows_first=rows_first),
            )
            for rows_first in (True, False)
        )
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = (x[:, : channels // 2], x[:, channels // 2 :])
        halves = [half(part) for half, part in zip(self.halves, parts, strict=True)]
        y = F.relu(x + self.dropout(torch.cat(halves, dim=1)))
        return y.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(y.shape)


def _single(in_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """To one channel by a column and a row of `kernel`, then BatchNorm and ReLU."""
    pad = kernel // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, 1, (kernel, 1), (stride, 1), (pad, 0)),
        nn.Conv2d(1, 1, (1, kernel), (1, stride), (0, pad)),
        nn.BatchNorm2d(1, eps=_BN_EPS),
        nn.ReLU(),
    )


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution with bias, BatchNorm, ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels, eps=_BN_EPS), nn.ReLU())


class AttentionPyramid(nn.Module):
    """Class scores weighted by one map of three scales, plus the scores of the whole image; N x C to N x classes.

    Source: LEDNet, the module APN. The kernels of 7, 5 and 3 are factorised as in the public implementation.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.scores = _pointwise(in_channels, num_classes)
        self.image = _pointwise(in_channels, num_classes)
        self.down1 = _single(in_channels, 7, stride=2)
        self.down2 = _single(1, 5, stride=2)
        self.down3 = nn.Sequential(_single(1, 3, stride=2), _single(1, 3))
        self.conv1 = _single(1, 7)
        self.conv2 = _single(1, 5)

    def forward(self, x: Tensor) -> Tensor:
        at_2 = self.down1(x)
        at_4 = self.down2(at_2)
        attention = self.conv2(at_4) + resize_like(self.down3(at_4), at_4)
        attention = self.conv1(at_2) + resize_like(attention, at_2)
        attention = resize_like(attention, x)
        return attention * self.scores(x) + self.image(x.mean(dim=(2, 3), keepdim=True))


class LEDNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: LEDNet, the table of its architecture. Resizes have half-pixel centres, which float32 holds exactly; the
    public implementation aligns corners, the paper does not say.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            ERFNetDownsampler(3, 32),
            *(SplitShuffleNonBottleneck(32, 1, dropout=0.03) for _ in range(3)),
            ERFNetDownsampler(32, 64),
            *(SplitShuffleNonBottleneck(64, 1, dropout=0.03) for _ in range(2)),
            ERFNetDownsampler(64, 128),
            *(SplitShuffleNonBottleneck(128, dilation, dropout=0.3) for dilation in (1, 2, 5, 9, 2, 5, 9, 17)),
        )
        self.decoder = AttentionPyramid(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return resize_like(self.decoder(self.encoder(x)), x)


BASELINE = Baseline(
    title="LEDNet",
    paper="Wang, Zhou, Liu, Xiong, Gao, Wu, Latecki; ICIP 2019",
    build=LEDNet,
    size_rule=SizeRule(multiple=8, minimum=32),
)
