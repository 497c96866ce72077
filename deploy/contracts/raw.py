"""Normalised float NCHW in, logits out at the resolution that the network itself returns."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from searchkit.sizes import Size

from . import TensorSpec
from ._float_input import FloatInput


class Raw(FloatInput):
    """The network as it is."""

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return network

    def output_meaning(self) -> str:
        return "one score a class, before softmax"

    def output_spec(self, size: Size, classes: int) -> TensorSpec:
        """Height and width are the network's own, mostly an eighth of the image's."""
        return replace(super().output_spec(size, classes), shape=(1, classes, -1, -1))


CONTRACT = Raw()
