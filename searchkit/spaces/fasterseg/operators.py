"""The operators of a FasterSeg network at their shapes: the units that costs are summed over and latencies measured
for.

Keys are those of the authors' release, which `latency` explains; H and W are those of the operator's input. At an image
whose sides are multiples of 32 they are the image's divided by the rate; elsewhere they are the map's own, as strided
convolutions round an odd side up and zoomed ones round it down. The resize of a merge is measured with the convolution
in front of it, whose key has nothing else; concatenations are not measured.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...cost import StageCounter
from ...costs.shapes import Shape
from ...sizes import Size
from .genotype import (
    STEM_RATE,
    FasterSegGenotype,
    FasterSegLayer,
    PlacedLayer,
    classifier_mid,
    count_layer,
    stem_channels,
)
from .genotype import Operator as OperatorName
from .latency import OPERATOR_KEYS


@dataclass(frozen=True)
class ChannelShape(Shape):
    """An operator with its channels.

    Attributes:
        inputs, outputs: channels.
    """

    inputs: int
    outputs: int

    @abstractmethod
    def count(self, counter: StageCounter) -> Size:
        """Add the operator's cost; returns the size of its output."""

    @property
    def _place(self) -> str:
        return f"H{self.size.height}_W{self.size.width}_Cin{self.inputs}_Cout{self.outputs}"


@dataclass(frozen=True)
class Convolution(ChannelShape):
    """ConvNormAct: the first of the stem, and those of the merges, a kernel of 1 with the resize behind it."""

    kernel: int
    stride: Literal[1, 2]

    @property
    def key(self) -> str:
        return f"ConvNorm_{self._place}_kernel{self.kernel}_stride{self.stride}"

    def count(self, counter: StageCounter) -> Size:
        kernel = (self.kernel, self.kernel)
        return counter.conv(self.inputs, self.outputs, kernel, self.size, stride=self.stride)


@dataclass(frozen=True)
class CellOperator(ChannelShape):
    """An operator of a cell, or a pair of the stem's convolutions."""

    name: OperatorName
    stride: Literal[1, 2]

    @property
    def key(self) -> str:
        dilation = "" if self.name == "skip" else "_dilation1"
        return f"{OPERATOR_KEYS[self.name]}_{self._place}_stride{self.stride}{dilation}"

    @property
    def placed(self) -> PlacedLayer:
        """As the discrete network has it, at no rate in particular."""
        layer = FasterSegLayer(operator=self.name, width=1, stride=self.stride)
        return PlacedLayer(layer, self.inputs, self.outputs, 1, self.stride)

    def count(self, counter: StageCounter) -> Size:
        return count_layer(counter, self.placed, self.size)


@dataclass(frozen=True)
class Fuse(ChannelShape):
    """1x1 convolution over both branches."""

    @property
    def key(self) -> str:
        return f"ff_H{self.size.height}_W{self.size.width}_C{self.inputs}"

    def count(self, counter: StageCounter) -> Size:
        return counter.conv(self.inputs, self.outputs, (1, 1), self.size)


@dataclass(frozen=True)
class Head(ChannelShape):
    """The classifier, and the resize of its logits to the image."""

    image: Size

    @property
    def key(self) -> str:
        return f"head_{self._place}"

    def count(self, counter: StageCounter) -> Size:
        mid = classifier_mid(self.inputs)
        counter.conv(self.inputs, mid, (3, 3), self.size)
        counter.conv(mid, self.outputs, (1, 1), self.size, bias=True, norm=False)
        counter.resize(self.outputs, self.size, self.image)
        return self.image


def stem_shapes(image: Size, width: int) -> list[ChannelShape]:
    """Of the five convolutions of the stem, the last four in pairs."""
    first, rest = stem_channels(width)
    convolution = Convolution(image, 3, first, 3, 2)
    half = output_size(convolution)
    pair = CellOperator(half, first, rest, "conv_x2", 2)
    return [convolution, pair, CellOperator(output_size(pair), rest, rest, "conv_x2", 2)]


def head_shapes(eighth: Size, image: Size, head_width: int, branches: int, classes: int) -> list[ChannelShape]:
    """Behind the merges."""
    fused = head_width * STEM_RATE * branches
    return [Fuse(eighth, fused, fused), Head(eighth, fused, classes, image)]


def reduce_shape(size: Size, coarse: int, merged: int) -> Convolution:
    """The 1x1 convolution of a merge, of the coarse map."""
    return Convolution(size, coarse, merged, 1, 1)


def refine_shape(size: Size, merged: int, fine: int) -> Convolution:
    """The 3x3 convolution of a merge, of a map of the fine one's size."""
    return Convolution(size, merged + fine, merged, 3, 1)


def output_size(shape: ChannelShape) -> Size:
    """Height and width of what an operator makes."""
    return shape.count(StageCounter(""))


def shapes_of(genotype: FasterSegGenotype, image: Size) -> Iterator[ChannelShape]:
    """Every operator of a network, for an image of this size, in the order of `latency.table_keys`."""
    stem = stem_shapes(image, genotype.stem_width)
    yield from stem
    sizes = {STEM_RATE: output_size(stem[-1])}
    size = sizes[STEM_RATE]
    for placed in genotype.placed_shared():
        shape = _cell(placed, size)
        yield shape
        size = sizes[placed.rate_out] = output_size(shape)
    seen = []
    for index in range(len(genotype.branches)):
        own, last = dict(sizes), size
        for placed in genotype.placed_branch(index):
            shape = _cell(placed, last)
            yield shape
            last = own[placed.rate_out] = output_size(shape)
        seen.append(own)
    for index, own in enumerate(seen):
        yield from _merge_shapes(genotype, index, own)
    branches = len(genotype.branches)
    yield from head_shapes(sizes[STEM_RATE], image, genotype.head_width, branches, genotype.classes)


def _cell(placed: PlacedLayer, size: Size) -> CellOperator:
    layer = placed.layer
    return CellOperator(size, placed.in_channels, placed.out_channels, layer.operator, layer.stride)


def _merge_shapes(genotype: FasterSegGenotype, index: int, sizes: dict[int, Size]) -> Iterator[ChannelShape]:
    channels = genotype.branch_channels(index)
    rate = max(channels)
    coarse = channels[rate]
    while rate > STEM_RATE:
        merged = genotype.head_width * rate // 2
        yield reduce_shape(sizes[rate], coarse, merged)
        rate //= 2
        yield refine_shape(sizes[rate], merged, channels[rate])
        coarse = merged
