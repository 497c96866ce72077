"""Layers with a PReLU that learns one slope a channel, which several small networks use. Shapes are NCHW."""

from __future__ import annotations

from torch import nn


class NormPReLU(nn.Sequential):
    """BatchNorm, PReLU."""

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=eps), nn.PReLU(channels))


class ConvNormPReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, PReLU; padding keeps the size at stride 1 (an odd kernel is assumed)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        eps: float = 1e-5,
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                (height, width),
                stride,
                padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            NormPReLU(out_channels, eps=eps),
        )


def depthwise(channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A bare depthwise 3x3 convolution without bias."""
    return nn.Conv2d(channels, channels, 3, stride, padding=dilation, dilation=dilation, groups=channels, bias=False)
