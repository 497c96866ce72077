"""The operators of a DCNAS network as modules by themselves, so that each can be timed.

Each takes one map. What it is added to is a constant of the module: it is read all the same, and a runtime cannot
compute anything of it beforehand.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct, resize
from ...costs.shapes import Shape
from ...sizes import Size
from .genotype import RATES, Place, map_size, width_at
from .network import InvertedResidual, Maps, ShapeAlignment, stem_level
from .operators import Block, Classifier, Connection, HeadInput, StemLevel


class _Connection(nn.Module):
    """`Connection`: what is aligned, added to what is there."""

    there: Tensor

    def __init__(self, shape: Connection) -> None:
        super().__init__()
        self.image, self.source = shape.size, Place(0, shape.source)
        self.align = ShapeAlignment(shape.channels, shape.target, [self.source])
        size = map_size(shape.size, shape.target)
        self.register_buffer("there", torch.rand(1, width_at(shape.channels, shape.target), *size))

    def forward(self, x: Tensor) -> Tensor:
        maps = Maps()
        maps.add(self.source, x)
        return self.there + self.align(maps, self.image, [self.source], None)


class _HeadInput(nn.Module):
    """`HeadInput`: a convolution, a resize to 1/4, added to what is there."""

    there: Tensor

    def __init__(self, shape: HeadInput) -> None:
        super().__init__()
        self.conv = ConvNormAct(width_at(shape.channels, shape.rate), shape.head, 1, act=False)
        self.register_buffer("there", torch.rand(1, shape.head, *map_size(shape.size, RATES[0])))

    def forward(self, x: Tensor) -> Tensor:
        return self.there + resize(self.conv(x), self.there.shape[-2:])


class _Classifier(nn.Module):
    """`Classifier`."""

    def __init__(self, shape: Classifier) -> None:
        super().__init__()
        self.image = shape.size
        self.classifier = nn.Conv2d(shape.head, shape.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return resize(self.classifier(F.relu(x)), self.image)


def module_of(shape: Shape) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """The operator as a module in evaluation mode, and the shape of its input."""
    module, channels, size = _module_of(shape)
    return module.eval(), (1, channels, *size)


def _module_of(shape: Shape) -> tuple[nn.Module, int, Size]:
    image = shape.size
    if isinstance(shape, StemLevel):
        module = stem_level(shape.stem, shape.channels, shape.rate)
        if shape.rate == RATES[0]:
            return module, 3, image
        return module, width_at(shape.channels, shape.rate) // 2, map_size(image, shape.rate // 2)
    if isinstance(shape, Connection):
        return _Connection(shape), width_at(shape.channels, shape.source), map_size(image, shape.source)
    if isinstance(shape, Block):
        wide = width_at(shape.channels, shape.rate)
        return InvertedResidual(wide, shape.kernel, shape.expansion), wide, map_size(image, shape.rate)
    if isinstance(shape, HeadInput):
        return _HeadInput(shape), width_at(shape.channels, shape.rate), map_size(image, shape.rate)
    if isinstance(shape, Classifier):
        return _Classifier(shape), shape.head, map_size(image, RATES[0])
    raise TypeError(f"no module for {type(shape).__name__}")
