"""Operators inside a frame, so that they are timed as they run inside a network.

An operator that is timed alone is handed its map in the exchange layout and hands it back in that, which costs copies
that a network makes at its two ends only: on a CPU, ONNX Runtime computes convolutions in blocks of 16 channels. A
frame makes the operator's input from one channel by a 1x1 convolution, and a 1x1 convolution reads an eighth of the
rows and columns of its output, so that both are in the runtime's own layout; what the frame takes without an operator
is measured beside it and subtracted. Whoever leaves a map in the exchange layout pays for the copy that follows.

What reads the image itself, and what makes as many channels as there are classes (the network's result), stands at an
end of the network, and has no frame on that side.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from deploy.contracts import CONTRACTS, Contract
from deploy.lowering.pools import lower
from deploy.onnx import OPSET, quiet
from searchkit.errors import UsageError
from searchkit.sizes import Size

_IMAGE_CHANNELS = 3
# Of the convolution that reads the result: it is cheap, and every runtime has a kernel for it.
_SINK_CHANNELS, _SINK_STRIDE = 16, 8

MapShape = tuple[int, int, int, int]


class OperatorModel:
    """A module of one map, as backends open it; see `deploy.backends.Model`."""

    precision = "fp32"

    def __init__(self, module: nn.Module, shape: MapShape) -> None:
        self.module, self._shape = module, shape

    @property
    def contract(self) -> Contract:
        """Of plain logits, which wraps nothing."""
        contract: Contract = CONTRACTS.load("logits")
        return contract

    @property
    def size(self) -> Size:
        """Of its map."""
        return Size(*self._shape[2:])

    @cached_property
    def onnx(self) -> bytes:
        """Written by the exporter that traces: the one that `searchkit export` uses takes far longer an operator."""
        # A file in memory is taken too, as the annotation of this argument does not say.
        file: Any = io.BytesIO()
        with quiet(), torch.no_grad():
            torch.onnx.export(
                lower(self.module, self.example()),
                (self.example(),),
                file,
                dynamo=False,
                opset_version=OPSET,
            )
        return bytes(file.getvalue())

    def example(self) -> Tensor:
        """Random numbers."""
        return torch.rand(self._shape)

    def engine(self, backend: str) -> bytes | None:
        """None."""
        return None


@dataclass(frozen=True)
class Place:
    """Where in a network an operator stands.

    Attributes:
        shape: of the map that it reads.
        opens: it reads the image.
        channels: of what it makes.
        closes: it makes the network's result.
    """

    shape: MapShape
    opens: bool
    channels: int
    closes: bool


class Framed(nn.Module):
    """Frame and operator; without one, what is to be subtracted."""

    def __init__(self, place: Place, operator: nn.Module | None) -> None:
        super().__init__()
        channels = place.channels if operator is not None else place.shape[1]
        closes = place.closes and operator is not None
        self.source: nn.Module = nn.Identity() if place.opens else nn.Conv2d(1, place.shape[1], 1)
        self.operator = nn.Identity() if operator is None else operator
        self.sink: nn.Module = nn.Identity() if closes else nn.Conv2d(channels, _SINK_CHANNELS, 1, stride=_SINK_STRIDE)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.sink(self.operator(self.source(x)))
        return result


def place_of(module: nn.Module, shape: MapShape, size: Size, classes: int, *, where: str) -> Place:
    """Where an operator stands, in a network for images of `size`; runs it once.

    Raises:
        UsageError: it does not make one map.
    """
    with torch.no_grad():
        made = module(torch.rand(shape))
    if not isinstance(made, Tensor) or made.dim() != len(shape):
        raise UsageError("an operator that is timed makes one map", where=where)
    opens = shape == (1, _IMAGE_CHANNELS, *size)
    return Place(shape, opens, made.shape[1], made.shape[1] == classes)


def framed(place: Place, operator: nn.Module | None) -> OperatorModel:
    """An operator in its frame, or the frame without it, in evaluation mode."""
    height, width = place.shape[2:]
    taken = place.shape if place.opens else (1, 1, height, width)
    return OperatorModel(Framed(place, operator).eval(), taken)
