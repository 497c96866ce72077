"""ENet (Paszke et al. 2016): narrow bottlenecks, early shrinking, and unpooling that remembers where maxima were.

Published: 58.3 % mIoU on Cityscapes test, 0.37 M parameters, 3.83 GFLOP (two for a MAC) at 360x640.
All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sizes import SizeRule
from . import Baseline


def _act(*, relu: bool) -> nn.Module:
    """PReLU in the encoder, ReLU in the decoder. Source: ENet, section 4.

    One slope a layer, as in the implementation whose figures we hold to; one a channel, as the paper says, would add
    6,200 parameters.
    """
    return nn.ReLU() if relu else nn.PReLU()


def _conv(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int] = (1, 1),
    *,
    stride: int = 1,
    dilation: int = 1,
    relu: bool = False,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, activation; padded for odd kernels, not for even ones."""
    padding = tuple(dilation * (side - 1) // 2 for side in kernel)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation=dilation, bias=False),  # type: ignore[arg-type]
        nn.BatchNorm2d(out_channels),
        _act(relu=relu),
    )


def maximum_of_four(x: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 max-pooling and where the maxima were: N x C x H/2 x W/2 and a mask N x C x 4 x H/2 x W/2 of 0 and 1.

    The four places of a window stand in reading order; of equal values the first is the maximum, as in PyTorch. Masks
    instead of indices, because runtimes have no unpooling; `placed` is exactly `max_unpool2d`.
    """
    corners = [x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    maximum = F.max_pool2d(x, 2)
    masks = [(corners[0] == maximum).to(x.dtype)]
    free = 1 - masks[0]
    for corner in corners[1:]:
        mask = free * (corner == maximum).to(x.dtype)
        free = free - mask
        masks.append(mask)
    return maximum, torch.stack(masks, dim=2)


def placed(x: Tensor, mask: Tensor) -> Tensor:
    """Unpooling: each value of N x C x H x W where `mask` says, zeros elsewhere; N x C x 2H x 2W."""
    return F.pixel_shuffle((x[:, :, None] * mask).flatten(1, 2), 2)


class InitialBlock(nn.Module):
    """N x 3 x H x W to N x 16 x H/2 x W/2: a strided convolution beside max-pooling. Source: ENet, figure 2(a)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.norm_act = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_act(torch.cat([self.conv(x), F.max_pool2d(x, 2)], dim=1))


class Bottleneck(nn.Module):
    """Reduce to a quarter, convolve, expand, drop out, add; keeps N x C x H x W. Source: ENet, figure 2(b).

    Args:
        dilation: of the 3x3 convolution.
        asymmetric: a 5x1 and a 1x5 convolution in place of the 3x3 one.
        dropout: probability that a whole channel of the residual is dropped in training.
        relu: ReLU in place of PReLU.
    """

    def __init__(
        self, channels: int, dropout: float, *, dilation: int = 1, asymmetric: bool = False, relu: bool = False
    ) -> None:
        super().__init__()
        hidden = channels // 4
        middle = (
            [_conv(hidden, hidden, (5, 1), relu=relu), _conv(hidden, hidden, (1, 5), relu=relu)]
            if asymmetric
            else [_conv(hidden, hidden, (3, 3), dilation=dilation, relu=relu)]
        )
        self.layers = nn.Sequential(
            _conv(channels, hidden, relu=relu),
            *middle,
            _conv(hidden, channels, relu=relu),
            nn.Dropout2d(dropout),
        )
        self.act = _act(relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.layers(x))


class DownsamplingBottleneck(nn.Module):
    """N x C x H x W to N x C' x H/2 x W/2 and the mask of the maxima; the shortcut is added to the first C channels.

    Source: ENet, figure 2(b), section 3.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        hidden = in_channels // 4
        self.layers = nn.Sequential(
            _conv(in_channels, hidden, (2, 2), stride=2),
            _conv(hidden, hidden, (3, 3)),
            _conv(hidden, out_channels),
            nn.Dropout2d(dropout),
        )
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maximum, mask = maximum_of_four(x)
        y = self.layers(x)
        old = x.shape[1]
        return self.act(torch.cat([y[:, :old] + maximum, y[:, old:]], dim=1)), mask


class UpsamplingBottleneck(nn.Module):
    """N x C x H x W to N x C' x 2H x 2W; the shortcut is unpooled with the mask of a downsampling block.

    Source: ENet, section 3.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        hidden = in_channels // 4
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.layers = nn.Sequential(
            _conv(in_channels, hidden, relu=True),
            nn.ConvTranspose2d(hidden, hidden, 2, stride=2, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            _conv(hidden, out_channels, relu=True),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.relu(placed(self.shortcut(x), mask) + self.layers(x))


def _dilated_stage() -> list[Bottleneck]:
    """The eight blocks that stages 2 and 3 share: plain, dilated and asymmetric ones in turn. Source: ENet, table 1."""
    return [
        Bottleneck(128, 0.1),
        Bottleneck(128, 0.1, dilation=2),
        Bottleneck(128, 0.1, asymmetric=True),
        Bottleneck(128, 0.1, dilation=4),
        Bottleneck(128, 0.1),
        Bottleneck(128, 0.1, dilation=8),
        Bottleneck(128, 0.1, asymmetric=True),
        Bottleneck(128, 0.1, dilation=16),
    ]


class ENet(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W; both sides multiples of 8.

    Source: ENet, table 1.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.initial = InitialBlock()
        self.down1 = DownsamplingBottleneck(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, 0.01) for _ in range(4)))
        self.down2 = DownsamplingBottleneck(64, 128, 0.1)
        self.stages2_3 = nn.Sequential(*_dilated_stage(), *_dilated_stage())
        self.up4 = UpsamplingBottleneck(128, 64, 0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, 0.1, relu=True) for _ in range(2)))
        self.up5 = UpsamplingBottleneck(64, 16, 0.1)
        self.stage5 = Bottleneck(16, 0.1, relu=True)
        self.classifier = nn.ConvTranspose2d(16, num_classes, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y, mask1 = self.down1(self.initial(x))
        y, mask2 = self.down2(self.stage1(y))
        y = self.stage4(self.up4(self.stages2_3(y), mask2))
        return self.classifier(self.stage5(self.up5(y, mask1)))


BASELINE = Baseline(
    title="ENet",
    paper="Paszke, Chaurasia, Kim, Culurciello; arXiv 2016",
    build=ENet,
    size_rule=SizeRule(multiple=8, minimum=8),
)
