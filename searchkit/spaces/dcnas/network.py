"""The discrete DCNAS network (Zhang et al., CVPR 2021, section 3.1, Fig. 1), and the layers that its supernet shares.

Shapes: N batch, C channels, H and W of the input. The network takes N x 3 x H x W and returns logits at H x W. What the
paper leaves open is chosen in `genotype.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks import ConvNormAct, resize
from ...sizes import Size
from .genotype import RATES, DCNASGenotype, DCNASModule, Place, Rate, map_size, width_at


def halved(x: Tensor) -> Tensor:
    """Average pooling, 3x3 and stride 2, without the padding: half the size, rounded up."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


class Maps:
    """What stem and modules made, and each of it at coarser rates, pooled once however many read it."""

    def __init__(self) -> None:
        self._maps: dict[tuple[Place, int], Tensor] = {}

    def add(self, place: Place, made: Tensor) -> None:
        """What a place made."""
        self._maps[place, place.rate] = made

    def at(self, place: Place, rate: int) -> Tensor:
        """What a place made, pooled to `rate`, which is not finer than its own."""
        if (place, rate) not in self._maps:
            self._maps[place, rate] = halved(self.at(place, rate // 2))
        return self._maps[place, rate]


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expand, depthwise, project, add; hard-swish behind the first two.

    Args:
        channels: of input and output.
        kernel, expansion: see `DCNASModule`.
    """

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = ConvNormAct(channels, inner, 1, act=False)
        self.depthwise = ConvNormAct(inner, inner, kernel, groups=inner, act=False)
        self.project = ConvNormAct(inner, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.hardswish(self.depthwise(F.hardswish(self.expand(x)))))


class ShapeAlignment(nn.Module):
    """The mean of maps, each brought to one rate and width: H of Eq. 4.

    A 1x1 convolution works on the coarser map. Maps of one rate that have to grow are added before they are resized,
    which is the same, as resizing is linear.

    Args:
        channels: F.
        rate: of the output.
        sources: what may be read.
    """

    def __init__(self, channels: int, rate: Rate, sources: Iterable[Place]) -> None:
        super().__init__()
        self.rate = rate
        wide = width_at(channels, rate)
        self.convs = nn.ModuleDict(
            {
                source.key: ConvNormAct(width_at(channels, source.rate), wide, 1, act=False)
                for source in sources
                if source.rate != rate
            }
        )

    def aligned(self, maps: Maps, source: Place) -> Tensor:
        """A map at the output's width, and at the coarser of its own and the output's rate."""
        made = maps.at(source, max(source.rate, self.rate))
        return made if source.rate == self.rate else self.convs[source.key](made)

    def forward(self, maps: Maps, image: Size, sources: Sequence[Place], weights: Sequence[Tensor] | None) -> Tensor:
        """Eq. 4 over some of the sources: the weighted sum, or the mean without weights."""
        sums: dict[int, Tensor] = {}
        for index, source in enumerate(sources):
            term = self.aligned(maps, source)
            if weights is not None:
                term = term * weights[index]
            rate = max(source.rate, self.rate)
            sums[rate] = sums[rate] + term if rate in sums else term
        size = map_size(image, self.rate)
        terms = [resize(term, size) for _, term in sorted(sums.items())]
        total = sum(terms[1:], start=terms[0])
        # Times, as exported models do not divide.
        return total if weights is not None or len(sources) == 1 else total * (1 / len(sources))


class Stem(nn.ModuleDict):
    """The pyramid that stands as layer 0: strided 3x3 convolutions, by rate.

    Args:
        stem: channels at 1/2.
        channels: F, at 1/4.
        rates: of the pyramid, from 1/4 on.
    """

    def __init__(self, stem: int, channels: int, rates: Iterable[Rate]) -> None:
        super().__init__({str(rate): stem_level(stem, channels, rate) for rate in rates})

    def forward(self, image: Tensor, maps: Maps) -> None:
        """Put the pyramid into `maps`."""
        x = image
        for rate in RATES:
            if str(rate) not in self:
                return
            x = self[str(rate)](x)
            maps.add(Place(0, rate), x)


def stem_level(stem: int, channels: int, rate: Rate) -> nn.Module:
    """What takes the stem to a rate from the one before."""
    wide = width_at(channels, rate)
    if rate == RATES[0]:
        return nn.Sequential(ConvNormAct(3, stem, 3, stride=2), ConvNormAct(stem, wide, 3, stride=2))
    return ConvNormAct(wide // 2, wide, 3, stride=2)


class Head(nn.Module):
    """Adds the last layer's maps at 1/4 and classifies: logits at 1/4."""

    def __init__(self, channels: int, head: int, classes: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(
            {str(rate): ConvNormAct(width_at(channels, rate), head, 1, act=False) for rate in RATES}
        )
        self.classifier = nn.Conv2d(head, classes, 1)

    def forward(self, maps: Maps, image: Size, last: int) -> Tensor:
        quarter = map_size(image, RATES[0])
        terms = [resize(self.inputs[str(rate)](maps.at(Place(last, rate), rate)), quarter) for rate in RATES]
        return self.classifier(F.relu(sum(terms[1:], start=terms[0])))


class FusionModule(nn.Module):
    """M(s, l): the shape-alignment layer and the operator of the mixture layer."""

    def __init__(self, channels: int, module: DCNASModule) -> None:
        super().__init__()
        self.align = ShapeAlignment(channels, module.rate, module.sources)
        self.operator = InvertedResidual(width_at(channels, module.rate), module.kernel, module.expansion)


@dataclass(frozen=True)
class Wiring:
    """What a module reads; kept beside the weights."""

    place: Place
    sources: tuple[Place, ...]


class DCNASNet(nn.Module):
    """The discrete network that a `DCNASGenotype` describes."""

    def __init__(self, genotype: DCNASGenotype) -> None:
        super().__init__()
        channels = genotype.channels
        self.wiring = tuple(Wiring(module.place, module.sources) for module in genotype.modules)
        self.last = genotype.layers
        self.stem = Stem(genotype.stem, channels, genotype.stem_rates())
        self.fusion = nn.ModuleDict({module.place.key: FusionModule(channels, module) for module in genotype.modules})
        self.head = Head(channels, genotype.head, genotype.classes)

    def forward(self, image: Tensor) -> Tensor:
        size, maps = Size(*image.shape[-2:]), Maps()
        self.stem(image, maps)
        for wiring in self.wiring:
            module: FusionModule = self.fusion[wiring.place.key]  # type: ignore[assignment]
            maps.add(wiring.place, module.operator(module.align(maps, size, wiring.sources, None)))
        return resize(self.head(maps, size, self.last), size)
