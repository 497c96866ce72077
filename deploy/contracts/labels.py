"""uint8 RGB NHWC in, uint8 label map out; normalisation and arg-max inside the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from searchkit.blocks import resize
from searchkit.errors import UsageError
from searchkit.normalization import MEAN, STD
from searchkit.sizes import Size

from . import Contract, TensorSpec

# 255 stands for "ignore" in every data set here.
MAX_CLASSES = 255


class LabelMap(nn.Module):
    """N x H x W x 3 uint8 RGB to N x H x W uint8 labels.

    The cast to float comes before the transposition: TensorRT lets nothing but Cast touch a uint8 tensor.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.size = size
        # (x / 255 - mean) / std in one multiply and one add.
        std = torch.tensor(STD, dtype=torch.float64).view(1, 3, 1, 1)
        mean = torch.tensor(MEAN, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())

    def forward(self, image_NHWC: Tensor) -> Tensor:
        pixels = image_NHWC.to(torch.float32).permute(0, 3, 1, 2)
        logits = self.network(pixels * self.scale + self.offset)
        return resize(logits, self.size).argmax(1).to(torch.uint8)


class Labels(Contract):
    """What a camera pipeline wants: bytes in, bytes out."""

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return LabelMap(network, size)

    def input_spec(self, size: Size) -> TensorSpec:
        return TensorSpec("image", "uint8", "NHWC", (1, *size, 3), "RGB, 0 to 255")

    @property
    def output_name(self) -> str:
        return "labels"

    @property
    def output_layout(self) -> str:
        return "NHW"

    def output_meaning(self) -> str:
        return "index of the class with the highest logit"

    def encode(self, image_HWC: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image_HWC[None])

    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        return output

    def check_classes(self, classes: int) -> None:
        if classes > MAX_CLASSES:
            raise UsageError(
                "too many classes for a uint8 label map",
                where="--io labels",
                got=classes,
                allowed=f"at most {MAX_CLASSES}",
                fix="use --io raw",
            )


CONTRACT = Labels()
