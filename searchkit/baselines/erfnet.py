"""ERFNet (Romera et al. 2018): factorised residual blocks, then deconvolutions back to full resolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..blocks import ERFNetDownsampler
from ..sizes import SizeRule
from . import Baseline

_BN_EPS = 1e-3


class NonBottleneck1d(nn.Module):
    """A residual block of two factorised 3x3 convolutions; keeps the shape, N x C x H x W.

    Source: ERFNet, section III-A, figure 2(c). The second pair of convolutions is the dilated one.

    Args:
        channels: C, the same in and out.
        dilation: of the second pair.
        dropout: probability that a whole channel of the residual is dropped in training.
    """

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1_3x1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1_1x3 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.norm1 = nn.BatchNorm2d(channels, eps=_BN_EPS)
        self.conv2_3x1 = nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.conv2_1x3 = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm2 = nn.BatchNorm2d(channels, eps=_BN_EPS)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1_3x1(x))
        y = F.relu(self.norm1(self.conv1_1x3(y)))
        y = F.relu(self.conv2_3x1(y))
        y = self.dropout(self.norm2(self.conv2_1x3(y)))
        return F.relu(y + x)


class Upsampler(nn.Sequential):
    """Twice the resolution: 3x3 deconvolution, BatchNorm, ReLU; N x C x H x W to N x C' x 2H x 2W.

    Source: ERFNet, section III-B; deconvolutions in place of unpooling, so no pooling indices are kept.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(out_channels, eps=_BN_EPS),
            nn.ReLU(),
        )


class ERFNet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W; both sides multiples of 8.

    Source: ERFNet, table I. The 1x1 classifier on the encoder serves pre-training alone and is left out.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            ERFNetDownsampler(3, 16),
            ERFNetDownsampler(16, 64),
            *(NonBottleneck1d(64, dropout=0.03) for _ in range(5)),
            ERFNetDownsampler(64, 128),
            *(NonBottleneck1d(128, dilation, dropout=0.3) for dilation in (2, 4, 8, 16) * 2),
        )
        self.decoder = nn.Sequential(
            Upsampler(128, 64),
            NonBottleneck1d(64),
            NonBottleneck1d(64),
            Upsampler(64, 16),
            NonBottleneck1d(16),
            NonBottleneck1d(16),
        )
        self.classifier = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.decoder(self.encoder(x)))


BASELINE = Baseline(
    title="ERFNet",
    paper="Romera, Alvarez, Bergasa, Arroyo; IEEE Transactions on Intelligent Transportation Systems 2018",
    build=ERFNet,
    size_rule=SizeRule(multiple=8, minimum=8),
)
