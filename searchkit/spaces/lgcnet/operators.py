"""The operators of an LGCNet network at their shapes: the units that costs are summed over and latencies measured for.

Source: Cheng et al., "Local-to-Global Information Communication for Real-Time Semantic Segmentation Network Search",
Table II (cells) and Table III (fusion cell). The printed Table III has nine of the ten kinds that the text speaks of:
the tenth here is global pooling to 3 x 3, between the two poolings that are printed.

Equal shapes have equal keys, and different ones never share a key. A key names the operator, height and width of the
map that it reads, its channels, and whatever else changes what is computed. What an operator of a cell costs includes
the addition of its output to the node's other inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...cost import StageCounter, shrink
from ...costs.shapes import Shape
from ...sizes import Size

CellOperator = Literal["max_pool", "skip", "conv", "none", "sep_conv", "sep_conv_d2", "sep_conv_d4", "sep_conv_d8"]
FusionOperator = Literal[
    "conv1x1",
    "conv3x3",
    "sep_conv",
    "sep_conv_d2",
    "sep_conv_d4",
    "sep_conv_d8",
    "sep_conv_d12",
    "pool1",
    "pool3",
    "pool5",
]
UpOperator = Literal["deconvolution", "resize"]

#: Table II, in its order.
CELL_OPERATORS: tuple[CellOperator, ...] = get_args(CellOperator)
#: The same less the zero operation, whose edge is absent.
PRESENT: tuple[CellOperator, ...] = tuple(name for name in CELL_OPERATORS if name != "none")
#: Table III, in its order.
FUSION_OPERATORS: tuple[FusionOperator, ...] = get_args(FusionOperator)
UP_OPERATORS: tuple[UpOperator, ...] = get_args(UpOperator)


def dilation_of(operator: str) -> int:
    """Of a separable convolution, by its name."""
    _, _, dilation = operator.partition("_d")
    return int(dilation) if dilation else 1


def bins_of(operator: str) -> int:
    """To how many rows and columns a global pooling pools, by its name."""
    return int(operator.removeprefix("pool"))


@dataclass(frozen=True)
class ConvUnit(Shape):
    """Convolution, BatchNorm, ReLU: of the stem (3x3), and what takes a map to the channels of its reader (1x1)."""

    inputs: int
    outputs: int
    kernel: Literal[1, 3]
    stride: int

    @property
    def key(self) -> str:
        return self._key(
            f"unit{self.kernel}x{self.kernel}", f"Cin{self.inputs}", f"Cout{self.outputs}", f"s{self.stride}"
        )

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.inputs, self.outputs, (self.kernel, self.kernel), self.size, stride=self.stride)


@dataclass(frozen=True)
class CellEdge(Shape):
    """An operator of a cell; it keeps the number of channels."""

    operator_name: CellOperator
    channels: int
    stride: int

    @property
    def key(self) -> str:
        return self._key(f"cell_{self.operator_name}", f"C{self.channels}", f"s{self.stride}")

    def count(self, counter: StageCounter) -> None:
        name, channels = self.operator_name, self.channels
        if name == "conv":
            counter.conv(channels, channels, (3, 3), self.size, stride=self.stride)
        elif name.startswith("sep_conv"):
            count_separable(counter, channels, channels, self.size, self.stride)
        elif name == "skip" and self.stride == 2:
            counter.conv(channels, channels, (1, 1), self.size, stride=2)


@dataclass(frozen=True)
class FusionEdge(Shape):
    """An operator of the fusion cell, at stride 1."""

    operator_name: FusionOperator
    inputs: int
    outputs: int

    @property
    def key(self) -> str:
        return self._key(f"fusion_{self.operator_name}", f"Cin{self.inputs}", f"Cout{self.outputs}")

    def count(self, counter: StageCounter) -> None:
        name = self.operator_name
        if name.startswith("sep_conv"):
            count_separable(counter, self.inputs, self.outputs, self.size, 1)
        elif name.startswith("pool"):
            bins = Size(bins_of(name), bins_of(name))
            counter.conv(self.inputs, self.outputs, (1, 1), bins)
            counter.resize(self.outputs, bins, self.size)
        else:
            kernel = 3 if name == "conv3x3" else 1
            counter.conv(self.inputs, self.outputs, (kernel, kernel), self.size)


@dataclass(frozen=True)
class UpEdge(Shape):
    """ "Up x2": from `size` to the next finer map, `to`, whose sides are twice as long or one pixel less."""

    operator_name: UpOperator
    inputs: int
    outputs: int
    to: Size

    @property
    def key(self) -> str:
        return self._key(f"up_{self.operator_name}", f"Cin{self.inputs}", f"Cout{self.outputs}", f"to{self.to}")

    def count(self, counter: StageCounter) -> None:
        if self.operator_name == "deconvolution":
            # 2x2 weights at stride 2: each output pixel is one weight times one input pixel.
            counter.conv(self.inputs, 4 * self.outputs, (1, 1), self.size, norm=False)
            counter.norm(self.outputs)
            return
        if self.inputs != self.outputs:
            counter.conv(self.inputs, self.outputs, (1, 1), self.size)
        counter.resize(self.outputs, self.size, self.to)


@dataclass(frozen=True)
class Head(Shape):
    """The sum of the three final maps at 1/4 (`size`), a 1x1 classifier, the resize of its logits to the image."""

    channels: int
    classes: int
    image: Size

    @property
    def key(self) -> str:
        return self._key("head", f"Cin{self.channels}", f"Cout{self.classes}", f"to{self.image}")

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.channels, self.classes, (1, 1), self.size, bias=True, norm=False)
        counter.resize(self.classes, self.size, self.image)


def count_separable(counter: StageCounter, inputs: int, outputs: int, size: Size, stride: int) -> None:
    """Count a depthwise 3x3 convolution, then a 1x1 convolution with BatchNorm."""
    # A depthwise convolution reads one channel for each that it makes.
    counter.conv(1, inputs, (3, 3), size, stride=stride, norm=False)
    counter.conv(inputs, outputs, (1, 1), shrink(size, stride))
