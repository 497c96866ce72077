"""Normalised float NCHW in, logits out at the resolution that the network itself returns."""

from __future__ import annotations

from torch import nn

from searchkit.sizes import Size

from ._float_input import FloatInput


class Raw(FloatInput):
    """The network as it is."""

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return network

    def output_meaning(self) -> str:
        return "one score a class, before softmax"


CONTRACT = Raw()
