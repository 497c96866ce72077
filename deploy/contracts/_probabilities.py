"""What the contracts that answer with probabilities have in common."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from searchkit.blocks import resize
from searchkit.sizes import Size

from . import Contract


class Probabilities(nn.Module):
    """The network, its logits resized to the input's size, softmax over the classes: N x C x H x W, in that order.

    Resized first: then the largest probability is where the largest full-resolution logit is.
    """

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.network(image), self.size).softmax(1)


class ProbabilityOutput(Contract):
    """Float32 N x C x H x W at the input's resolution, between 0 and 1, their sum 1 at every pixel."""

    @property
    def output_name(self) -> str:
        return "probabilities"

    @property
    def output_layout(self) -> str:
        return "NCHW"

    def output_meaning(self) -> str:
        return "probability of each class at each pixel, at the input's resolution"

    def check_classes(self, classes: int) -> None:
        """There is a channel a class, however many there are."""

    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        """Arg-max over the classes."""
        import torch

        return torch.from_numpy(output).argmax(1).numpy()
