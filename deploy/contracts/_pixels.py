"""Pixels as a camera gives them, 0 to 255: mean, standard deviation and the swap of BGR inside the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from searchkit.normalization import MEAN, STD
from searchkit.sizes import Size

from . import TensorSpec
from ._probabilities import Probabilities, ProbabilityOutput


class Normalisation(nn.Module):
    """N x 3 x H x W float RGB, 0 to 255, to what networks take: (x / 255 - mean) / std in one multiply and one add."""

    scale: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        std = torch.tensor(STD, dtype=torch.float64).view(1, 3, 1, 1)
        mean = torch.tensor(MEAN, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels * self.scale + self.offset


class FromPixels(nn.Module):
    """A network that takes N x 3 x H x W float pixels, 0 to 255, in `colour_order`."""

    def __init__(self, network: nn.Module, colour_order: str) -> None:
        super().__init__()
        self.normalisation = Normalisation()
        self.network = network
        self.swap = colour_order == "BGR"

    def forward(self, pixels: Tensor) -> Tensor:
        if self.swap:
            # Slices and a concatenation: every version of TensorRT's parser reads them.
            pixels = torch.cat((pixels[:, 2:3], pixels[:, 1:2], pixels[:, 0:1]), dim=1)
        logits: Tensor = self.network(self.normalisation(pixels))
        return logits


class PixelsToProbabilities(ProbabilityOutput):
    """Float32 N x 3 x H x W pixels, 0 to 255, in; probabilities at the input's resolution out.

    Attributes:
        colour_order: `RGB` or `BGR`, of the input.
    """

    normalisation_in_graph = True
    colour_order: str

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return Probabilities(FromPixels(network, self.colour_order), size)

    def input_spec(self, size: Size) -> TensorSpec:
        meaning = f"{self.colour_order}, 0 to 255, not normalised"
        return TensorSpec("image", "float32", "NCHW", (1, 3, *size), meaning, self.colour_order, (0.0, 255.0))

    def encode(self, image_HWC: np.ndarray) -> np.ndarray:
        ordered = image_HWC[..., ::-1] if self.colour_order == "BGR" else image_HWC
        return np.ascontiguousarray(ordered.transpose(2, 0, 1)[None], dtype=np.float32)
