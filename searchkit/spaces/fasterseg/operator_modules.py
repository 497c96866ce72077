"""The operators of a FasterSeg network as modules, so that each can be timed.

Each takes one map. Modules are in evaluation mode; weights are PyTorch's initial ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct
from ...costs.shapes import Shape
from .network import Classifier, build_layer
from .operators import CellOperator, ChannelShape, Convolution, Fuse, Head


class _Reduce(nn.Module):
    """The 1x1 convolution of a merge, and the resize behind it to twice the size."""

    def __init__(self, shape: Convolution) -> None:
        super().__init__()
        self.conv = ConvNormAct(shape.inputs, shape.outputs, 1)
        self.size = (2 * shape.size.height, 2 * shape.size.width)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), size=self.size, mode="bilinear", align_corners=True)


class _Head(nn.Module):
    """The classifier, and the resize of its logits to the image."""

    def __init__(self, shape: Head) -> None:
        super().__init__()
        self.classifier = Classifier(shape.inputs, shape.outputs)
        self.size = tuple(shape.image)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.classifier(x), size=self.size, mode="bilinear", align_corners=True)


def module_of(shape: Shape) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """The operator as a module in evaluation mode, and the shape of its input."""
    assert isinstance(shape, ChannelShape), "an operator of this space"
    return _module_of(shape).eval(), (1, shape.inputs, *shape.size)


def _module_of(shape: ChannelShape) -> nn.Module:
    if isinstance(shape, CellOperator):
        return build_layer(shape.placed)
    if isinstance(shape, Convolution):
        if shape.kernel == 1:
            return _Reduce(shape)
        return ConvNormAct(shape.inputs, shape.outputs, shape.kernel, shape.stride)
    if isinstance(shape, Fuse):
        return ConvNormAct(shape.inputs, shape.outputs, 1)
    if isinstance(shape, Head):
        return _Head(shape)
    raise TypeError(f"no module for {type(shape).__name__}")
