"""The operators of a DCNAS network at their shapes: the units that costs are summed over and latencies measured for.

Equal shapes have equal keys, and different ones never share a key. H and W are those of the image, as every map's size
follows from it by a rate: `block_H512_W1024_rate8_C128_kernel5_expansion6`.

A connection is one operator with the addition that its module makes for it. Two things are cheaper in a network than
this sum has them: a map that several modules read at a coarser rate is pooled once, and maps of one rate that have to
grow are resized together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...cost import StageCounter
from ...costs.shapes import Shape
from ...sizes import Size
from .genotype import (
    RATES,
    DCNASGenotype,
    Rate,
    count_alignment,
    count_classifier,
    count_head_input,
    count_operator,
    count_stem,
    map_size,
    width_at,
)


@dataclass(frozen=True)
class StemLevel(Shape):
    """What takes the stem to one more rate.

    Attributes:
        stem: channels at 1/2; 0 where it is no matter, beyond 1/4.
    """

    stem: int
    channels: int
    rate: Rate

    @classmethod
    def of(cls, image: Size, stem: int, channels: int, rate: Rate) -> StemLevel:
        """Of a stem with so many channels at 1/2."""
        return cls(image, stem if rate == RATES[0] else 0, channels, rate)

    @property
    def key(self) -> str:
        stem = (f"stem{self.stem}",) if self.rate == RATES[0] else ()
        return self._key("stem", f"rate{self.rate}", *stem, f"Cout{width_at(self.channels, self.rate)}")

    def count(self, counter: StageCounter) -> None:
        count_stem(counter, self.size, self.stem, self.channels, self.rate)


@dataclass(frozen=True)
class Connection(Shape):
    """Shape alignment from one rate to another, and the addition of what comes out; between equal rates, that alone."""

    channels: int
    source: Rate
    target: Rate

    @property
    def key(self) -> str:
        widths = f"Cin{width_at(self.channels, self.source)}", f"Cout{width_at(self.channels, self.target)}"
        return self._key("connection", f"rate{self.source}", f"to{self.target}", *widths)

    def count(self, counter: StageCounter) -> None:
        count_alignment(counter, self.size, self.channels, self.source, self.target)


@dataclass(frozen=True)
class Block(Shape):
    """The operator of a module: a MobileNetV3 block."""

    channels: int
    rate: Rate
    kernel: int
    expansion: int

    @property
    def key(self) -> str:
        wide = width_at(self.channels, self.rate)
        return self._key("block", f"rate{self.rate}", f"C{wide}", f"kernel{self.kernel}", f"expansion{self.expansion}")

    def count(self, counter: StageCounter) -> None:
        size, wide = map_size(self.size, self.rate), width_at(self.channels, self.rate)
        count_operator(counter, size, wide, self.kernel, self.expansion)


@dataclass(frozen=True)
class HeadInput(Shape):
    """A map of the last layer on its way into the head, and its addition."""

    channels: int
    rate: Rate
    head: int

    @property
    def key(self) -> str:
        return self._key("head", f"rate{self.rate}", f"Cin{width_at(self.channels, self.rate)}", f"Cout{self.head}")

    def count(self, counter: StageCounter) -> None:
        count_head_input(counter, self.size, self.channels, self.head, self.rate)


@dataclass(frozen=True)
class Classifier(Shape):
    """ReLU, the 1x1 convolution to the classes at 1/4, the resize of the logits to the image."""

    head: int
    classes: int

    @property
    def key(self) -> str:
        return self._key("classifier", f"Cin{self.head}", f"Cout{self.classes}")

    def count(self, counter: StageCounter) -> None:
        count_classifier(counter, self.size, self.head, self.classes)


def shapes_of(genotype: DCNASGenotype, image: Size) -> Iterator[Shape]:
    """Every operator of a network, in the order they run, for an image of this size."""
    channels = genotype.channels
    for rate in genotype.stem_rates():
        yield StemLevel.of(image, genotype.stem, channels, rate)
    for module in genotype.modules:
        for source in module.sources:
            yield Connection(image, channels, source.rate, module.rate)
        yield Block(image, channels, module.rate, module.kernel, module.expansion)
    for rate in RATES:
        yield HeadInput(image, channels, rate, genotype.head)
    yield Classifier(image, genotype.head, genotype.classes)
