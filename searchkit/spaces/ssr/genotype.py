"""What the SSR search chooses: depth, dilation, spatial resolution and two widths a layer, and the head behind them.

Source: Ye et al., IJCV 2022, section 3.1 (space), Eq. 2 to 5, Fig. 2. Where the text and the published network differ
(average or max pooling; BatchNorm between the two convolutions or not), the choice is a field.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...cost import Stage, StageCounter
from ...genotype import EXACT, SCHEMA, Genotype, Part, Provenance
from ...sizes import Size, SizeRule

Dilation = Annotated[Literal[1, 2, 4, 8, 16], EXACT]
Width = Annotated[int, Field(ge=1, le=8192)]

DILATIONS: tuple[Dilation, ...] = (1, 2, 4, 8, 16)


class SSRLayer(Part):
    """One simplified ERFNet block (one 3x1 and 1x3 pair): operator o_{r,s} of Eq. 4 with its widths of Eq. 5."""

    dilation: Dilation = Field(description="r: dilation of both convolutions")
    spatial: Annotated[Literal[1, 2], EXACT] = Field(description="s: 2 pools the input 2x2 and resizes the output back")
    mid: Width = Field(description="output channels of the 3x1 convolution")
    out: Width = Field(description="output channels of the 1x3 convolution")


class SSRStage(Part):
    """A downsampler and the layers behind it."""

    channels: Width = Field(description="output channels of the ERFNet downsampler that opens the stage")
    layers: tuple[SSRLayer, ...] = Field(max_length=64)


class ClassifierHead(Part):
    """A 1x1 convolution on the 1/8 map: logits at 1/8 of the input. Used in search and for the paper's baselines."""

    type: Literal["classifier"]


class AggregationHead(Part):
    """The aggregation block (Fig. 2a, section 5.2): logits at the input's resolution."""

    type: Literal["aggregation"]
    low: Width = Field(description="channels of the 3x3 convolution on the 1/2 and 1/4 maps")
    bins: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        min_length=1, max_length=8, description="output sizes of the pyramid pooling"
    )
    bin_channels: Width = Field(description="channels of each pooled map")
    context: Width = Field(description="channels of the pyramid's output")
    fuse: Width = Field(description="channels in front of the classifier")


class SSRGenotype(Genotype):
    """A discrete network of the SSR space."""

    space: Literal["ssr"]
    pool: Literal["average", "max"] = Field(
        description="pooling of spatial 2: average as Eq. 4, max as the published network"
    )
    mid_norm: bool = Field(description="BatchNorm between the 3x1 and the 1x3 convolution")
    stem: Width = Field(description="output channels of the first downsampler, at 1/2")
    stages: tuple[SSRStage, SSRStage] = Field(description="the 1/4 and the 1/8 stage")
    head: Annotated[ClassifierHead | AggregationHead, Field(discriminator="type")]

    # 1/8 maps; a layer with spatial 2 and the pooled pyramid need at least 2 x 2 of them.
    size_rule: ClassVar[SizeRule] = SizeRule(multiple=8, minimum=16)

    @model_validator(mode="after")
    def _downsamplers_widen(self) -> Self:
        channels = 3
        for name, out, layers in (
            ("stem", self.stem, ()),
            ("stages[0].channels", self.stages[0].channels, self.stages[0].layers),
            ("stages[1].channels", self.stages[1].channels, self.stages[1].layers),
        ):
            if out <= channels:
                raise ValueError(
                    f"{name}: an ERFNet downsampler concatenates its input, so its output must be wider: "
                    f"got {out} after {channels} channels, allowed at least {channels + 1}"
                )
            channels = layers[-1].out if layers else out
        return self

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        layers = [layer for stage in self.stages for layer in stage.layers]
        if not layers and self.mid_norm:
            raise ValueError(
                "mid_norm: there is no layer, so nothing is normalised; equal networks must have one spelling: "
                "got true, allowed false"
            )
        if self.pool != "average" and all(layer.spatial == 1 for layer in layers):
            raise ValueError(
                "pool: no layer has spatial 2, so nothing is pooled; equal networks must have one spelling: "
                f'got "{self.pool}", allowed "average"'
            )
        return self

    def stage_outputs(self) -> tuple[int, int]:
        """Channels that leave the 1/4 and the 1/8 stage."""
        first, second = (s.layers[-1].out if s.layers else s.channels for s in self.stages)
        return first, second

    def stage_costs(self, size: Size) -> Iterator[Stage]:
        return _stages(self, size)


