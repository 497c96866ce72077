"""Normalised float NCHW in, probabilities out at the input's resolution."""

from __future__ import annotations

from torch import nn

from searchkit.sizes import Size

from ._float_input import FloatInput
from ._probabilities import Probabilities, ProbabilityOutput


class Softmax(ProbabilityOutput, FloatInput):
    """For consumers that threshold or fuse probabilities; float32 RGB, normalised by the caller as for `logits`."""

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return Probabilities(network, size)


CONTRACT = Softmax()
