"""Isaac ROS's U-Net nodes: normalised float RGB NCHW in, int32 label map N x H x W x 1 out.

- Its image encoder always scales to [0, 1] and then subtracts a mean and divides by a standard deviation a channel
  (0.5 and 0.5 unless told otherwise). That is our normalisation with our numbers, so they stay out of the graph and
  stand in the encoder's parameters. Leaving them at 0.5 gives wrong labels without an error; moving them into the
  graph would not help, as the encoder would still have to be told 0 and 1.
- Its decoder takes an arg-max only as int32 or int64 with a last axis of 1 (a uint8 map is refused), and publishes it
  as MONO8: at most 255 classes.
- TensorRTNode passes float32, int8, int32, int64 and uint8, never half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from searchkit.blocks import resize
from searchkit.sizes import Size

from . import TensorSpec
from ._float_input import FloatInput
from ._label_map import check_label_map


class LabelMapInt32(nn.Module):
    """N x 3 x H x W normalised RGB to N x H x W x 1 int32 labels."""

    def __init__(self, network: nn.Module, size: Size) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.network(image), self.size).argmax(1).to(torch.int32).unsqueeze(-1)


class IsaacROS(FloatInput):
    """Float32 RGB N x 3 x H x W, normalised by the encoder, in; int32 N x H x W x 1 out."""

    output_dtype = "int32"

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return LabelMapInt32(network, size)

    @property
    def output_name(self) -> str:
        return "labels"

    @property
    def output_layout(self) -> str:
        return "NHWC"

    def output_meaning(self) -> str:
        return "index of the class with the highest logit"

    def output_spec(self, size: Size, classes: int) -> TensorSpec:
        """The last axis holds the label, whatever the number of classes."""
        return replace(super().output_spec(size, classes), shape=(1, *size, 1))

    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        return output[..., 0]

    def check_classes(self, classes: int) -> None:
        check_label_map(classes, "isaac-ros")


CONTRACT = IsaacROS()