def _downsampler(counter: StageCounter, in_channels: int, out_channels: int, size: Size) -> Size:
    out = counter.conv(in_channels, out_channels - in_channels, (3, 3), size, stride=2, bias=True, norm=False)
    counter.norm(out_channels)
    return out


def _stages(genotype: SSRGenotype, size: Size) -> Iterator[Stage]:
    counter = StageCounter("stem")
    image, size = size, _downsampler(counter, 3, genotype.stem, size)
    yield counter.stage()
    channels = genotype.stem
    sizes = []
    for name, stage in zip(("stage 1/4", "stage 1/8"), genotype.stages, strict=True):
        counter = StageCounter(name)
        size = _downsampler(counter, channels, stage.channels, size)
        channels = stage.channels
        for layer in stage.layers:
            inner = Size(size.height // layer.spatial, size.width // layer.spatial)
            counter.conv(channels, layer.mid, (3, 1), inner, bias=True, norm=genotype.mid_norm)
            counter.conv(layer.mid, layer.out, (1, 3), inner, bias=True)
            channels = layer.out
        sizes.append(size)
        yield counter.stage()
    yield _head(genotype, image, sizes[0], sizes[1])


def _head(genotype: SSRGenotype, image: Size, quarter: Size, eighth: Size) -> Stage:
    counter = StageCounter("head")
    low_in, context_in = genotype.stage_outputs()
    head = genotype.head
    if isinstance(head, ClassifierHead):
        counter.conv(context_in, genotype.classes, (1, 1), eighth, bias=True, norm=False)
        return counter.stage()
    counter.conv(genotype.stem + low_in, head.low, (3, 3), quarter)
    for bins in head.bins:
        counter.conv(context_in, head.bin_channels, (1, 1), Size(bins, bins))
    counter.conv(context_in + len(head.bins) * head.bin_channels, head.context, (1, 1), eighth)
    counter.conv(head.context + head.low, head.fuse, (1, 1), quarter)
    counter.conv(head.fuse, genotype.classes, (1, 1), quarter, bias=True, norm=False)
    counter.resize(genotype.classes, quarter, image)
    return counter.stage()


def sample(rng: Random) -> SSRGenotype:
    """A random network of the paper's space: depths {3..7} and {6..10}, widths in steps of 4 (section 3.1, 5.1)."""
    stages = []
    for channels, depths in ((64, range(3, 8)), (128, range(6, 11))):
        layers = tuple(
            SSRLayer(
                dilation=rng.choice(DILATIONS),
                spatial=rng.choice((1, 2)),
                mid=rng.choice(range(channels - 32, channels + 1, 4)),
                out=rng.choice(range(channels - 32, channels + 1, 4)),
            )
            for _ in range(rng.choice(depths))
        )
        stages.append(SSRStage(channels=channels, layers=layers))
    takes_max = rng.choice((False, True))
    pools = any(layer.spatial == 2 for stage in stages for layer in stage.layers)
    aggregation = AggregationHead(
        type="aggregation", low=64, bins=(1, 2, 3, 6, 9), bin_channels=40, context=128, fuse=128
    )
    return SSRGenotype(
        schema=SCHEMA,
        space="ssr",
        classes=19,
        pool="max" if pools and takes_max else "average",
        mid_norm=rng.choice((True, False)),
        stem=16,
        stages=(stages[0], stages[1]),
        head=rng.choice((aggregation, ClassifierHead(type="classifier"))),
        provenance=Provenance(name="sampled", strategy="random"),
    )
