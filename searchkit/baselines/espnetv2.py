"""ESPNetV2 (Mehta et al. 2019), width 2: grouped 1x1 and dilated depthwise convolutions in place of full ones.

Published: 66.4 % mIoU on Cityscapes val, 66.2 % on test. All figures with their sources: `bench/published.toml`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks import resize_like
from ..sizes import SizeRule
from . import Baseline
from ._prelu import ConvNormPReLU, NormPReLU, depthwise

_BRANCHES = 4
_DILATIONS = (1, 2, 3, 4)
# Where the map is small, the widest kernel (9) is replaced by the smallest: the paper's limit on the receptive field.
_DILATIONS_LIMITED = (1, 1, 2, 3)


class EfficientSpatialPyramid(nn.Module):
    """EESP: reduce, four dilated depthwise convolutions summed step by step, expand; no residual, no last activation.

    N x C x H x W to N x C' x H/s x W/s. Source: ESPNetV2, the unit EESP.

    Args:
        dilations: of the four branches, ascending.
    """

    def __init__(
        self, in_channels: int, out_channels: int, dilations: tuple[int, ...] = _DILATIONS, stride: int = 1
    ) -> None:
        super().__init__()
        branch = out_channels // _BRANCHES
        self.reduce = ConvNormPReLU(in_channels, branch, 1, groups=_BRANCHES)
        self.branches = nn.ModuleList(depthwise(branch, stride, dilation) for dilation in dilations)
        self.norm_act = NormPReLU(out_channels)
        self.expand = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 1, groups=_BRANCHES, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        outputs: list[Tensor] = []
        for branch in self.branches:
            y = branch(x)
            outputs.append(y + outputs[-1] if outputs else y)
        return self.expand(self.norm_act(torch.cat(outputs, dim=1)))


class ResidualPyramid(nn.Module):
    """EESP plus its input, then PReLU; keeps N x C x H x W."""

    def __init__(self, channels: int, dilations: tuple[int, ...] = _DILATIONS) -> None:
        super().__init__()
        self.pyramid = EfficientSpatialPyramid(channels, channels, dilations)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.pyramid(x) + x)


class StridedPyramid(nn.Module):
    """Average pooling and a strided EESP, concatenated, plus the shrunk image; N x C' x H/2 x W/2.

    Source: ESPNetV2, the strided unit EESP with a shortcut to the input image.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.pyramid = EfficientSpatialPyramid(in_channels, out_channels - in_channels, stride=2)
        self.image = nn.Sequential(
            ConvNormPReLU(3, 3), nn.Conv2d(3, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """`image` is the network's input, shrunk to the size of the result."""
        y = torch.cat([self.pool(x), self.pyramid(x)], dim=1)
        return self.act(y + self.image(image))


class DepthwisePyramidPooling(nn.Module):
    """The map and four ever smaller ones, each through a depthwise convolution, merged; keeps N x C x H x W.

    Source: ESPNetV2, the authors' code for segmentation, after PSPNet.
    """

    def __init__(self, channels: int, levels: int = 4) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.levels = nn.ModuleList(depthwise(channels) for _ in range(levels))
        self.merge = ConvNormPReLU(channels * (levels + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps, pooled = [x], x
        for level in self.levels:
            pooled = self.pool(pooled)
            maps.append(resize_like(level(pooled), x))
        return self.merge(torch.cat(maps, dim=1))


class Encoder(nn.Module):
    """N x 3 x H x W to maps of 32, 128, 256 and 512 channels at 1/2, 1/4, 1/8 and 1/16 (sides rounded up).

    Source: ESPNetV2, the network of width s = 2.0, without the last stage, which segmentation leaves out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.stem = ConvNormPReLU(3, 32, stride=2)
        self.down2 = StridedPyramid(32, 128)
        self.down3 = StridedPyramid(128, 256)
        self.level3 = nn.Sequential(*(ResidualPyramid(256) for _ in range(3)))
        self.down4 = StridedPyramid(256, 512)
        self.level4 = nn.Sequential(*(ResidualPyramid(512, _DILATIONS_LIMITED) for _ in range(7)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        at_2 = self.stem(x)
        image = self.pool(self.pool(x))
        at_4 = self.down2(at_2, image)
        image = self.pool(image)
        at_8 = self.level3(self.down3(at_4, image))
        at_16 = self.level4(self.down4(at_8, self.pool(image)))
        return at_2, at_4, at_8, at_16


class ESPNetV2(nn.Module):
    """N x 3 x H x W to logits N x classes x H x W.

    Source: ESPNetV2, the authors' code for segmentation. The training-only output at 1/8 is left out. Resizes have
    half-pixel centres, which float32 holds exactly; the authors' align corners.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.project4 = ConvNormPReLU(512, 256, 1)
        self.context = nn.Sequential(
            EfficientSpatialPyramid(512, 256, _DILATIONS_LIMITED), nn.PReLU(256), DepthwisePyramidPooling(256)
        )
        self.project3 = nn.Sequential(
            nn.Dropout2d(0.2), nn.Conv2d(256, num_classes, 1, bias=False), NormPReLU(num_classes)
        )
        self.project2 = ConvNormPReLU(128 + num_classes, num_classes, 1)
        self.project1 = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(32 + num_classes, num_classes, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        at_2, at_4, at_8, at_16 = self.encoder(x)
        y = self.project3(self.context(_joined(at_8, self.project4(at_16))))
        y = self.project2(_joined(at_4, y))
        y = self.project1(_joined(at_2, y))
        return resize_like(y, x)


def _joined(fine: Tensor, coarse: Tensor) -> Tensor:
    """Both maps concatenated at the finer one's resolution."""
    return torch.cat([fine, resize_like(coarse, fine)], dim=1)


BASELINE = Baseline(
    title="ESPNetV2",
    paper="Mehta, Rastegari, Shapiro, Hajishirzi; CVPR 2019",
    build=ESPNetV2,
    size_rule=SizeRule(multiple=8, minimum=32),
)
