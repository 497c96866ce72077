"""The operators of an SSR network at their shapes: the units that costs are summed over and latencies measured for.

Equal shapes have equal keys, and different ones never share a key. A key names the operator, the height and width of
the layer's map, the channels that the operator reads and makes, and whatever else changes what is computed:
`conv3x1_H128_W256_Cin64_Cout52_dilation4_spatial2_average_norm`.

A layer is two operators, so that a latency table has (in, mid) and (mid, out) pairs and no (in, mid, out) triples. The
residual addition belongs to the second, at its output's width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...cost import StageCounter, shrink
from ...costs.shapes import Shape
from ...sizes import Size
from .genotype import AggregationHead, Dilation, SSRGenotype, SSRLayer

Pool = Literal["average", "max"]


@dataclass(frozen=True)
class Downsampler(Shape):
    """ERFNet's: a strided 3x3 convolution of `wide - narrow` channels beside a max-pool, BatchNorm, ReLU."""

    narrow: int
    wide: int

    @property
    def key(self) -> str:
        return self._key("downsampler", f"Cin{self.narrow}", f"Cout{self.wide}")

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.narrow, self.wide - self.narrow, (3, 3), self.size, stride=2, bias=True, norm=False)
        counter.norm(self.wide)


@dataclass(frozen=True)
class Conv3x1(Shape):
    """First half of a layer: pooling where `spatial` is 2, 3x1 convolution, BatchNorm where `norm`, ReLU."""

    channels: int
    mid: int
    dilation: Dilation
    spatial: Literal[1, 2]
    pool: Pool
    norm: bool

    @property
    def key(self) -> str:
        pool = (f"spatial2_{self.pool}",) if self.spatial == 2 else ()
        norm = ("norm",) if self.norm else ()
        return self._key("conv3x1", f"Cin{self.channels}", f"Cout{self.mid}", f"dilation{self.dilation}", *pool, *norm)

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.channels, self.mid, (3, 1), _inner(self.size, self.spatial), bias=True, norm=self.norm)


@dataclass(frozen=True)
class Conv1x3(Shape):
    """Second half: 1x3 convolution, BatchNorm, resize to `size` where `spatial` is 2, residual at `size`, ReLU."""

    mid: int
    out: int
    dilation: Dilation
    spatial: Literal[1, 2]

    @property
    def key(self) -> str:
        spatial = ("spatial2",) if self.spatial == 2 else ()
        return self._key("conv1x3", f"Cin{self.mid}", f"Cout{self.out}", f"dilation{self.dilation}", *spatial)

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.mid, self.out, (1, 3), _inner(self.size, self.spatial), bias=True)


@dataclass(frozen=True)
class Classifier(Shape):
    """A 1x1 convolution to the classes."""

    channels: int
    classes: int

    @property
    def key(self) -> str:
        return self._key("classifier", f"Cin{self.channels}", f"Cout{self.classes}")

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.channels, self.classes, (1, 1), self.size, bias=True, norm=False)


@dataclass(frozen=True)
class Detail(Shape):
    """Of the aggregation block: the 1/2 map, pooled, beside the 1/4 map (`size`), 3x3 convolution, BatchNorm, ReLU."""

    half: int
    quarter: int
    out: int

    @property
    def key(self) -> str:
        return self._key("detail", f"Cin{self.half}+{self.quarter}", f"Cout{self.out}")

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.half + self.quarter, self.out, (3, 3), self.size)


@dataclass(frozen=True)
class Pyramid(Shape):
    """Of the aggregation block: pyramid pooling on the 1/8 map."""

    channels: int
    bins: tuple[int, ...]
    bin_channels: int
    out: int

    @property
    def key(self) -> str:
        bins = "-".join(map(str, self.bins))
        return self._key("pyramid", f"Cin{self.channels}", f"bins{bins}", f"Cbin{self.bin_channels}", f"Cout{self.out}")

    def count(self, counter: StageCounter) -> None:
        for bins in self.bins:
            counter.conv(self.channels, self.bin_channels, (1, 1), Size(bins, bins))
        concatenated = self.channels + len(self.bins) * self.bin_channels
        counter.conv(concatenated, self.out, (1, 1), self.size)


@dataclass(frozen=True)
class Fusion(Shape):
    """Of the aggregation block: context resized to the 1/4 map (`size`) and joined with detail, a 1x1 convolution, the
    classifier, the resize of its logits to the image."""

    eighth: Size
    context: int
    detail: int
    fuse: int
    classes: int
    image: Size

    @property
    def key(self) -> str:
        channels = (f"Cin{self.context}+{self.detail}", f"Cfuse{self.fuse}", f"Cout{self.classes}")
        return self._key("fusion", *channels, f"from{self.eighth}", f"to{self.image}")

    def count(self, counter: StageCounter) -> None:
        counter.conv(self.context + self.detail, self.fuse, (1, 1), self.size)
        counter.conv(self.fuse, self.classes, (1, 1), self.size, bias=True, norm=False)


@dataclass(frozen=True)
class Maps:
    """Sizes of the maps of a network for an image."""

    image: Size
    half: Size
    quarter: Size
    eighth: Size

    @classmethod
    def of(cls, image: Size) -> Maps:
        half = shrink(image, 2)
        quarter = shrink(half, 2)
        return cls(image, half, quarter, shrink(quarter, 2))

    def stage(self, index: int) -> tuple[Size, Size]:
        """What a stage (0 at 1/4, 1 at 1/8) reads, and what its layers work on."""
        return ((self.half, self.quarter), (self.quarter, self.eighth))[index]


def _inner(size: Size, spatial: int) -> Size:
    return Size(size.height // spatial, size.width // spatial)


def layer_shapes(size: Size, channels: int, layer: SSRLayer, pool: Pool, norm: bool) -> tuple[Conv3x1, Conv1x3]:
    """The two operators of a layer that reads `channels`."""
    dilation, spatial = layer.dilation, layer.spatial
    return (
        Conv3x1(size, channels, layer.mid, dilation, spatial, pool, norm),
        Conv1x3(size, layer.mid, layer.out, dilation, spatial),
    )


def fusion_of(head: AggregationHead, maps: Maps, classes: int) -> Fusion:
    """The part of the aggregation block that does not depend on the stages."""
    return Fusion(maps.quarter, maps.eighth, head.context, head.low, head.fuse, classes, maps.image)


def pyramid_of(head: AggregationHead, maps: Maps, channels: int) -> Pyramid:
    """The pyramid over a 1/8 stage that makes `channels`."""
    return Pyramid(maps.eighth, channels, head.bins, head.bin_channels, head.context)


def shapes_of(genotype: SSRGenotype, image: Size) -> Iterator[Shape]:
    """Every operator of a network, in the order they run, for an image of this size."""
    maps = Maps.of(image)
    yield Downsampler(image, 3, genotype.stem)
    channels = genotype.stem
    for index, stage in enumerate(genotype.stages):
        before, size = maps.stage(index)
        yield Downsampler(before, channels, stage.channels)
        channels = stage.channels
        for layer in stage.layers:
            yield from layer_shapes(size, channels, layer, genotype.pool, genotype.mid_norm)
            channels = layer.out
    quarter, eighth = genotype.stage_outputs()
    if isinstance(genotype.head, AggregationHead):
        yield Detail(maps.quarter, genotype.stem, quarter, genotype.head.low)
        yield pyramid_of(genotype.head, maps, eighth)
        yield fusion_of(genotype.head, maps, genotype.classes)
    else:
        yield Classifier(maps.eighth, eighth, genotype.classes)
