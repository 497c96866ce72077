"""The operators of an LGCNet network as modules by themselves, so that each can be timed.

Each takes one map. What is added to an operator's output in its node is a constant of the module: it is read all the
same, and no exporter can fold it into anything. Modules are in evaluation mode; weights are PyTorch's initial ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct
from ...cost import shrink
from ...costs.shapes import Shape
from .network import cell_operator, fusion_operator, up_operator
from .operators import CellEdge, ConvUnit, FusionEdge, Head, UpEdge


class _Added(nn.Module):
    """An operator of a cell and the addition to its node."""

    node: Tensor

    def __init__(self, shape: CellEdge) -> None:
        super().__init__()
        self.operator = cell_operator(shape.operator_name, shape.channels, shape.stride)
        self.register_buffer("node", torch.rand(1, shape.channels, *shrink(shape.size, shape.stride)))

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(x) + self.node


class _Up(nn.Module):
    """An "Up x2" edge."""

    def __init__(self, shape: UpEdge) -> None:
        super().__init__()
        self.size = tuple(shape.to)
        self.operator = up_operator(shape.operator_name, shape.inputs, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.operator(x, self.size)
        return out


class _Head(nn.Module):
    """The head, of one of the three final maps."""

    second: Tensor
    third: Tensor

    def __init__(self, shape: Head) -> None:
        super().__init__()
        self.image = tuple(shape.image)
        self.classifier = nn.Conv2d(shape.channels, shape.classes, 1)
        for name in ("second", "third"):
            self.register_buffer(name, torch.rand(1, shape.channels, *shape.size))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.classifier(x + self.second + self.third)
        return F.interpolate(logits, size=self.image, mode="bilinear", align_corners=False)


def module_of(shape: Shape) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """The operator as a module in evaluation mode, and the shape of its input."""
    module, channels = _module_of(shape)
    return module.eval(), (1, channels, *shape.size)


def _module_of(shape: Shape) -> tuple[nn.Module, int]:
    if isinstance(shape, ConvUnit):
        return ConvNormAct(shape.inputs, shape.outputs, shape.kernel, shape.stride), shape.inputs
    if isinstance(shape, CellEdge):
        return _Added(shape), shape.channels
    if isinstance(shape, FusionEdge):
        return fusion_operator(shape.operator_name, shape.inputs, shape.outputs), shape.inputs
    if isinstance(shape, UpEdge):
        return _Up(shape), shape.inputs
    if isinstance(shape, Head):
        return _Head(shape), shape.channels
    raise TypeError(f"no module for {type(shape).__name__}")
