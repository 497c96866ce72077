"""uint8 RGB NHWC in, uint8 label map out; normalisation and arg-max inside the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from searchkit.blocks import resize
from searchkit.sizes import Size

from . import Contract, TensorSpec
from ._label_map import check_label_map
from ._pixels import Normalisation


class LabelMap(nn.Module):
    """N x H x W x 3 uint8 RGB to N x H x W uint8 labels.

    The cast to float comes before the transposition: TensorRT lets nothing but Cast touch a uint8 tensor.
    """

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.normalisation = Normalisation()
        self.network = network
        self.size = size

    def forward(self, image_NHWC: Tensor) -> Tensor:
        pixels = image_NHWC.to(torch.float32).permute(0, 3, 1, 2)
        logits = self.network(self.normalisation(pixels))
        return resize(logits, self.size).argmax(1).to(torch.uint8)


class Labels(Contract):
    """What a camera pipeline wants: bytes in, bytes out.

    Attributes:
        name: on the command line.
    """

    normalisation_in_graph = True
    output_dtype = "uint8"
    preprocessing = "pixels"
    name = "labels"

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return LabelMap(network, size)

    def input_spec(self, size: Size) -> TensorSpec:
        return TensorSpec("image", "uint8", "NHWC", (1, *size, 3), "RGB, 0 to 255", "RGB", (0.0, 255.0))

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
        check_label_map(classes, self.name)


CONTRACT = Labels()
