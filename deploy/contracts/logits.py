"""Normalised float NCHW in, logits out at the input's resolution: what the papers time."""

from __future__ import annotations

from torch import Tensor, nn

from searchkit.blocks import resize
from searchkit.sizes import Size

from ._float_input import FloatInput


class FullResolution(nn.Module):
    """The network, its logits resized to the input's size where they are coarser."""

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.network(image), self.size)


class Logits(FloatInput):
    """What makes networks comparable: all answer at the input's resolution."""

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return FullResolution(network, size)

    def output_meaning(self) -> str:
        return "one score a class and pixel, before softmax, at the input's resolution"


CONTRACT = Logits()
